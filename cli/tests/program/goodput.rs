//! Goodput of a transfer between two programs while it moves from a relay to a direct path, and back when
//! that path dies. The lines have rates, so that results do not depend on the machine. Around the move, four
//! fifths of a second's data on the slower path arrive within a second. When a path dies, all data in flight
//! is lost and TCP restarts with a small window; then it is seven tenths.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::{PATIENCE, Running};
use crate::flow::{Record, SITES, Scene, Writer, assert_is_written, is_direct};

/// Minimum percentages of the slower path's data in a second: if the old path works, and if it has died.
const MIN_PERCENT: [usize; 2] = [80, 70];

/// Number of measurements, because a busy machine may delay a program by tenths of a second.
const MEASUREMENTS: usize = 3;

/// Minimum rate of a path in bytes per second for a valid measurement; the lines carry at least 750,000.
const MIN_BYTES_PER_SECOND: usize = 100_000;

const CHUNK_INTERVAL: Duration = Duration::from_millis(10);
const TENTH: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn little_goodput_is_lost_in_the_second_in_which_the_path_moves() {
    let line = |rate: u32, delay: u32| format!("link.rate={rate}:link.delay={delay}");
    // The relay is the slower path, and then the direct path is not faster than it.
    for root_rate in [6, 40] {
        let sites = SITES.map(|site| format!("{site}=port-restricted:{}", line(12, 10))).join(" ");
        let root = line(root_rate, 5);
        let topology = format!("root1=public:{root} root2=public:{root} {sites}");
        let Some(scene) = Scene::build(&format!("goodput{root_rate}"), &topology) else { return };
        let ratios: Vec<[f64; 2]> = measure(&scene);
        eprintln!("roots with {root_rate} Mbit/s: {ratios:.2?} of the lower path");
        for (way, what) in ["to the direct path", "to the relay"].iter().enumerate() {
            let best = ratios.iter().map(|both| both[way]).fold(0.0, f64::max);
            assert!(
                best * 100.0 >= MIN_PERCENT[way] as f64,
                "{what}, roots with {root_rate} Mbit/s: {ratios:.2?}"
            );
        }
    }
}

/// Returns for each try the shares of the slower path's data that arrived in a second: around the move to the
/// direct path, and from the move back.
fn measure(scene: &Scene) -> Vec<[f64; 2]> {
    let [home, work] = scene.outer();
    let block = || [(home, work), (work, home)].map(|(from, to)| scene.block(SITES[0], from, to));
    let unblock = || [(home, work), (work, home)].map(|(from, to)| scene.unblock(SITES[0], from, to));
    block();
    let mut programs = scene.connect();
    let stdin = programs[0].stdin.take().expect("it is open");
    let writer = Writer::start(0, stdin, 64 * 1024, Duration::ZERO);
    let record = Record::default();
    let mut ratios = Vec::new();
    pass(&programs, &record, 6 * SECOND);
    for _ in 0..MEASUREMENTS {
        unblock();
        let there = until(&programs, &record, true);
        pass(&programs, &record, 8 * SECOND);
        block();
        let back = until(&programs, &record, false);
        pass(&programs, &record, 8 * SECOND);
        let arrived = |from: Instant, time: Duration| record.by(1, from + time) - record.by(1, from);
        let share = |moved: Instant, from: Instant| {
            // Averages a path's rate, because data read in order arrives in bursts after losses.
            let before = arrived(moved - 5 * SECOND, 4 * SECOND) / 4;
            let after = arrived(moved + SECOND, 6 * SECOND) / 6;
            let tenths = (0..20).map(|tenth| arrived(moved - SECOND + tenth * TENTH, TENTH));
            let tenths: Vec<usize> = tenths.collect();
            eprintln!("{before} B/s, then {after}; per 100 ms from a second before the move: {tenths:?}");
            let lower = before.min(after);
            // A lower rate means that the transfer has stopped.
            if lower < MIN_BYTES_PER_SECOND { 0.0 } else { arrived(from, SECOND) as f64 / lower as f64 }
        };
        ratios.push([share(there, there - SECOND / 2), share(back, back)]);
        let is_enough = |(share, least): (&f64, usize)| share * 100.0 >= least as f64;
        if ratios.last().is_some_and(|both| both.iter().zip(MIN_PERCENT).all(is_enough)) {
            break;
        }
    }
    let written = writer.stop();
    programs[1].end_stdin();
    let [dialing, listening] = programs;
    dialing.finish().success();
    assert_is_written(1, &listening.finish().success().stdout, written);
    ratios
}

fn pass(programs: &[Running; 2], record: &Record, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        record.note(programs);
        thread::sleep(CHUNK_INTERVAL);
    }
}

/// Waits until the sender's path is direct, or is not.
fn until(programs: &[Running; 2], record: &Record, wanted: bool) -> Instant {
    let since = Instant::now();
    while is_direct(&programs[0].said()) != wanted {
        assert!(since.elapsed() < PATIENCE, "the path stays: {}", programs[0].said());
        record.note(programs);
        thread::sleep(CHUNK_INTERVAL);
    }
    Instant::now()
}
