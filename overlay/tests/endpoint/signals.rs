//! Signals to the layer above a peer: its program is gone, or packets pass again.

use std::time::{Duration, Instant};

use peersock_overlay::{Event, Gone, RecvMeta, SocketIndex};

use crate::net::{Net, UNIX_TIME, lan_socket, open_network};

const SECOND: Duration = Duration::from_secs(1);
const DATA: u8 = 0xD4;

#[test]
fn a_restart_is_told_once_whichever_side_finds_out() {
    for (port, from, to) in [(4000, 0, 1), (4000, 1, 0), (4001, 0, 1), (4001, 1, 0)] {
        let mut net = Net::connected_pair();
        net.run(20 * SECOND);
        net.restart(1, port, UNIX_TIME + 30 * SECOND);
        net.join(1, &open_network());
        net.send(from, to, b"who is there?");
        net.run(30 * SECOND);
        assert_eq!(gone(&net, 0), [Gone::Restarted], "{port} {from}->{to}");
        // The new node has no earlier instance to miss.
        assert_eq!(gone(&net, 1), []);
        let ready = net.nodes[0].events.iter().rposition(|(_, e)| matches!(e, Event::SessionReady(_)));
        let told = net.nodes[0].events.iter().rposition(|(_, e)| matches!(e, Event::PeerGone(..)));
        assert!(told < ready, "first the end, then the beginning");
    }
}

#[test]
fn a_restart_is_told_even_if_the_session_had_expired() {
    let mut net = Net::connected_pair();
    net.run(300 * SECOND);
    assert_eq!((net.count(0, |e| matches!(e, Event::SessionLost(_))), gone(&net, 0).len()), (1, 0));
    net.restart(1, 4000, UNIX_TIME + 400 * SECOND);
    net.join(1, &open_network());
    net.send(1, 0, b"I am new");
    net.run(SECOND);
    assert_eq!(gone(&net, 0), [Gone::Restarted]);
}

#[test]
fn expiry_rekeys_crossing_handshakes_and_outages_end_nothing() {
    let mut net = Net::acquainted_pair();
    // Both begin at once, then use the session for long, leave it idle until it expires, and meet again.
    net.send(0, 1, b"x");
    net.send(1, 0, b"y");
    for _ in 0..500 {
        net.send(0, 1, b"x");
        net.send(1, 0, b"y");
        net.run(SECOND);
    }
    assert!(net.counter(0, "rekeys") + net.counter(1, "rekeys") > 2);
    net.run(300 * SECOND);
    net.send(1, 0, b"again");
    net.run(SECOND);
    net.filter = Box::new(|_| false);
    for _ in 0..250 {
        net.send(0, 1, b"lost");
        net.run(SECOND);
    }
    net.filter = Box::new(|_| true);
    net.run(10 * SECOND);
    assert!(net.peer(0, 1).session().is_some());
    assert_eq!((gone(&net, 0), gone(&net, 1)), (vec![], vec![]));
}

#[test]
fn a_peer_that_leaves_is_gone() {
    let mut net = Net::connected_pair();
    let network = net.nodes[1].endpoint.networks()[0].index;
    net.nodes[1].endpoint.leave(net.now, network);
    net.run(SECOND);
    assert_eq!(gone(&net, 0), [Gone::Left]);
}

#[test]
fn what_strangers_can_say_or_repeat_ends_nothing() {
    let mut net = Net::connected_pair();
    // Everything that was ever sent comes again, from the right places and after a restart of the peer.
    net.restart(1, 4000, UNIX_TIME + 30 * SECOND);
    net.join(1, &open_network());
    net.send(1, 0, b"I am new");
    net.run(SECOND);
    assert_eq!(gone(&net, 0), [Gone::Restarted]);
    for datagram in net.sent.clone() {
        net.inject(datagram.clone());
        if datagram.bytes[0] == DATA {
            let mut unknown = datagram.clone();
            unknown.bytes.truncate(28);
            unknown.bytes[0] = 0xD7;
            (unknown.from, unknown.to) = (datagram.to, datagram.from);
            net.inject(unknown);
        }
        net.run(Duration::from_millis(20));
    }
    net.run(30 * SECOND);
    assert_eq!(gone(&net, 0), [Gone::Restarted]);
    assert_eq!(gone(&net, 1), []);
}

#[test]
fn a_killed_peer_is_gone_within_two_seconds_where_its_machine_answers() {
    // Linux quotes all of a short packet, others at least 8 bytes behind the UDP header of IPv6.
    for quoted in [12, 64, 548] {
        let mut net = pair_at("10.0.0.2:4000");
        net.latency = Duration::from_millis(20);
        net.refuses = Some(quoted);
        net.nodes[1].up = false;
        let took = send_until_gone(&mut net, Duration::from_millis(200), 10 * SECOND);
        assert!(took.is_some_and(|took| took <= 2 * SECOND), "{quoted}: {took:?}");
        net.run(60 * SECOND);
        assert_eq!(gone(&net, 0), [Gone::Refused], "it is told once");
    }
}

#[test]
fn one_packet_is_enough_to_find_out() {
    let mut net = pair_at("10.0.0.2:4000");
    net.refuses = Some(64);
    net.nodes[1].up = false;
    let began = net.now;
    net.send(0, 1, b"an acknowledgement");
    net.wait(10 * SECOND, |net| !gone(net, 0).is_empty());
    assert!(net.now - began <= 2 * SECOND);
}

#[test]
fn a_peer_that_says_nothing_at_all_is_not_taken_for_dead() {
    let mut net = Net::connected_pair();
    net.nodes[1].up = false;
    assert_eq!(send_until_gone(&mut net, SECOND, 400 * SECOND), None);
}

#[test]
fn a_peer_behind_a_box_that_may_have_forgotten_it_has_twenty_seconds() {
    let mut net = pair_at("198.51.100.2:4000");
    net.refuses = Some(64);
    net.nodes[1].up = false;
    let took = send_until_gone(&mut net, SECOND, 60 * SECOND).expect("an end");
    assert!((20 * SECOND..23 * SECOND).contains(&took), "{took:?}");
    // It was not dead after all: the next time it has its twenty seconds again.
    net.nodes[1].up = true;
    net.send(1, 0, b"still here");
    net.run(5 * SECOND);
    net.nodes[0].events.clear();
    net.nodes[1].up = false;
    assert_eq!(send_until_gone(&mut net, SECOND, 15 * SECOND), None);
}

#[test]
fn forged_refusals_end_nothing() {
    let mut net = pair_at("10.0.0.2:4000");
    let remote = net.nodes[1].socket;
    let initiations = net.counter(0, "initiations_sent");
    for round in 0..20_000u32 {
        // Wrong quotes, short quotes, and the true bytes, which an attacker on the way may know: the peer is
        // there to deny it.
        let truth = net.sent.iter().rfind(|sent| sent.to == remote).expect("a datagram").bytes.clone();
        let quoted = match round % 3 {
            0 => vec![DATA; 64],
            1 => Vec::new(),
            _ => truth,
        };
        net.nodes[0].endpoint.handle_refusal(net.now, remote, &quoted);
        net.run(Duration::from_millis(1));
    }
    assert_eq!(gone(&net, 0), []);
    let rate = (net.counter(0, "initiations_sent") - initiations) / 20;
    // Limited, because an attacker on the path can forge a refusal after each sign of life.
    assert!(rate <= 5, "{rate} initiations a second");
}

#[test]
fn packets_pass_is_told_within_a_second_of_the_end_of_an_outage() {
    for seconds in [2, 30, 120, 170, 400] {
        for (from, to) in [(0, 1), (1, 0)] {
            let mut net = Net::connected_pair();
            net.send(to, from, b"a session that both use");
            net.run(SECOND);
            net.filter = Box::new(|_| false);
            for _ in 0..seconds {
                // As TCP does, it asks the overlay to check when it hears nothing. The other side has packets
                // on their way, too, because without any, nothing can leave earlier.
                net.send(from, to, b"lost");
                net.send(to, from, b"lost");
                let peer = net.peer(from, to);
                net.nodes[from].endpoint.peer_unresponsive(net.now, &peer);
                net.run(SECOND);
            }
            net.filter = Box::new(|_| true);
            let back = net.now;
            for node in &mut net.nodes {
                node.events.clear();
            }
            net.run(2 * SECOND);
            for node in [from, to] {
                let took = passes(&net, node).expect("an event") - back;
                // Initiations to a peer that was reached before are repeated once a second.
                assert!(took <= 1010 * SECOND / 1000, "{seconds} s, {from}->{to}, {node}: {took:?}");
            }
        }
    }
}

#[test]
fn one_way_outages_are_noticed_by_those_who_are_not_heard() {
    let mut net = Net::connected_pair();
    let muted = net.nodes[1].socket;
    net.filter = Box::new(move |datagram| datagram.from != muted);
    for _ in 0..10 {
        net.send(0, 1, b"heard, and not answered");
        net.send(1, 0, b"lost");
        let peer = net.peer(0, 1);
        net.nodes[0].endpoint.peer_unresponsive(net.now, &peer);
        net.run(SECOND);
    }
    net.filter = Box::new(|_| true);
    let back = net.now;
    net.nodes[1].events.clear();
    net.run(2 * SECOND);
    let took = passes(&net, 1).expect("an event") - back;
    assert!(took <= 1010 * SECOND / 1000, "{took:?}");
}

#[test]
fn a_node_whose_address_changes_says_so_to_its_peers() {
    for (mover, other) in [(0, 1), (1, 0)] {
        let mut net = Net::connected_pair();
        net.run(5 * SECOND);
        net.nodes[mover].socket.set_port(5555);
        net.nodes[mover].endpoint.set_sockets(net.now, vec![lan_socket()]);
        let moved = net.now;
        for node in &mut net.nodes {
            node.events.clear();
        }
        net.run(SECOND);
        assert_eq!(net.peer(other, mover).path().map(|path| path.remote().port()), Some(5555));
        for node in 0..2 {
            let took = passes(&net, node).expect("an event") - moved;
            assert!(took <= Duration::from_millis(5), "{node}: {took:?}");
        }
    }
}

#[test]
fn an_announcement_is_repeated_until_it_is_answered_and_then_no_more() {
    let mut net = Net::connected_pair();
    net.run(5 * SECOND);
    // The new address works only after 800 ms.
    let open = net.now + Duration::from_millis(800);
    net.filter = Box::new(move |datagram| datagram.at >= open);
    net.nodes[1].socket.set_port(5555);
    net.nodes[1].endpoint.set_sockets(net.now, vec![lan_socket()]);
    let moved = net.now;
    net.wait(3 * SECOND, |net| net.peer(0, 1).path().is_some_and(|path| path.remote().port() == 5555));
    assert!(net.now - moved <= 1100 * SECOND / 1000, "{:?}", net.now - moved);
    net.run(SECOND);
    let probes = net.counter(1, "probes_sent");
    net.run(10 * SECOND);
    assert_eq!(net.counter(1, "probes_sent"), probes);
    // A peer that is not there any more costs five small packets and one short attempt.
    net.nodes[0].up = false;
    let sent = net.sent.len();
    net.nodes[1].endpoint.set_sockets(net.now, vec![lan_socket()]);
    net.run(60 * SECOND);
    let to_peer = net.sent[sent..].iter().filter(|datagram| datagram.to == net.nodes[0].socket).count();
    assert!(to_peer <= 5 + 10, "{to_peer}");
}

#[test]
fn an_address_that_is_exchanged_is_announced_at_once_though_that_makes_two_changes() {
    let mut net = Net::connected_pair();
    net.run(5 * SECOND);
    // One address goes, and the other comes a moment later.
    let moved = net.now;
    let open = moved + Duration::from_millis(4);
    net.filter = Box::new(move |datagram| datagram.at >= open);
    net.nodes[1].socket.set_port(5555);
    net.nodes[1].endpoint.set_sockets(net.now, vec![lan_socket()]);
    net.run(Duration::from_millis(4));
    net.nodes[1].endpoint.set_sockets(net.now, vec![lan_socket()]);
    net.wait(3 * SECOND, |net| net.peer(0, 1).path().is_some_and(|path| path.remote().port() == 5555));
    assert!(net.now - moved <= Duration::from_millis(150), "{:?}", net.now - moved);
}

#[test]
fn a_node_without_peers_announces_itself_to_nobody() {
    let mut net = Net::pair();
    net.join(0, &open_network());
    net.nodes[0].endpoint.set_sockets(net.now, vec![lan_socket()]);
    net.run(SECOND);
    assert_eq!(net.counter(0, "probes_sent"), 0);
    let meta =
        RecvMeta { remote: net.nodes[1].socket, socket: SocketIndex(0), multicast: false, relay: None };
    net.nodes[0].endpoint.handle_refusal(net.now, meta.remote, &[]);
}

/// Creates two nodes with a session, the second of which has this address.
pub(crate) fn pair_at(address: &str) -> Net {
    let mut net = Net::connected_pair();
    net.nodes[1].socket = address.parse().expect("an address");
    net.send(1, 0, b"from elsewhere");
    net.run(5 * SECOND);
    net
}

/// Makes node 0 send to node 1 at this interval; returns when it was told that node 1 is gone.
fn send_until_gone(net: &mut Net, interval: Duration, limit: Duration) -> Option<Duration> {
    let began = net.now;
    let before = gone(net, 0).len();
    while net.now - began < limit {
        net.send(0, 1, b"x");
        let next = net.now + interval;
        while net.now < next {
            net.run(Duration::from_millis(10));
            if gone(net, 0).len() > before {
                return Some(net.now - began);
            }
        }
    }
    None
}

/// Returns the ends that a node was told of, in order.
pub(crate) fn gone(net: &Net, node: usize) -> Vec<Gone> {
    let events = net.nodes[node].events.iter();
    events
        .filter_map(|(_, event)| if let Event::PeerGone(_, gone) = event { Some(*gone) } else { None })
        .collect()
}

/// Returns when a node was first told that packets pass.
fn passes(net: &Net, node: usize) -> Option<Instant> {
    let told = |event: &Event| matches!(event, Event::PathConfirmed(_) | Event::SessionReady(_));
    net.nodes[node].events.iter().find(|(_, event)| told(event)).map(|(at, _)| *at)
}
