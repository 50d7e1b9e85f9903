//! Every cell of the table with one seed. `cargo run --release -p peersock-sim -- cells` runs a hundred.

use peersock_sim::cells::{Cell, Expected, Table};

/// Others than the command's first ones.
const SEEDS: std::ops::Range<u64> = 1_000_000..1_000_001;

#[test]
fn whoever_can_reach_each_other_does_and_a_root_relays_for_the_others() {
    let pairs = Table::pairs();
    assert_eq!(pairs.len(), 24 * 25 / 2);
    let mut wrong = Vec::new();
    for kinds in pairs {
        for seed in SEEDS {
            let [a, b] = kinds;
            let (expected, outcome) = (Expected::of(a, b), Cell { kinds, seed }.run(false));
            if !outcome.as_ref().is_ok_and(|outcome| outcome.fits(expected)) {
                wrong.push(format!("cell {a} {b} {seed} is not {expected:?}: {outcome:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "cargo run --release -p peersock-sim --\n{}", wrong.join("\n"));
}
