//! A transfer between two homes under a different network fault every five seconds.
//!
//! `PEERSOCK_SIM_SEED=6` runs one seed alone, `PEERSOCK_SIM_TRACE=1` prints every event.

use std::time::Duration;

use peersock_sim::Random;

use crate::SECOND;
use crate::homes::{Homes, ROOT_PORT};

const SEEDS: u64 = 12;
/// Number of faults in each run.
const FAULTS: usize = 24;
const EVERY: Duration = Duration::from_secs(5);

#[test]
fn a_transfer_stalls_for_less_than_two_seconds_whatever_fails() {
    let mut stalls: Vec<(Duration, u64, usize, Fault)> = Vec::new();
    let only = std::env::var("PEERSOCK_SIM_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in only.map_or(0..SEEDS, |seed| seed..seed + 1) {
        stalls.extend(run(seed).into_iter().map(|(stall, sender, fault)| (stall, seed, sender, fault)));
    }
    stalls.sort_unstable_by_key(|(stall, ..)| *stall);
    let worst = &stalls[stalls.len() * 99 / 100..];
    assert!(worst[0].0 <= 2 * SECOND, "{worst:?}");
    // The worst 1 % ends soon, too.
    assert!(worst.iter().all(|(stall, ..)| *stall <= EVERY), "{worst:?}");
}

/// A fault. Another path always remains, at least through a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// No packet passes between the two homes for a while.
    Flap,
    /// No packet passes in one direction for a while.
    OneWay {
        /// Sender whose packets do not pass.
        from: usize,
    },
    /// A root is killed and restarted.
    Root(usize),
    /// One home cannot reach one root for a while.
    Partition { home: usize, root: usize },
    /// A node gets another address.
    Readdress(usize),
    /// A box forgets its mappings.
    Reboot(usize),
}

/// Returns the longest stall after each fault, with the sender.
fn run(seed: u64) -> Vec<(Duration, usize, Fault)> {
    let mut random = Random::from_seed(seed);
    let mut homes = Homes::punchable(seed, 250_000);
    homes.run(5 * SECOND);
    let sender = random.below(2);
    homes.transfer(sender);
    homes.run(5 * SECOND);
    let mut stalls: Vec<(Duration, usize, Fault)> = Vec::new();
    let (mut undo, mut watch) = (None, Watch::new(&homes));
    for number in 0..FAULTS {
        // Undo the previous fault first. With one fault at a time, another path remains.
        if let Some(fault) = undo.take() {
            apply(&mut homes, fault, false, number);
        } else {
            let fault = match random.below(6) {
                0 => Fault::Flap,
                1 => Fault::OneWay { from: random.below(2) },
                2 => Fault::Root(random.below(2)),
                3 => Fault::Partition { home: random.below(2), root: random.below(2) },
                4 => Fault::Readdress(random.below(2)),
                _ => Fault::Reboot(random.below(2)),
            };
            apply(&mut homes, fault, true, number);
            undo = Some(fault);
        }
        let fault = undo.unwrap_or(stalls.last().map_or(Fault::Flap, |(.., fault)| *fault));
        stalls.push((watch.longest_stall(&mut homes, EVERY), sender, fault));
    }
    assert!(homes.world.ledger.bytes_checked > 5_000_000, "{}", homes.world.ledger.bytes_checked);
    stalls
}

fn apply(homes: &mut Homes, fault: Fault, begins: bool, number: usize) {
    homes.world.remark(format_args!("{fault:?} {begins}"));
    let [nodes, roots] = homes.lans.clone();
    match fault {
        Fault::Flap => {
            homes.world.net.block(nodes[0], nodes[1], begins);
            homes.world.net.block(nodes[1], nodes[0], begins);
        }
        Fault::OneWay { from } => homes.world.net.block(nodes[from], nodes[1 - from], begins),
        Fault::Root(root) if begins => homes.world.kill_root((homes.roots[root], ROOT_PORT)),
        Fault::Root(root) => homes.world.restart_root((homes.roots[root], ROOT_PORT)),
        Fault::Partition { home, root } => {
            homes.world.net.block(nodes[home], roots[root], begins);
            homes.world.net.block(roots[root], nodes[home], begins);
        }
        Fault::Readdress(node) => homes.readdress(node, number as u8 + 50),
        Fault::Reboot(node) => homes.world.net.nat_mut(nodes[node]).expect("a box").reboot(),
    }
}

/// Time and byte count of the last arrival.
struct Watch {
    bytes: u64,
    since: Duration,
}

impl Watch {
    fn new(homes: &Homes) -> Self {
        Self { bytes: homes.world.ledger.bytes_checked, since: homes.world.now() }
    }

    /// Returns the longest time without an arrival. It may have begun before the call.
    fn longest_stall(&mut self, homes: &mut Homes, time: Duration) -> Duration {
        let (end, mut longest) = (homes.world.now() + time, Duration::ZERO);
        while homes.world.now() < end {
            homes.run(SECOND / 100);
            let (now, bytes) = (homes.world.now(), homes.world.ledger.bytes_checked);
            longest = longest.max(now - self.since);
            if bytes != self.bytes {
                *self = Self { bytes, since: now };
            }
        }
        longest
    }
}
