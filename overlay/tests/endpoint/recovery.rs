//! Peers that die, restart, leave or are cut off, and the time until packets flow again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peersock_overlay::{
    Event, Identity, NetworkConfig, NetworkIndex, RecvMeta, SealError, SocketIndex, StaticMember,
    StaticNetwork,
};

use crate::net::{Net, UNIX_TIME, lan_socket, open_network};

const DATA: u8 = 0xD4;
const BEACON: u8 = 0xD5;
const UNKNOWN_SESSION: u8 = 0xD7;

#[test]
fn a_restarted_peer_on_the_lan_is_reached_again_at_once() {
    for (port, from, to) in [(4001, 0, 1), (4001, 1, 0), (4000, 0, 1), (4000, 1, 0)] {
        let mut net = Net::connected_pair();
        net.run(Duration::from_secs(20));
        net.restart(1, port, UNIX_TIME + Duration::from_secs(30));
        net.join(1, &open_network());
        net.nodes[0].inbox.clear();
        let took = probe_until_received(&mut net, from, to);
        // Beacon, hello, hello, initiation, response, and then a packet.
        assert!(took <= Duration::from_millis(20), "{port} {from}->{to}: {took:?}");
    }
}

#[test]
fn a_restarted_peer_is_noticed_over_a_round_trip_of_ten_seconds() {
    let mut net = Net::connected_pair();
    net.latency = Duration::from_secs(5);
    net.run(Duration::from_secs(60));
    net.restart(1, 4001, UNIX_TIME + Duration::from_secs(70));
    net.join(1, &open_network());
    let before = net.counter(0, "sessions_established");
    // Beacon, hello, hello, hello, initiation, response; no node has data for the other.
    let took = net.wait(Duration::from_secs(60), |net| net.counter(0, "sessions_established") > before);
    assert!(took <= net.latency * 6, "{took:?}");
}

#[test]
fn a_restart_shows_as_session_lost_and_ready() {
    let mut net = Net::connected_pair();
    net.nodes[0].events.clear();
    net.restart(1, 4001, UNIX_TIME + Duration::from_secs(30));
    net.join(1, &open_network());
    net.run(Duration::from_secs(1));
    let story: Vec<_> = net.nodes[0].events.iter().map(|(_, event)| format!("{event:?}")).collect();
    let at = |what: &str| story.iter().position(|event| event.starts_with(what)).expect(what);
    assert!(at("SessionLost") < at("SessionReady"), "{story:?}");
    assert_eq!(net.counter(0, "restarts_noticed"), 1);
    assert_eq!(net.peer(0, 1).path().map(|path| path.remote().port()), Some(4001));
}

#[test]
fn a_restarted_peer_without_beacons_is_found_by_its_answer_to_our_packet() {
    let mut net = static_pair();
    net.send(0, 1, b"hello");
    net.run(Duration::from_secs(20));
    net.restart(1, 4000, UNIX_TIME + Duration::from_secs(30));
    net.nodes[1].endpoint.set_sockets(net.now, vec![socket_without_beacons()]);
    net.join(1, &static_network());
    let took = probe_until_received(&mut net, 0, 1);
    assert!(took <= Duration::from_millis(20), "{took:?}");
    assert!(net.counter(0, "unknown_session_received") > 0);
}

#[test]
fn a_dropped_endpoint_leaves_neither_memory_nor_keys_behind() {
    let mut net = Net::connected_pair();
    let peer = net.peer(0, 1);
    let session = peer.sender().expect("connected").session;
    drop(net);
    assert_eq!(session.seal(&[], &mut [0; 64]), Err(SealError::Expired));
    let left = (Arc::downgrade(&peer), Arc::downgrade(&session));
    drop((peer, session));
    assert!(left.0.upgrade().is_none() && left.1.upgrade().is_none(), "they hold each other");
}

#[test]
fn forged_hints_neither_end_a_session_nor_make_a_flood() {
    let mut net = Net::connected_pair();
    net.send(0, 1, b"x");
    let mut hint = net.sent.iter().rfind(|sent| sent.bytes[0] == DATA).unwrap().bytes[..28].to_vec();
    hint[0] = UNKNOWN_SESSION;
    let remote = net.nodes[1].socket;
    let initiations = net.counter(0, "initiations_sent");
    for _ in 0..10_000 {
        net.deliver(0, RecvMeta { remote, socket: SocketIndex(0), multicast: false, relay: None }, &hint);
        net.run(Duration::from_millis(1));
    }
    // In ten seconds: three hints at once, and then one in 5 s.
    assert!(net.counter(0, "initiations_sent") - initiations <= 6);
    assert_eq!(net.count(0, |event| matches!(event, Event::SessionLost(_))), 0);
}

#[test]
fn traffic_recovers_within_a_second_of_a_partition_of_any_length() {
    for length in [1, 10, 20, 60, 100, 200, 400] {
        let mut net = Net::connected_pair();
        net.filter = Box::new(|_| false);
        for _ in 0..length * 2 {
            net.send(0, 1, b"lost");
            net.run(Duration::from_millis(500));
        }
        net.filter = Box::new(|_| true);
        net.nodes[1].inbox.clear();
        let took = probe_until_received(&mut net, 0, 1);
        // Initiations to a peer that was reached before are repeated once a second.
        assert!(took <= Duration::from_millis(1100), "{length} s: {took:?}");
    }
}

#[test]
fn a_dead_peer_is_noticed_after_fifteen_seconds_of_silence() {
    let mut net = Net::connected_pair();
    net.nodes[1].up = false;
    let begin = net.now;
    for _ in 0..25 {
        net.send(0, 1, b"x");
        net.run(Duration::from_secs(1));
    }
    let unreachable = |(_, event): &&(_, Event)| matches!(event, Event::PeerSilent(_));
    let when = net.nodes[0].events.iter().find(unreachable).expect("an event").0 - begin;
    // After 15 s of silence a handshake begins, and it has 5 s.
    assert!((Duration::from_secs(20)..Duration::from_secs(22)).contains(&when), "{when:?}");
}

#[test]
fn a_hint_from_above_finds_a_moved_peer_at_once() {
    let mut net = Net::connected_pair();
    net.run(Duration::from_secs(20));
    // The peer's address changes; the peer does not know that and sends nothing.
    net.nodes[1].socket.set_port(4009);
    let peer = net.peer(0, 1);
    net.nodes[0].endpoint.peer_unresponsive(net.now, &peer);
    let begin = net.now;
    net.wait(Duration::from_secs(2), |net| net.peer(0, 1).path().is_some_and(|p| p.remote().port() == 4009));
    assert!(net.now - begin <= Duration::from_millis(300), "{:?}", net.now - begin);
}

#[test]
fn leaving_tells_the_peers() {
    let mut net = Net::connected_pair();
    net.nodes[0].endpoint.leave(net.now, NetworkIndex(0));
    net.run(Duration::from_millis(5));
    assert!(net.nodes.iter().all(|node| node.endpoint.sessions().is_empty()));
    assert_eq!(net.count(0, |event| matches!(event, Event::PeerRemoved(_))), 1);
    assert_eq!(net.count(1, |event| matches!(event, Event::SessionLost(_))), 1);
    assert!(net.nodes[0].endpoint.networks().is_empty() && net.nodes[0].endpoint.peers().is_empty());
    assert_eq!(net.counter(1, "closes_received"), 1);
    // It can come back.
    net.join(0, &open_network());
    net.send(1, 0, b"welcome");
    net.wait(Duration::from_millis(20), |net| net.received(0) == [b"welcome".to_vec()]);
}

#[test]
fn everything_stops_once_all_networks_are_left() {
    let mut net = Net::connected_pair();
    net.nodes[0].endpoint.leave(net.now, NetworkIndex(0));
    net.run(Duration::from_millis(5));
    let before = net.sent.iter().filter(|sent| sent.from == net.nodes[0].socket).count();
    assert_eq!(net.nodes[0].endpoint.poll_timeout(), None);
    net.run(Duration::from_secs(100));
    assert_eq!(net.sent.iter().filter(|sent| sent.from == net.nodes[0].socket).count(), before);
}

/// Sends a packet every millisecond until one arrives, and returns when the first one could arrive.
fn probe_until_received(net: &mut Net, from: usize, to: usize) -> Duration {
    let begin = net.now;
    while net.nodes[to].inbox.is_empty() {
        net.send(from, to, b"are you there?");
        net.run(Duration::from_millis(1));
        assert!(net.now - begin < Duration::from_secs(60), "never");
    }
    net.now - begin
}

fn static_network() -> NetworkConfig {
    let member = |seed: u8| StaticMember {
        identity: *Identity::from_seed(&[seed; 32]).public(),
        name: None,
        addresses: vec![[10, 0, 0, seed].into()],
        endpoints: vec![SocketAddr::from(([192, 0, 2, seed], 4000))],
        routes: Vec::new(),
        exit: peersock_overlay::Exit::default(),
    };
    let id = "fe00000000000001".parse().expect("an ID");
    NetworkConfig::Static(StaticNetwork {
        id,
        psk: None,
        members: vec![member(1), member(2)],
        exit: None,
        program: None,
    })
}

/// Creates two nodes that know each other's endpoints and hear no beacons.
fn static_pair() -> Net {
    let mut net = Net::pair();
    net.filter = Box::new(|datagram| datagram.bytes[0] != BEACON);
    for node in 0..2 {
        net.nodes[node].endpoint.set_sockets(net.now, vec![socket_without_beacons()]);
        net.join(node, &static_network());
    }
    net
}

fn socket_without_beacons() -> peersock_overlay::SocketInfo {
    peersock_overlay::SocketInfo { beacon_targets: Vec::new(), ..lan_socket() }
}
