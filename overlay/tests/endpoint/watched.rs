//! Peers with which the layer above has connections that are idle.

use std::net::SocketAddr;
use std::time::Duration;

use peersock_overlay::{Gone, SocketInfo, Watch};

use crate::net::{GROUP, Net, UNIX_TIME, lan_socket, open_network};
use crate::signals::{gone, pair_at};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_peer_that_is_killed_while_its_connections_are_idle_is_gone_within_thirty_seconds() {
    // On a local network, and where a NAT box may be refusing.
    for address in ["10.0.0.2:4000", "198.51.100.2:4000"] {
        for idle in [1, 7, 40, 100, 500] {
            let mut net = pair_at(address);
            let _watched = watched(&mut net);
            net.send(0, 1, b"the last for long");
            net.run(idle * SECOND);
            kill(&mut net);
            let took = net.wait(60 * SECOND, |net| !gone(net, 0).is_empty());
            assert!(took <= 30 * SECOND, "{address}, idle for {idle} s: {took:?}");
            net.run(60 * SECOND);
            assert_eq!(gone(&net, 0), [Gone::Refused], "it is told once");
        }
    }
}

#[test]
fn a_peer_at_hand_that_is_killed_is_gone_within_two_seconds_however_long_its_connections_were_idle() {
    for address in ["10.0.0.2:4000", "127.0.0.2:4000", "169.254.7.2:4000"] {
        for idle in [0, 1, 7, 100, 500] {
            // At all positions between two probes.
            for part in 0..7 {
                let mut net = pair_at(address);
                let _watched = watched(&mut net);
                net.send(0, 1, b"the last for long");
                net.run(idle * SECOND + part * Duration::from_millis(100));
                kill(&mut net);
                let took = net.wait(60 * SECOND, |net| !gone(net, 0).is_empty());
                assert!(took <= 2 * SECOND, "{address}, idle for {idle}.{part} s: {took:?}");
            }
        }
    }
}

#[test]
fn a_peer_that_is_killed_while_it_sends_is_gone_within_two_seconds() {
    for bytes in [&b"data"[..], &[7; 1000]] {
        let mut net = pair_at("10.0.0.2:4000");
        let _watched = watched(&mut net);
        for _ in 0..20 {
            net.send(1, 0, bytes);
            net.send(0, 1, b"an acknowledgement");
            net.run(Duration::from_millis(10));
        }
        // All packets to it have arrived, so nothing is refused.
        kill(&mut net);
        let took = net.wait(10 * SECOND, |net| !gone(net, 0).is_empty());
        assert!(took <= 2 * SECOND, "{took:?}");
    }
}

#[test]
fn a_peer_that_was_started_again_is_noticed_by_idle_connections() {
    let mut net = pair_at("192.0.2.2:4000");
    let _watched = watched(&mut net);
    net.run(100 * SECOND);
    // It comes back at once and looks for no node.
    let group: SocketAddr = GROUP.parse().expect("an address");
    net.filter = Box::new(move |datagram| datagram.to != group);
    net.restart(1, 4000, UNIX_TIME + 200 * SECOND);
    net.join(1, &open_network());
    net.wait(30 * SECOND, |net| gone(net, 0) == [Gone::Restarted]);
}

#[test]
fn idle_connections_cost_a_packet_each_way_in_25_seconds() {
    let mut net = pair_at("198.51.100.2:4000");
    net.run(60 * SECOND);
    let quiet = net.sent.len();
    net.run(60 * SECOND);
    let beacons = net.sent.len() - quiet;
    let watched = watched(&mut net);
    net.send(0, 1, b"the last for long");
    net.run(60 * SECOND);
    let (began, initiations) = (net.sent.len(), net.counter(0, "initiations_sent"));
    net.run(600 * SECOND);
    let handshakes = net.counter(0, "initiations_sent") - initiations;
    assert!(handshakes <= 6, "sessions are renewed every two minutes: {handshakes}");
    let sent = net.sent.len() - began - 10 * beacons;
    assert!(sent <= 2 * 600 / 25 + 20 + 12 * 6, "{sent} datagrams in ten minutes");
    // No connection is left.
    drop(watched);
    net.run(200 * SECOND);
    let began = net.sent.len();
    net.run(60 * SECOND);
    assert!(net.sent.len() - began <= beacons + 2, "{}", net.sent.len() - began);
}

#[test]
fn idle_connections_with_a_peer_at_hand_cost_two_exchanges_in_600_ms_at_most() {
    let mut net = pair_at("10.0.0.2:4000");
    let _watched = watched(&mut net);
    net.run(60 * SECOND);
    let probes = |net: &Net| net.counter(0, "liveness_probes_sent") + net.counter(1, "liveness_probes_sent");
    let (began, sent) = (probes(&net), net.sent.len());
    net.run(60 * SECOND);
    // Both ends may ask at the same moment.
    let asked = probes(&net) - began;
    assert!((100..=200).contains(&asked), "{asked}");
    let sent = net.sent.len() - sent;
    assert!(sent <= 2 * 200 + 20, "{sent} datagrams in a minute");
}

#[test]
fn an_idle_peer_on_this_machine_is_not_sent_the_largest_datagram_again_and_again() {
    let mut net = Net::pair();
    net.mtu = 65_507;
    for node in 0..2 {
        net.nodes[node].socket = ([127, 0, 0, node as u8 + 1], 4000).into();
        net.nodes[node].endpoint.set_sockets(net.now, vec![SocketInfo { loopback: true, ..lan_socket() }]);
        net.join(node, &open_network());
    }
    net.run(4 * SECOND);
    net.send(0, 1, b"the last for long");
    net.run(SECOND);
    let _watched = watched(&mut net);
    net.run(60 * SECOND);
    assert_eq!(net.peer(0, 1).path().expect("a path").datagram_size, 65_507);
    let sent = |net: &Net| [0, 1].map(|node| net.counter(node, "probes_sent"));
    let before = sent(&net);
    // The cost of TCP keep-alives.
    for _ in 0..20 {
        net.send(0, 1, &[0; 60]);
        net.run(20 * MS);
        net.send(1, 0, &[0; 60]);
        net.run(3 * SECOND);
    }
    // The size is confirmed every 15 s, by a probe and its companion.
    let after = sent(&net);
    let probes = [0, 1].map(|node| after[node] - before[node]);
    assert!(probes.iter().all(|probes| *probes <= 2 * 6), "{probes:?} probes in a minute");
}

#[test]
fn a_peer_at_hand_that_falls_silent_is_not_asked_again_and_again() {
    let mut net = pair_at("10.0.0.2:4000");
    let _watched = watched(&mut net);
    net.run(60 * SECOND);
    net.nodes[1].up = false;
    let asleep = net.sent.len();
    net.run(3600 * SECOND);
    let to_peer = net.sent[asleep..].iter().filter(|sent| sent.to == net.nodes[1].socket).count();
    assert!(to_peer <= 300, "{to_peer} datagrams for nobody in an hour");
    assert_eq!(gone(&net, 0), []);
}

#[test]
fn many_idle_peers_at_hand_are_asked_fifty_times_a_second_together() {
    const PEERS: usize = 100;
    let mut net = Net::new();
    for node in 0..=PEERS {
        net.add(1 + node as u8);
        net.nodes[node].socket = SocketAddr::from(([10, 0, 0, 1 + node as u8], 4000));
        net.join(node, &open_network());
    }
    net.run(5 * SECOND);
    for peer in 1..=PEERS {
        net.send(0, peer, b"the last for long");
    }
    let watches: Vec<_> = (1..=PEERS).map(|peer| net.peer(0, peer).watch()).collect();
    net.run(60 * SECOND);
    let began = net.counter(0, "liveness_probes_sent");
    net.run(60 * SECOND);
    let asked = net.counter(0, "liveness_probes_sent") - began;
    // At most 50 probes a second go to all peers together.
    assert!((2000..=3600).contains(&asked), "{asked} probes in a minute");
    drop(watches);
    net.run(60 * SECOND);
    let began = net.counter(0, "liveness_probes_sent");
    net.run(60 * SECOND);
    assert_eq!(net.counter(0, "liveness_probes_sent"), began);
}

#[test]
fn after_an_outage_that_was_longer_than_a_session_a_killed_peer_is_noticed_again() {
    let mut net = pair_at("10.0.0.2:4000");
    let _watched = watched(&mut net);
    net.filter = Box::new(|_| false);
    net.run(400 * SECOND);
    assert!(net.peer(0, 1).session().is_none());
    net.filter = Box::new(|_| true);
    // The same time again at most.
    net.run(400 * SECOND);
    assert_eq!((gone(&net, 0), gone(&net, 1)), (vec![], vec![]));
    kill(&mut net);
    net.wait(30 * SECOND, |net| gone(net, 0) == [Gone::Refused]);
}

#[test]
fn idle_connections_of_a_suspended_machine_go_on() {
    // The machine itself sends nothing. Its NAT box refuses for it, once it has forgotten it.
    for forgets in [None, Some(60), Some(130)] {
        let mut net = pair_at("198.51.100.2:4000");
        let _watched = watched(&mut net);
        net.run(100 * SECOND);
        net.nodes[1].up = false;
        let asleep = net.sent.len();
        for second in 0..3600 {
            if forgets == Some(second) {
                net.refuses = Some(64);
            }
            net.run(SECOND);
        }
        assert_eq!(gone(&net, 0), [], "{forgets:?}");
        let to_peer = net.sent[asleep..].iter().filter(|sent| sent.to == net.nodes[1].socket).count();
        // One attempt to renew the session, and some twenty short ones.
        assert!(to_peer <= 300, "{to_peer} datagrams for nobody in an hour");
        net.nodes[1].up = true;
        // Its session has ended meanwhile, which costs the first packet.
        for _ in 0..5 {
            net.send(1, 0, b"awake");
            net.run(SECOND);
        }
        assert_eq!((gone(&net, 0), gone(&net, 1)), (vec![], vec![]), "{forgets:?}");
        assert_eq!(net.received(0).last(), Some(&b"awake".to_vec()));
    }
}

/// Makes both nodes watch each other, as for connections.
fn watched(net: &mut Net) -> [Watch; 2] {
    [net.peer(0, 1).watch(), net.peer(1, 0).watch()]
}

/// Ends node 1 without a word. Its machine answers.
fn kill(net: &mut Net) {
    net.nodes[1].up = false;
    net.refuses = Some(64);
}
