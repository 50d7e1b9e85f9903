//! Tests of the shutdown: all nodes are notified, new ones are refused, and the others are served.

use peersock_overlay::wire::{Channel, Control, NoticeCode, RootMessage};

use super::*;

#[test]
fn all_are_told_and_registered_ones_may_renew() {
    let mut world = World::new();
    let mut nodes: Vec<_> = (0..200).map(|seed| world.registered(seed, source(seed.into()))).collect();
    let more: Vec<_> = (0..200)
        .map(|n| {
            let mut seed = [77; 32];
            (seed[0], seed[1]) = (n, 255);
            let mut node = Node::of(Identity::from_seed(&seed), source(1000 + u32::from(n)));
            node.connect(&mut world);
            node
        })
        .collect();
    let mut newcomer = world.connected(250, source(5000));
    assert!(!world.root.has_told_all());
    world.root.drain(world.now);
    let mut sent = world.drain();
    assert_eq!(sent.len(), 256, "a bounded number at once");
    sent.extend(world.pass(SECOND));
    assert!(world.root.has_told_all());
    let drains = RootMessage::Notice { code: NoticeCode::Drains, channel: Channel(0) };
    for node in nodes.iter().chain(&more).chain([&newcomer]) {
        let told = sent.iter().filter(|(to, _)| *to == node.source);
        let told: Vec<_> =
            told.map(|(_, datagram)| RootMessage::parse(&node.open(datagram).unwrap())).collect();
        assert_eq!(told, [Ok(drains.clone())]);
    }
    let renewed = nodes[0].ask_to_register(&mut world, 600);
    assert!(matches!(renewed, Some(RootMessage::Registered(answer)) if answer.drains), "{renewed:?}");
    assert_eq!(newcomer.ask_to_register(&mut world, 600), Some(drains));
    assert_eq!(
        world.send(source(0), &nodes[0].frame(nodes[1].channel, b"x"))[0].0,
        source(1),
        "it relays on"
    );

    world.root.close(world.now);
    let mut sent = world.drain();
    sent.extend(world.pass(SECOND));
    assert_eq!(sent.len(), 401);
    let closed = nodes[7].open(&sent.iter().find(|(to, _)| *to == source(7)).expect("a close").1);
    assert_eq!(Control::parse(&closed.unwrap()), Ok(Control::Close { reason: 0 }));
}

#[test]
fn a_root_without_nodes_is_done_at_once() {
    let mut world = World::new();
    world.root.drain(world.now);
    assert!(world.root.has_told_all());
    assert_eq!(world.root.poll_timeout(), None);
}
