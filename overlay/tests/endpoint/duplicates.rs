//! One identity at two places: both nodes and their peers notice, and no other node is accused.

use std::time::Duration;

use peersock_overlay::{ManagedNetwork, NetworkConfig, PeerInfo};

use crate::managed::{Authority, CONTROLLER, id, members, secret};
use crate::net::{Net, UNIX_TIME, open_network};

const BEACON: u8 = 0xD5;

#[test]
fn two_nodes_with_one_identity_on_one_network_notice_each_other() {
    let mut net = Net::new();
    net.add(2);
    let copy = net.add_copy(2, 4002);
    for node in [0, copy] {
        net.join(node, &open_network());
    }
    net.run(Duration::from_secs(1));
    for (node, other) in [(0, copy), (copy, 0)] {
        let elsewhere = net.nodes[node].endpoint.elsewhere().map(|elsewhere| elsewhere.remote);
        assert_eq!(elsewhere, Some(net.nodes[other].socket));
        assert!(net.counter(node, "own_identity_elsewhere") >= 1);
    }
}

#[test]
fn a_peer_and_both_nodes_notice_where_the_nodes_do_not_hear_each_other() {
    let mut net = Net::new();
    net.add(1);
    net.add(2);
    let copy = net.add_copy(2, 4002);
    // Only the peer's beacons are heard, so the two with one identity know nothing of each other.
    let peer = net.nodes[0].socket;
    net.filter = Box::new(move |sent| sent.bytes[0] != BEACON || sent.from == peer);
    for node in 0..3 {
        net.join(node, &open_network());
    }
    net.run(Duration::from_secs(4));
    for _ in 0..10 {
        for node in [1, copy] {
            net.send(node, 0, b"it is me");
            net.run(Duration::from_secs(1));
        }
    }
    assert!(net.counter(0, "peers_at_two_places") >= 2);
    let seen = net.nodes[0].endpoint.peers()[0].elsewhere.expect("noticed").remote;
    assert!([net.nodes[1].socket, net.nodes[copy].socket].contains(&seen));
    for (node, other) in [(1, copy), (copy, 1)] {
        let elsewhere = net.nodes[node].endpoint.elsewhere().map(|elsewhere| elsewhere.remote);
        assert_eq!(elsewhere, Some(net.nodes[other].socket), "{node}");
    }
}

/// Starts a copy of member 1, and returns its index.
fn cloned(net: &mut Net, authority: &Authority) -> usize {
    let copy = net.add_copy(1, 4002);
    join_again(net, authority, copy);
    copy
}

fn join_again(net: &mut Net, authority: &Authority, node: usize) {
    let mut config = ManagedNetwork::new(id());
    config.key = Some(secret().public());
    config.credentials = Some(authority.credentials(1, Duration::ZERO));
    net.join(node, &NetworkConfig::Managed(Box::new(config)));
}

fn is_proven(net: &Net) -> bool {
    net.nodes[0].endpoint.peers().iter().any(|peer: &PeerInfo| peer.elsewhere.is_some_and(|one| one.proven))
}

/// Neither of the two says anything of itself, and the copy does not renew its certificate.
#[test]
fn a_controller_soon_has_proof_of_a_members_copy() {
    for wait in 0..60 {
        let authority = Authority::new();
        let mut net = members(&authority, &[CONTROLLER, 1]);
        net.run(Duration::from_secs(wait));
        // At different sites, they do not hear each other.
        let (member, port) = (net.nodes[1].socket, 4002);
        net.filter = Box::new(move |sent| {
            let is_copy = |one: std::net::SocketAddr| one.ip() == member.ip() && one.port() == port;
            let is_member = |one: std::net::SocketAddr| one == member;
            !(is_copy(sent.from) && is_member(sent.to) || is_member(sent.from) && is_copy(sent.to))
        });
        let copy = cloned(&mut net, &authority);
        let noticed = net.wait(Duration::from_secs(20), |net| is_proven(net));
        assert!(noticed < Duration::from_secs(10), "{wait}: {noticed:?}");
        net.run(Duration::from_secs(1));
        for (node, other) in [(1, copy), (copy, 1)] {
            let elsewhere = net.nodes[node].endpoint.elsewhere().map(|elsewhere| elsewhere.remote);
            assert_eq!(elsewhere, Some(net.nodes[other].socket), "{node}");
        }
        // Afterwards no node is asked: they take turns as each of the three has something to say, which it
        // has each minute, so at most some ten times a minute.
        let before = net.counter(0, "peers_at_two_places");
        net.run(Duration::from_secs(600));
        let turns = net.counter(0, "peers_at_two_places") - before;
        assert!((5..=100).contains(&turns), "{wait}: {turns} turns in ten minutes");
        assert!(is_proven(&net));
    }
}

#[test]
fn restarts_of_a_member_are_no_copies() {
    let authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1]);
    for run in 0..20 {
        // Killed, and started again within a second or a minute, at the same port or another one.
        net.restart(1, 4001 + run / 2, UNIX_TIME + Duration::from_secs(3600 * u64::from(run % 3)));
        join_again(&mut net, &authority, 1);
        net.run(Duration::from_secs(if run % 2 == 0 { 1 } else { 61 }));
    }
    assert_eq!(net.counter(0, "peers_at_two_places"), 0);
    assert!(!is_proven(&net));
}

// The handshakes of all three cross each other. Whichever sessions result, the peer does not keep one with
// each of the two.
#[test]
fn a_peer_notices_however_handshakes_cross() {
    for seed in 0..100u64 {
        let mut net = Net::new();
        net.add(1);
        net.add(2);
        let copy = net.add_copy(2, 4002);
        net.join(0, &open_network());
        net.run(Duration::from_secs(1));
        net.join(1, &open_network());
        net.run(Duration::from_millis(seed % 8));
        net.join(copy, &open_network());
        let mut random = seed;
        for step in 0..9_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            net.latency =
                Duration::from_micros(100 + (random >> 33) % if seed % 2 == 0 { 5_000 } else { 1_500 });
            if step % 1_000 == 0 {
                for (from, to) in [(1, 0), (copy, 0)] {
                    net.send(from, to, b"it is me");
                }
                // A node without an answer asks whether the path is still there, and gets an answer.
                for node in [1, copy] {
                    let endpoint = &mut net.nodes[node].endpoint;
                    for peer in endpoint.peers() {
                        endpoint.path_suspected(net.now, &peer.peer);
                    }
                }
            }
            net.run(Duration::from_millis(1));
        }
        assert!(net.counter(0, "peers_at_two_places") > 0, "seed {seed}");
    }
}

#[test]
fn restarts_and_roaming_are_nothing_of_the_kind() {
    let mut net = Net::connected_pair();
    for run in 0..20 {
        let clock = UNIX_TIME + Duration::from_secs(3600 * (run % 3));
        net.restart(1, 4001 + run as u16, clock);
        net.join(1, &open_network());
        net.send(1, 0, b"again");
        net.run(Duration::from_secs(2));
        net.nodes[1].socket.set_port(5000 + run as u16);
        net.send(1, 0, b"from elsewhere");
        net.run(Duration::from_secs(1));
    }
    for node in 0..2 {
        assert_eq!(net.counter(node, "peers_at_two_places"), 0);
        assert_eq!(net.counter(node, "own_identity_elsewhere"), 0);
        assert_eq!(net.nodes[node].endpoint.elsewhere(), None);
    }
}

#[test]
fn a_recorded_hello_of_an_earlier_run_accuses_nobody() {
    let mut net = Net::acquainted_pair();
    let hellos: Vec<_> = net
        .sent
        .iter()
        .filter(|sent| sent.bytes[0] == 0xD6 && sent.from == net.nodes[0].socket)
        .cloned()
        .collect();
    assert!(!hellos.is_empty());
    net.restart(0, 4001, UNIX_TIME);
    net.join(0, &open_network());
    for mut hello in hellos {
        hello.from = "203.0.113.9:9".parse().expect("an address");
        hello.to = net.nodes[0].socket;
        net.inject(hello);
    }
    net.run(Duration::from_secs(5));
    assert_eq!(net.nodes[0].endpoint.elsewhere(), None);
}
