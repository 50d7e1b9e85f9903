//! Tests of frames between nodes: permitted senders, header changes, and rates.

use peersock_overlay::noise::{
    InitiationPayload, Initiator, MacWriter, Received, ResponsePayload, Timestamp,
};
use peersock_overlay::wire::{Channel, NoticeCode, RelayToken, Relayed, RootMessage};
use peersock_overlay::{NetworkId, Psk, SessionIndex, Suite, SuiteSet};

use super::*;
use crate::RelayPolicy;

fn notice(node: &Node, sent: &[(Source, Vec<u8>)]) -> Option<(NoticeCode, Channel)> {
    let [(_, datagram)] = sent else { return None };
    match RootMessage::parse(&node.open(datagram)?) {
        Ok(RootMessage::Notice { code, channel }) => Some((code, channel)),
        _ => None,
    }
}

fn limited(rate: u32) -> World {
    let mut config = config();
    config.relay = RelayPolicy::Limited { per_node: rate, per_prefix: 4 * rate };
    World::with(config)
}

#[test]
fn a_frame_goes_to_its_channel_with_the_headers_rewritten() {
    let mut world = World::new();
    let (a, b) = (world.registered(1, source(1)), world.registered(2, source(2)));
    let sent = world.send(a.source, &a.frame(b.channel, b"sealed"));
    let [(to, frame)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(*to, b.source);
    let header = Relayed { token: b.token, channel: a.channel };
    assert_eq!(Relayed::parse(frame), Ok((header, &b"sealed"[..])));
    // The answer goes back under the channel that came with the frame.
    let sent = world.send(b.source, &b.frame(header.channel, b"back"));
    assert_eq!(sent[0].0, a.source);
    assert_eq!(world.root.counters().relayed_bytes.get(), 18 + 16);
}

#[test]
fn two_nodes_shake_hands_through_a_root_that_relays_nothing_else() {
    let mut config = config();
    config.relay = RelayPolicy::Off;
    let mut world = World::with(config);
    let (a, b) = (world.registered(1, source(1)), world.registered(2, source(2)));
    let payload = InitiationPayload {
        network: NetworkId::ad_hoc(80..=80).expect("a port"),
        timestamp: Timestamp::from_unix(Duration::from_secs(1)),
        instance: 1,
        receive_buffer: 1 << 20,
        suites: SuiteSet::CHACHA20_POLY1305,
        introduction: Vec::new(),
        room: 0,
    };
    let (index, psk) = (SessionIndex::from_be_bytes([0, 0, 1]), Psk::new([5; 32]));
    let mut initiation = Vec::new();
    let pending =
        Initiator::start(&a.identity, b.identity.public(), [3; 32], index, &payload, &mut initiation)
            .unwrap();
    MacWriter::new(&b.identity.node_id()).append(world.now, &mut initiation);

    let at_b = world.send(a.source, &a.frame(b.channel, &initiation));
    let (from_a, inner) = Relayed::parse(&at_b[0].1).expect("a frame");
    let received = Received::read(&b.identity, inner).expect("for b");
    assert_eq!(received.initiator(), a.identity.public());
    let mut response = Vec::new();
    let answer = ResponsePayload { instance: 2, receive_buffer: 1 << 20, question: None };
    let suite = Suite::ChaCha20Poly1305;
    let theirs = received.respond(&psk, [4; 32], index, suite, &answer, &mut response).unwrap();
    MacWriter::new(&a.identity.node_id()).append(world.now, &mut response);

    let at_a = world.send(b.source, &b.frame(from_a.channel, &response));
    assert_eq!(at_a[0].0, a.source);
    let (_, inner) = Relayed::parse(&at_a[0].1).expect("a frame");
    let (ours, _) = pending.read_response(&a.identity, &psk, inner).expect("from b");
    assert_eq!((ours.send, ours.hash), (theirs.receive, theirs.hash));

    // No more than the free share passes, which is for meeting.
    let passed = (0..100).filter(|_| !world.send(a.source, &a.frame(b.channel, &[0xd4; 1188])).is_empty());
    assert!((13..=16).contains(&passed.count()));
}

#[test]
fn forged_frames_go_nowhere() {
    let mut world = World::new();
    let (a, b) = (world.registered(1, source(1)), world.registered(2, source(2)));
    let connected = world.connected(3, source(3));
    let right = a.token.to_be_bytes();
    let wrong = RelayToken::from_be_bytes([right[0] ^ 1, right[1], right[2]]);
    let forged = [&Relayed { token: wrong, channel: b.channel }.to_bytes()[..], b"x"].concat();
    assert_eq!(world.send(a.source, &forged), []);
    assert_eq!(world.send(b.source, &a.frame(b.channel, b"x")), [], "a's token from b's address");
    assert_eq!(world.root.counters().relay_unknown_source.get(), 2);
    let sent = world.send(connected.source, &a.frame(b.channel, b"x"));
    assert_eq!(notice(&connected, &sent), Some((NoticeCode::NotRegistered, Channel(0))));
    assert_eq!(world.send(a.source, &a.frame(b.channel, b"")), [], "nothing in it");
    assert_eq!(world.send(a.source, &a.frame(b.channel, b"x")[..11]), []);
    assert_eq!(world.root.counters().relayed.get(), 0);
}

#[test]
fn an_unknown_channel_is_told_a_few_times_a_second() {
    let mut world = World::new();
    let a = world.registered(1, source(1));
    let gone = Channel(a.channel.0 ^ 1);
    let sent = world.send(a.source, &a.frame(gone, b"x"));
    assert_eq!(notice(&a, &sent), Some((NoticeCode::NoChannel, gone)));
    let told: usize = (0..100).map(|_| world.send(a.source, &a.frame(gone, b"x")).len()).sum();
    assert_eq!(told, 19);
}

#[test]
fn the_budget_is_kept_and_told_once_a_second_and_handshakes_still_pass() {
    let mut world = limited(1 << 20);
    let (a, b) = (world.registered(1, source(1)), world.registered(2, source(2)));
    world.pass(SECOND);
    let bulk = a.frame(b.channel, &[0xd4; 1012]);
    let (mut passed, mut told) = (0, 0);
    // Sends twice the rate, for two seconds.
    for _ in 0..4096 {
        world.pass(SECOND / 2048);
        for (to, datagram) in world.send(a.source, &bulk) {
            if to == b.source {
                passed += 1;
            } else {
                assert_eq!(notice(&a, &[(to, datagram)]), Some((NoticeCode::OverRate, b.channel)));
                told += 1;
            }
        }
    }
    // The burst is a quarter of a second's worth, then come two seconds' worth.
    assert!((2300..=2310).contains(&passed), "{passed}");
    assert_eq!(told, 2);
    let handshake = a.frame(b.channel, &[0xd1; 198]);
    assert_eq!(world.send(a.source, &handshake).len(), 1, "the free share is left for that");
}

#[test]
fn nodes_of_one_prefix_share_a_budget() {
    let mut config = config();
    config.relay = RelayPolicy::Limited { per_node: 1 << 20, per_prefix: 2 << 20 };
    let mut world = World::with(config);
    let b = world.registered(100, source(100));
    let at = |port| Source::Udp { socket: 0, remote: ([192, 0, 2, 1], port).into() };
    let nodes: Vec<_> = (1..=4).map(|seed| world.registered(seed, at(seed.into()))).collect();
    world.pass(SECOND * 2);
    let mut passed = 0;
    for _ in 0..4096 {
        world.pass(SECOND / 2048);
        for node in &nodes {
            let sent = world.send(node.source, &node.frame(b.channel, &[0xd4; 1012]));
            passed += sent.iter().filter(|(to, _)| *to == b.source).count();
        }
    }
    // The prefix's limit applies: half a second's worth at once, two seconds' worth, instead of four nodes'
    // worth.
    assert!((4500..=4620).contains(&passed), "{passed}");
}

#[test]
fn a_node_that_leaves_and_comes_again_gets_no_fresh_budget() {
    let mut world = limited(1 << 20);
    let b = world.registered(100, source(100));
    let mut a = Node::new(1, source(1));
    let mut passed = 0;
    for _ in 0..20 {
        a.connect(&mut world);
        a.register(&mut world, 600);
        for _ in 0..300 {
            let sent = world.send(a.source, &a.frame(b.channel, &[0xd4; 1012]));
            passed += sent.iter().filter(|(to, _)| *to == b.source).count();
        }
        let close = a.seal_control(peersock_overlay::wire::Control::Close { reason: 0 });
        world.send(a.source, &close);
    }
    // Of the burst of 256 frames, the node has 15 each time.
    assert_eq!(passed, 20 * 15);
}

#[test]
fn a_node_that_has_fallen_silent_gets_nothing() {
    let mut world = World::new();
    let (mut a, b) = (world.registered(1, source(1)), world.registered(2, source(2)));
    world.pass(SECOND * 91);
    world.send(a.source, &a.seal(&[]));
    let sent = world.send(a.source, &a.frame(b.channel, b"x"));
    assert_eq!(notice(&a, &sent), Some((NoticeCode::NoChannel, b.channel)));
}
