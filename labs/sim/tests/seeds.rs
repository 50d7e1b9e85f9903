//! A few seeds in every test run, the same ones every time, and any seed on request.
//!
//! `PEERSOCK_SIM_SEED=1234 cargo test -p peersock-sim --test seeds` runs that seed. Run many more with `cargo
//! run --release -p peersock-sim -- run`.

use peersock_sim::scenario::{Report, Scenario};

/// Number of seeds. Unoptimised builds run fewer.
const SEEDS: u64 = if cfg!(debug_assertions) { 60 } else { 200 };

#[test]
fn random_seeds_hold_every_promise() {
    if let Some(seed) = std::env::var("PEERSOCK_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return expect_no_violation(&Scenario::new(seed).run());
    }
    // Seeds different from the command's first ones.
    (1_000_000..1_000_000 + SEEDS).for_each(|seed| expect_no_violation(&Scenario::new(seed).run()));
}

#[test]
fn one_seed_is_one_story() {
    for seed in 0..10 {
        let [first, second] = [(); 2].map(|()| Scenario::new(seed).run());
        assert!(first.events > 50, "seed {seed} is a story");
        assert_eq!((first.hash, first.events), (second.hash, second.events), "seed {seed}");
    }
}

#[test]
fn different_seeds_are_different_stories() {
    assert_ne!(Scenario::new(1).run().hash, Scenario::new(2).run().hash);
}

#[track_caller]
fn expect_no_violation(report: &Report) {
    let seed = report.seed;
    if let Some(violation) = &report.violation {
        panic!(
            "seed {seed}: {violation}\n\
             again: PEERSOCK_SIM_SEED={seed} cargo test -p peersock-sim --test seeds\n\
             every event: cargo run --release -p peersock-sim -- replay {seed} --trace"
        );
    }
}
