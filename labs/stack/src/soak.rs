//! Random scenarios, in which every byte must arrive without long stalls.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use peersock_stack::{Config, CongestionControl};

use crate::link::{Jitter, Link, Loss, Queue};
use crate::{Batching, Outcome, Pause, Plan, Random, Scenario, Time, ms, secs, us};

/// Longest allowed time in which a reader gets nothing. Six losses of a retransmission in a row make two
/// minutes. At a loss of a tenth in both directions, one connection of a hundred thousand may see that.
pub const LONGEST_STALL: Time = 130_000_000_000;

/// Runs `seeds` scenarios from seed `first` on, on all cores; `progress` gets the number done from time to
/// time. Returns the failures, each with its seed.
pub fn run(first: u64, seeds: u64, progress: impl Fn(u64) + Sync) -> Vec<String> {
    let next = AtomicU64::new(first);
    let failures = Mutex::new(Vec::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                break;
            }
            if let Err(failure) = check(seed) {
                failures
                    .lock()
                    .expect("no thread panics with it")
                    .push(format!("soak seed {seed}: {failure}"));
            }
            let done = seed + 1 - first;
            if done.is_multiple_of(10_000) {
                progress(done);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut failures = failures.into_inner().expect("no thread panics with it");
    // Threads finish in any order; the report must not depend on it.
    failures.sort();
    failures
}

/// Runs and checks the scenario of one seed.
/// Returns a description of a failure: a connection failed, got wrong bytes, stalled too long or did not end.
pub fn check(seed: u64) -> Result<(), String> {
    let scenario = scenario(seed);
    let outcome = scenario.run(seed);
    verdict(&outcome).map_err(|failure| format!("{failure}, in {scenario:?}"))
}

fn verdict(outcome: &Outcome) -> Result<(), String> {
    for (index, connection) in outcome.connections.iter().enumerate() {
        if let Some(failure) = &connection.failure {
            return Err(format!("connection {index}: {failure}"));
        }
        for (stream, name) in [(&connection.up, "up"), (&connection.down, "down")] {
            if stream.longest_stall > LONGEST_STALL {
                let seconds = stream.longest_stall / 1_000_000_000;
                return Err(format!("connection {index} {name}: nothing for {seconds} s"));
            }
            if stream.finished.is_none() {
                return Err(format!("connection {index} {name}: not finished, {} bytes read", stream.bytes));
            }
        }
    }
    match outcome.left_behind {
        0 => Ok(()),
        left => Err(format!("the stacks still hold {left} connections")),
    }
}

/// Returns the scenario of `seed`.
fn scenario(seed: u64) -> Scenario {
    let mut random = Random::new(seed);
    let rtt = logarithmic(&mut random, us(200), ms(300));
    let rate = logarithmic(&mut random, 1_000_000, 1_000_000_000) as f64;
    let mut scenario = Scenario::new(rate, rtt);
    scenario.checksums = random.chance(0.5);
    scenario.ipv6 = random.chance(0.5);
    scenario.timers_late = if random.chance(0.5) { random.below(ms(5)) } else { 0 };
    scenario.forward = link(&mut random, rate, rtt, scenario.checksums);
    scenario.backward = link(&mut random, rate, rtt, scenario.checksums);
    scenario.batching = match random.below(4) {
        0 => Batching::After(0),
        1 => Batching::Every(ms(1 + random.below(10))),
        _ => Batching::After(us(random.below(200))),
    };
    let sizes = [8 << 10, 64 << 10, 256 << 10, 4 << 20];
    let mut size = || sizes[random.below(sizes.len() as u64) as usize];
    scenario.config = Config { send_buffer: size(), receive_buffer: size(), ..Config::default() };
    if random.chance(0.1) {
        scenario.in_flight_cap = 20_000 + random.below(100_000) as usize;
    }
    for _ in 0..=random.below(3) {
        let congestion = CongestionControl::ALL[random.below(4) as usize];
        let mut bytes = || if random.chance(0.2) { 0 } else { logarithmic(&mut random, 1, 300_000) };
        let (up, down) = (bytes(), bytes());
        let start = random.below(ms(500));
        let pause = random.chance(0.25).then(|| Pause {
            every: logarithmic(&mut random, 1_000, 300_000),
            lasting: logarithmic(&mut random, ms(1), ms(5_000)),
        });
        let ecn = random.chance(0.3);
        scenario.plans.push(Plan { pair: 0, start, congestion, ecn, up, down, pause });
    }
    // Lost FINs and TIME-WAIT may hold connections for minutes.
    scenario.draining = secs(600.0);
    scenario.lasting(secs(3600.0))
}

fn link(random: &mut Random, rate: f64, rtt: Time, checksums: bool) -> Link {
    // Each fault is absent in half of the scenarios, so that it also occurs alone.
    let mut some = |most: f64| if random.chance(0.5) { 0.0 } else { most * random.unit() };
    let (loss, reorder, duplicate, corrupt) = (some(0.1), some(0.25), some(0.1), some(0.05));
    let bdp = rate / 8.0 * rtt as f64 / 1e9;
    Link {
        queue: Queue::DropTail((bdp * (0.1 + 4.0 * random.unit())) as u64 + 20_000),
        loss: match random.below(3) {
            0 if loss > 0.0 => Loss::Bursts { share: loss, mean: us(1 + random.below(20_000)) },
            _ => Loss::Random(loss),
        },
        mark_over: random.chance(0.3).then(|| random.below(bdp as u64 + 20_000)),
        reorder,
        reorder_by: random.below(rtt) + 1,
        duplicate,
        corrupt: if checksums { corrupt } else { 0.0 },
        jitter: random
            .chance(0.2)
            .then(|| Jitter { most: random.below(rtt) + 1, step: ms(1 + random.below(50)) }),
        ..Link::new(rate)
    }
}

/// Returns a number between two, logarithmically distributed.
fn logarithmic(random: &mut Random, least: u64, most: u64) -> u64 {
    let (least, most) = (least as f64, most as f64);
    (least * (most / least).powf(random.unit())) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConnectionOutcome, StreamOutcome};

    #[test]
    fn what_must_not_be_is_found() {
        let outcome = |change: &dyn Fn(&mut ConnectionOutcome)| {
            let stream = StreamOutcome { finished: Some(1), ..StreamOutcome::default() };
            let mut connection =
                ConnectionOutcome { started: 0, up: stream.clone(), down: stream, failure: None };
            change(&mut connection);
            Outcome {
                connections: vec![connection],
                queue: Default::default(),
                lost: [0; 2],
                ended: 1,
                left_behind: 0,
            }
        };
        assert_eq!(verdict(&outcome(&|_| ())), Ok(()));
        assert!(verdict(&outcome(&|connection| connection.failure = Some("x".into()))).is_err());
        assert!(verdict(&outcome(&|connection| connection.down.finished = None)).is_err());
        assert!(verdict(&outcome(&|connection| connection.up.longest_stall = LONGEST_STALL + 1)).is_err());
    }
}
