//! Stories of managed networks: a few members and seeds here, all of them in `cargo xtask ci`.
//!
//! `PEERSOCK_SIM_SEED=7 cargo test -p peersock-sim --test managed` plays that seed.

use peersock_sim::managed::Managed;

/// Number of members.
const MEMBERS: usize = 40;

#[test]
fn a_managed_network_holds_every_promise() {
    let seeds = match std::env::var("PEERSOCK_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => vec![1_000_000],
    };
    let members = std::env::var("M").ok().and_then(|m| m.parse().ok()).unwrap_or(MEMBERS);
    for seed in seeds {
        let began = std::time::Instant::now();
        let report = Managed::new(seed, members).run();
        eprintln!("{report:#?} {:?}", began.elapsed());
        assert_eq!(report.violation, None, "seed {seed}");
    }
}
