//! Nodes behind NAT boxes that have a root in common: they begin to talk through it, and continue directly.

use std::net::SocketAddr;
use std::time::Duration;

use peersock_overlay::{
    Candidate, CandidateKind, Contact, DirectOutcome, Event, Identity, Mapping, Nat, NetworkId, NotTried,
};

use crate::nat::{NatBox, On, Ports};
use crate::net::{Net, Sent, open_network};
use crate::roots::{add_root, talk, use_roots};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Type of a frame between a node and a root.
const RELAYED: u8 = 0xD9;

/// Behaviour of a box, and whether its driver knows the difference to the next port.
pub(crate) type Cell = (On, On, Ports, bool);

const OPEN: Cell = (On::Nothing, On::Nothing, Ports::Random, false);
const CONE: Cell = (On::Nothing, On::Address, Ports::Random, false);
pub(crate) const PORT_CONE: Cell = (On::Nothing, On::Endpoint, Ports::Random, false);
const SYMMETRIC: Cell = (On::Endpoint, On::Endpoint, Ports::Random, false);
const COUNTING: Cell = (On::Endpoint, On::Endpoint, Ports::Delta(2), true);

#[test]
fn whatever_can_be_punched_is_direct_within_a_second_of_the_first_packet() {
    // The last column tells whether a way exists at all.
    let table = [
        (OPEN, OPEN, true),
        (OPEN, PORT_CONE, true),
        (CONE, PORT_CONE, true),
        (PORT_CONE, PORT_CONE, true),
        (OPEN, SYMMETRIC, true),
        (CONE, SYMMETRIC, true),
        (PORT_CONE, COUNTING, true),
        (PORT_CONE, SYMMETRIC, false),
        (SYMMETRIC, SYMMETRIC, false),
    ];
    for (one, other, is_possible) in table {
        for (near, far) in [(one, other), (other, one)] {
            for latency in [5, 25, 60] {
                let mut net = homes(near, far, 1, latency * MS);
                net.send(0, 1, b"first");
                let took = direct_after(&mut net, 3 * SECOND);
                assert_eq!(took.is_some(), is_possible, "{near:?} {far:?} {latency} ms");
                assert!(took.is_none_or(|took| took <= SECOND), "{near:?} {far:?} {latency} ms: {took:?}");
                assert_eq!(net.received(1).first(), Some(&b"first".to_vec()));
            }
        }
    }
}

#[test]
fn a_way_is_open_half_a_round_trip_after_both_know_where_the_other_is() {
    let mut net = homes(PORT_CONE, PORT_CONE, 1, 20 * MS);
    let begin = net.now;
    net.send(0, 1, b"first");
    let took = direct_after(&mut net, SECOND).expect("a direct path");
    // To the root and back: the look-up. To the peer and back, through the root: the handshake, with the
    // peer's addresses, and half of that again for this node's addresses. Then each challenge and its answer,
    // which need no root.
    assert_eq!(took, (40 + 80 + 40 + 40) * MS);
    let hit = |sent: &&Sent| sent.at >= begin && sent.bytes.len() == 38 && sent.to.port() != 7420;
    let first: Vec<_> =
        net.sent.iter().filter(hit).take(2).map(|sent| (sent.at - begin, sent.from)).collect();
    assert_eq!(first[0].0, first[1].0, "both sent at the same moment, so nothing came to a closed box");
    assert_ne!(first[0].1, first[1].1);
}

#[test]
fn a_port_that_was_made_for_this_destination_is_used_as_soon_as_it_is_heard() {
    for (near, far) in [(OPEN, SYMMETRIC), (SYMMETRIC, OPEN)] {
        let mut net = homes(near, far, 1, 20 * MS);
        net.send(0, 1, b"first");
        let took = direct_after(&mut net, SECOND).expect("a direct path");
        // As between boxes with known ports, but the open side sends where it hears the other one, so its
        // challenge leaves half a round trip later.
        assert_eq!(took, (40 + 80 + 40 + 40 + 20) * MS, "{near:?} {far:?}");
    }
}

#[test]
fn little_goes_over_the_relay_before_a_punched_path_carries_the_rest() {
    for roots in 1..=2 {
        let mut net = homes(PORT_CONE, PORT_CONE, roots, 25 * MS);
        let begin = net.now;
        net.send(0, 1, b"first");
        let took = direct_after(&mut net, SECOND).expect("a direct path");
        // Packets on their way still arrive.
        net.run(SECOND / 5);
        let frames = |net: &Net, since| -> usize {
            let to_root =
                |sent: &&Sent| sent.bytes[0] == RELAYED && sent.to.port() == 7420 && sent.at >= since;
            net.sent.iter().filter(to_root).map(|sent| sent.bytes.len()).sum()
        };
        let bytes = frames(&net, begin);
        assert!(bytes <= 4000, "{bytes} bytes in {took:?}");
        let after = net.now;
        talk(&mut net, 20 * SECOND);
        assert_eq!(frames(&net, after), 0, "the punched path carries the rest");
    }
}

#[test]
fn a_direct_path_is_not_left_for_handshakes_that_were_under_way_by_roots() {
    // With the longer latencies the answer by a root comes after further initiations have left by both.
    for latency in [10, 40, 70, 100] {
        for (first, jitter) in [(0, 0), (1, 0), (0, 9), (1, 9)] {
            let mut net = homes(PORT_CONE, PORT_CONE, 2, latency * MS);
            let mut number = 0;
            // Some by one root come later than others that were sent after them by the other root.
            net.filter = Box::new(move |sent| {
                number += 1;
                jitter == 0 || sent.bytes[0] != RELAYED || number % jitter != 0
            });
            net.send(first, 1 - first, b"first");
            direct_after(&mut net, 4 * SECOND).expect("a direct path");
            for _ in 0..3000 {
                net.run(MS);
                let both = is_direct(&mut net, 0) && is_direct(&mut net, 1);
                assert!(both, "{latency} ms, {first} began, {jitter}");
            }
        }
    }
}

#[test]
fn no_packet_is_lost_when_the_path_leaves_the_root() {
    let mut net = homes(PORT_CONE, PORT_CONE, 1, 25 * MS);
    let mut sent = Vec::new();
    for number in 0..200u32 {
        sent.push(number.to_be_bytes().to_vec());
        net.send(0, 1, &number.to_be_bytes());
        net.run(5 * MS);
    }
    net.run(SECOND);
    assert!(is_direct(&mut net, 0) && is_direct(&mut net, 1));
    let mut received = net.received(1);
    received.sort();
    assert_eq!(received, sent);
}

#[test]
fn a_box_that_forgets_its_mappings_is_punched_again() {
    for rebooted in 0..2 {
        let mut net = homes(PORT_CONE, PORT_CONE, 1, 10 * MS);
        net.send(0, 1, b"first");
        talk(&mut net, 3 * SECOND);
        assert!(is_direct(&mut net, 0) && is_direct(&mut net, 1));
        net.nats[rebooted].reboot();
        // The root learns the new mapping within its keepalive interval, and the other node learns it from
        // the root.
        talk(&mut net, 60 * SECOND);
        assert!(is_direct(&mut net, 0) && is_direct(&mut net, 1), "{rebooted}");
        let lost = |event: &Event| matches!(event, Event::SessionLost(_) | Event::PeerGone(..));
        assert_eq!(net.count(0, lost) + net.count(1, lost), 0);
    }
}

/// Creates two nodes on one LAN, behind a box that does not hairpin.
fn one_home() -> Net {
    let mut net = Net::new();
    net.nats.push(nat_box(1, PORT_CONE));
    for identity in [1, 2] {
        net.add_behind(0, identity);
    }
    start(&mut net, 1, 10 * MS);
    for node in 0..2 {
        say_interface(&mut net, node, Nat::default());
    }
    net.run(SECOND);
    net
}

#[test]
fn nodes_behind_one_box_use_their_private_addresses() {
    let mut net = one_home();
    net.send(0, 1, b"first");
    direct_after(&mut net, SECOND).expect("a direct path");
    assert_eq!(net.peer(0, 1).path().unwrap().remote(), net.nodes[1].socket);
    // Their public address is the box's, which does not hairpin.
    let attempts = net.nodes[0].endpoint.peers()[0].attempts.clone();
    let answered = attempts.iter().find(|one| one.outcome == DirectOutcome::Answered).unwrap();
    assert_eq!((answered.address, answered.kind), (net.nodes[1].socket, CandidateKind::Interface));
}

#[test]
fn why_each_address_was_no_use_is_told() {
    let mut net = homes(SYMMETRIC, SYMMETRIC, 1, 10 * MS);
    let inside = net.nodes[1].socket;
    let six: SocketAddr = "[2001:db8::7]:4000".parse().unwrap();
    let all = [inside, six].map(|address| Candidate { kind: CandidateKind::Interface, address });
    net.nodes[1].endpoint.set_contact(net.now, Contact::new(Nat::default(), all));
    net.send(0, 1, b"first");
    net.run(20 * SECOND);
    assert!(!is_direct(&mut net, 0));
    let info = &net.nodes[0].endpoint.peers()[0];
    let outcome = |address: SocketAddr| {
        let one = info.attempts.iter().find(|one| one.address == address).expect("it was named");
        (one.outcome, one.sent, one.vouched)
    };
    assert_eq!(outcome(inside), (DirectOutcome::NotTried(NotTried::OtherLan), 0, false));
    assert_eq!(outcome(six), (DirectOutcome::NotTried(NotTried::OtherFamily), 0, false));
    let seen = net.nodes[1].endpoint.roots(net.now)[0].observed.expect("a voucher");
    // Five dense packets, and twelve more a second apart.
    assert_eq!(outcome(seen), (DirectOutcome::Silent, 17, true));
    assert_eq!(info.contact.as_ref().map(|contact| contact.candidates().len()), Some(3));
}

#[test]
fn the_address_that_the_path_leads_to_has_answered_whoever_came_first() {
    let all =
        [(OPEN, OPEN), (OPEN, PORT_CONE), (PORT_CONE, PORT_CONE), (OPEN, SYMMETRIC), (PORT_CONE, COUNTING)];
    let boxes = all.into_iter().flat_map(|(one, other)| [(one, other), (other, one)]);
    let apart = boxes.map(|(near, far)| (format!("{near:?} {far:?}"), homes(near, far, 1, 25 * MS)));
    let nets = apart.chain([("one home".to_owned(), one_home())]);
    for (what, mut net) in nets {
        net.send(0, 1, b"first");
        direct_after(&mut net, SECOND).expect("a direct path");
        net.run(SECOND);
        for node in 0..2 {
            let path = net.peer(node, 1 - node).path().expect("it is direct").remote();
            for attempt in net.nodes[node].endpoint.peers()[0].attempts.clone() {
                let is_used = attempt.address == path && !attempt.by_tcp;
                assert!(
                    !is_used || attempt.outcome == DirectOutcome::Answered,
                    "{what}, {node}: {attempt:?}"
                );
                // All addresses that the nodes name here are vouched for.
                let refused = DirectOutcome::NotTried(NotTried::Unvouched);
                assert_ne!(attempt.outcome, refused, "{what}, {node}: {attempt:?}");
            }
        }
    }
}

#[test]
fn what_cannot_be_punched_is_tried_again_with_growing_pauses_while_data_flows() {
    let mut net = homes(SYMMETRIC, SYMMETRIC, 1, 10 * MS);
    net.send(0, 1, b"first");
    let mut rounds = Vec::new();
    let begin = net.now;
    while net.now - begin < Duration::from_secs(3000) {
        let before = net.counter(0, "punches_begun");
        net.send(0, 1, b"on");
        net.send(1, 0, b"and on");
        net.run(SECOND);
        if net.counter(0, "punches_begun") > before {
            rounds.push((net.now - begin).as_secs());
        }
    }
    let pauses: Vec<_> = rounds.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The pauses double from 30 s up to 600 s.
    assert!(pauses.is_sorted() && pauses[0] >= 30 && pauses.last() >= Some(&590), "{pauses:?}");
    assert!((6..=10).contains(&rounds.len()), "{rounds:?}");
    // Without data there is no reason to.
    let before = net.counter(0, "punches_begun") + net.counter(1, "punches_begun");
    net.run(Duration::from_secs(3000));
    assert_eq!(net.counter(0, "punches_begun") + net.counter(1, "punches_begun"), before);
}

#[test]
fn a_new_address_is_told_at_once() {
    let mut net = homes(SYMMETRIC, PORT_CONE, 1, 10 * MS);
    net.send(0, 1, b"first");
    talk(&mut net, 20 * SECOND);
    assert!(!is_direct(&mut net, 0));
    // A router forwards a port to node 0 from now on.
    let there: SocketAddr = "203.0.113.1:9999".parse().unwrap();
    net.nats[0].forward(9999, net.nodes[0].socket);
    let forwarded = Candidate { kind: CandidateKind::Forwarded, address: there };
    net.nodes[0].endpoint.set_contact(net.now, Contact::new(Nat::default(), [forwarded]));
    let took = net.wait(SECOND, |net| is_direct(net, 0) && is_direct(net, 1));
    assert!(took <= 200 * MS, "{took:?}");
    assert_eq!(net.peer(1, 0).path().unwrap().remote(), there);
}

#[test]
fn two_roots_show_whether_a_box_maps_by_destination() {
    for (cell, mapping) in [(PORT_CONE, Mapping::EndpointIndependent), (SYMMETRIC, Mapping::AddressDependent)]
    {
        for roots in [1, 2] {
            let mut net = homes(cell, cell, roots, 10 * MS);
            net.run(SECOND);
            let expected = if roots == 2 { mapping } else { Mapping::Unknown };
            let contact = net.nodes[0].endpoint.contact();
            assert_eq!(contact.nat.mapping, expected, "{roots} roots");
            assert!(contact.candidates().iter().all(|one| one.kind == CandidateKind::Mapped));
            let known = Nat { mapping: Mapping::AddressAndPortDependent, ..Nat::default() };
            net.nodes[0].endpoint.set_contact(net.now, Contact::new(known, []));
            assert_eq!(net.nodes[0].endpoint.contact().nat, known, "the driver knows better");
        }
    }
    let mut net = Net::pair();
    add_root(&mut net, 1);
    add_root(&mut net, 2);
    use_roots(&mut net, 0);
    say_interface(&mut net, 0, Nat::default());
    net.run(SECOND);
    assert_eq!(net.nodes[0].endpoint.contact().nat.mapping, Mapping::NoNat);
}

#[test]
fn nodes_that_learn_of_each_other_elsewhere_meet_without_any_root() {
    for (near, far, is_possible) in
        [(PORT_CONE, PORT_CONE, true), (OPEN, SYMMETRIC, true), (SYMMETRIC, SYMMETRIC, false)]
    {
        let mut net = boxes(near, far);
        net.latency = 25 * MS;
        let stun: SocketAddr = "198.51.100.9:3478".parse().unwrap();
        let contacts = [0, 1].map(|node| {
            let inner = net.nodes[node].socket;
            let address = net.nats[node].outbound(inner, stun);
            Contact::new(Nat::default(), [Candidate { kind: CandidateKind::Mapped, address }])
        });
        let id = open_network().id();
        let (begin, start) = (net.now, net.now + 2 * SECOND);
        for node in 0..2 {
            net.join(node, &open_network());
            net.nodes[node].endpoint.set_contact(begin, contacts[node].clone());
            let other = *Identity::from_seed(&[2 - node as u8; 32]).public();
            net.nodes[node].endpoint.meet(begin, &id, &other, &contacts[1 - node], start);
        }
        net.pump();
        net.run(15 * SECOND);
        let has_session =
            |net: &mut Net, at: usize| net.nodes[at].endpoint.peers()[0].peer.session().is_some();
        assert_eq!([0, 1].map(|at| has_session(&mut net, at)), [is_possible; 2], "{near:?} {far:?}");
        let sent = net.sent.iter().filter(|sent| sent.to == contacts[1].candidates()[0].address).count();
        assert!(sent <= 40, "{sent}");
        if is_possible {
            net.send(0, 1, b"first");
            net.wait(SECOND, |net| !net.received(1).is_empty());
        }
    }
}

#[test]
fn a_network_that_was_not_joined_has_nobody_to_meet() {
    let mut net = Net::pair();
    let other = *Identity::from_seed(&[2; 32]).public();
    let now = net.now;
    let id = NetworkId::ad_hoc(5..=5).expect("a range");
    net.nodes[0].endpoint.meet(now, &id, &other, &Contact::default(), now);
    net.run(SECOND);
    assert!(net.nodes[0].endpoint.peers().is_empty());
}

/// Creates two nodes, each behind a separate box, that are registered at `roots` roots.
pub(crate) fn homes(near: Cell, far: Cell, roots: u8, latency: Duration) -> Net {
    let mut net = boxes(near, far);
    start(&mut net, roots, latency);
    for (node, (.., ports, is_known)) in [near, far].into_iter().enumerate() {
        if let (Ports::Delta(delta), true) = (ports, is_known) {
            let mapping = Mapping::AddressAndPortDependent;
            let nat = Nat { mapping, port_delta: delta as i16, ..Nat::default() };
            net.nodes[node].endpoint.set_contact(net.now, Contact::new(nat, []));
        }
    }
    net.run(SECOND);
    net
}

fn boxes(near: Cell, far: Cell) -> Net {
    let mut net = Net::new();
    for (number, cell) in [(1, near), (2, far)] {
        net.nats.push(nat_box(number, cell));
        net.add_behind(usize::from(number) - 1, number);
    }
    net
}

fn nat_box(number: u8, (mapping, filtering, ports, _): Cell) -> NatBox {
    NatBox::new([203, 0, 113, number].into(), mapping, filtering, ports)
}

fn start(net: &mut Net, roots: u8, latency: Duration) {
    net.latency = latency;
    for root in 1..=roots {
        add_root(net, root);
    }
    for node in 0..net.nodes.len() {
        net.join(node, &open_network());
        use_roots(net, node);
    }
}

/// Makes the driver of a node find the address of its interface.
pub(crate) fn say_interface(net: &mut Net, node: usize, nat: Nat) {
    let address = net.nodes[node].socket;
    let contact = Contact::new(nat, [Candidate { kind: CandidateKind::Interface, address }]);
    net.nodes[node].endpoint.set_contact(net.now, contact);
}

/// Returns the time until both send directly.
pub(crate) fn direct_after(net: &mut Net, limit: Duration) -> Option<Duration> {
    let begin = net.now;
    while net.now - begin < limit {
        if !net.nodes[1].endpoint.peers().is_empty() && is_direct(net, 0) && is_direct(net, 1) {
            return Some(net.now - begin);
        }
        net.run(MS);
    }
    None
}

pub(crate) fn is_direct(net: &mut Net, at: usize) -> bool {
    let peers = net.nodes[at].endpoint.peers();
    peers.first().and_then(|info| info.path).is_some_and(|path| path.place.relay().is_none())
}
