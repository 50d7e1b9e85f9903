//! Stories of managed networks with few members. `peersock-sim managed` plays larger ones.
//!
//! `PEERSOCK_SIM_SEED=7 cargo test -p peersock-sim --test managed` plays that seed.

use std::time::Duration;

use peersock_sim::managed::{Fleet, Managed};

/// Number of members.
const MEMBERS: usize = 12;

const SECOND: Duration = Duration::from_secs(1);

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_managed_network_holds_every_promise() {
    let asked = std::env::var("PEERSOCK_SIM_SEED").ok().and_then(|seed| seed.parse().ok());
    // A seed different from the command's first ones.
    let seed = asked.unwrap_or(1_000_000);
    let report = Managed { acts: 1, ..Managed::new(seed, MEMBERS) }.run();
    assert_eq!(report.violation, None, "again: PEERSOCK_SIM_SEED={seed}");
    assert!(report.accepted > 1000 && report.certificates > 30 && report.addresses > MEMBERS, "{report:?}");
    let (median, late) = report.removals;
    assert!(median <= SECOND && late <= 5 * SECOND, "removals take {median:?} and {late:?}");
    assert!(report.pings > 1000, "{} pings between others", report.pings);
}

#[test]
fn no_certificate_ends_and_no_storm_comes_when_a_controller_was_away() {
    let mut fleet = Fleet::new(1_000_000, 1000);
    for away in [HOUR / 2, 8 * HOUR, 23 * HOUR] {
        fleet.leave_alone(away).expect("no violation");
    }
}
