//! Searches by many ports between a node behind a box with unpredictable ports and one behind a box that
//! admits only senders its node has sent to.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use peersock_overlay::wire::{BirthdayStep, Control};
use peersock_overlay::{Contact, DirectAttempt, DirectOutcome, Event, Mapping, Nat, NotTried};

use crate::attack::{Attack, home};
use crate::nat::{On, Ports};
use crate::net::{Net, Sent};
use crate::punching::{homes, is_direct};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Behaviour of a box, and whether its driver knows the difference to the next port.
type Cell = (On, On, Ports, bool);

const EASY: Cell = (On::Nothing, On::Endpoint, Ports::Random, false);
const HARD: Cell = (On::Endpoint, On::Endpoint, Ports::Random, false);

#[test]
fn one_port_among_many_is_found_and_everything_else_is_closed() {
    let mut found = 0;
    for (near, far) in [(EASY, HARD), (HARD, EASY)] {
        for latency in [5, 20, 60, 100, 150] {
            let mut net = homes(near, far, 2, latency * MS);
            let hard = usize::from(far == HARD);
            net.send(0, 1, b"first");
            chat(&mut net, 13);
            let attempts = [0, 1].map(|node| birthday(&net, node).expect("it was tried"));
            if !is_direct(&mut net, 0) {
                assert!(attempts.iter().all(|one| one.outcome == DirectOutcome::Silent), "{attempts:?}");
                continue;
            }
            found += 1;
            assert!(is_direct(&mut net, 1), "both or neither");
            assert!(attempts.iter().all(|one| one.outcome == DirectOutcome::Answered && one.vouched));
            assert_eq!([attempts[hard].sent >= 256, attempts[1 - hard].sent <= 2048], [true; 2]);
            // Of all sockets, the one with the path stays, and it is used.
            let path = net.peer(hard, 1 - hard).path().expect("a path");
            assert_eq!(net.nodes[hard].extra, [path.socket()]);
            assert_eq!(net.nodes[1 - hard].extra, []);
            let before = net.sent.len();
            net.nodes[0].inbox.clear();
            let sent = chat(&mut net, 300);
            assert_eq!(net.received(0).len(), sent, "it carries everything from now on");
            assert_eq!(net.nodes[hard].extra, [path.socket()], "as long as it is used");
            // Handshakes are sent everywhere, so only data counts here.
            let relayed = |sent: &&Sent| sent.bytes[0] == 0xD9 && sent.bytes.get(12) == Some(&0xD4);
            assert_eq!(net.sent[before..].iter().filter(relayed).count(), 0);
            let lost = |event: &Event| matches!(event, Event::SessionLost(_) | Event::PeerGone(..));
            assert_eq!(net.count(0, lost) + net.count(1, lost), 0);
        }
    }
    // Each succeeds with a chance of 9,997 in 10,000.
    assert_eq!(found, 10);
}

#[test]
fn a_search_is_bounded_in_packets_and_their_pace() {
    let mut net = homes(EASY, HARD, 2, 20 * MS);
    // The hard side hears nothing, so that the whole plan is sent.
    let hard = net.nats[1].external;
    net.filter = Box::new(move |sent| sent.to.ip() != hard || sent.from.port() == 7420);
    net.send(0, 1, b"first");
    chat(&mut net, 60);
    let guesses: Vec<&Sent> = guesses(&net, 0, hard);
    assert_eq!(guesses.len(), 2048);
    assert!(guesses.iter().all(|sent| sent.bytes.len() == 38 && sent.to.port() >= 1024));
    let ports: BTreeSet<u16> = guesses.iter().map(|sent| sent.to.port()).collect();
    assert_eq!(ports.len(), 2048, "each port once");
    for from in &guesses {
        let in_a_second =
            guesses.iter().filter(|sent| sent.at >= from.at && sent.at < from.at + SECOND).count();
        // Eight packets leave every 10 ms, so a second may include 101 such groups.
        assert!(in_a_second <= 808, "{in_a_second}");
    }
    assert!(net.counter(1, "birthday_probes_sent") == 256 && net.counter(0, "birthday_probes_sent") == 2048);
    assert_eq!(net.nodes[1].extra, [], "all are closed");
    let attempt = birthday(&net, 1).expect("it was tried");
    assert_eq!((attempt.outcome, attempt.sent), (DirectOutcome::Silent, 256));
    // Further rounds of few ports begin no further search by many for ten minutes.
    chat(&mut net, 530);
    assert_eq!([0, 1].map(|node| net.counter(node, "birthdays_begun")), [1, 1]);
    chat(&mut net, 710);
    assert_eq!([0, 1].map(|node| net.counter(node, "birthdays_begun")), [2, 2]);
}

#[test]
fn two_boxes_whose_ports_nobody_can_guess_are_not_tried() {
    let mut net = homes(HARD, HARD, 2, 10 * MS);
    net.send(0, 1, b"first");
    chat(&mut net, 20);
    for node in 0..2 {
        let attempt = birthday(&net, node).expect("it is said why");
        assert_eq!(attempt.outcome, DirectOutcome::NotTried(NotTried::BothUnpredictable));
        assert_eq!((attempt.sent, net.counter(node, "birthday_probes_sent")), (0, 0));
    }
}

#[test]
fn who_cannot_open_sockets_says_so_and_the_other_side_sends_nothing() {
    let mut net = homes(EASY, HARD, 2, 20 * MS);
    net.nodes[1].most_extra = 10;
    net.send(0, 1, b"first");
    chat(&mut net, 20);
    let attempt = birthday(&net, 1).expect("it is said why");
    assert_eq!(attempt.outcome, DirectOutcome::NotTried(NotTried::NoSockets));
    assert_eq!([0, 1].map(|node| net.counter(node, "birthday_probes_sent")), [0; 2]);
    assert_eq!(net.nodes[1].extra, []);
}

#[test]
fn who_has_it_switched_off_neither_asks_nor_takes_part() {
    for off in 0..2 {
        let mut net = homes_with_one_off(off);
        net.send(0, 1, b"first");
        chat(&mut net, 20);
        assert_eq!([0, 1].map(|node| net.counter(node, "birthday_probes_sent")), [0; 2]);
        let outcome = birthday(&net, 1).map(|one| one.outcome);
        let expected = (off == 0).then_some(DirectOutcome::NotTried(NotTried::Refused));
        assert_eq!(outcome, expected, "node {off} has it off");
    }
}

#[test]
fn an_address_that_no_root_vouches_for_gets_no_packet_of_it() {
    let victim: SocketAddr = "203.0.113.77:4000".parse().expect("an address");
    // One side names a third party's address and the right mapping. No root has seen it there.
    for liar in 0..2 {
        let mut net = homes(EASY, HARD, 2, 20 * MS);
        net.send(0, 1, b"first");
        net.run(500 * MS);
        let mapping = if liar == 0 { Mapping::EndpointIndependent } else { Mapping::AddressAndPortDependent };
        let nat = Nat { mapping, ..Nat::default() };
        let named =
            peersock_overlay::Candidate { kind: peersock_overlay::CandidateKind::Mapped, address: victim };
        net.nodes[liar].endpoint.set_contact(net.now, Contact::new(nat, [named]));
        chat(&mut net, 60);
        let hits = net.sent.iter().filter(|sent| sent.to.ip() == victim.ip());
        let hits: Vec<_> = hits.map(|sent| (sent.to.port(), sent.bytes.len())).collect();
        // Only the packets of the rounds of few ports, which go to the named port.
        assert!(hits.len() <= 24 && hits.iter().all(|hit| *hit == (4000, 38)), "{hits:?}");
    }
}

#[test]
fn who_asks_for_packets_again_and_again_gets_none() {
    // A member with a session over a direct path, which needs no such search.
    let mut attack = Attack::with_session();
    for id in 0..200 {
        let mut plaintext = Vec::new();
        let step = if id % 2 == 0 { BirthdayStep::Ask } else { BirthdayStep::AskIpv6 };
        Control::Birthday { id, step, is_fast: id % 3 == 0 }.emit(&mut plaintext);
        attack.send_sealed(home(), &plaintext);
        Control::Birthday { id, step: BirthdayStep::Agree, is_fast: true }.emit(&mut plaintext);
        attack.send_sealed(home(), &plaintext);
        attack.run(SECOND / 10);
    }
    assert_eq!(attack.net.counter(0, "birthdays_begun"), 0);
    assert_eq!(attack.net.counter(0, "birthday_probes_sent"), 0);
}

#[test]
fn tcp_is_tried_as_soon_as_nothing_can_come_of_a_search_by_many_ports() {
    for (near, far) in [(EASY, HARD), (HARD, EASY)] {
        let mut net = homes_with_tcp(near, far);
        net.filter = Box::new(|sent| sent.from.port() == 7420 || sent.to.port() == 7420);
        let easy = usize::from(near == HARD);
        let begins = begins_by_tcp(&mut net);
        // The easy side begins half a second after the question, sends for 2.6 s, and waits 1.5 s.
        let (least, most) = (4 * SECOND, 6 * SECOND);
        assert!(begins.iter().all(|begin| (least..most).contains(begin)), "{begins:?}");
        assert!((begins[0].abs_diff(begins[1])) <= 20 * MS, "both at once: {begins:?}");
        let guesses = guesses(&net, easy, net.nats[1 - easy].external);
        assert_eq!(net.counter(easy, "birthday_probes_sent"), 2048, "all were tried");
        let last = guesses.iter().map(|sent| sent.at).max().expect("some");
        let begins = net.nodes[easy].punched[0].0;
        assert!(last + 3 * SECOND / 2 <= begins, "what is answered late counts, too");
    }
}

#[test]
fn tcp_is_tried_at_once_where_no_search_by_many_ports_is_possible_after_all() {
    let mut net = homes_with_tcp(EASY, HARD);
    net.filter = Box::new(|sent| sent.from.port() == 7420 || sent.to.port() == 7420);
    net.nodes[1].most_extra = 10;
    let begins = begins_by_tcp(&mut net);
    assert!(begins.iter().all(|begin| *begin < 3 * SECOND), "{begins:?}");
}

#[test]
fn tcp_is_not_tried_where_a_search_by_many_ports_finds_a_path() {
    for (near, far) in [(EASY, HARD), (HARD, EASY)] {
        let mut net = homes_with_tcp(near, far);
        net.send(0, 1, b"first");
        chat(&mut net, 60);
        assert!(is_direct(&mut net, 0) && is_direct(&mut net, 1));
        assert_eq!([0, 1].map(|node| net.counter(node, "tcp_punches_begun")), [0; 2]);
    }
}

#[test]
fn relayed_places_are_not_compared_while_many_ports_are_tried() {
    for (near, far) in [(EASY, HARD), (HARD, EASY)] {
        let mut net = homes(near, far, 2, 20 * MS);
        net.filter = Box::new(|sent| sent.from.port() == 7420 || sent.to.port() == 7420);
        net.send(0, 1, b"first");
        let begin = net.now;
        chat(&mut net, 4);
        // A relayed challenge, because no other message has this length.
        let is_challenge = |sent: &&Sent| sent.bytes.len() == 50 && sent.bytes[0] == 0xD9;
        let relayed =
            |net: &Net| net.sent.iter().filter(|sent| sent.at >= begin).filter(is_challenge).count();
        assert_eq!(relayed(&net), 0, "a direct way is likely to be found");
        chat(&mut net, 20);
        assert!(relayed(&net) > 0, "now the better root is looked for");
    }
}

/// Returns when each node begins to connect by TCP, after the first packet.
fn begins_by_tcp(net: &mut Net) -> [Duration; 2] {
    let begin = net.now;
    net.send(0, 1, b"first");
    chat(net, 30);
    [0, 1].map(|node| {
        let (at, _) = net.nodes[node].punched.first().expect("it is tried by TCP");
        *at - begin
    })
}

/// Creates two homes whose nodes also connect by TCP.
fn homes_with_tcp(near: Cell, far: Cell) -> Net {
    let mut net = homes(near, far, 0, 20 * MS);
    net.tcp_punch = true;
    for node in 0..2 {
        net.restart_behind(node, crate::net::UNIX_TIME);
    }
    register(&mut net);
    for node in 0..2 {
        crate::punching::say_interface(&mut net, node, Nat::default());
    }
    net.run(SECOND);
    net
}

/// Creates two homes, one of whose nodes has searches by many ports switched off.
fn homes_with_one_off(off: usize) -> Net {
    let mut net = homes(EASY, HARD, 0, 20 * MS);
    net.birthday = false;
    net.restart_behind(off, crate::net::UNIX_TIME);
    net.birthday = true;
    register(&mut net);
    net
}

/// Makes the nodes join, and register at two roots.
fn register(net: &mut Net) {
    for root in 1..=2 {
        crate::roots::add_root(net, root);
    }
    for node in 0..2 {
        if net.nodes[node].endpoint.networks().is_empty() {
            net.join(node, &crate::net::open_network());
        }
        crate::roots::use_roots(net, node);
    }
    net.run(SECOND);
}

/// Makes both send now and then; returns how often.
fn chat(net: &mut Net, seconds: u32) -> usize {
    let begin = net.now;
    let mut times = 0;
    while net.now < begin + seconds * SECOND {
        net.send(0, 1, b"to and fro");
        net.send(1, 0, b"to and fro");
        times += 1;
        net.run(SECOND);
    }
    times
}

/// Returns the attempt of a search by many ports for the other node.
fn birthday(net: &Net, node: usize) -> Option<DirectAttempt> {
    let peers = net.nodes[node].endpoint.peers();
    peers.first()?.attempts.iter().copied().find(|attempt| attempt.by_many_ports)
}

/// Returns the packets that a node has sent to guessed ports of an address: the ports that got one packet.
fn guesses(net: &Net, node: usize, host: IpAddr) -> Vec<&Sent> {
    let own = net.nats[node].external;
    let is_to = |sent: &&Sent| sent.from.ip() == own && sent.to.ip() == host;
    let all: Vec<&Sent> = net.sent.iter().filter(is_to).collect();
    let times = |port: u16| all.iter().filter(|sent| sent.to.port() == port).count();
    all.iter().copied().filter(|sent| times(sent.to.port()) == 1).collect()
}
