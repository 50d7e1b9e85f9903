//! Knowledge about peers that come and go: their last appearance, their traffic, and the time when they are
//! forgotten.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use peersock_overlay::{
    Endpoint, EndpointConfig, Event, Identity, Limits, NetworkConfig, NetworkIndex, PeerInfo, StaticMember,
    StaticNetwork,
};

use crate::net::{Net, UNIX_TIME, lan_socket, open_network};

const DATA: u8 = 0xD4;
const BEACON: u8 = 0xD5;
const HELLO: u8 = 0xD6;
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_silent_peer_of_an_ad_hoc_network_is_forgotten_after_ten_minutes() {
    let mut net = Net::connected_pair();
    let sent = net.nodes[0].endpoint.networks()[0].traffic.sent_packets;
    let handle = net.peer(0, 1);
    net.nodes[1].up = false;
    let took = net.wait(20 * MINUTE, |net| net.nodes[0].endpoint.peers().is_empty());
    assert!(handle.is_forgotten());
    // The check runs every minute at most, so up to a tenth of the time may pass in addition.
    assert!((9 * MINUTE..=11 * MINUTE).contains(&took), "{took:?}");
    assert_eq!(net.count(0, |event| matches!(event, Event::PeerRemoved(_))), 1);
    assert_eq!(net.counter(0, "peers_forgotten"), 1);
    let network = &net.nodes[0].endpoint.networks()[0];
    assert_eq!((network.peers, network.forgotten), (0, 1));
    assert!(sent > 0 && network.traffic.sent_packets >= sent, "totals remain");

    // When it is heard again, it is a peer again.
    net.nodes[1].up = true;
    net.wait(MINUTE, |net| net.nodes[0].endpoint.peers().len() == 1);
    net.nodes[1].inbox.clear();
    net.send(0, 1, b"back");
    net.wait(Duration::from_secs(5), |net| net.received(1) == [b"back".to_vec()]);
}

#[test]
fn a_peer_whose_beacons_are_heard_is_kept_without_a_session() {
    let mut net = Net::acquainted_pair();
    net.run(180 * MINUTE);
    for node in 0..2 {
        assert_eq!(net.nodes[node].endpoint.peers().len(), 1);
        assert_eq!(net.count(node, |event| matches!(event, Event::PeerRemoved(_))), 0);
    }
    let heard = info(&net, 0).last_heard.expect("beacons");
    assert!(net.now - heard <= MINUTE, "{:?}", net.now - heard);
    assert_eq!(info(&net, 0).last_seen, None, "beacons prove nothing");
}

#[test]
fn a_peer_that_is_asked_for_or_in_use_is_kept() {
    let mut net = Net::connected_pair();
    // No beacon is heard any more.
    net.filter = Box::new(|datagram| datagram.bytes[0] != BEACON);
    for _ in 0..60 {
        net.send(0, 1, b"x");
        net.run(MINUTE);
    }
    assert_eq!(net.count(0, |event| matches!(event, Event::PeerRemoved(_))), 0);
    assert_eq!(net.received(1).len(), 60);
}

#[test]
fn those_who_say_goodbye_are_forgotten_sooner() {
    let mut net = Net::new();
    net.add(1);
    net.join(0, &open_network());
    for identity in 2..=50 {
        let node = net.add(identity);
        net.join(node, &open_network());
        net.send(node, 0, b"hello");
        net.run(Duration::from_secs(1));
        net.nodes[node].endpoint.leave(net.now, NetworkIndex(0));
        net.run(Duration::from_millis(10));
        net.nodes[node].up = false;
    }
    let left = net.nodes[0].endpoint.peers();
    assert_eq!(net.nodes[0].inbox.len(), 49);
    assert!(left.iter().all(|peer| peer.left && peer.last_seen.is_some()), "{left:?}");
    // A peer that has said goodbye is forgotten after a tenth of the time, and the check adds another tenth.
    net.run(3 * MINUTE);
    assert!(net.nodes[0].endpoint.peers().is_empty());
    assert_eq!(net.nodes[0].endpoint.networks()[0].forgotten, 49);

    net.nodes[0].endpoint.leave(net.now, NetworkIndex(0));
    assert_eq!(net.nodes[0].endpoint.poll_timeout(), None, "nothing is left to forget");
}

#[test]
fn who_leaves_and_comes_back_is_not_gone() {
    let mut net = Net::connected_pair();
    net.nodes[1].endpoint.leave(net.now, NetworkIndex(0));
    net.run(Duration::from_millis(5));
    assert!(info(&net, 0).left);
    net.join(1, &open_network());
    net.run(Duration::from_secs(4));
    assert!(!info(&net, 0).left);
    net.run(30 * MINUTE);
    assert_eq!(net.counter(0, "peers_forgotten"), 0);
}

#[test]
fn members_of_a_static_network_are_never_forgotten() {
    let mut net = Net::pair();
    let member = |seed: u8| StaticMember {
        identity: *Identity::from_seed(&[seed; 32]).public(),
        name: Some(format!("m{seed}")),
        addresses: Vec::new(),
        endpoints: Vec::new(),
        routes: Vec::new(),
        exit: peersock_overlay::Exit::default(),
    };
    let id = "fe00000000000001".parse().expect("an ID");
    let members = [1, 2, 3].map(member).to_vec();
    let network = NetworkConfig::Static(StaticNetwork { id, psk: None, members, exit: None, program: None });
    for node in 0..2 {
        net.join(node, &network);
    }
    net.send(0, 1, b"hello");
    net.run(MINUTE);
    net.nodes[1].endpoint.leave(net.now, NetworkIndex(0));
    net.run(60 * MINUTE);
    let endpoint = &net.nodes[0].endpoint;
    assert_eq!(endpoint.networks()[0].name.as_deref(), Some("m1"));
    let mut peers = endpoint.peers();
    peers.sort_by_key(|peer| peer.name.clone());
    let shown: Vec<_> = peers
        .iter()
        .map(|peer| (peer.name.as_deref(), peer.listed, peer.left, peer.last_heard.is_some()))
        .collect();
    assert_eq!(shown, [(Some("m2"), true, true, true), (Some("m3"), true, false, false)]);
}

// A late packet is not counted as lost for ever.
#[test]
fn what_does_not_come_is_counted_and_not_what_is_late() {
    let mut net = Net::connected_pair();
    // No probe is too large.
    net.mtu = usize::MAX;
    let before = info(&net, 1).traffic.lost_packets;
    let lost = |net: &Net| info(net, 1).traffic.lost_packets - before;
    let from = net.nodes[0].socket;
    let dropped = Rc::new(Cell::new(0));
    for _ in 0..5 {
        let count = Rc::clone(&dropped);
        net.filter = Box::new(move |sent| {
            let passes = sent.from != from;
            count.set(count.get() + u64::from(!passes && sent.bytes[0] == DATA));
            passes
        });
        net.send(0, 1, b"lost");
        net.filter = Box::new(|_| true);
        net.send(0, 1, b"after it");
        net.run(Duration::from_millis(100));
    }
    let dropped = dropped.get();
    assert!(dropped >= 5);
    assert_eq!(lost(&net), dropped);

    net.latency = Duration::from_millis(200);
    net.send(0, 1, b"late");
    net.latency = Duration::from_millis(1);
    net.send(0, 1, b"overtakes it");
    net.run(Duration::from_millis(50));
    assert!(lost(&net) > dropped);
    net.run(Duration::from_millis(200));
    assert_eq!(lost(&net), dropped);
}

#[test]
fn traffic_adds_up_over_sessions() {
    let mut net = Net::connected_pair();
    for _ in 0..40 {
        net.send(0, 1, b"0123456789");
        net.run(Duration::from_secs(15));
    }
    assert!(net.counter(0, "rekeys") >= 3);
    let [sender, receiver] = [0, 1].map(|node| info(&net, node));
    let session = sender.peer.session().expect("connected").stats();
    assert!(session.sent_packets < sender.traffic.sent_packets / 2, "{session:?} {:?}", sender.traffic);
    // At least the hello and these packets; probes and keepalives count, too.
    let bytes = 6 + 40 * 11;
    assert!(sender.traffic.sent_packets > 40 && sender.traffic.sent_bytes >= bytes, "{:?}", sender.traffic);
    assert!(receiver.traffic.received_packets > 40 && receiver.traffic.received_bytes >= bytes);
    assert_eq!(receiver.traffic.received_packets + lost_probes(&net), sender.traffic.sent_packets);
    assert_eq!(net.nodes[0].endpoint.networks()[0].traffic, sender.traffic);
    assert!(receiver.traffic.lost_packets <= lost_probes(&net), "{:?}", receiver.traffic);
    let seen = receiver.last_seen.expect("packets came");
    assert!(net.now - seen <= Duration::from_secs(16), "{:?}", net.now - seen);
}

#[test]
fn a_hello_in_a_peers_name_does_not_count_as_seen() {
    let mut net = Net::connected_pair();
    net.run(4 * MINUTE);
    let seen = info(&net, 0).last_seen.expect("it was connected");
    // Only hellos and beacons remain: the session is gone.
    net.run(30 * MINUTE);
    let info = info(&net, 0);
    assert_eq!(info.last_seen, Some(seen));
    assert!(info.last_heard.expect("beacons") > seen);
}

#[test]
fn an_observer_sees_who_is_there_and_stays_unknown() {
    let mut net = Net::acquainted_pair();
    let observer = net.add(3);
    let mut config = EndpointConfig::new(Arc::new(Identity::from_seed(&[3; 32])));
    config.introduce = false;
    let mut endpoint = Endpoint::new(config, [7; 32], net.now, UNIX_TIME);
    endpoint.set_sockets(net.now, vec![lan_socket()]);
    net.nodes[observer].endpoint = endpoint;
    net.join(observer, &open_network());
    let took = net.wait(MINUTE, |net| net.nodes[observer].endpoint.peers().len() == 2);
    assert!(took <= Duration::from_millis(5), "{took:?}");
    net.run(5 * MINUTE);
    let from = net.nodes[observer].socket;
    assert!(net.sent.iter().all(|sent| sent.from != from || sent.bytes[0] != HELLO));
    for node in 0..2 {
        assert_eq!(net.nodes[node].endpoint.peers().len(), 1);
    }
    // The receiver of a packet knows the sender.
    net.send(observer, 0, b"hello");
    net.wait(Duration::from_secs(1), |net| net.received(0) == [b"hello".to_vec()]);
    assert_eq!(net.nodes[0].endpoint.peers().len(), 2);
}

#[test]
fn any_age_is_a_good_setting() {
    for (forget_after, forgotten) in [(Duration::ZERO, true), (Duration::MAX, false)] {
        let mut net = Net::new();
        let mut config = EndpointConfig::new(Arc::new(Identity::from_seed(&[1; 32])));
        config.limits = Limits { forget_after, ..Limits::default() };
        net.add(1);
        net.nodes[0].endpoint = Endpoint::new(config, [7; 32], net.now, UNIX_TIME);
        net.nodes[0].endpoint.set_sockets(net.now, vec![lan_socket()]);
        net.add(2);
        for node in 0..2 {
            net.join(node, &open_network());
        }
        net.run(Duration::from_millis(50));
        net.nodes[1].up = false;
        net.run(5 * MINUTE);
        assert_eq!(net.nodes[0].endpoint.peers().is_empty(), forgotten, "{forget_after:?}");
    }
}

/// Returns the number of sealed packets that were larger than the wire carries.
fn lost_probes(net: &Net) -> u64 {
    let too_large = net.sent.iter().filter(|sent| sent.bytes[0] == DATA && sent.bytes.len() > net.mtu);
    too_large.filter(|sent| sent.from == net.nodes[0].socket).count() as u64
}

/// Returns a node's information about its only peer.
fn info(net: &Net, node: usize) -> PeerInfo {
    let mut peers = net.nodes[node].endpoint.peers();
    assert_eq!(peers.len(), 1);
    peers.remove(0)
}
