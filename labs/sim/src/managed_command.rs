//! `peersock-sim managed`: stories of managed networks, and controllers of many members that are away.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use peersock_sim::managed::{Fleet, Managed};

/// Times for which a controller is away.
const ABSENCES: [Duration; 3] =
    [Duration::from_secs(1800), Duration::from_secs(8 * 3600), Duration::from_secs(23 * 3600)];

/// Plays a story with each of these seeds, and one with a fleet. Returns how many have passed, and how many
/// not.
pub(crate) fn run(seeds: Range<u64>, told: &Managed, fleet: usize, jobs: usize) -> (u64, u64) {
    let (next, failed) = (AtomicU64::new(seeds.start), Mutex::new(0));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if !play(&Managed { seed, ..*told })
                        && let Ok(mut failed) = failed.lock()
                    {
                        *failed += 1;
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or(1) + u64::from(!be_away(seeds.start, fleet));
    (seeds.end - seeds.start + 1 - failed, failed)
}

fn play(story: &Managed) -> bool {
    let began = Instant::now();
    let report = story.run();
    let (median, slowest) = report.removals;
    eprintln!(
        "seed {}: {} members, {:.0} s in {:.0} s, {} datagrams, {} initiations, {} packets accepted, \
         {} certificates, {} addresses, removals {:.2} s and {:.2} s (median, 99 %), \
         everybody back after {:.0} s, hash {:016x}",
        report.seed,
        story.members,
        report.virtual_time.as_secs_f64(),
        began.elapsed().as_secs_f64(),
        report.sent,
        report.begun,
        report.accepted,
        report.certificates,
        report.addresses,
        median.as_secs_f64(),
        slowest.as_secs_f64(),
        report.back.as_secs_f64(),
        report.hash,
    );
    if let Some(violation) = &report.violation {
        let acts = if story.acts < usize::MAX { format!(" --acts {}", story.acts) } else { String::new() };
        eprintln!("seed {} FAILED: {violation}", report.seed);
        eprintln!(
            "  replay it: cargo run --release -p peersock-sim -- managed --from {} --seeds 1 --members {}{} --trace",
            report.seed, story.members, acts
        );
    }
    report.violation.is_none()
}

fn be_away(seed: u64, members: usize) -> bool {
    let mut fleet = Fleet::new(seed, members);
    ABSENCES.into_iter().all(|away| match fleet.leave_alone(away) {
        Ok(absence) => {
            eprintln!("{members} members, controller away for {away:?}: {absence:?}");
            true
        }
        Err(violation) => {
            eprintln!("seed {seed} FAILED: {violation}");
            false
        }
    })
}
