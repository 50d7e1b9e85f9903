//! Every cell of the table with one seed. `cargo run --release -p peersock-sim -- cells` runs a hundred.

use std::time::Duration;

use peersock_sim::cells::{Cell, Expected, Kind, PathKind, Shared, Table, Together};

/// Seeds different from the command's first ones.
const SEEDS: std::ops::Range<u64> = 1_000_000..1_000_001;

#[test]
fn whoever_can_reach_each_other_does_and_a_root_relays_for_the_others() {
    let pairs = Table::pairs();
    assert_eq!(pairs.len(), 29 * 30 / 2);
    let (mut wrong, mut direct) = (Vec::new(), Vec::new());
    for kinds in pairs {
        for seed in SEEDS {
            let [a, b] = kinds;
            let (expected, outcome) = (Expected::of(a, b), Cell { kinds, seed }.run(false));
            if expected == Expected::Direct {
                direct.extend(outcome.as_ref().ok().and_then(|outcome| outcome.direct_after));
            }
            if !outcome.as_ref().is_ok_and(|outcome| outcome.fits(expected)) {
                wrong.push(format!("cell {a} {b} {seed} is not {expected:?}: {outcome:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "cargo run --release -p peersock-sim --\n{}", wrong.join("\n"));
    assert_soon(direct, 120);
}

/// Promised times until a path is direct where it can be: a second in the median, and five seconds at most.
/// Virtual time makes them the same on each machine.
const DIRECT_IN_THE_MEDIAN: Duration = Duration::from_secs(1);
const DIRECT_ALWAYS: Duration = Duration::from_secs(5);

/// Checks that the times from the call to connect to a direct path are within the targets, and at least
/// `least` in number.
fn assert_soon(mut times: Vec<Duration>, least: usize) {
    times.sort_unstable();
    assert!(times.len() >= least, "{} cells are direct", times.len());
    let (median, greatest) = (times[times.len() / 2], times[times.len() - 1]);
    eprintln!("direct after {median:?} in the median, {greatest:?} at most, of {} cells", times.len());
    assert!(median <= DIRECT_IN_THE_MEDIAN, "{median:?} in the median");
    assert!(greatest <= DIRECT_ALWAYS, "{greatest:?} at most");
}

#[test]
fn two_nodes_behind_one_box_reach_each_other_directly_where_it_lets_them() {
    let (mut wrong, mut direct) = (Vec::new(), Vec::new());
    for shared in Shared::all() {
        for seed in SEEDS.start..SEEDS.start + 4 {
            let (expected, outcome) = (shared.expected(), Together { shared, seed }.run(false));
            if expected == Expected::Direct {
                direct.extend(outcome.as_ref().ok().and_then(|outcome| outcome.direct_after));
            }
            if !outcome.as_ref().is_ok_and(|outcome| outcome.fits(expected)) {
                wrong.push(format!("cell {shared:?} {seed} is not {expected:?}: {outcome:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_soon(direct, 8);
}

/// In each such pair the first byte waits for a second without an answer by UDP, the stream's three round
/// trips, and the usual ones.
#[test]
fn whoever_reaches_roots_by_streams_alone_talks_by_them() {
    for other in Kind::all() {
        for one in [Kind::UdpBlocked, Kind::Only443] {
            for seed in SEEDS.start..SEEDS.start + 3 {
                let cell = Cell { kinds: [one.min(other), one.max(other)], seed };
                let outcome = cell.run(false).expect("nothing is violated");
                assert!(outcome.is_complete, "{one} {other} {seed}: {outcome:?}");
                assert_eq!((outcome.path, outcome.direct_after), (PathKind::Relayed, None));
                assert!(outcome.relayed_bytes > 4000, "{one} {other} {seed}: {outcome:?}");
            }
        }
    }
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
    assert!(mean <= MAX_RELAYED_BYTES, "{mean} bytes are relayed before the path is direct");
}

/// Mean number of bytes that roots carry for a pair whose path becomes direct. The two programs write 4,000
/// at first, half of which takes the direct path. Nodes behind a NAT64 show a voucher for each family.
const MAX_RELAYED_BYTES: u64 = 4000;

/// The same mean where the nodes try many ports. The programs write some 5,400 of it until a port is found.
/// If the roots were compared meanwhile, it would be 8,410.
const MAX_RELAYED_BYTES_MANY_PORTS: u64 = 8400;

/// Median time to the first byte: half a second, a query and its answer by the relay, 0.3 s until the other
/// side has its mappings, and 175 ports at 800 a second.
const FOUND_IN_THE_MEDIAN: Duration = Duration::from_millis(2000);

/// Runs pairs that depend on luck, with enough seeds to tell luck from its absence.
#[test]
fn a_port_that_nobody_can_guess_is_found_among_many() {
    let seeds = 2_000_000..2_000_020;
    let kind = |name: &str| {
        Kind::all().into_iter().find(|kind| kind.to_string() == name).expect("a kind of this name")
    };
    let pairs = [
        ["ei-apd", "apd-apd"],
        ["cgn-apd", "double"],
        // These nodes reach roots by IPv6, and the other side has only IPv4.
        ["ei-apd", "nat64-apd"],
        ["dual", "20s"],
        // Paths by IPv6 with a firewall on one side, and by IPv4 with unpredictable ports.
        ["nat66", "nat66-apd"],
        ["dual", "nat66-apd"],
    ];
    let mut relayed = Vec::new();
    for names in pairs {
        let kinds = names.map(kind);
        assert_eq!(Expected::of(kinds[0], kinds[1]), Expected::Likely);
        let mut run = |seed: u64| {
            let outcome = Cell { kinds, seed }.run(false).expect("nothing that must never happen");
            assert!(outcome.is_complete, "{names:?} {seed}: {outcome:?}");
            assert_eq!(outcome.path, PathKind::Direct, "{names:?} {seed}: {outcome:?}");
            relayed.push(outcome.relayed_bytes);
            outcome.direct_after
        };
        let mut times: Vec<Duration> = seeds.clone().filter_map(&mut run).collect();
        times.sort_unstable();
        assert!(times[times.len() / 2] <= FOUND_IN_THE_MEDIAN, "{names:?}: {times:?}");
        assert!(times[times.len() - 1] <= DIRECT_ALWAYS, "{names:?}: {times:?}");
    }
    let mean = relayed.iter().sum::<u64>() / relayed.len() as u64;
    assert!(mean <= MAX_RELAYED_BYTES_MANY_PORTS, "{mean} bytes are relayed before the path is direct");
}
