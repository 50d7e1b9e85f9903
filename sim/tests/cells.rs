//! Every cell of the table with one seed. `cargo run --release -p peersock-sim -- cells` runs a hundred.

use peersock_sim::cells::{Cell, Expected, Kind, PathKind, Table};

/// Others than the command's first ones.
const SEEDS: std::ops::Range<u64> = 1_000_000..1_000_001;

#[test]
fn whoever_can_reach_each_other_does_and_a_root_relays_for_the_others() {
    let pairs = Table::pairs();
    assert_eq!(pairs.len(), 28 * 29 / 2);
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

#[test]
fn little_is_relayed_before_a_usual_pair_is_direct() {
    let mut relayed = Vec::new();
    for (at, &one) in Kind::USUAL.iter().enumerate() {
        for &other in &Kind::USUAL[at..] {
            for seed in SEEDS.start..SEEDS.start + 12 {
                let outcome = Cell { kinds: [one, other], seed }.run(false).expect("nothing is violated");
                assert!(outcome.direct_after.is_some(), "cell {one} {other} {seed}");
                relayed.push(outcome.relayed_bytes);
            }
        }
    }
    let mean = relayed.iter().sum::<u64>() / relayed.len() as u64;
    assert!(mean <= MOST_RELAYED, "{mean} bytes are relayed before the path is direct");
}

/// What roots carry on average of a pair whose path becomes direct, bytes. The two programs write 4,000 at
/// first, of which half goes straight. Nodes behind a NAT64 show a voucher for each family.
const MOST_RELAYED: u64 = 4000;

/// Those that depend on luck, with enough seeds to tell luck from its absence.
#[test]
fn a_port_that_nobody_can_guess_is_found_among_many() {
    let seeds = 2_000_000..2_000_020;
    let kind = |name: &str| {
        Kind::all().into_iter().find(|kind| kind.to_string() == name).expect("a kind of this name")
    };
    let pairs = [
        ["ei-apd", "apd-apd"],
        ["cgn-apd", "double"],
        // These reach roots by IPv6, and the other side has IPv4 only.
        ["ei-apd", "nat64-apd"],
        ["dual", "20s"],
        // By IPv6, of which one side has a firewall, and IPv4 that nobody can guess the ports of.
        ["nat66", "nat66-apd"],
        ["dual", "nat66-apd"],
    ];
    for names in pairs {
        let kinds = names.map(kind);
        assert_eq!(Expected::of(kinds[0], kinds[1]), Expected::Likely);
        let is_direct = |seed: &u64| {
            let outcome = Cell { kinds, seed: *seed }.run(false).expect("nothing that must never happen");
            assert!(outcome.is_complete, "{names:?} {seed}: {outcome:?}");
            outcome.path == PathKind::Direct
        };
        let direct = seeds.clone().filter(is_direct).count();
        assert!(100 * direct >= Expected::LIKELY * seeds.clone().count(), "{names:?}: {direct} of 20");
    }
}
