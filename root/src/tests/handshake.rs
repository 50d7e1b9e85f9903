//! Tests of sessions: their creation and cost, and initiations without an answer.

use peersock_overlay::noise::MacWriter;
use peersock_overlay::wire::{Control, MessageType, RootMessage};
use peersock_overlay::{NetworkId, Suite, SuiteSet};

use super::*;

#[test]
fn a_node_gets_a_session_and_chacha_unless_it_has_only_aes() {
    let mut world = World::new();
    assert_eq!(world.connected(1, source(1)).suite(), Some(Suite::ChaCha20Poly1305));
    let mut node = Node::new(2, source(2));
    node.suites = SuiteSet::AES_256_GCM;
    node.connect(&mut world);
    assert_eq!(node.suite(), Some(Suite::Aes256Gcm));
    assert_eq!(world.root.nodes(), 2);
}

#[test]
fn a_root_is_in_no_network() {
    let mut world = World::new();
    let mut node = Node::new(1, source(1));
    node.network = NetworkId::ad_hoc(1..=2).expect("ports");
    let begun = node.begin(world.now);
    assert_eq!(world.send(source(1), &begun.datagram), []);
    assert_eq!(world.root.counters().strangers_refused.get(), 1);
}

#[test]
fn a_copy_of_an_initiation_is_not_answered() {
    let mut world = World::new();
    let mut node = Node::new(1, source(1));
    let begun = node.begin(world.now);
    assert_eq!(world.send(source(1), &begun.datagram).len(), 1);
    assert_eq!(world.send(source(2), &begun.datagram), []);
    assert_eq!(world.root.counters().initiations_replayed.get(), 1);
}

#[test]
fn who_never_uses_a_session_is_forgotten_and_counts_as_no_node() {
    let mut world = World::new();
    let mut node = Node::new(1, source(1));
    let begun = node.begin(world.now);
    world.send(source(1), &begun.datagram);
    assert_eq!((world.root.nodes(), world.root.clients.unproven()), (0, 1));
    world.pass(SECOND * 13);
    assert_eq!(world.root.clients.unproven(), 0);
    assert_eq!(world.root.poll_timeout(), None);
}

#[test]
fn a_clock_that_went_back_is_told_the_newest_time() {
    let mut world = World::new();
    let mut node = world.connected(1, source(1));
    node.time -= 100;
    let begun = node.begin(world.now);
    let sent = world.send(source(1), &begun.datagram);
    assert_eq!(MessageType::of(&sent[0].1), Some(MessageType::StaleReply));
    // The number of replies is bounded, whatever comes.
    let replies: usize = (0..50)
        .map(|_| {
            let begun = node.begin(world.now);
            node.time -= 1;
            world.send(source(1), &begun.datagram).len()
        })
        .sum();
    assert_eq!(replies, 7);
}

#[test]
fn a_flood_of_initiations_meets_cookies() {
    let mut config = config();
    config.limits.handshakes_per_second = 10;
    config.limits.handshake_burst = 10;
    let mut world = World::with(config);
    for seed in 0..20 {
        let mut node = Node::new(seed, source(seed.into()));
        let begun = node.begin(world.now);
        world.send(source(seed.into()), &begun.datagram);
    }
    assert_eq!(world.root.counters().handshakes_answered.get(), 10);
    let mut node = Node::new(100, source(100));
    let begun = node.begin(world.now);
    let sent = world.send(source(100), &begun.datagram);
    assert_eq!(MessageType::of(&sent[0].1), Some(MessageType::CookieReply));
    assert!(node.take_cookie(world.now, &sent[0].1));
    node.connect(&mut world);
    // The cookie is invalid from another address.
    let begun = node.begin(world.now);
    let sent = world.send(source(101), &begun.datagram);
    assert_eq!(MessageType::of(&sent[0].1), Some(MessageType::CookieReply));
}

/// Sends initiations from forged addresses until they have used up the common budget.
fn flood(world: &mut World) {
    let good = Node::new(250, source(1)).begin(world.now).datagram;
    for number in 0..30_000u32 {
        // A stranger only knows the root's ID, from which the first MAC follows.
        let mut forged = good[..good.len() - 32].to_vec();
        forged[10..14].copy_from_slice(&number.to_be_bytes());
        MacWriter::new(&config().identity.node_id()).append(world.now, &mut forged);
        world.send(source(0x10_0000 + (number << 8)), &forged);
    }
}

#[test]
fn a_flood_from_forged_addresses_leaves_known_nodes_their_sessions() {
    let mut config = config();
    config.limits.handshakes_per_second = 10;
    config.limits.handshake_burst = 10;
    let mut world = World::with(config);
    let mut node = world.registered(1, source(1));
    world.pass(SECOND * 60);
    flood(&mut world);
    // A stranger gets nothing, not even a cookie.
    let begun = Node::new(3, source(3)).begin(world.now);
    assert_eq!(world.send(source(3), &begun.datagram), []);
    let begun = node.begin(world.now);
    let sent = world.send(source(1), &begun.datagram);
    assert_eq!(sent.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [source(1)]);
    assert_eq!(MessageType::of(&sent[0].1), Some(MessageType::CookieReply));
    assert!(node.take_cookie(world.now, &sent[0].1));
    node.connect(&mut world);
    node.register(&mut world, 600);
}

#[test]
fn a_known_node_that_floods_gets_its_own_share_and_no_more() {
    let mut config = config();
    config.limits.handshakes_per_second = 10;
    config.limits.handshake_burst = 10;
    let mut world = World::with(config);
    let mut node = world.registered(1, source(1));
    flood(&mut world);
    let begun = node.begin(world.now);
    let sent = world.send(source(1), &begun.datagram);
    assert!(node.take_cookie(world.now, &sent[0].1));
    let before = world.root.counters().handshakes_refused.get();
    for _ in 0..100 {
        let begun = node.begin(world.now);
        world.send(source(1), &begun.datagram);
    }
    let read = 100 - (world.root.counters().handshakes_refused.get() - before);
    assert!(read <= 20, "{read} were read");
}

#[test]
fn a_late_response_is_as_good_as_the_first() {
    let mut world = World::new();
    let mut node = Node::new(1, source(1));
    let first = node.begin(world.now);
    let response = world.send(source(1), &first.datagram).remove(0).1;
    for _ in 0..6 {
        world.pass(SECOND);
        let again = node.begin(world.now);
        assert_eq!(world.send(source(1), &again.datagram).len(), 1);
    }
    node.finish(&first, &response);
    world.send(source(1), &node.seal(&[]));
    assert_eq!(world.root.nodes(), 1);
    node.register(&mut world, 600);
}

#[test]
fn a_session_ends_after_three_minutes_and_a_new_one_takes_over() {
    let mut world = World::new();
    let mut node = world.connected(1, source(1));
    world.pass(SECOND * 120);
    let old = node.seal(&[0; 10]);
    node.connect(&mut world);
    assert_eq!(world.send(source(1), &old), [], "the session before still works");
    assert_eq!(world.root.counters().data_dropped.get(), 0);
    world.pass(SECOND * 179);
    node.register(&mut world, 10);
    world.pass(SECOND * 11);
    assert_eq!((world.root.nodes(), world.root.registered()), (0, 0));
    assert!(world.root.clients.by_index_is_empty());
}

#[test]
fn replayed_packets_are_dropped() {
    let mut world = World::new();
    let mut node = world.connected(1, source(1));
    let challenge = node.seal_control(Control::Challenge { data: [7; 8], here: false });
    assert_eq!(world.send(source(1), &challenge).len(), 1);
    assert_eq!(world.send(source(1), &challenge), []);
    assert_eq!(world.root.counters().data_dropped.get(), 1);
}

#[test]
fn probes_and_challenges_are_answered_and_close_forgets() {
    let mut world = World::new();
    let mut node = world.registered(1, source(1));
    let len = peersock_overlay::wire::ProbeSize::new(1000).expect("a size");
    let probe = node.seal_control(Control::Probe { id: 5, len });
    let answer = node.open(&world.send(source(1), &probe)[0].1).expect("sealed");
    assert_eq!(Control::parse(&answer), Ok(Control::ProbeAck { id: 5, size: 1028 }));
    let challenge = node.seal_control(Control::Challenge { data: [7; 8], here: true });
    let answer = node.open(&world.send(source(1), &challenge)[0].1).expect("sealed");
    assert_eq!(Control::parse(&answer), Ok(Control::Answer { data: [7; 8] }));
    let close = node.seal_control(Control::Close { reason: 0 });
    assert_eq!(world.send(source(1), &close), []);
    assert_eq!((world.root.nodes(), world.root.registered()), (0, 0));
    let after = world.send(source(1), &node.seal(&[]));
    assert_eq!(MessageType::of(&after[0].1), Some(MessageType::UnknownSession));
}

#[test]
fn nodes_of_one_prefix_do_not_take_all_the_room() {
    let mut config = config();
    config.limits.nodes_per_prefix = 2;
    let mut world = World::with(config);
    let at = |port| Source::Udp { socket: 0, remote: ([192, 0, 2, 1], port).into() };
    world.registered(1, at(1));
    world.registered(2, at(2));
    world.connected(3, at(3));
    assert_eq!(world.root.nodes(), 2);
    assert_eq!(world.root.counters().nodes_refused.get(), 1);
    world.connected(9, udp("198.51.100.1:4"));
    assert_eq!(world.root.nodes(), 3);
}

#[test]
fn sessions_without_a_registration_give_way_the_oldest_first() {
    let mut config = config();
    config.limits.nodes_per_prefix = 2;
    let mut world = World::with(config);
    let at = |port| Source::Udp { socket: 0, remote: ([192, 0, 2, 1], port).into() };
    let mut nodes: Vec<_> = (1..=2)
        .map(|seed| {
            world.pass(SECOND);
            world.connected(seed, at(seed.into()))
        })
        .collect();
    let mut third = world.registered(3, at(3));
    assert_eq!((world.root.nodes(), world.root.counters().nodes_gave_way.get()), (2, 1));
    nodes[1].register(&mut world, 600);
    third.register(&mut world, 600);
    world.connected(4, at(4));
    assert_eq!((world.root.nodes(), world.root.counters().nodes_refused.get()), (2, 1));
}

#[test]
fn who_has_many_prefixes_of_one_provider_does_not_get_all_the_room() {
    let mut config = config();
    (config.limits.nodes, config.limits.nodes_per_prefix) = (20, 2);
    let mut world = World::with(config);
    let mut admitted = 0;
    for seed in 0..40u8 {
        let mut node = world.connected(seed, udp(&format!("198.51.{}.1:4000", seed / 2)));
        admitted += usize::from(
            node.ask_to_register(&mut world, 600)
                .is_some_and(|answer| matches!(answer, RootMessage::Registered(_))),
        );
    }
    assert!((10..15).contains(&admitted), "{admitted}");
    for seed in 100..103u8 {
        world.registered(seed, udp(&format!("203.0.{seed}.1:4000")));
    }
}

#[test]
fn identities_that_take_turns_at_one_address_lock_nobody_out() {
    for registered in [false, true] {
        let mut config = config();
        config.limits.nodes = 20;
        let mut world = World::with(config);
        for seed in 0..19 {
            let mut node = world.connected(seed, source(1));
            if registered {
                node.register(&mut world, 600);
            }
        }
        assert_eq!((world.root.nodes(), world.root.clients.unproven()), (1, 0));
        assert_eq!(world.root.registered(), if registered { 19 } else { 0 });
        world.registered(100, source(2));
        // The node that left longest ago is evicted once it is silent.
        world.pass(SECOND * 91);
        for seed in 101..110 {
            world.registered(seed, source(seed.into()));
        }
    }
}

#[test]
fn a_balancer_that_restarts_locks_nobody_out_and_its_nodes_keep_their_names() {
    let mut config = config();
    config.limits.nodes = 30;
    let mut world = World::with(config);
    let remote = SocketAddr::from(([192, 0, 2, 1], 4000));
    let stream = |number| Source::Stream { number, remote };
    let mut nodes: Vec<_> = (0..29).map(|seed| world.registered(seed, stream(seed.into()))).collect();
    nodes.iter().for_each(|node| world.root.handle_disconnect(node.source));
    assert_eq!((world.root.nodes(), world.root.registered(), world.root.clients.unproven()), (0, 29, 0));
    world.registered(100, source(1));
    // The table is full for new nodes, but not for nodes that are in it.
    world.connected(101, source(2));
    assert_eq!(world.root.counters().nodes_refused.get(), 1);
    for (number, node) in nodes.iter_mut().enumerate() {
        let channel = node.channel;
        node.source = stream(100 + number as u64);
        node.connect(&mut world);
        world.now += SECOND;
        node.register(&mut world, 600);
        assert_eq!(node.channel, channel);
    }
    assert_eq!(world.root.nodes(), 30);
}

#[test]
fn who_comes_later_to_an_address_leaves_the_one_before_the_handshake_that_it_has_begun() {
    let mut world = World::new();
    let mut first = world.connected(1, source(1));
    let begun = first.begin(world.now);
    let response = world.send(source(2), &begun.datagram).remove(0).1;
    world.connected(2, source(1));
    assert_eq!((world.root.nodes(), world.root.clients.unproven()), (1, 1));
    first.finish(&begun, &response);
    first.source = source(2);
    world.send(source(2), &first.seal(&[]));
    first.register(&mut world, 600);
    assert_eq!((world.root.nodes(), world.root.clients.unproven()), (2, 0));
}

#[test]
fn a_late_close_ends_the_session_that_it_came_in_and_no_other() {
    let mut world = World::new();
    let mut node = world.registered(1, source(1));
    let (close, later) = (node.seal_control(Control::Close { reason: 0 }), node.seal(&[0; 10]));
    world.pass(SECOND);
    node.connect(&mut world);
    assert_eq!(world.send(source(1), &close), []);
    assert_eq!((world.root.nodes(), world.root.registered()), (1, 1));
    let channel = node.channel;
    node.register(&mut world, 600);
    assert_eq!(node.channel, channel);
    let after = world.send(source(1), &later);
    assert_eq!(MessageType::of(&after[0].1), Some(MessageType::UnknownSession));
}

#[test]
fn a_root_registers_nobody_who_only_sends_messages_of_roots_backwards() {
    let mut world = World::new();
    let mut node = world.connected(1, source(1));
    let notice = RootMessage::Notice {
        code: peersock_overlay::wire::NoticeCode::Drains,
        channel: peersock_overlay::wire::Channel(0),
    };
    assert_eq!(node.ask(&mut world, &notice), None);
    assert_eq!(world.root.counters().control_unknown.get(), 1);
}
