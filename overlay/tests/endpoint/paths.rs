//! Roaming and path MTU discovery.

use std::time::Duration;

use peersock_overlay::{Event, SocketIndex, SocketInfo};
use peersock_testnet::Random;

use crate::net::{Net, lan_socket};

#[test]
fn the_path_follows_the_peer() {
    let mut net = Net::connected_pair();
    net.nodes[0].events.clear();
    net.nodes[1].socket.set_port(5555);
    net.send(1, 0, b"from elsewhere");
    // The packet, then a probe and its answer.
    net.run(Duration::from_millis(3));
    assert_eq!(net.peer(0, 1).path().map(|path| path.remote().port()), Some(5555));
    assert!(net.count(0, |event| matches!(event, Event::PathChanged(_))) >= 1);
    net.send(0, 1, b"and back");
    net.run(Duration::from_millis(1));
    assert_eq!(net.received(1), [b"and back".to_vec()]);
}

#[test]
fn a_path_whose_socket_is_gone_moves_to_another() {
    let mut net = Net::connected_pair();
    let socket = SocketInfo { index: SocketIndex(3), ..lan_socket() };
    net.nodes[0].endpoint.set_sockets(net.now, vec![socket]);
    net.nodes[0].index = SocketIndex(3);
    net.run(Duration::from_millis(2));
    assert_eq!(net.peer(0, 1).path().map(|path| path.socket()), Some(SocketIndex(3)));
}

#[test]
fn a_forged_or_replayed_packet_moves_nothing() {
    let mut net = Net::connected_pair();
    net.send(1, 0, b"true");
    net.run(Duration::from_millis(1));
    let genuine =
        net.sent.iter().rfind(|sent| sent.bytes[0] == 0xD4 && sent.bytes.len() == 33).unwrap().clone();
    let mut forged = genuine.clone();
    *forged.bytes.last_mut().unwrap() ^= 1;
    for mut datagram in [genuine, forged] {
        datagram.from.set_port(6666);
        net.inject(datagram);
    }
    net.run(Duration::from_millis(5));
    assert_eq!(net.peer(0, 1).path().map(|path| path.remote().port()), Some(4000));
    assert_eq!((net.counter(0, "data_replayed"), net.counter(0, "data_unauthentic")), (1, 1));
}

#[test]
fn the_search_reaches_what_the_link_carries() {
    for (mtu, expected) in [
        (1200, 1200..=1200),
        // A link of 1200 bytes with IPv4 and IPv6, one of 576 bytes, and one that only fits a handshake.
        (1172, 1150..=1172),
        (1152, 1130..=1152),
        (548, 530..=548),
        (198, 198..=198),
        (1472, 1472..=1472),
        (8972, 8972..=8972),
        // Except on loopback, the search ends at jumbo frames.
        (65_507, 8972..=8972),
        (1400, 1380..=1400),
    ] {
        let mut net = Net::acquainted_pair();
        net.mtu = mtu;
        net.send(0, 1, b"x");
        net.run(Duration::from_secs(20));
        for (at, of) in [(0, 1), (1, 0)] {
            let size = net.peer(at, of).path().unwrap().datagram_size;
            assert!(expected.contains(&size), "{mtu}: {size}");
        }
    }
}

#[test]
fn a_link_that_carries_much_is_used_after_some_round_trips() {
    let mut net = Net::acquainted_pair();
    net.mtu = 8972;
    net.send(0, 1, b"x");
    let took = net.wait(Duration::from_secs(1), |net| {
        net.peer(0, 1).path().is_some_and(|path| path.datagram_size == 8972)
    });
    assert!(took <= Duration::from_millis(10), "{took:?}");
}

#[test]
fn loopback_reaches_the_largest_datagram() {
    let mut net = Net::pair();
    net.mtu = 65_507;
    for node in 0..2 {
        net.nodes[node].socket = ([127, 0, 0, node as u8 + 1], 4000).into();
        net.nodes[node].endpoint.set_sockets(net.now, vec![SocketInfo { loopback: true, ..lan_socket() }]);
        net.join(node, &crate::net::open_network());
    }
    net.run(Duration::from_secs(4));
    net.send(0, 1, b"x");
    let took = net.wait(Duration::from_secs(1), |net| {
        net.peer(0, 1).path().is_some_and(|path| path.datagram_size == 65_507)
    });
    assert!(took <= Duration::from_millis(10), "{took:?}");
}

#[test]
fn a_peer_on_this_machine_is_moved_to_loopback() {
    let mut net = Net::connected_pair();
    net.run(Duration::from_secs(20));
    assert_eq!(net.peer(0, 1).path().unwrap().datagram_size, 1472);
    // Now each hears the other's beacons from loopback too, as on one machine.
    net.mtu = 65_507;
    for node in 0..2 {
        net.nodes[node].socket = ([127, 0, 0, node as u8 + 1], 4000).into();
        let socket = SocketInfo { index: SocketIndex(0), loopback: false, ..lan_socket() };
        net.nodes[node].endpoint.set_sockets(net.now, vec![socket]);
    }
    net.run(Duration::from_secs(1));
    for (at, of) in [(0, 1), (1, 0)] {
        let path = net.peer(at, of).path().unwrap();
        assert!(path.remote().ip().is_loopback() && path.datagram_size == 65_507, "{path:?}");
    }
}

#[test]
fn a_black_hole_falls_back_within_a_second_of_the_hint() {
    let mut net = Net::acquainted_pair();
    net.mtu = 8972;
    net.send(0, 1, b"x");
    net.run(Duration::from_secs(5));
    assert_eq!(net.peer(0, 1).path().unwrap().datagram_size, 8972);
    net.mtu = 1472;
    let peer = net.peer(0, 1);
    net.nodes[0].endpoint.peer_unresponsive(net.now, &peer);
    let took = net.wait(Duration::from_secs(2), |net| net.peer(0, 1).path().unwrap().datagram_size == 1200);
    assert!(took <= Duration::from_secs(1), "{took:?}");
    let took = net.wait(Duration::from_secs(5), |net| net.peer(0, 1).path().unwrap().datagram_size == 1472);
    assert!(took <= Duration::from_millis(10), "{took:?}");
    assert_eq!(net.counter(0, "black_holes"), 1);
}

#[test]
fn a_black_hole_is_noticed_without_a_hint_while_traffic_flows() {
    let mut net = Net::acquainted_pair();
    net.mtu = 8972;
    net.send(0, 1, b"x");
    net.run(Duration::from_secs(5));
    net.mtu = 1472;
    let begin = net.now;
    while net.peer(0, 1).path().unwrap().datagram_size > 1472 {
        net.send(0, 1, b"x");
        net.run(Duration::from_secs(1));
        assert!(net.now - begin < Duration::from_secs(60));
    }
    assert!(net.now - begin <= Duration::from_secs(32), "{:?}", net.now - begin);
}

#[test]
fn a_path_of_less_than_the_base_is_known_for_what_it_is_before_anybody_waits() {
    for (latency, limit) in [(1, 150), (20, 450), (50, 1000)] {
        let mut net = Net::acquainted_pair();
        net.latency = Duration::from_millis(latency);
        net.mtu = 1172;
        net.send(0, 1, b"x");
        let took = net.wait(Duration::from_secs(10), |net| {
            [(0, 1), (1, 0)]
                .into_iter()
                .all(|(at, of)| net.peer(at, of).path().is_some_and(|path| path.datagram_size <= 1172))
        });
        assert!(took <= Duration::from_millis(limit), "{latency}: {took:?}");
        assert!(net.count(0, |event| matches!(event, Event::PathShrunk(_))) >= 1);
    }
}

#[test]
fn losses_are_not_taken_for_a_smaller_size_nor_hide_one() {
    let busy = |net: &mut Net, seconds: u32, carries: &mut dyn FnMut(usize)| {
        for _ in 0..seconds * 20 {
            (0..20).for_each(|_| net.send(0, 1, &[0; 1400]));
            let peer = net.peer(0, 1);
            net.nodes[0].endpoint.path_suspected(net.now, &peer);
            net.run(Duration::from_millis(50));
            carries(net.peer(0, 1).path().expect("a path").datagram_size);
        }
    };
    for seed in 0..2 {
        let (mut turns, mut smaller) = (0, 0);
        let mut net = lossy(36, seed);
        busy(&mut net, 120, &mut |size| {
            turns += 1;
            smaller += usize::from(size < 1472);
        });
        assert!(smaller * 20 <= turns, "{smaller} of {turns}");
        net.mtu = 1300;
        busy(&mut net, 20, &mut |_| ());
        let size = net.peer(0, 1).path().expect("a path").datagram_size;
        assert!(size <= 1300, "{size}");
    }
}

#[test]
fn a_path_that_carries_less_than_anybody_needs_is_told_of() {
    let too_small = |net: &Net| net.count(0, |event| matches!(event, Event::PathTooSmall(_)));
    let send = |net: &mut Net, seconds: u32| {
        for _ in 0..seconds * 5 {
            net.send(0, 1, &[0; 150]);
            let peer = net.peer(0, 1);
            net.nodes[0].endpoint.path_suspected(net.now, &peer);
            net.run(Duration::from_millis(200));
        }
    };
    let mut net = Net::connected_pair();
    net.run(Duration::from_secs(5));
    // Less than an initiation, which has 198 bytes and is the smallest size that the protocol needs.
    net.mtu = 122;
    send(&mut net, 11);
    assert_eq!(too_small(&net), 1);
    send(&mut net, 10);
    assert_eq!(too_small(&net), 1, "it is told once");
    // It carries more again, and less.
    net.mtu = 1472;
    send(&mut net, 2);
    assert!(net.peer(0, 1).path().is_some_and(|path| path.datagram_size >= 1200));
    net.mtu = 122;
    send(&mut net, 11);
    assert_eq!(too_small(&net), 2);

    // Outages and losses must not look like that.
    for loss in [100, 36] {
        let mut net = lossy(loss, 1);
        send(&mut net, 100);
        assert_eq!(too_small(&net), 0);
    }
}

#[test]
fn a_black_hole_in_one_direction_is_noticed_while_the_other_sends_too() {
    let mut net = Net::acquainted_pair();
    net.send(0, 1, b"x");
    net.run(Duration::from_secs(5));
    let sender = net.nodes[0].socket;
    net.filter = Box::new(move |sent| sent.from != sender || sent.bytes.len() <= 1300);
    let begin = net.now;
    // Neither side is ever silent, so no suspicion arises.
    while net.peer(0, 1).path().unwrap().datagram_size > 1300 {
        net.send(0, 1, &[0; 1400]);
        net.send(1, 0, &[0; 1400]);
        net.run(Duration::from_millis(10));
        assert!(net.now - begin < Duration::from_secs(1), "{:?}", net.now - begin);
    }
    assert_eq!(net.peer(1, 0).path().unwrap().datagram_size, 1472);
    net.wait(Duration::from_secs(1), |net| net.peer(0, 1).path().unwrap().datagram_size >= 1280);
}

#[test]
fn an_outage_does_not_make_datagrams_smaller() {
    let mut net = Net::connected_pair();
    net.run(Duration::from_secs(5));
    net.filter = Box::new(|_| false);
    for _ in 0..100 {
        net.send(0, 1, &[0; 1400]);
        net.run(Duration::from_millis(300));
        let peer = net.peer(0, 1);
        net.nodes[0].endpoint.path_suspected(net.now, &peer);
    }
    assert_eq!(net.peer(0, 1).path().unwrap().datagram_size, 1472);
    assert_eq!(net.counter(0, "black_holes"), 0);
}

/// Creates two nodes with a session that lose `percent` percent of their packets.
fn lossy(percent: usize, seed: u64) -> Net {
    let mut net = Net::connected_pair();
    net.run(Duration::from_secs(5));
    let mut random = Random::from_seed(seed);
    net.filter = Box::new(move |_| random.below(100) >= percent);
    net
}
