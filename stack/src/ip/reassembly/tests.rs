//! Tests of reassembly with fragments in any order and number.

use proptest::prelude::*;

use super::*;

const NET: InterfaceId = InterfaceId(1);

fn limits(total: usize, per_source: usize) -> Reassembly {
    Reassembly::new(&Config {
        reassembly_memory: total,
        reassembly_memory_per_source: per_source,
        ..Config::default()
    })
}

fn reassembly() -> Reassembly {
    limits(1 << 20, 1 << 20)
}

/// Returns an IPv4 fragment from 10.0.0.`source`.
fn v4(source: u8, ident: u16, offset: usize, more: bool, data: &[u8]) -> Vec<u8> {
    let [high, low] = ((20 + data.len()) as u16).to_be_bytes();
    let field = ((offset / 8) as u16 | u16::from(more) << 13).to_be_bytes();
    let ident = ident.to_be_bytes();
    let header = [0x45, 2, high, low, ident[0], ident[1], field[0], field[1], 64, 17, 0, 0];
    [&header[..], &[10, 0, 0, source], &[10, 0, 0, 9], data].concat()
}

fn insert(reassembly: &Reassembly, at: i64, packet: &[u8]) -> Outcome {
    let piece = Piece::v4(NET, packet).expect("a fragment");
    reassembly.insert(Time::from_secs(at), &piece).0
}

/// Returns the fragments of `data`, cut at multiples of eight.
fn cut(ident: u16, data: &[u8], cuts: &BTreeSet<usize>) -> Vec<Vec<u8>> {
    let bounds: Vec<usize> = [0]
        .into_iter()
        .chain(cuts.iter().map(|cut| cut * 8).filter(|&cut| cut > 0 && cut < data.len()))
        .chain([data.len()])
        .collect();
    let part = |ends: &[usize]| v4(1, ident, ends[0], ends[1] < data.len(), &data[ends[0]..ends[1]]);
    bounds.windows(2).map(part).collect()
}

fn payload(outcome: Outcome) -> Option<Vec<u8>> {
    match outcome {
        Outcome::Complete(packet) => Some(packet[20..].to_vec()),
        _ => None,
    }
}

proptest! {
    #[test]
    fn any_order_and_any_copies_make_the_packet_once(
        data in proptest::collection::vec(any::<u8>(), 9..3000),
        cuts in proptest::collection::btree_set(1usize..375, 1..20),
        order in proptest::collection::vec(any::<proptest::sample::Index>(), 0..100),
    ) {
        let mut fragments = cut(7, &data, &cuts);
        prop_assume!(fragments.len() > 1);
        // Some fragments in any order, possibly repeated; then all missing ones.
        let mut sent = BTreeSet::new();
        let mut made = Vec::new();
        let reassembly = reassembly();
        let rest = (0..fragments.len()).collect::<Vec<_>>();
        for which in order.iter().map(|index| index.index(fragments.len())).chain(rest) {
            if !made.is_empty() && sent.contains(&which) {
                continue;
            }
            sent.insert(which);
            made.extend(payload(insert(&reassembly, 1, &fragments[which])));
        }
        prop_assert_eq!(made, vec![data]);
        fragments.clear();
        prop_assert_eq!(reassembly.lock().charged, 0);
        prop_assert_eq!(reassembly.next(), None);
    }

    #[test]
    fn what_overlaps_never_arrives(
        data in proptest::collection::vec(any::<u8>(), 100..2000),
        cuts in proptest::collection::btree_set(1usize..250, 1..20),
        overlap in any::<[proptest::sample::Index; 2]>(),
        place in any::<proptest::sample::Index>(),
    ) {
        let fragments = cut(7, &data, &cuts);
        prop_assume!(fragments.len() > 1);
        let start = overlap[0].index(data.len() / 8 - 1) * 8;
        let len = 8 + overlap[1].index((data.len() - start - 1) / 8) * 8;
        let other: Vec<u8> = data[start..start + len].iter().map(|byte| !byte).collect();
        let intruder = v4(1, 7, start, true, &other);
        let place = place.index(fragments.len() - 1);
        let reassembly = reassembly();
        for (at, fragment) in fragments.iter().enumerate() {
            if at == place {
                insert(&reassembly, 1, &intruder);
            }
            prop_assert_eq!(payload(insert(&reassembly, 1, fragment)), None);
        }
    }

    #[test]
    fn memory_is_bounded_whatever_comes(
        fragments in proptest::collection::vec((1u8..6, 0u16..200, 0usize..8000, any::<bool>(), 1usize..180), 1..400),
    ) {
        let (total, each) = (60_000, 30_000);
        let reassembly = limits(total, each);
        for (source, ident, offset, more, len) in fragments {
            insert(&reassembly, 1, &v4(source, ident, offset * 8, more, &vec![1; len * 8]));
            let pending = reassembly.lock();
            prop_assert!(pending.charged <= total);
            prop_assert!(pending.sources.values().all(|&charge| charge <= each));
            let costs: usize = pending.packets.values().map(Waiting::cost).sum();
            prop_assert_eq!((costs, pending.expiries.len()), (pending.charged, pending.packets.len()));
            let held = |source| pending.of_source((NET, IpAddr::from([10, 0, 0, source]))).count();
            let most = (1..6).map(held).max();
            prop_assert!(most <= Some(MAX_PACKETS_PER_SOURCE));
        }
    }
}

#[test]
fn the_end_is_where_one_fragment_says_and_the_others_agree() {
    for [first, second] in [
        [(16, false, 8), (24, true, 8)],
        [(24, true, 8), (16, false, 8)],
        [(16, false, 8), (24, false, 8)],
        [(16, true, 8), (16, false, 8)],
        [(16, false, 8), (16, true, 8)],
    ] {
        let reassembly = reassembly();
        let fragment = |(offset, more, len)| v4(1, 1, offset, more, &vec![0; len]);
        assert_eq!(insert(&reassembly, 1, &fragment(first)), Outcome::Waiting);
        assert_eq!(insert(&reassembly, 1, &fragment(second)), Outcome::Refused, "{first:?} {second:?}");
    }
}

#[test]
fn what_cannot_be_a_fragment_is_none() {
    assert!(Piece::v4(NET, &v4(1, 1, 0, true, &[0; 9])).is_none(), "no multiple of eight");
    assert!(Piece::v4(NET, &v4(1, 1, 8, false, &[])).is_none(), "empty");
    assert!(Piece::v4(NET, &v4(1, 1, 65_512, false, &[0; 8])).is_none(), "beyond 65,535");
    assert!(Piece::v4(NET, &v4(1, 1, 65_504, false, &[0; 8])).is_some());
}

#[test]
fn a_packet_waits_so_long_and_its_first_fragment_is_given_back() {
    let reassembly = reassembly();
    let first = v4(1, 1, 0, true, &[1; 8]);
    insert(&reassembly, 1, &first);
    insert(&reassembly, 2, &v4(1, 2, 8, true, &[1; 8]));
    assert_eq!(reassembly.next(), Some(Time::from_secs(31)));
    assert_eq!(reassembly.expire(Time::from_secs(30), 9), []);
    assert_eq!(reassembly.expire(Time::from_secs(31), 9), [Expired { interface: NET, first: Some(first) }]);
    assert_eq!(reassembly.expire(Time::from_secs(32), 9), [Expired { interface: NET, first: None }]);
    assert_eq!((reassembly.next(), reassembly.lock().charged), (None, 0));
}

#[test]
fn the_source_that_holds_most_loses_first() {
    let reassembly = limits(20_000, 20_000);
    insert(&reassembly, 1, &v4(1, 1, 0, true, &[1; 800]));
    let mut evicted = 0;
    for ident in 0..100 {
        let packet = v4(2, ident, 0, true, &[2; 1600]);
        evicted += reassembly.insert(Time::from_secs(2), &Piece::v4(NET, &packet).unwrap()).1;
    }
    assert!(evicted > 80, "{evicted}");
    assert_eq!(payload(insert(&reassembly, 3, &v4(1, 1, 800, false, &[1; 8]))), Some(vec![1; 808]));
}

#[test]
fn congestion_marks_survive_and_contradictions_do_not() {
    let marked = |ecn: [u8; 2]| {
        let reassembly = reassembly();
        let mut fragments = [v4(1, 1, 0, true, &[1; 8]), v4(1, 1, 8, false, &[1; 8])];
        fragments.iter_mut().zip(ecn).for_each(|(fragment, ecn)| fragment[1] = 0x28 | ecn);
        insert(&reassembly, 1, &fragments[0]);
        match insert(&reassembly, 1, &fragments[1]) {
            Outcome::Complete(packet) => Some(packet[1]),
            _ => None,
        }
    };
    assert_eq!(marked([2, 3]), Some(0x2b));
    assert_eq!(marked([2, 2]), Some(0x2a));
    assert_eq!(marked([0, 0]), Some(0x28));
    assert_eq!(marked([0, 3]), None);
}
