//! Tests with random data over random links: every byte arrives in order and in time.
//!
//! `PEERSOCK_SOAK_SEEDS` sets the number of seeds (default 2,000), `PEERSOCK_SOAK_FIRST` the first. To repeat
//! a failure, set its seed as the first and the number to one. `cargo xtask bench tcp --soak N` runs the same
//! in release mode.

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
