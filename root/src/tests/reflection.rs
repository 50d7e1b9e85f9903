//! An address that has not shown that it receives gets no more bytes than came from there, whatever is sent.

use peersock_overlay::wire::{Control, LookUpKey, MessageType, ProbeSize, Registration, RootMessage};
use proptest::prelude::*;

use super::*;

/// Returns one datagram of each kind that a root answers, as from an unproven place.
fn datagrams(world: &mut World) -> Vec<(&'static str, Vec<u8>)> {
    let mut stranger = Node::new(50, source(50));
    let mut node = world.registered(1, source(1));
    let registration = Registration::sign(&node.identity, &config().identity.node_id(), u64::MAX, 600);
    let key = LookUpKey::Id(node.identity.node_id());
    let mut stun = vec![0; 20];
    stun[1] = 1;
    stun[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
    let mut padded = stun.clone();
    padded[3] = 24;
    padded.extend([0, 0x26, 0, 20]);
    padded.extend([0; 20]);
    let mut unknown = node.seal(&[0; 10]);
    unknown[1..4].copy_from_slice(&[0; 3]);
    let mut all = vec![
        ("initiation", stranger.begin(world.now).datagram),
        ("unknown session", unknown[..28].to_vec()),
        ("keepalive", node.seal(&[0; 10])),
        ("empty keepalive", node.seal(&[])),
        ("register", node.seal_message(&RootMessage::Register { registration, access: vec![1; 9] })),
        ("look-up", node.seal_message(&RootMessage::LookUp { id: 1, key })),
        ("vouch", node.seal_message(&RootMessage::Vouch)),
        ("short look-up", node.seal_message(&RootMessage::LookUp { id: 1, key: LookUpKey::Prefix([1; 10]) })),
        ("relayed", node.frame(node.channel, b"x")),
        ("STUN", stun),
        ("padded STUN", padded),
    ];
    let controls = [
        Control::Probe { id: 1, len: ProbeSize::MIN },
        Control::Challenge { data: [1; 8], here: false },
        Control::Challenge { data: [1; 8], here: true },
        Control::Answer { data: [1; 8] },
        Control::Params { receive_buffer: 1, instance: 1 },
    ];
    all.extend(controls.map(|control| ("control", node.seal_control(control))));
    let mut stale = Node::new(1, source(1));
    stale.time -= 1000;
    all.push(("stale initiation", stale.begin(world.now).datagram));
    all
}

/// Returns the number of bytes sent to `to`.
fn bytes_to(to: Source, sent: &[(Source, Vec<u8>)]) -> usize {
    sent.iter().filter(|(source, _)| *source == to).map(|(_, datagram)| datagram.len()).sum()
}

#[test]
fn every_message_from_an_unproven_place_pays_for_its_answer() {
    let mut world = World::new();
    let mut answered = Vec::new();
    for (number, (name, datagram)) in datagrams(&mut world).into_iter().enumerate() {
        let from = source(10_000 + number as u32);
        // Challenges to several places must wait for each other.
        world.pass(SECOND * 2);
        let sent = world.send(from, &datagram);
        let bytes = bytes_to(from, &sent);
        assert!(bytes <= datagram.len(), "{name}: {bytes} for {}", datagram.len());
        assert_eq!(bytes, sent.iter().map(|(_, datagram)| datagram.len()).sum(), "{name}: to nobody else");
        answered.extend((bytes > 0).then_some(name));
    }
    // Every kind was answered; otherwise this test would show nothing.
    assert_eq!(
        answered,
        [
            "initiation",
            "unknown session",
            "keepalive",
            "register",
            "look-up",
            "vouch",
            "short look-up",
            "padded STUN",
            "control",
            "control",
            "control",
            "control",
            "stale initiation"
        ]
    );
    let mut flood = Vec::new();
    for _ in 0..3000 {
        let from = source(77);
        let datagram = Node::new(60, from).begin(world.now).datagram;
        flood = world.send(from, &datagram);
        world.root.recent = peersock_overlay::load::Recent::default();
        assert!(bytes_to(from, &flood) <= datagram.len());
        if flood.first().is_some_and(|(_, sent)| MessageType::of(sent) == Some(MessageType::CookieReply)) {
            break;
        }
    }
    assert_eq!(MessageType::of(&flood[0].1), Some(MessageType::CookieReply));
}

#[test]
fn short_stun_requests_are_answered_only_if_that_is_wanted_and_not_often() {
    let mut stun = vec![0; 20];
    stun[1] = 1;
    stun[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
    let mut world = World::new();
    assert_eq!(world.send(source(1), &stun), []);
    let mut config = config();
    config.short_stun = true;
    let mut world = World::with(config);
    let answers: usize = (0..100).map(|_| world.send(source(1), &stun).len()).sum();
    assert_eq!(answers, 20);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any datagram, from any of a few places, causes no panic, and no unproven sender gets more than it
    /// sent.
    #[test]
    fn any_datagrams_are_safe(
        steps in prop::collection::vec((0usize..21, 0u32..4, prop::collection::vec((any::<u16>(), any::<u8>()), 0..3), any::<u16>()), 1..60)
    ) {
        let mut world = World::new();
        let known = datagrams(&mut world);
        for (which, from, changes, cut) in steps {
            let mut datagram = known.get(which).map_or_else(Vec::new, |(_, datagram)| datagram.clone());
            for (at, byte) in changes {
                if let Some(changed) = datagram.get_mut(usize::from(at) % 220) {
                    *changed = byte;
                }
            }
            if cut % 4 == 0 {
                datagram.truncate(usize::from(cut) % 220);
            }
            let from = source(20_000 + from);
            let sent = world.send(from, &datagram);
            if world.root.clients.by_source(&from).is_none() {
                prop_assert!(bytes_to(from, &sent) <= datagram.len());
            }
            world.pass(Duration::from_millis(u64::from(cut)));
        }
    }
}
