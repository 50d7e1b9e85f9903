//! Peers with connections that are heard again on the local network after a long outage.

use std::net::SocketAddr;
use std::time::Duration;

use peersock_overlay::wire::{Beacon, Hello};
use peersock_overlay::{Identity, RecvMeta, SocketIndex, SuiteSet, Watch};

use crate::net::{GROUP, Net, Node, Sent, open_network};

const BEACON: u8 = 0xD5;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_session_is_back_within_a_second_of_the_first_beacon_after_a_long_outage() {
    // After ten minutes the peer is forgotten, and its connections are the stack's to know.
    for minutes in [4, 6, 8, 9] {
        for latency in [1, 50, 200] {
            let mut net = Net::connected_pair();
            net.latency = Duration::from_millis(latency);
            let _watched = watched(&mut net, 1);
            net.run(SECOND);
            let since = outage(&mut net, minutes * MINUTE);
            net.wait(31 * SECOND, |net| beacons_since(net, since).next().is_some());
            // Beacon, hello, hello, hello, initiation, response, and the first packet.
            let took = net.wait(MINUTE, |net| net.nodes.iter().all(is_connected));
            assert!(took <= net.latency * 7, "{minutes} min, {latency} ms: {took:?}");
        }
    }
}

#[test]
fn a_peer_without_connections_is_heard_for_nothing() {
    let mut net = Net::connected_pair();
    net.run(SECOND);
    let since = outage(&mut net, 6 * MINUTE);
    let before = net.counter(0, "attempts_started") + net.counter(1, "attempts_started");
    net.run(5 * MINUTE);
    assert!(beacons_since(&net, since).count() >= 20);
    assert_eq!(net.counter(0, "attempts_started") + net.counter(1, "attempts_started"), before);
}

#[test]
fn an_absent_peer_whose_beacons_are_heard_costs_a_few_datagrams_for_each() {
    // A switch between them passes what goes to all alone.
    let mut net = Net::connected_pair();
    let _watched = watched(&mut net, 1);
    net.run(SECOND);
    let group = group();
    net.filter = Box::new(move |sent| sent.to == group);
    net.run(10 * MINUTE);
    let (sent, since) = (net.sent.len(), net.now);
    net.run(60 * MINUTE);
    let beacons = beacons_since(&net, since).count();
    // Both send a beacon in 20 to 30 s as ever, and the search that grows rarer asks now and then.
    assert!(beacons <= 2 * 3600 / 20 + 20, "{beacons} beacons");
    let others = net.sent.len() - sent - beacons;
    assert!(others <= 7 * beacons, "{others} datagrams for {beacons} beacons");
}

#[test]
fn forged_beacons_of_strangers_start_nothing() {
    let mut net = Net::connected_pair();
    let _watched = watched(&mut net, 1);
    net.run(SECOND);
    let before = away(&mut net);
    let friend = net.nodes[1].socket;
    let mut beacon = vec![7; Beacon::LEN];
    beacon[..2].copy_from_slice(&[BEACON, 1]);
    for n in 0u32..20_000 {
        beacon[2..6].copy_from_slice(&n.to_be_bytes());
        let from = if n % 2 == 0 { friend } else { SocketAddr::from(([192, 0, 2, (n % 250) as u8], 4000)) };
        hear(&mut net, from, &beacon);
        net.run(Duration::from_millis(1));
    }
    assert_eq!(started(&net), before);
    // They have not made the node deaf either.
    net.nodes[1].up = true;
    let took = net.wait(32 * SECOND, |net| is_connected(&net.nodes[0]));
    assert!(took <= 31 * SECOND, "{took:?}");
}

#[test]
fn a_flood_of_repeated_beacons_of_an_absent_peer_costs_an_attempt_in_five_seconds() {
    let mut net = Net::connected_pair();
    let _watched = watched(&mut net, 1);
    net.run(MINUTE);
    let friend = net.nodes[1].socket;
    let replayed = net.sent.iter().rfind(|sent| sent.from == friend && sent.bytes[0] == BEACON);
    let replayed = replayed.expect("a beacon").bytes.clone();
    let before = away(&mut net);
    let (sent, beacons) = (net.sent.len(), net.counter(0, "beacons_sent"));
    for n in 0..60_000 {
        // From its address, and from others that it could have.
        let from = if n % 4 == 0 { SocketAddr::from(([192, 0, 2, 200], 4000)) } else { friend };
        hear(&mut net, from, &replayed);
        net.run(Duration::from_millis(1));
    }
    // Three at once, and then one in 5 s, each with one initiation a second at most.
    assert!(started(&net) - before <= 3 + 12 + 1, "{} attempts in a minute", started(&net) - before);
    let initiations = net.sent[sent..].iter().filter(|sent| sent.bytes[0] == 0xD1).count();
    assert!(initiations <= 16 * 7, "{initiations} initiations in a minute");
    // No beacon of this node answers them, as it would make all nodes of the network answer in turn.
    assert!(net.counter(0, "beacons_sent") - beacons <= 4);
    net.nodes[1].up = true;
    let took = net.wait(2 * SECOND, |net| is_connected(&net.nodes[0]));
    assert!(took <= SECOND * 11 / 10, "{took:?}");
}

#[test]
fn a_member_that_introduces_itself_as_an_absent_peer_costs_an_attempt_in_five_seconds() {
    let mut net = Net::connected_pair();
    let _watched = watched(&mut net, 1);
    net.run(SECOND);
    let before = away(&mut net);
    let liar = SocketAddr::from(([192, 0, 2, 66], 4000));
    let mut paid = 0;
    for n in 0u32..6000 {
        let hello = hello_of(2, n);
        paid += hello.len();
        let meta = RecvMeta { remote: liar, socket: SocketIndex(0), multicast: false, relay: None };
        net.deliver(0, meta, &hello);
        net.run(Duration::from_millis(10));
    }
    assert!(started(&net) - before <= 3 + 12 + 1, "{} attempts in a minute", started(&net) - before);
    let got: usize = net.sent.iter().filter(|sent| sent.to == liar).map(|sent| sent.bytes.len()).sum();
    assert!(got <= paid, "{got} bytes for {paid}");
}

#[test]
fn forty_peers_that_are_back_at_once_cost_one_or_two_handshakes_each() {
    const PEERS: usize = 40;
    let mut net = Net::new();
    for node in 0..=PEERS {
        net.add(1 + node as u8);
        net.join(node, &open_network());
    }
    net.run(5 * SECOND);
    for peer in 1..=PEERS {
        net.send(0, peer, b"the last for long");
    }
    let _watches: Vec<_> = (1..=PEERS).map(|peer| watched(&mut net, peer)).collect();
    net.run(SECOND);
    let hub = net.nodes[0].socket;
    net.filter = Box::new(move |sent| sent.from != hub && sent.to != hub);
    net.run(6 * MINUTE);
    net.filter = Box::new(|_| true);
    let count = |net: &Net, name| (0..=PEERS).map(|node| net.counter(node, name)).sum::<u64>();
    let (attempts, initiations) = (count(&net, "attempts_started"), count(&net, "initiations_sent"));
    // The hub's beacon reaches all of them at once.
    net.wait(31 * SECOND, |net| net.nodes[0].endpoint.sessions().len() >= PEERS);
    let attempts = count(&net, "attempts_started") - attempts;
    let initiations = count(&net, "initiations_sent") - initiations;
    assert!(attempts <= 2 * PEERS as u64 && initiations <= 6 * PEERS as u64, "{attempts}, {initiations}");
}

/// Makes node 0 and another one watch each other, as for connections.
fn watched(net: &mut Net, other: usize) -> [Watch; 2] {
    [net.peer(0, other).watch(), net.peer(other, 0).watch()]
}

/// Drops everything for a while. Returns when packets pass again.
fn outage(net: &mut Net, time: Duration) -> std::time::Instant {
    net.filter = Box::new(|_| false);
    net.run(time);
    assert!(net.nodes.iter().all(|node| node.endpoint.sessions().is_empty()), "longer than a session");
    net.filter = Box::new(|_| true);
    net.now
}

/// Lets node 1 be away until node 0 looks for it at long intervals only. Returns the attempts until then.
fn away(net: &mut Net) -> u64 {
    net.nodes[1].up = false;
    // The last search was 256 s after the end of the session, and the next one is as long after it.
    net.run(180 * SECOND + 300 * SECOND);
    assert!(net.nodes[0].endpoint.sessions().is_empty());
    started(net)
}

fn is_connected(node: &Node) -> bool {
    !node.endpoint.sessions().is_empty()
}

fn started(net: &Net) -> u64 {
    net.counter(0, "attempts_started")
}

fn hear(net: &mut Net, from: SocketAddr, beacon: &[u8]) {
    let meta = RecvMeta { remote: from, socket: SocketIndex(0), multicast: true, relay: None };
    net.deliver(0, meta, beacon);
}

fn beacons_since(net: &Net, since: std::time::Instant) -> impl Iterator<Item = &Sent> {
    net.sent.iter().filter(move |sent| sent.at >= since && sent.bytes[0] == BEACON)
}

fn group() -> SocketAddr {
    GROUP.parse().expect("an address")
}

/// Returns a hello in the name of a member, which every node with the network's key can make.
fn hello_of(identity: u8, n: u32) -> Vec<u8> {
    let hello = Hello {
        identity: *Identity::from_seed(&[identity; 32]).public(),
        instance: u64::from(n),
        reply_wanted: true,
        suites: SuiteSet::CHACHA20_POLY1305,
        echo: [0; 24],
    };
    let (mut datagram, mut nonce) = (Vec::new(), [0; 24]);
    nonce[..4].copy_from_slice(&n.to_be_bytes());
    hello.seal(&open_network().discovery_key(), nonce, &mut datagram);
    datagram
}
