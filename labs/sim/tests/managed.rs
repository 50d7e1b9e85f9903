//! Stories of managed networks. `peersock-sim managed` plays those of other seeds and sizes.
//!
//! `PEERSOCK_SIM_SEED=7 cargo test -p peersock-sim --test managed` plays that seed.

use std::time::Duration;

use peersock_sim::managed::{Fleet, Managed, ManagedReport};

/// Number of members in the ordinary test, which plays one act of random order.
const MEMBERS: usize = 12;

/// Number of members in the tests that take minutes, and members of a controller that is away.
const MANY_MEMBERS: usize = 200;
const LARGE_FLEET: usize = 10_000;

const SECOND: Duration = Duration::from_secs(1);

/// Times for which the controller of a fleet is away.
const ABSENCES: [Duration; 3] =
    [Duration::from_secs(1800), Duration::from_secs(8 * 3600), Duration::from_secs(23 * 3600)];

#[test]
fn a_managed_network_holds_every_promise() {
    let report = play(&Managed { acts: 1, ..Managed::new(seed(), MEMBERS) });
    assert!(report.pings > 1000, "{} pings between others", report.pings);
}

#[test]
#[ignore = "cargo xtask test --only slow: minutes, hours of virtual time of 200 members"]
fn two_hundred_members_are_back_after_all_acts() {
    let report = play(&Managed::new(seed(), MANY_MEMBERS));
    // Each removal without faults reaches almost all members.
    assert!(report.reached > 4 * MANY_MEMBERS, "{} times of removals", report.reached);
}

#[test]
fn no_certificate_ends_and_no_storm_comes_when_a_controller_was_away() {
    leave_alone(1000);
}

#[test]
#[ignore = "cargo xtask test --only slow: a minute, days of virtual time of 10,000 members"]
fn ten_thousand_members_keep_their_certificates_and_cause_no_storm() {
    leave_alone(LARGE_FLEET);
}

/// Returns the seed that the environment names, or one that is different from the command's first ones.
fn seed() -> u64 {
    let asked = std::env::var("PEERSOCK_SIM_SEED").ok().and_then(|seed| seed.parse().ok());
    asked.unwrap_or(1_000_000)
}

/// Plays a story, and checks the times of removals.
fn play(story: &Managed) -> ManagedReport {
    let report = story.run();
    assert_eq!(report.violation, None, "again: PEERSOCK_SIM_SEED={}", story.seed);
    let has_all = report.accepted > 1000 && report.certificates > 30 && report.addresses > story.members;
    assert!(has_all, "{report:?}");
    let (median, late) = report.removals;
    assert!(median <= SECOND && late <= 5 * SECOND, "removals take {median:?} and {late:?}");
    report
}

fn leave_alone(members: usize) {
    let mut fleet = Fleet::new(1_000_000, members);
    for away in ABSENCES {
        fleet.leave_alone(away).expect("no violation");
    }
}
