use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::contact::{Candidate, CandidateKind, Contact, Nat};
use crate::testing::instant;
use crate::wire::{Channel, RelayToken, Relayed};

/// Size of the challenges in these tests, in bytes.
const CHALLENGE: usize = 38;

#[test]
fn a_path_that_is_much_better_is_found_and_kept() {
    let mut node = Run::new(&[(1, 80), (2, 20)]);
    node.reach.use_place(place(1), 1472, &[], node.now);
    node.run(Duration::from_secs(120));
    assert_eq!(node.moves, [place(2)]);
    // Worse, but not by a quarter, so nothing changes.
    node.rtt.insert(1, 16);
    node.run(Duration::from_secs(600));
    assert_eq!(node.moves.len(), 1);
    node.rtt.insert(1, 2);
    node.run(Duration::from_secs(600));
    assert_eq!(node.moves, [place(2), place(1)]);
}

#[test]
fn places_whose_times_cross_again_and_again_change_the_path_rarely() {
    let mut node = Run::new(&[(1, 20), (2, 20)]);
    node.reach.use_place(place(1), 1472, &[], node.now);
    for turn in 0..600 {
        let (fast, slow) = if turn % 2 == 0 { (1, 2) } else { (2, 1) };
        node.rtt.insert(fast, 10);
        node.rtt.insert(slow, 40);
        node.run(Duration::from_secs(1));
    }
    assert!(node.moves.len() <= 600 / quality::MIN_CHANGE_INTERVAL.as_secs() as usize, "{:?}", node.moves);
}

#[test]
fn places_are_compared_rarely_and_only_where_there_is_a_choice() {
    let mut alone = Run::new(&[(1, 20)]);
    alone.reach.use_place(place(1), 1472, &[], alone.now);
    alone.run(Duration::from_secs(600));
    assert_eq!(alone.asked, 0);
    let mut many = Run::new(&[(1, 20), (2, 20), (3, 20), (4, 20)]);
    many.reach.use_place(place(1), 1472, &[], many.now);
    many.run(Duration::from_secs(600));
    assert!((200..=250).contains(&many.asked), "{}", many.asked);
}

#[test]
fn a_place_that_loses_packets_is_left() {
    let mut node = Run::new(&[(1, 20), (2, 30)]);
    node.reach.use_place(place(1), 1472, &[], node.now);
    node.run(Duration::from_secs(120));
    assert_eq!(node.moves, []);
    node.loses = Some((1, 3));
    node.run(Duration::from_secs(600));
    assert_eq!(node.moves, [place(2)]);
}

#[test]
fn the_addresses_of_a_network_go_with_it() {
    let mut reach = Reach::default();
    let (one, two) = (place(1).remote(), place(2).remote());
    assert_eq!(reach.set_configured(NetworkIndex(0), &[one]), [one]);
    assert_eq!(reach.set_configured(NetworkIndex(1), &[one, two]), [two]);
    reach.set_configured(NetworkIndex(1), &[]);
    assert_eq!(reach.remotes().collect::<Vec<_>>(), [one]);
    assert!(reach.is_configured(&one) && !reach.is_configured(&two));
    reach.set_configured(NetworkIndex(0), &[]);
    assert_eq!(reach.remotes().count(), 0);
}

#[test]
fn a_path_keeps_what_is_known_of_it_while_another_is_used() {
    let mut reach = Reach::default();
    let now = instant();
    assert!(reach.use_place(place(1), 1472, &[], now));
    let Some((id, size)) = reach.probe_mtu(now).probe else { panic!("a new path is probed") };
    reach.probe_acknowledged(id, now);
    assert_eq!(reach.probe_mtu(now).changed, Some((1200, size)));
    assert!(reach.use_place(place(2), 1472, &[], now));
    assert_eq!(reach.path().map(|path| path.datagram_size), Some(1200));
    assert!(reach.use_place(place(1), 1472, &[], now));
    assert_eq!(reach.path().map(|path| path.datagram_size), Some(size));
    assert!(!reach.use_place(place(1), 1472, &[], now));
}

#[test]
fn a_direct_place_takes_the_path_from_one_over_a_turn_server_and_keeps_it() {
    let mut now = instant();
    let by_turn = Place::Direct { socket: SocketIndex::turn(0), remote: place(1).remote() };
    let sockets = [socket(), SocketInfo { index: SocketIndex::turn(0), ..socket() }];
    let mut reach = Reach::default();
    reach.prove(by_turn, Source::Session, now);
    reach.use_place(by_turn, 1400, &[], now);
    assert!(reach.is_relayed() && !reach.is_direct());
    // The same address without the server is a different place.
    assert!(!reach.is_proven(&place(1)));
    reach.heard(place(1), CHALLENGE, Source::Session, now);
    let data = reach.challenge(place(1), Why::Compare, [1; 8], CHALLENGE, now).expect("it is paid for");
    assert_eq!(reach.answer(by_turn, data, now), Answer::Wrong);
    assert!(matches!(reach.answer(place(1), data, now), Answer::Right { .. }));
    assert_eq!(reach.better(&sockets, &[], now), Some(place(1)));
    reach.use_place(place(1), 1472, &[], now);
    for _ in 0..600 {
        now += Duration::from_secs(1);
        assert_eq!(
            (reach.compare(Flow::Data, &sockets, &[], CHALLENGE, now), reach.better(&sockets, &[], now)),
            (None, None)
        );
    }
    assert_eq!(usable(&[socket()], &by_turn), None, "the allocation is gone");
}

#[test]
fn a_relay_takes_the_path_from_a_root_that_relays_little_and_keeps_it() {
    let mut now = instant();
    let root: SocketAddr = ([198, 51, 100, 1], 7420).into();
    let header = Relayed { token: RelayToken::from_be_bytes([1, 2, 3]), channel: Channel(7) };
    let by_root = Place::Relayed { socket: SocketIndex(0), root, header };
    let by_turn = Place::Direct { socket: SocketIndex::turn(0), remote: place(1).remote() };
    let sockets = [socket(), SocketInfo { index: SocketIndex::turn(0), ..socket() }];
    let answer = |reach: &mut Reach, at: Place, rtt: u64, now: Instant| {
        let data = reach.challenge(at, Why::Compare, [rtt as u8; 8], CHALLENGE, now).expect("it is proven");
        let answer = reach.answer(at, data, now + Duration::from_millis(rtt));
        assert!(matches!(answer, Answer::Right { .. }), "{answer:?}");
    };
    for (scarce, beats) in [(&[][..], false), (&[root][..], true)] {
        let mut reach = Reach::default();
        reach.prove(by_root, Source::Handshake, now);
        reach.prove(by_turn, Source::Session, now);
        reach.use_place(by_root, 1400, scarce, now);
        answer(&mut reach, by_root, 1, now);
        assert_eq!(reach.better(&sockets, scarce, now), None, "the other one has not answered");
        // The TURN place is slower by far.
        answer(&mut reach, by_turn, 200, now);
        assert_eq!(reach.better(&sockets, scarce, now), Some(by_turn).filter(|_| beats));
        if !beats {
            continue;
        }
        reach.use_place(by_turn, 1400, scarce, now);
        for _ in 0..600 {
            now += Duration::from_secs(1);
            assert_eq!(reach.compare(Flow::Data, &sockets, scarce, CHALLENGE, now), None);
            assert_eq!(reach.better(&sockets, scarce, now), None);
        }
        // The place was silent, so a handshake has led back to the root. It has to answer again, and is asked
        // at once.
        reach.use_place(by_root, 1400, scarce, now);
        now += Duration::from_secs(1);
        assert_eq!(reach.better(&sockets, scarce, now), None);
        assert_eq!(reach.compare(Flow::Data, &sockets, scarce, CHALLENGE, now), Some(by_turn));
        answer(&mut reach, by_turn, 200, now);
        assert_eq!(reach.better(&sockets, scarce, now), Some(by_turn));
    }
}

#[test]
fn an_address_that_a_node_calls_relayed_is_no_direct_one() {
    let now = instant();
    let mut reach = Reach::default();
    reach.prove(place(1), Source::Session, now);
    reach.use_place(place(1), 1472, &[], now);
    assert!(reach.is_direct());
    let relayed = Candidate { kind: CandidateKind::Relayed, address: place(1).remote() };
    let theirs = Contact::new(Nat::default(), [relayed]);
    let draw = || Some([0; 8]);
    reach.punching(now).begin_meeting(&Contact::default(), &theirs, true, now, now, draw);
    assert!(reach.is_relayed() && !reach.is_direct());
    reach.prove(place(2), Source::Session, now);
    reach.heard(place(2), CHALLENGE, Source::Session, now);
    let data = reach.challenge(place(2), Why::Compare, [1; 8], CHALLENGE, now).expect("it is proven");
    reach.answer(place(2), data, now);
    assert_eq!(reach.better(&[socket()], &[], now), Some(place(2)));
}

proptest! {
    // Addresses that never received anything get no more bytes than came from them. No number of guesses
    // makes one of them a place that may be the path.
    #[test]
    fn an_address_that_receives_nothing_gets_no_more_than_it_paid_for(
        steps in prop::collection::vec((0u8..7, 1u16..12, 0usize..300, any::<[u8; 8]>()), 1..300)
    ) {
        let mut now = instant();
        let mut reach = Reach::default();
        let mut credit: BTreeMap<u16, i64> = BTreeMap::new();
        for (kind, port, bytes, guess) in steps {
            now += Duration::from_millis(100);
            let at = place(port);
            let account = credit.entry(port).or_default();
            match kind {
                0 | 1 => {
                    reach.heard(at, bytes, if kind == 0 { Source::Hello } else { Source::Session }, now);
                    *account += bytes as i64;
                }
                2 => *account -= if reach.spend(&at, bytes) { bytes as i64 } else { 0 },
                3 | 4 => {
                    let why = if kind == 3 { Why::Move } else { Why::Compare };
                    // The guesses below never equal the challenge.
                    let fresh = [guess[0] | 0x80; 8];
                    if reach.challenge(at, why, fresh, CHALLENGE, now).is_some() {
                        *account -= CHALLENGE as i64;
                    }
                }
                5 => {
                    for target in reach.spend_everywhere(bytes, &[socket()]) {
                        *credit.entry(target.remote().port()).or_default() -= bytes as i64;
                    }
                }
                _ => {
                    let guess = guess.map(|byte| byte & 0x7f);
                    prop_assert_eq!(reach.answer(at, guess, now), Answer::Wrong);
                }
            }
            prop_assert!(credit.values().all(|credit| *credit >= 0), "{:?}", credit);
            prop_assert!(!reach.is_proven(&at));
        }
    }
}

/// Node whose places answer after the given number of milliseconds, with constant traffic.
struct Run {
    reach: Reach,
    now: Instant,
    rtt: BTreeMap<u16, u64>,
    /// Port whose challenges are lost, and `n` if one in `n` is.
    loses: Option<(u16, usize)>,
    asked: usize,
    moves: Vec<Place>,
}

impl Run {
    fn new(places: &[(u16, u64)]) -> Self {
        let now = instant();
        let mut reach = Reach::default();
        for &(port, _) in places {
            reach.prove(place(port), Source::Session, now);
        }
        let rtt = places.iter().copied().collect();
        Self { reach, now, rtt, loses: None, asked: 0, moves: Vec::new() }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            if let Some(at) = self.reach.compare(Flow::Data, &[socket()], &[], CHALLENGE, self.now) {
                self.asked += 1;
                let data = (self.asked as u64).to_be_bytes();
                let data = self
                    .reach
                    .challenge(at, Why::Compare, data, CHALLENGE, self.now)
                    .expect("nothing else runs");
                let port = at.remote().port();
                if self.loses.is_none_or(|(of, one_in)| of != port || !self.asked.is_multiple_of(one_in)) {
                    let rtt = Duration::from_millis(self.rtt[&port]);
                    let answer = self.reach.answer(at, data, self.now + rtt);
                    assert_eq!(answer, Answer::Right { why: Why::Compare, rtt: Some(rtt) });
                }
                if let Some(better) = self.reach.better(&[socket()], &[], self.now) {
                    self.moves.push(better);
                    self.reach.use_place(better, 1472, &[], self.now);
                }
            }
            self.now += Duration::from_millis(100);
        }
    }
}

fn socket() -> SocketInfo {
    let index = SocketIndex(0);
    SocketInfo { index, ipv4: true, loopback: false, max_datagram: 1472, beacon_targets: Vec::new() }
}

fn place(port: u16) -> Place {
    Place::Direct { socket: SocketIndex(0), remote: ([192, 0, 2, 1], port).into() }
}
