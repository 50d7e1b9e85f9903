use super::bounds::UNVOUCHED_SHOTS;
use super::targets::{MAX_BY_TURN, MAX_HEARD_ADDRESSES};
use super::*;
use crate::contact::tests::contact;
use crate::contact::{CandidateKind, DirectOutcome, Mapping, Nat};
use crate::testing::instant;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_was_due_while_the_machine_slept_is_not_sent() {
    let mut run = Run::new(&["203.0.113.9:5000"]);
    run.begin();
    run.now += 11 * SECOND;
    assert_eq!(run.shots(), 2, "those of the last two seconds, and not the fourteen before them");
    run.now += SECOND;
    assert_eq!(run.shots(), 1);
}

#[test]
fn others_behind_an_address_that_is_vouched_for_get_little() {
    let mut run = Run::new(&["203.0.113.9:5000", "203.0.113.9:6000", "203.0.113.9:7000"]);
    run.contact.nat = Nat { mapping: Mapping::AddressDependent, port_delta: 1, ..Nat::default() };
    let (begin, mut sent) = (run.now, 0);
    while run.now < begin + 600 * SECOND {
        // The node keeps naming new ports of its neighbours.
        run.contact.nat.port_delta += 1;
        run.begin();
        for _ in 0..10 {
            run.now += SECOND / 5;
            sent += run.shots();
        }
    }
    // The budget for one node: 200 challenges at once, and four a second.
    assert!((2000..=200 + 4 * 600).contains(&sent), "{sent}");
}

#[test]
fn where_the_node_is_heard_is_sent_to_at_once_if_a_root_vouches_for_the_address() {
    let mut run = Run::new(&["203.0.113.9:5000"]);
    let heard =
        |run: &mut Run, address: &str| run.punching.heard(address.parse().unwrap(), run.now, || Some([9; 8]));
    assert!(!heard(&mut run, "203.0.113.9:6000"), "nothing is looked for");
    run.begin();
    assert_eq!(run.shots(), 1);
    run.now += SECOND / 50;
    assert!(!heard(&mut run, "203.0.113.9:5000"), "it has named that");
    assert!(!heard(&mut run, "198.51.100.66:6000"), "nobody vouches for that");
    assert!(heard(&mut run, "203.0.113.9:6000"));
    let remote = "203.0.113.9:6000".parse().unwrap();
    assert_eq!(run.due().shots, [(None, remote, [9; 8])]);
    let at = Place::Direct { socket: SocketIndex(0), remote };
    assert_eq!(run.punching.answered(at, [9; 8], run.now + SECOND / 20), Some(Some(SECOND / 20)));
    // A box that gives each packet another port.
    let ports = (7000..7100).filter(|port| heard(&mut run, &format!("203.0.113.9:{port}")));
    assert_eq!(ports.count(), MAX_HEARD_ADDRESSES - 1);
}

#[test]
fn a_contact_that_changes_all_the_time_makes_no_flood_of_questions() {
    let mut run = Run::new(&["203.0.113.9:5000"]);
    let mut asked = 0;
    for id in 0..1000 {
        run.punching.restart();
        run.punching.ask(id, Duration::ZERO, run.now);
        asked += u32::from(run.due().question.is_some());
        run.now += SECOND / 1000;
    }
    assert!((1..=ASK_BURST + 1).contains(&asked), "{asked}");
}

#[test]
fn an_answer_counts_where_it_was_asked_for_and_while_it_is_new() {
    let mut run = Run::new(&["203.0.113.9:5000", "203.0.113.9:6000"]);
    run.begin();
    let [(None, one, first), (None, other, second)] = run.due().shots[..] else { panic!("two addresses") };
    assert_ne!(first, second, "each has a number of its own");
    run.now += SECOND / 50;
    let [one, other] = [one, other].map(|remote| Place::Direct { socket: SocketIndex(0), remote });
    assert_eq!(run.punching.answered(other, first, run.now), None);
    assert_eq!(run.punching.answered(one, [0; 8], run.now), None);
    assert_eq!(run.punching.answered(one, first, run.now), Some(Some(SECOND / 50)));
    run.now += ANSWER_LIFETIME;
    assert_eq!(run.punching.answered(other, second, run.now), None);
}

#[test]
fn a_path_that_was_there_before_the_first_packet_has_answered_and_spares_the_rest() {
    let all = ["203.0.113.9:5000", "203.0.113.9:6000"];
    for sends in [false, true] {
        let mut run = Run::new(&all);
        run.begin();
        if sends {
            assert_eq!(run.due().shots.len(), 2);
        }
        let [used, other] = all.map(|address| address.parse().expect("an address"));
        run.punching.stop(Some(Place::Direct { socket: SocketIndex(0), remote: used }));
        let attempts = run.punching.attempts();
        let outcome = |address| attempts.iter().find(|one| one.address == address).map(|one| one.outcome);
        assert_eq!(outcome(used), Some(DirectOutcome::Answered));
        let spared = DirectOutcome::NotTried(NotTried::NotNeeded);
        assert_eq!(outcome(other), Some(if sends { DirectOutcome::Silent } else { spared }));
    }
}

#[test]
fn a_turn_allocation_sends_a_few_and_is_a_place_of_its_own() {
    let mut run = Run::new(&["203.0.113.9:5000", "[2001:db8::9]:5000"]);
    let turn = SocketIndex::turn(1);
    let socket = |index, ipv4| {
        let (loopback, beacon_targets) = (false, Vec::new());
        SocketInfo { index, ipv4, loopback, max_datagram: 1400, beacon_targets }
    };
    let sockets = [socket(SocketIndex(0), true), socket(turn, true), socket(SocketIndex::turn(2), false)];
    run.punching.set_sockets(&sockets);
    run.begin();
    let mut shots = run.due().shots;
    while let Some(next) = run.punching.next() {
        run.now = next;
        shots.extend(run.due().shots);
    }
    let from = |index| shots.iter().filter(|(from, ..)| *from == Some(index)).collect::<Vec<_>>();
    assert_eq!((from(turn).len(), from(SocketIndex::turn(2)).len()), (6, 6));
    assert!(from(SocketIndex::turn(2)).iter().all(|(_, to, _)| to.is_ipv6()), "which no socket reaches");
    let (_, remote, data) = *from(turn)[5];
    let place = |socket| Place::Direct { socket, remote };
    assert_eq!(run.punching.answered(place(SocketIndex(0)), data, run.now), None);
    assert!(run.punching.answered(place(turn), data, run.now).is_some());
    assert!(run.punching.attempts().iter().all(|attempt| attempt.outcome != DirectOutcome::Answered));
}

#[test]
fn a_question_is_repeated_then_given_up_until_the_next_round() {
    let mut run = Run::new(&[]);
    let (begin, mut asked) = (run.now, Vec::new());
    run.punching.ask(7, Duration::ZERO, run.now);
    while let Some(next) = run.punching.next() {
        run.now = next;
        asked.extend(run.due().question.map(|id| (id, (run.now - begin).as_millis())));
    }
    assert_eq!(asked, [(7, 0), (7, 500), (7, 1500), (7, 3500)]);
    assert!(!run.punching.is_due(run.now + 29 * SECOND) && run.punching.is_due(run.now + 30 * SECOND));
    assert_eq!(run.punching.take_answer(7, run.now), None);
}

// An attacker with any number of identities names other hosts' addresses as theirs.
#[test]
fn all_meetings_of_a_node_send_little() {
    let begin = instant();
    let own = contact(&["198.51.100.7:4000"]);
    let named: Vec<_> = (1..=16).map(|host| format!("203.0.113.{host}:5000")).collect();
    let theirs = contact(&named.iter().map(String::as_str).collect::<Vec<_>>());
    let mut allowances = Allowances::new(begin);
    let mut all: Vec<_> = (0..100).map(|_| Punching::new(begin)).collect();
    for punching in &mut all {
        punching.begin_meeting(&own, &theirs, false, begin + 2 * SECOND, begin, || Some([1; 8]));
    }
    let mut sent = 0;
    for now in (0..300).map(|step| begin + step * SECOND / 10) {
        for punching in &mut all {
            sent += punching.take_due(false, true, &mut allowances, Duration::ZERO, now).shots.len();
        }
    }
    // Without the budget it would be the packets of 100 plans for 16 addresses.
    assert!((480..=480 + 20 * 30).contains(&sent), "{sent}");
}

#[test]
fn whoever_knocks_all_the_time_keeps_nobody_from_being_met_who_is_wanted() {
    let begin = instant();
    let own = contact(&["198.51.100.7:4000"]);
    let theirs = contact(&["203.0.113.1:5000", "203.0.113.2:5000", "203.0.113.3:5000"]);
    let mut allowances = Allowances::new(begin);
    let mut knocking: Vec<_> = (0..30).map(|_| Punching::new(begin)).collect();
    let meet = |punching: &mut Punching, now| {
        punching.begin_meeting(&own, &theirs, false, now + 2 * SECOND, now, || Some([1; 8]));
    };
    let mut unwanted = 0;
    for now in (0..600).map(|step| begin + step * SECOND / 10) {
        for punching in &mut knocking {
            if punching.next().is_none() {
                meet(punching, now);
            }
            unwanted += punching.take_due(false, false, &mut allowances, Duration::ZERO, now).shots.len();
        }
    }
    // The share of unwanted nodes: 240 initiations at once, and ten a second.
    assert!((480..=240 + 10 * 60).contains(&unwanted), "{unwanted}");
    let (mut wanted, start) = (Punching::new(begin), begin + 60 * SECOND);
    meet(&mut wanted, start);
    let mut sent = 0;
    for now in (0..140).map(|step| start + step * SECOND / 10) {
        sent += wanted.take_due(false, true, &mut allowances, Duration::ZERO, now).shots.len();
        for punching in &mut knocking {
            punching.take_due(false, false, &mut allowances, Duration::ZERO, now);
        }
    }
    // All packets to three addresses from the common start on.
    assert!(sent >= 3 * 17, "{sent}");
}

#[test]
fn who_is_met_gets_little_at_private_addresses() {
    let begin = instant();
    let own = contact(&["198.51.100.7:4000", "192.168.1.2:4000"]);
    // The node claims to be behind the same address.
    let theirs = contact(&["198.51.100.7:5000", "192.168.1.1:53"]);
    let mut punching = Punching::new(begin);
    let turn = SocketInfo {
        index: SocketIndex::turn(1),
        ipv4: true,
        loopback: false,
        max_datagram: 1400,
        beacon_targets: Vec::new(),
    };
    punching.set_sockets(&[turn]);
    punching.begin_meeting(&own, &theirs, false, begin, begin, || Some([1; 8]));
    let mut allowances = Allowances::new(begin);
    let mut sent = Vec::new();
    while let Some(now) = punching.next() {
        sent.extend(punching.take_due(false, false, &mut allowances, Duration::ZERO, now).shots);
    }
    let inside: Vec<_> = sent.iter().filter(|(_, to, _)| to.port() == 53).collect();
    assert_eq!(inside.len(), UNVOUCHED_SHOTS as usize);
    assert!(inside.iter().all(|(turn, ..)| turn.is_none()));
    assert!(sent.len() > 2 * inside.len(), "and all at the other");
}

#[test]
fn what_a_member_names_and_sends_from_makes_no_more_pairs_than_may_be() {
    let mut run = Run::new(&["203.0.113.9:5000"]);
    run.contact.nat = Nat { mapping: Mapping::AddressDependent, port_delta: 1, ..Nat::default() };
    let turn = |index| SocketInfo {
        index: SocketIndex::turn(index),
        ipv4: true,
        loopback: false,
        max_datagram: 1400,
        beacon_targets: Vec::new(),
    };
    run.punching.set_sockets(&(0..64).map(turn).collect::<Vec<_>>());
    for round in 0..50_u16 {
        let named = (0..=255_u8).map(|host| Candidate {
            kind: CandidateKind::Mapped,
            address: ([203, 0, 113, host], 5000 + round).into(),
        });
        run.contact = Contact::new(run.contact.nat, named);
        run.begin();
        for port in 1..2000 {
            let from = ([203, 0, 113, 9], port).into();
            run.punching.heard(from, run.now, || Some([9; 8]));
        }
        run.now += SECOND;
        run.shots();
        assert!(run.punching.targets.len() <= HolePunch::MAX_TARGETS + MAX_BY_TURN + MAX_HEARD_ADDRESSES);
        assert!(run.punching.left_out.len() <= 2 * Contact::MAX_CANDIDATES);
        let of_one = HolePunch::MAX_SHOTS_EACH;
        assert!(run.punching.shots.len() <= run.punching.targets.len() * of_one);
    }
}

/// One search, for a node whose IP addresses are vouched for.
struct Run {
    punching: Punching,
    contact: Contact,
    allowances: Allowances,
    drawn: u64,
    now: Instant,
}

impl Run {
    fn new(addresses: &[&str]) -> Self {
        let now = instant();
        let (punching, contact) = (Punching::new(now), contact(addresses));
        Self { punching, contact, allowances: Allowances::new(now), drawn: 0, now }
    }

    fn begin(&mut self) {
        let own = contact(&["198.51.100.7:4000"]);
        let vouched = Vouched { by_own: self.contact.public().collect(), ..Vouched::default() };
        let said = Said { contact: &self.contact, vouched };
        let draw = || {
            self.drawn += 1;
            Some(self.drawn.to_be_bytes())
        };
        self.punching.begin(&own, said, self.now, self.now, draw);
    }

    fn due(&mut self) -> Due {
        self.punching.take_due(true, false, &mut self.allowances, Duration::ZERO, self.now)
    }

    fn shots(&mut self) -> usize {
        self.due().shots.len()
    }
}
