//! The longest round trips, between nodes that have never met and must still find each other.
//!
//! Before ten seconds have passed, a node ten seconds away cannot be told from a nonexistent one. So the
//! first connections fail as fast as those to a nonexistent node, while the node goes on searching. A retry
//! then succeeds.

use std::sync::Arc;
use std::time::Duration;

use peersock_overlay::{Identity, NetworkConfig, NetworkId, StaticMember, StaticNetwork};
use peersock_sim::Side;
use peersock_sim::net::{Gateway, Pipe, Prefixes, Stage};

use crate::SECOND;
use crate::lab::{Lab, PORT, node_config, open_network, wire};

/// Longest round trip for which a handshake works, in seconds.
const MAX_ROUND_TRIP_SECONDS: u64 = 10;

#[test]
fn who_was_never_heard_of_is_found_by_asking() {
    for seconds in [1, 3, 6, MAX_ROUND_TRIP_SECONDS] {
        let mut lab = strangers(seconds);
        lab.world.converse(Arc::new(lab.greeting(0, 1))).expect("a connection");
        // Beacon and hello, initiation and response, SYN and its answer, the greeting and its answer, the two
        // ends.
        lab.run(SECOND * 10 + SECOND * 6 * seconds as u32);
        assert_eq!(lab.world.ledger.completed().0, 1, "round trip of {seconds} s");
    }
}

#[test]
fn one_datagram_is_enough_to_make_a_session() {
    for seconds in [1, 3, 6, MAX_ROUND_TRIP_SECONDS] {
        let mut lab = strangers(seconds);
        let network = lab.networks[0].id();
        lab.world.exchange(network, (0, 1), PORT, 1, SECOND).expect("an exchange");
        // The node gives the datagram up after three seconds, but completes the handshake begun for it.
        lab.run(SECOND * 2 + SECOND * 2 * seconds as u32);
        let exchange = lab.world.exchange(network, (0, 1), PORT, 1, 20 * SECOND).expect("an exchange");
        lab.run(SECOND + SECOND * seconds as u32);
        let answers = lab.world.ledger.datagrams(exchange, Side::Client);
        assert_eq!(answers, 1, "round trip of {seconds} s");
    }
}

#[test]
fn who_is_reached_at_a_configured_endpoint_needs_no_discovery() {
    for seconds in [1, 3, 6, MAX_ROUND_TRIP_SECONDS] {
        let mut lab = configured(seconds);
        let network = lab.networks[0].id();
        lab.world.exchange(network, (0, 1), PORT, 1, SECOND).expect("an exchange");
        lab.run(SECOND + SECOND * seconds as u32);
        let exchange = lab.world.exchange(network, (0, 1), PORT, 1, 20 * SECOND).expect("an exchange");
        lab.world.converse(Arc::new(lab.greeting(0, 1))).expect("a connection");
        lab.run(SECOND + SECOND * seconds as u32);
        assert_eq!(lab.world.ledger.datagrams(exchange, Side::Client), 1, "round trip of {seconds} s");
        lab.run(SECOND * 4 * seconds as u32);
        assert_eq!(lab.world.ledger.completed().0, 1, "round trip of {seconds} s");
    }
}

#[test]
fn a_connection_to_nobody_fails_as_soon_as_ever_and_to_somebody_silent_as_tcps_do() {
    // Node 1 is off. The address alone is asked for: three seconds, as in a kernel's search for a neighbour.
    let mut lab = strangers(MAX_ROUND_TRIP_SECONDS);
    lab.world.crash(1);
    expect_failure_after(&mut lab, 3 * SECOND, SECOND / 10);
    // It is listed with an endpoint: it may be busy or on its way, and is waited for as long as Linux repeats
    // a SYN, six times.
    let mut lab = configured(MAX_ROUND_TRIP_SECONDS);
    lab.world.crash(1);
    expect_failure_after(&mut lab, 127 * SECOND, 10 * SECOND);
}

#[test]
fn a_connection_waits_for_a_peer_that_is_back_after_half_a_minute() {
    let mut lab = configured(1);
    lab.world.crash(1);
    lab.world.converse(Arc::new(lab.greeting(0, 1))).expect("an attempt");
    lab.run(30 * SECOND);
    lab.world.start(1).expect("a start");
    lab.run(15 * SECOND);
    assert_eq!(lab.world.ledger.completed().0, 1);
}

/// Makes two nodes on one LAN with this round trip in seconds, which have never heard of each other.
fn strangers(seconds: u64) -> Lab {
    let mut lab = Lab::new(2, &[open_network()]);
    lab.set_cut(true);
    lab.run(10 * SECOND);
    for host in lab.hosts.clone() {
        let address = lab.world.net.attachments(host)[0].ipv4;
        lab.world.net.attach(host, lab.lan, address, None, quarter(seconds), quarter(seconds));
    }
    assert!(
        lab.world
            .machines()
            .iter()
            .all(|machine| { machine.node().is_some_and(|node| node.datapath().peers().is_empty()) })
    );
    lab
}

/// Makes two nodes on two LANs with this round trip in seconds, in a network that lists their endpoints.
fn configured(seconds: u64) -> Lab {
    let member = |number: u8, lan: u8| StaticMember {
        identity: *Identity::from_seed(&node_config(number).identity).public(),
        name: None,
        addresses: Vec::new(),
        endpoints: vec![([192, 0, lan, 1], 4000).into()],
        routes: Vec::new(),
        exit: peersock_overlay::Exit::default(),
    };
    let network = NetworkConfig::Static(StaticNetwork {
        id: NetworkId::new(0xfe << 56 | 1).expect("an ID"),
        psk: None,
        members: vec![member(1, 2), member(2, 3)],
        exit: None,
        program: None,
    });
    let mut lab = Lab::new(2, &[network]);
    lab.set_cut(true);
    let far = lab.world.net.add_lan(Prefixes { ipv4: Some([192, 0, 3, 0].into()), ipv6: None });
    for lan in [lab.lan, far] {
        lab.world.net.set_gateway(
            lan,
            Some(Gateway { nat: None, out: quarter(seconds), into: quarter(seconds), ..Gateway::default() }),
        );
    }
    lab.world.net.detach(lab.hosts[1], lab.lan);
    let address = (Some([192, 0, 3, 1].into()), None);
    lab.world.attach(lab.hosts[1], far, address, (wire(), wire())).expect("no violation");
    lab.set_cut(false);
    lab.run(10 * SECOND);
    lab
}

/// Makes a link with a quarter of the round trip (up and down, there and back). The nodes' wake-ups add to
/// it.
fn quarter(seconds: u64) -> Pipe {
    let base = Duration::from_millis(250 * seconds);
    Pipe::new([Stage::Mtu(1500), Stage::Delay { base, jitter: Duration::ZERO }])
}

/// Checks that a connection from node 0 to node 1 fails after `time`, or up to `margin` later.
fn expect_failure_after(lab: &mut Lab, time: Duration, margin: Duration) {
    let begun = lab.world.now();
    lab.world.converse(Arc::new(lab.greeting(0, 1))).expect("an attempt");
    while lab.world.ledger.pending().next().is_some() {
        lab.run(SECOND / 100);
        assert!(lab.world.now() - begun <= time + margin, "it still waits");
    }
    let took = lab.world.now() - begun;
    assert!(took >= time, "{took:?}");
}
