//! Cost of two nodes with a session, and of a node and its roots, while nothing is sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_overlay::{Event, Gone, Lookup, NetworkConfig, NetworkId, NetworkIndex, Peer, Watch};
use peersock_testnet::Random;

use crate::net::{Net, Sent, UNIX_TIME, open_network};
use crate::punching::{PORT_CONE, direct_after, homes};
use crate::roots::apart;
use crate::signals::{gone, pair_at};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Time per allowed packet.
const PACKET: Duration = Duration::from_secs(25);
/// Mapping lifetime of the most forgetful common boxes.
const REMEMBERED: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(600);

const DATA: u8 = 0xD4;
const INITIATION: u8 = 0xD1;
const RELAYED: u8 = 0xD9;

#[test]
fn an_idle_session_costs_a_packet_each_way_in_25_seconds_while_anybody_waits_for_the_peer() {
    for latency in [1, 5, 25, 60, 110] {
        for watchers in [&[0, 1][..], &[0], &[1]] {
            for first in 0..2 {
                let what = format!("{latency} ms, watched by {watchers:?}, begun by {first}");
                let mut net = neighbours(latency * MS, first);
                let _watches = watch(&mut net, watchers);
                is_cheap(&mut net, 1, &what);
            }
        }
    }
}

#[test]
fn an_idle_session_costs_no_more_where_packets_take_now_longer_and_now_shorter() {
    for seed in 0..10 {
        let mut net = neighbours(25 * MS, 0);
        let _watches = watch(&mut net, &[0, 1]);
        settle(&mut net);
        let (mut random, began) = (Random::from_seed(seed), net.now);
        while net.now < began + IDLE {
            net.latency = MS * random.within(5..=90) as u32;
            net.run(SECOND / 10);
        }
        assert_cheap(&net, began, 1, &format!("seed {seed}"));
    }
}

#[test]
fn an_idle_session_for_which_nobody_waits_costs_nothing() {
    let mut net = neighbours(25 * MS, 0);
    let began = net.now + 15 * SECOND;
    settle(&mut net);
    assert!(net.peer(0, 1).session().is_none(), "it has come to its end");
    net.run(IDLE);
    assert_eq!(exchanged(&net, began).concat().len(), 0);
}

#[test]
fn an_idle_session_by_a_root_costs_as_little() {
    for watchers in [&[0, 1][..], &[0], &[1]] {
        let mut net = apart(1);
        net.latency = 20 * MS;
        net.run(SECOND);
        talk_once(&mut net);
        let _watches = watch(&mut net, watchers);
        is_cheap(&mut net, 1, &format!("relayed, watched by {watchers:?}"));
        assert!(net.peer(0, 1).path().unwrap().place.relay().is_some());
    }
}

#[test]
fn nodes_that_share_two_networks_probe_each_other_once_and_not_in_each() {
    for relayed in [false, true] {
        let mut net = match relayed {
            false => homes(PORT_CONE, PORT_CONE, 1, 20 * MS),
            true => apart(1),
        };
        let _watches = in_two_networks(&mut net);
        is_cheap(&mut net, 2, &format!("two networks, relayed: {relayed}"));
        assert_eq!(net.peer(0, 1).path().unwrap().place.relay().is_some(), relayed);
        // Each asks for itself while nothing is heard, but not for ever.
        let filter = std::mem::replace(&mut net.filter, Box::new(|_| false));
        net.run(30 * SECOND);
        net.filter = filter;
        net.run(30 * SECOND);
        is_cheap(&mut net, 2, &format!("two networks after an outage, relayed: {relayed}"));
    }
}

#[test]
fn a_session_is_renewed_while_probes_are_spared_because_of_another_network() {
    let mut net = homes(PORT_CONE, PORT_CONE, 1, 20 * MS);
    let _watches = in_two_networks(&mut net);
    let second = NetworkIndex(net.peer(0, 1).network().0 + 1);
    for node in 0..2 {
        assert_eq!(peer_in(&mut net, node, second).network(), second);
        net.nodes[node].events.clear();
    }
    for _ in 0..60 {
        let address = net.address(0, second, 1);
        net.send_to(0, second, address, b"now and then");
        net.run(10 * SECOND);
    }
    for node in 0..2 {
        let lost = net.nodes[node].events.iter().filter(|(_, event)| matches!(event, Event::SessionLost(_)));
        assert_eq!(lost.count(), 0, "node {node}");
    }
}

#[test]
fn both_networks_hear_of_a_peer_that_is_killed_or_started_again_while_it_is_idle() {
    // After some of these times one of the two has heard nothing for long, because the other's probes
    // replaced its own.
    for (victim, idle) in [100, 110, 120, 130, 140].into_iter().flat_map(|idle| [(0, idle), (1, idle)]) {
        for address in ["10.0.0.2:4000", "198.51.100.2:4000"] {
            for restarts in [false, true] {
                let mut net = pair_at(address);
                let _watches = in_two_networks(&mut net);
                net.run(idle * SECOND);
                let other = 1 - victim;
                if restarts {
                    let port = net.nodes[victim].socket.port();
                    let socket = net.nodes[victim].socket;
                    net.restart(victim, port, UNIX_TIME + 300 * SECOND);
                    net.nodes[victim].socket = socket;
                    // It looks for no node.
                    let group: SocketAddr = crate::net::GROUP.parse().expect("an address");
                    net.filter = Box::new(move |datagram| datagram.to != group);
                    net.join(victim, &open_network());
                    net.join(victim, &second_network());
                } else {
                    net.nodes[victim].up = false;
                    net.refuses = Some(64);
                }
                let told = |net: &mut Net| gone(net, other).len() == 2;
                let took = net.wait(60 * SECOND, told);
                assert!(
                    took <= 30 * SECOND,
                    "{victim} at {address}, restarts: {restarts}, after {idle} s: {took:?}"
                );
                let expected = if restarts { Gone::Restarted } else { Gone::Refused };
                assert_eq!(gone(&net, other), [expected; 2]);
                let mut networks = told_of(&net, other);
                networks.dedup();
                assert_eq!(networks.len(), 2, "one in each network");
                net.run(60 * SECOND);
                assert_eq!(gone(&net, other).len(), 2, "each is told once");
            }
        }
    }
}

// The node comes back in the first network, and only later in the second one.
#[test]
fn a_network_in_which_the_peer_is_not_any_more_does_not_live_on_what_another_one_hears() {
    // Holds for sessions of any age, although they are renewed every two minutes, because a renewal finds
    // out, too.
    for idle in [100, 140, 180, 220] {
        for away in [40, 60, 80] {
            let mut net = pair_at("198.51.100.2:4000");
            let _watches = in_two_networks(&mut net);
            net.run(idle * SECOND);
            let socket = net.nodes[1].socket;
            net.restart(1, socket.port(), UNIX_TIME + 300 * SECOND);
            net.nodes[1].socket = socket;
            let group: SocketAddr = crate::net::GROUP.parse().expect("an address");
            net.filter = Box::new(move |datagram| datagram.to != group);
            net.join(1, &open_network());
            net.wait(30 * SECOND, |net| gone(net, 0).len() == 1);
            net.run(away * SECOND);
            assert_eq!(gone(&net, 0).len(), 1, "idle for {idle} s, away for {away} s");
            net.join(1, &second_network());
            let took = net.wait(60 * SECOND, |net| gone(net, 0).len() == 2);
            assert!(took <= 30 * SECOND, "idle for {idle} s, away for {away} s: {took:?}");
        }
    }
}

#[test]
fn either_node_notices_within_thirty_seconds_that_the_other_one_was_killed() {
    for victim in 0..2 {
        for idle in [40, 100, 137, 500] {
            let mut net = pair_at("198.51.100.2:4000");
            let _watches = watch(&mut net, &[0, 1]);
            net.run(idle * SECOND);
            net.nodes[victim].up = false;
            net.refuses = Some(64);
            let took = net.wait(60 * SECOND, |net| !gone(net, 1 - victim).is_empty());
            assert!(took <= 30 * SECOND, "{victim}, idle for {idle} s: {took:?}");
        }
    }
}

#[test]
fn an_idle_session_outlives_lost_packets_and_the_suspension_of_either_node() {
    for first in 0..2 {
        for seed in 0..5 {
            let mut net = neighbours(25 * MS, first);
            let _watches = watch(&mut net, &[0, 1]);
            let (mut random, path) = (Random::from_seed(seed), net.peer(0, 1).path().unwrap().place);
            net.filter = Box::new(move |_| random.within(0..=99) >= 10);
            let began = net.now;
            net.run(IDLE);
            is_remembered(&net, began, 2 * REMEMBERED);
            assert_eq!((gone(&net, 0), gone(&net, 1)), (vec![], vec![]));
            assert_eq!(net.peer(0, 1).path().unwrap().place, path);
        }
        for asleep in 0..2 {
            let mut net = neighbours(25 * MS, first);
            let _watches = watch(&mut net, &[0, 1]);
            net.run(100 * SECOND);
            net.nodes[asleep].up = false;
            net.run(60 * SECOND);
            net.nodes[asleep].up = true;
            net.run(30 * SECOND);
            is_cheap(&mut net, 1, &format!("begun by {first}, {asleep} was suspended"));
            assert_eq!((gone(&net, 0), gone(&net, 1)), (vec![], vec![]));
        }
    }
}

#[test]
fn an_idle_path_that_works_in_one_direction_only_is_left() {
    for deaf in 0..2 {
        for first in 0..2 {
            let mut net = neighbours(25 * MS, first);
            let _watches = watch(&mut net, &[0, 1]);
            net.run(100 * SECOND);
            let boxes = [net.nats[0].external, net.nats[1].external];
            net.filter = Box::new(move |sent: &Sent| {
                !(sent.from.ip() == boxes[1 - deaf] && sent.to.ip() == boxes[deaf])
            });
            net.wait(60 * SECOND, |net| {
                (0..2).all(|at| net.peer(at, 1 - at).path().unwrap().place.relay().is_some())
            });
            assert_eq!((gone(&net, 0), gone(&net, 1)), (vec![], vec![]));
        }
    }
}

#[test]
fn an_idle_node_sends_each_root_a_packet_in_25_seconds() {
    let mut net = apart(2);
    settle(&mut net);
    let began = net.now;
    net.run(2 * IDLE);
    for node in 0..2 {
        for root in 0..2 {
            let (from, to) = (net.nodes[node].socket, net.roots[root].socket);
            let sent: Vec<_> =
                net.sent.iter().filter(|one| one.at >= began && one.from == from && one.to == to).collect();
            let renewals = sent.iter().filter(|one| one.bytes[0] == INITIATION).count();
            // A session is renewed at an age of 110 to 120 s.
            assert!(renewals <= 2 * 600 / 110, "{renewals} renewals");
            // Each is an initiation, the first packet of the session, and a registration.
            let others = sent.len() - 3 * renewals;
            assert!(others <= 2 * 600 / 25 - renewals + 1, "{others} and {renewals}");
            let small = sent.iter().filter(|one| one.bytes.len() <= 100).count();
            assert!(small >= others, "{small} of {others}");
        }
    }
}

/// Creates two nodes behind a box each, with a direct path, which `first` has begun to look for.
fn neighbours(latency: Duration, first: usize) -> Net {
    let mut net = homes(PORT_CONE, PORT_CONE, 1, latency);
    net.send(first, 1 - first, b"first");
    assert!(direct_after(&mut net, 5 * SECOND).is_some());
    talk_once(&mut net);
    net
}

fn talk_once(net: &mut Net) {
    for node in 0..2 {
        net.send(node, 1 - node, b"the last for long");
        net.run(SECOND);
    }
}

fn watch(net: &mut Net, watchers: &[usize]) -> Vec<Watch> {
    let watches = watchers.iter().map(|&at| net.peer(at, 1 - at).watch()).collect();
    talk_once(net);
    watches
}

fn second_network() -> NetworkConfig {
    NetworkConfig::AdHoc { id: NetworkId::ad_hoc(7..=8).expect("a range"), psk: None }
}

/// Makes two nodes talk in two networks, with connections in both.
fn in_two_networks(net: &mut Net) -> Vec<Watch> {
    talk_once(net);
    let second = [0, 1].map(|node| net.join(node, &second_network()));
    net.run(5 * SECOND);
    let mut watches = watch(net, &[0, 1]);
    for _ in 0..2 {
        for (node, &network) in second.iter().enumerate() {
            let address = net.address(node, network, 1 - node);
            net.send_to(node, network, address, b"the last for long");
            net.run(3 * SECOND);
        }
    }
    for (node, &network) in second.iter().enumerate() {
        let peer = peer_in(net, node, network);
        assert!(peer.session().is_some());
        watches.push(peer.watch());
        let address = net.address(node, network, 1 - node);
        net.send_to(node, network, address, b"the last for long");
    }
    net.run(SECOND);
    watches
}

fn peer_in(net: &mut Net, at: usize, network: NetworkIndex) -> Arc<Peer> {
    let address = net.address(at, network, 1 - at);
    match net.nodes[at].endpoint.lookup(net.now, network, address) {
        Lookup::Peer(peer) => peer,
        other => panic!("no such peer: {other:?}"),
    }
}

/// Returns the networks in which a node was told that its peer is gone.
fn told_of(net: &Net, node: usize) -> Vec<NetworkIndex> {
    let events = net.nodes[node].events.iter();
    let told = events.filter_map(|(_, event)| match event {
        Event::PeerGone(peer, _) => Some(peer.network()),
        _ => None,
    });
    told.collect()
}

/// Waits until probes are as rare as they get, and all searches have ended.
fn settle(net: &mut Net) {
    net.run(200 * SECOND);
}

/// Checks ten minutes in which nothing is sent.
fn is_cheap(net: &mut Net, networks: usize, what: &str) {
    settle(net);
    let began = net.now;
    net.run(IDLE);
    assert_cheap(net, began, networks, what);
    is_remembered(net, began, REMEMBERED);
}

/// Checks for at most one packet each way per [`PACKET`] and, for each renewal of a session, an initiation
/// one way, its answer, and the initiator's next packet.
fn assert_cheap(net: &Net, began: Instant, networks: usize, what: &str) {
    let ways = exchanged(net, began);
    let of = |way: &[Sent], kind: u8| way.iter().filter(|sent| inside(sent)[0] == kind).count();
    let renewals = of(&ways[0], INITIATION) + of(&ways[1], INITIATION);
    // Six renewals, at one in 110 s or more, are the most that fit into 600 s.
    assert!(renewals <= networks * 6, "{what}: {renewals} renewals");
    let budget = (net.now - began).as_secs().div_ceil(PACKET.as_secs()) as usize;
    for (from, way) in ways.iter().enumerate() {
        let begun = of(way, INITIATION);
        // In the first network, a renewal replaces a probe or its answer.
        let allowed = budget + begun + (networks - 1) * renewals;
        assert!(way.len() <= allowed, "{what}: {from} sent {} of {allowed}, {begun} renewals", way.len());
        let small = way.iter().filter(|sent| inside(sent).len() <= 100).count();
        assert!(small + 2 * renewals >= way.len(), "{what}: they are small");
        assert!(of(way, DATA) <= allowed);
    }
}

/// Checks that no box on the way may have forgotten the nodes.
fn is_remembered(net: &Net, began: Instant, longest: Duration) {
    for way in exchanged(net, began) {
        let times: Vec<_> =
            [began].into_iter().chain(way.iter().map(|sent| sent.at)).chain([net.now]).collect();
        let pause = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(pause < longest, "{pause:?}");
    }
}

/// Returns the packets that each of the two nodes has sent to the other since then, as they left.
fn exchanged(net: &Net, began: Instant) -> [Vec<Sent>; 2] {
    let address = |node: usize| match net.nodes[node].nat {
        Some(nat) => net.nats[nat].external,
        None => net.nodes[node].socket.ip(),
    };
    [0, 1].map(|node| {
        let is_for = |sent: &&Sent| {
            let is_relayed = sent.to.port() == 7420 && sent.bytes[0] == RELAYED;
            sent.from.ip() == address(node) && (sent.to.ip() == address(1 - node) || is_relayed)
        };
        net.sent.iter().filter(|sent| sent.at >= began).filter(is_for).cloned().collect()
    })
}

/// Returns the datagram without a root's header.
fn inside(sent: &Sent) -> &[u8] {
    match sent.bytes[0] {
        RELAYED => &sent.bytes[peersock_overlay::wire::Relayed::LEN..],
        _ => &sent.bytes,
    }
}
