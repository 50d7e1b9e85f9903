//! Nodes whose UDP does not pass connect to each other by TCP.
//!
//! A connection has the same number at both ends except for the last bit. It is made if both sides connect to
//! each other's address, or one to the other, which listens, and no box is in between.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use peersock_overlay::wire::Candidates;
use peersock_overlay::{
    Candidate, CandidateKind, Contact, Event, Nat, Place, RecvMeta, RootConfig, SocketIndex, TcpAction,
    TcpPunch,
};

use crate::net::{Net, Node, Sent, open_network};
use crate::roots::add_root;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

#[test]
fn nodes_without_udp_to_each_other_connect_by_tcp_and_go_on_when_the_root_is_gone() {
    let mut net = apart(20 * MS);
    net.send(0, 1, b"first");
    let took = net.wait(5 * SECOND, |net| is_by_tcp(net, 0) && is_by_tcp(net, 1));
    // The round by UDP has its two seconds, because UDP leads to the root.
    assert!((2 * SECOND..4 * SECOND).contains(&took), "{took:?}");
    let [one, other] = [net.peer(0, 1), net.peer(1, 0)].map(|peer| peer.path().unwrap().socket());
    assert_eq!(one.0 ^ 1, other.0, "both send on the same connection");
    for node in 0..2 {
        let info = &net.nodes[node].endpoint.peers()[0];
        assert_eq!(info.root, None);
        assert!(info.candidates.is_empty(), "the end of a connection is nowhere: {:?}", info.candidates);
    }
    // The unneeded one is closed.
    net.run(20 * SECOND);
    assert_eq!([0, 1].map(|node| net.nodes[node].tcp.len()), [1, 1]);
    net.roots[0].up = false;
    for _ in 0..600 {
        net.nodes[1].inbox.clear();
        net.send(0, 1, b"still here");
        net.run(SECOND);
        assert_eq!(net.received(1), [b"still here".to_vec()]);
    }
    assert_eq!(net.count(0, |event| matches!(event, Event::SessionLost(_))), 0);
}

#[test]
fn a_connection_that_ends_is_missed_at_once_and_the_root_relays_again() {
    let mut net = apart(20 * MS);
    net.send(0, 1, b"first");
    net.wait(5 * SECOND, |net| is_by_tcp(net, 0) && is_by_tcp(net, 1));
    for node in 0..2 {
        for (socket, ..) in std::mem::take(&mut net.nodes[node].tcp) {
            net.nodes[node].endpoint.tcp_closed(net.now, socket);
        }
    }
    net.nodes[1].inbox.clear();
    net.wait(2 * SECOND, |net| {
        net.send(0, 1, b"again");
        !net.received(1).is_empty() && !is_by_tcp(net, 0) && !is_by_tcp(net, 1)
    });
    net.wait(40 * SECOND, |net| {
        net.send(0, 1, b"again");
        is_by_tcp(net, 0) && is_by_tcp(net, 1)
    });
}

#[test]
fn who_has_it_switched_off_is_not_connected_to() {
    let mut net = Net::new();
    net.tcp_punch = false;
    net.add(1);
    net.tcp_punch = true;
    net.add(2);
    arrange(&mut net, 10 * MS);
    net.send(0, 1, b"first");
    for _ in 0..300 {
        net.send(0, 1, b"more");
        net.run(SECOND);
    }
    assert_eq!([0, 1].map(|node| net.counter(node, "tcp_punches_begun")), [0, 0]);
    assert!(net.nodes.iter().all(|node| node.punched.is_empty()));
    assert!(net.counter(0, "candidates_received") > 0 && net.received(1).len() >= 300, "the root relays");
}

#[test]
fn a_stranger_who_connects_hears_nothing_and_is_closed() {
    let mut net = apart(10 * MS);
    let strange: SocketAddr = "198.51.100.66:6666".parse().unwrap();
    for number in 100..120 {
        let socket = SocketIndex::peer_stream(number);
        let taken = net.nodes[0].endpoint.tcp_opened(net.now, None, socket, strange);
        assert_eq!(taken, number < 108, "eight at a time");
        let meta = RecvMeta { remote: socket.stream_end().unwrap(), socket, multicast: false, relay: None };
        let initiation = net.sent.iter().find(|sent| sent.bytes[0] == 0xD1).map(|sent| sent.bytes.clone());
        let beacon = net.sent.iter().find(|sent| sent.bytes[0] == 0xD5).map(|sent| sent.bytes.clone());
        let mut data = vec![0xD4; 60];
        data[1..4].fill(number as u8);
        for bytes in initiation.into_iter().chain(beacon).chain([data, vec![0xFF; 40]]) {
            net.deliver(0, meta, &bytes);
        }
    }
    assert!(net.counter(0, "tcp_strangers_dropped") >= 8 * 3);
    assert_eq!(net.counter(0, "tcp_streams_refused"), 12);
    let before = net.sent.len();
    net.run(6 * SECOND);
    let is_answer = |sent: &&Sent| matches!(sent.to.ip(), IpAddr::V6(_));
    assert_eq!(net.sent[before..].iter().filter(is_answer).count(), 0);
    assert_eq!(net.nodes[0].closed.len(), 8);
}

#[test]
fn a_member_cannot_aim_connections_at_third_parties() {
    let mut net = apart(10 * MS);
    net.filter = Box::new(|sent| sent.from.port() == 7420 || sent.to.port() == 7420);
    net.send(0, 1, b"first");
    net.wait(2 * SECOND, |net| !net.received(1).is_empty());
    let peer = net.peer(1, 0);
    // Node 1 is hostile: it asks all the time, and each time names other victims' addresses.
    let start = net.now;
    for round in 0..3600_u32 {
        let named = (0..16).map(|n| {
            let host = (round * 16 + n).to_be_bytes();
            let port = [22, 443, 5000, 6000][n as usize % 4];
            let address = SocketAddr::from(([203, host[1], host[2], host[3]], port));
            Candidate { kind: CandidateKind::Mapped, address }
        });
        let contact = Contact::new(Nat::default(), named);
        let (of_tcp, is_question, id, vouchers) = (true, true, round, Vec::new());
        let mut plaintext = Vec::new();
        Candidates { of_tcp, is_question, id, round_trip: 0, contact, vouchers }.emit(&mut plaintext);
        let sent = peersock_testnet::send(&mut net.nodes[1].endpoint, net.now, &peer, &plaintext);
        let (place, bytes) = sent.expect("a session");
        net.transmit(1, &place, bytes);
        net.run(SECOND);
    }
    let own = net.nodes[1].socket.ip();
    let punched = net.nodes[0].punched.iter().flat_map(|(_, punch)| &punch.targets);
    let others: Vec<_> = punched.filter(|target| target.address.ip() != own).collect();
    assert!(!others.is_empty(), "the test aims");
    assert!(others.iter().all(|target| target.tries == 1 && target.address.port() >= 1024), "{others:?}");
    assert!(others.len() <= 8 + 3600 / 30, "{}", others.len());
    for (at, punch) in &net.nodes[0].punched {
        let strange = punch.targets.iter().filter(|target| target.address.ip() != own).count();
        assert!(punch.targets.len() <= 6 && strange <= 2, "{at:?}: {punch:?}");
    }
    let rounds = net.nodes[0].punched.len();
    assert!(rounds as u64 <= (net.now - start).as_secs() / 20 + 10, "{rounds}");
}

/// Creates two nodes that reach a root, and each other only by TCP.
fn apart(latency: Duration) -> Net {
    let mut net = Net::new();
    net.tcp_punch = true;
    net.add(1);
    net.add(2);
    arrange(&mut net, latency);
    net
}

fn arrange(net: &mut Net, latency: Duration) {
    net.filter =
        Box::new(|sent| sent.from.port() == 7420 || sent.to.port() == 7420 || is_tcp(&sent.to).is_some());
    add_root(net, 1);
    for node in 0..2 {
        net.join(node, &open_network());
        let root = &net.roots[0];
        let config = RootConfig::new(*root.root.identity(), vec![root.socket]);
        let own = Candidate { kind: CandidateKind::Interface, address: net.nodes[node].socket };
        let (endpoint, now) = (&mut net.nodes[node].endpoint, net.now);
        endpoint.set_contact(now, Contact::new(Nat::default(), [own]));
        endpoint.set_roots(now, vec![config]);
    }
    net.run(SECOND);
    net.latency = latency;
}

fn is_by_tcp(net: &mut Net, node: usize) -> bool {
    let peers = net.nodes[node].endpoint.peers();
    let path = peers.first().and_then(|info| info.path);
    path.is_some_and(|path| path.socket().is_peer_stream())
}

/// Returns the number of the connection that carries a datagram.
fn is_tcp(to: &SocketAddr) -> Option<u16> {
    let IpAddr::V6(ip) = to.ip() else { return None };
    let number = ip.segments()[7] & 0x3FFF;
    (SocketIndex::peer_stream(number).stream_end() == Some(*to)).then_some(number)
}

/// Performs a node's tasks for its driver: it connects as soon as the other side listens.
pub(crate) fn keep(nodes: &mut [Node], now: Instant) {
    for index in 0..nodes.len() {
        while let Some(action) = nodes[index].endpoint.poll_tcp() {
            match action {
                TcpAction::Punch(punch) => nodes[index].punched.push((now + punch.after, punch)),
                TcpAction::Close(socket) => {
                    nodes[index].closed.push(socket);
                    close(nodes, index, socket, now);
                }
                _ => {}
            }
        }
    }
    for index in 0..nodes.len() {
        connect(nodes, index, now);
    }
}

fn close(nodes: &mut [Node], index: usize, socket: SocketIndex, now: Instant) {
    nodes[index].tcp.retain(|open| open.0 != socket);
    let other = SocketIndex(socket.0 ^ 1);
    for node in nodes.iter_mut().filter(|node| node.tcp.iter().any(|open| open.0 == other)) {
        node.tcp.retain(|open| open.0 != other);
        node.endpoint.tcp_closed(now, other);
    }
}

/// Opens the connections of a node's last round to nodes that listen.
fn connect(nodes: &mut [Node], index: usize, now: Instant) {
    let running = |node: &Node| {
        let last = node.punched.last().filter(|(start, punch)| now >= *start && now < *start + punch.lasts);
        last.map(|(_, punch)| punch.clone())
    };
    let Some(TcpPunch { id, targets, .. }) = running(&nodes[index]) else { return };
    for target in targets {
        let is_there = |node: &Node| {
            let port = running(node).map(|punch| punch.port);
            node.up && port == Some(target.address.port()) && node.socket.ip() == target.address.ip()
        };
        let Some(other) = nodes.iter().position(is_there).filter(|other| *other != index) else { continue };
        let is_known = nodes[index].tcp.iter().any(|(_, known, by)| *known == other && *by == id);
        if is_known {
            continue;
        }
        let number = nodes.iter().flat_map(|node| &node.tcp).map(|open| open.0.0 & 0x3FFF).max();
        let number = number.map_or(0, |number| (number | 1) + 1);
        let ends = [number, number + 1].map(SocketIndex::peer_stream);
        let remote = nodes[index].socket;
        for (node, end, peer, by, remote) in
            [(index, ends[0], other, Some(id), target.address), (other, ends[1], index, None, remote)]
        {
            nodes[node].tcp.push((end, peer, by.unwrap_or_default()));
            assert!(nodes[node].endpoint.tcp_opened(now, by, end, remote));
        }
    }
}

/// Returns the node at the other end of the connection that carries a datagram.
pub(crate) fn arrive(nodes: &[Node], sent: &Sent) -> Option<(usize, RecvMeta)> {
    let socket = SocketIndex::peer_stream(is_tcp(&sent.to)? ^ 1);
    let index = nodes.iter().position(|node| node.tcp.iter().any(|open| open.0 == socket))?;
    let meta = RecvMeta { remote: socket.stream_end()?, socket, multicast: false, relay: None };
    Some((index, meta))
}

#[test]
fn places_by_a_connection_say_so() {
    let socket = SocketIndex::peer_stream(4);
    let place = Place::Direct { socket, remote: socket.stream_end().unwrap() };
    assert_eq!(place.to_string(), "TCP connection 4");
}
