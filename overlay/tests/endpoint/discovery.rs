//! Beacons and hellos: which nodes find each other, how fast, and what strangers learn.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use peersock_overlay::{Event, Identity, Lookup, NetworkConfig, NetworkId, Psk, StaticMember, StaticNetwork};

use crate::net::{Net, open_network};

const BEACON: u8 = 0xD5;
const HELLO: u8 = 0xD6;

#[test]
fn a_newcomer_is_known_after_two_trips() {
    let mut net = Net::pair();
    net.join(0, &open_network());
    net.run(Duration::from_secs(10));
    net.join(1, &open_network());
    let took = net.wait(Duration::from_secs(1), |net| net.nodes[0].endpoint.peers().len() == 1);
    assert!(took <= Duration::from_millis(3), "{took:?}");
    net.run(Duration::from_millis(5));
    assert_eq!(net.nodes[1].endpoint.peers().len(), 1);
    assert_eq!(net.count(0, |event| matches!(event, Event::PeerAdded(_))), 1);
}

#[test]
fn a_packet_for_an_unknown_node_finds_it_and_goes_out() {
    let mut net = Net::pair();
    let network = net.join(0, &open_network());
    net.run(Duration::from_secs(10));
    // The other side is there, but its own beacons are lost.
    let silent = net.nodes[1].socket;
    net.filter = Box::new(move |datagram| datagram.bytes[0] != BEACON || datagram.from != silent);
    net.join(1, &open_network());
    net.run(Duration::from_secs(5));
    let address = net.address(0, network, 1);
    net.send_to(0, network, address, b"found");
    let took = net.wait(Duration::from_secs(1), |net| !net.nodes[1].inbox.is_empty());
    // Beacon, hello, initiation, response, data.
    assert_eq!(took, Duration::from_millis(5));
}

#[test]
fn one_question_finds_a_node_over_round_trips_of_up_to_ten_seconds() {
    for (millis, phase) in [100, 3000, 10_000].into_iter().flat_map(|millis| [0, 3, 9].map(|s| (millis, s))) {
        let mut net = Net::pair();
        net.latency = Duration::from_millis(millis / 2);
        // Only beacons that ask for a node arrive.
        net.filter = Box::new(|datagram| datagram.bytes[0] != BEACON);
        let network = net.join(0, &open_network());
        net.join(1, &open_network());
        net.run(Duration::from_secs(40 + phase));
        let silent = net.nodes[1].socket;
        net.filter = Box::new(move |datagram| datagram.bytes[0] != BEACON || datagram.from != silent);
        let address = net.address(0, network, 1);
        assert!(matches!(net.nodes[0].endpoint.lookup(net.now, network, address), Lookup::Unknown));
        // Beacon and hello, initiation and response: no node asks a second time.
        let took = net.wait(Duration::from_secs(60), |net| net.counter(0, "sessions_established") > 0);
        assert_eq!(took, net.latency * 4, "round trip of {millis} ms");
    }
}

#[test]
fn nodes_that_look_for_nobody_meet_over_round_trips_of_up_to_ten_seconds() {
    for phase in 0..10 {
        let mut net = Net::pair();
        net.latency = Duration::from_secs(5);
        net.join(0, &open_network());
        net.run(Duration::from_millis(40_000 + phase * 1000));
        net.join(1, &open_network());
        let both = |net: &mut Net| net.nodes.iter().all(|node| node.endpoint.peers().len() == 1);
        // Beacon, hello, hello, hello.
        let took = net.wait(Duration::from_secs(30), both);
        assert!(took <= net.latency * 4, "{took:?}");
    }
}

#[test]
fn beacons_do_not_tell_how_many_networks_a_node_is_in() {
    for networks in [1, 3, 7, 16] {
        let mut net = Net::new();
        net.add(1);
        for n in 0..networks {
            let id = NetworkId::ad_hoc(n + 1..=65_535).unwrap();
            net.join(0, &NetworkConfig::AdHoc { id, psk: Some(Psk::new([n as u8 + 1; 32])) });
        }
        net.sent.clear();
        net.run(Duration::from_secs(1300));
        let mut by_salt: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for sent in net.sent.iter().filter(|sent| sent.bytes[0] == BEACON) {
            by_salt.entry(sent.bytes[2..18].to_vec()).or_default().insert(sent.bytes[18..].to_vec());
        }
        // A salt lives for 600 s.
        assert!(by_salt.len() >= 2);
        // A comparison reveals nothing: one salt always has the same tags, and two salts have none in common.
        assert!(by_salt.values().all(|beacons| beacons.len() == 1), "{networks} networks");
        let mut seen = BTreeSet::new();
        for tags in by_salt.values().flatten() {
            assert!(tags.chunks(16).is_sorted());
            assert!(tags.chunks(16).all(|tag| seen.insert(tag.to_vec())), "{networks} networks");
        }
    }
}

#[test]
fn looking_for_nobody_costs_one_beacon_per_second() {
    let mut net = Net::new();
    net.add(1);
    let network = net.join(0, &open_network());
    net.run(Duration::from_secs(10));
    let nobody = open_network().id().address_of(&Identity::from_seed(&[99; 32]).node_id());
    let before = beacons(&net);
    for _ in 0..10_000 {
        let lookup = net.nodes[0].endpoint.lookup(net.now, network, nobody.into());
        assert!(matches!(lookup, Lookup::Unknown));
        net.run(Duration::from_millis(1));
    }
    // One question a second for ten seconds, and the regular beacons.
    assert!((9..=13).contains(&(beacons(&net) - before)), "{}", beacons(&net) - before);
    // The question ends when no program asks any more.
    net.run(Duration::from_secs(12));
    let before = beacons(&net);
    net.run(Duration::from_secs(60));
    assert!(beacons(&net) - before <= 3);
}

#[test]
fn lookups_say_what_can_be() {
    let mut net = Net::acquainted_pair();
    let network = net.nodes[0].endpoint.networks()[0].index;
    let own = net.nodes[0].endpoint.addresses(network)[0];
    let peer = net.address(0, network, 1);
    let mut lookup = |address: IpAddr| net.nodes[0].endpoint.lookup(net.now, network, address);
    assert!(matches!(lookup(own), Lookup::Local));
    assert!(matches!(lookup(peer), Lookup::Peer(found) if found.owns(peer)));
    assert!(matches!(lookup("fd00::1".parse().unwrap()), Lookup::NoRoute));
    assert!(matches!(lookup("10.0.0.1".parse().unwrap()), Lookup::NoRoute));
}

#[test]
fn beacons_keep_to_their_schedule() {
    let mut net = Net::new();
    net.add(1);
    let begin = net.now;
    net.join(0, &open_network());
    net.run(Duration::from_secs(120));
    let times: Vec<_> = net.sent.iter().map(|sent| (sent.at - begin).as_millis()).collect();
    assert_eq!(times[..5], [0, 100, 300, 1000, 3000]);
    for pair in times[4..].windows(2) {
        assert!((20_000..=30_000).contains(&(pair[1] - pair[0])), "{times:?}");
    }
}

#[test]
fn those_who_have_met_answer_no_further_beacons() {
    let mut net = Net::acquainted_pair();
    let before = hellos(&net);
    net.run(Duration::from_secs(500));
    assert_eq!(hellos(&net), before);
    // Two exchanges cross, because both sent a beacon at once: hello, its answer, and the answer to that.
    assert!(before <= 6, "{before}");
}

#[test]
fn a_lost_hello_is_made_good_by_the_next_beacon() {
    let mut net = Net::pair();
    net.join(0, &open_network());
    net.run(Duration::from_secs(10));
    let lost = Cell::new(0);
    net.filter = Box::new(move |datagram| datagram.bytes[0] != HELLO || lost.replace(lost.get() + 1) >= 2);
    net.join(1, &open_network());
    let both = |net: &mut Net| net.nodes.iter().all(|node| node.endpoint.peers().len() == 1);
    let took = net.wait(Duration::from_secs(3), both);
    // The third beacon comes 300 ms after the first one.
    assert!(took <= Duration::from_millis(310), "{took:?}");
}

#[test]
fn several_common_networks_are_all_found_and_kept_apart() {
    for count in [2, 5, 16, 20, 40] {
        let mut net = Net::pair();
        for port in 1..=count {
            for node in 0..2 {
                net.join(node, &ad_hoc(port, None));
            }
        }
        let all = |net: &mut Net| {
            let found = |node: usize| net.nodes[node].endpoint.peers().len() == usize::from(count);
            found(0) && found(1)
        };
        let took = net.wait(Duration::from_secs(200), all);
        // One beacon names at most 16 networks, so a node in more of them takes turns.
        assert!(count > 16 || took < Duration::from_secs(1), "{count}: {took:?}");
        // One session per network, each for its own packets.
        for network in net.nodes[0].endpoint.networks().iter().take(3) {
            let address = net.address(0, network.index, 1);
            net.send_to(0, network.index, address, network.id.to_string().as_bytes());
        }
        net.run(Duration::from_secs(1));
        for (_, peer, packet) in &net.nodes[1].inbox {
            let networks = net.nodes[1].endpoint.networks();
            let network = networks.iter().find(|network| network.index == peer.network()).unwrap();
            assert_eq!(packet[1..], *network.id.to_string().as_bytes());
        }
        assert_eq!(net.nodes[1].inbox.len(), usize::from(count.min(3)));
    }
}

#[test]
fn a_network_joined_later_is_found_between_acquaintances() {
    let mut net = Net::acquainted_pair();
    net.join(0, &ad_hoc(7, None));
    net.run(Duration::from_secs(60));
    net.join(1, &ad_hoc(7, None));
    let took = net.wait(Duration::from_secs(1), |net| net.nodes[0].endpoint.peers().len() == 2);
    assert!(took <= Duration::from_millis(5), "{took:?}");
}

#[test]
fn other_networks_and_keys_never_match_and_never_answer() {
    let psk = |byte| Some(Psk::new([byte; 32]));
    let pairs = [
        (ad_hoc(1, None), ad_hoc(2, None)),
        (ad_hoc(1, None), ad_hoc(1, psk(1))),
        (ad_hoc(1, psk(1)), ad_hoc(1, psk(2))),
        (listed(&[1, 2]), listed(&[1, 2, 3])),
    ];
    for (one, other) in pairs {
        let mut net = Net::pair();
        net.join(0, &one);
        net.join(1, &other);
        net.run(Duration::from_secs(300));
        assert!(net.sent.iter().all(|sent| sent.bytes[0] == BEACON), "{one:?} {other:?}");
        assert!(net.counter(0, "beacons_received") > 5);
    }
}

#[test]
fn the_same_passphrase_meets() {
    let mut net = Net::pair();
    for node in 0..2 {
        net.join(node, &ad_hoc(1, Some(Psk::new([1; 32]))));
    }
    net.run(Duration::from_secs(1));
    net.send(0, 1, b"secret");
    net.wait(Duration::from_millis(10), |net| net.received(1) == [b"secret".to_vec()]);
}

#[test]
fn a_listed_member_is_found_without_an_endpoint_and_reached_by_its_listed_address() {
    let mut net = Net::pair();
    for node in 0..2 {
        net.join(node, &listed(&[1, 2]));
    }
    net.run(Duration::from_secs(1));
    let network = net.nodes[0].endpoint.networks()[0].index;
    net.send_to(0, network, [10, 0, 0, 2].into(), b"by IPv4");
    net.run(Duration::from_millis(10));
    assert_eq!(net.received(1), [b"by IPv4".to_vec()]);
    let sender = &net.nodes[1].inbox[0].1;
    assert!(sender.owns([10, 0, 0, 1].into()) && !sender.owns([10, 0, 0, 2].into()));
}

#[test]
fn one_lan_of_many_nodes_meets() {
    let mut net = Net::new();
    for identity in 1..=20 {
        let node = net.add(identity);
        net.join(node, &open_network());
    }
    net.run(Duration::from_secs(4));
    assert!(net.nodes.iter().all(|node| node.endpoint.peers().len() == 19));
    let before = hellos(&net);
    net.run(Duration::from_secs(300));
    assert_eq!(hellos(&net), before);
}

fn beacons(net: &Net) -> usize {
    net.sent.iter().filter(|sent| sent.bytes[0] == BEACON).count()
}

fn hellos(net: &Net) -> usize {
    net.sent.iter().filter(|sent| sent.bytes[0] == HELLO).count()
}

fn ad_hoc(port: u16, psk: Option<Psk>) -> NetworkConfig {
    NetworkConfig::AdHoc { id: NetworkId::ad_hoc(port..=port).expect("a port"), psk }
}

fn listed(seeds: &[u8]) -> NetworkConfig {
    let member = |&seed: &u8| StaticMember {
        identity: *Identity::from_seed(&[seed; 32]).public(),
        name: None,
        addresses: vec![[10, 0, 0, seed].into()],
        endpoints: Vec::new(),
        routes: Vec::new(),
        exit: peersock_overlay::Exit::default(),
    };
    let id = "fe00000000000001".parse().expect("an ID");
    NetworkConfig::Static(StaticNetwork {
        id,
        psk: None,
        members: seeds.iter().map(member).collect(),
        exit: None,
        program: None,
    })
}
