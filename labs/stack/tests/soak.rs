//! Random data over random links: every byte arrives, in order, and nobody waits too long.
//!
//! `PEERSOCK_SOAK_SEEDS` sets how many seeds are run instead of 2,000, `PEERSOCK_SOAK_FIRST` where they
//! begin: with a seed that failed and one of them, to see it again. `cargo xtask bench tcp --soak N` runs the
//! same in release mode.

use std::env;

use peersock_stack_lab::soak;

#[test]
fn every_byte_arrives_over_every_link() {
    let number = |name: &str, default| {
        env::var(name)
            .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
    };
    let (first, seeds) = (number("PEERSOCK_SOAK_FIRST", 1), number("PEERSOCK_SOAK_SEEDS", 2000));
    let failures = soak::run(first, seeds, |done| eprintln!("{done} of {seeds} seeds"));
    assert!(failures.is_empty(), "{} of {seeds}:\n{}", failures.len(), failures.join("\n"));
}
