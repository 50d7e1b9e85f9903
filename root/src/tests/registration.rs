//! Tests of registrations: lifetimes and refusals.

use peersock_overlay::wire::{Channel, LookUpKey, NotFound, NoticeCode, Registration, RootMessage};
use zeroize::Zeroizing;

use super::*;

fn refused() -> Option<RootMessage> {
    Some(RootMessage::Notice { code: NoticeCode::Refused, channel: Channel(0) })
}

#[test]
fn a_node_is_told_that_it_is_registered_and_where_it_is_seen() {
    let mut world = World::new();
    let from = udp("[::ffff:192.0.2.7]:4000");
    let mut node = world.connected(1, from);
    let answer = node.ask_to_register(&mut world, 10_000);
    let Some(RootMessage::Registered(answer)) = answer else { panic!("{answer:?}") };
    assert_eq!((answer.sequence, answer.lifetime, answer.rate), (node.sequence, 3600, 8_000_000));
    assert!(answer.relays && !answer.drains && answer.channel != Channel(0));
    assert_eq!(answer.voucher.address, "192.0.2.7:4000".parse().unwrap());
    assert_eq!(answer.voucher.time, 1_800_000_000);
    assert!(answer.voucher.verify(config().identity.public(), &node.identity.node_id()));
}

#[test]
fn a_stream_has_no_address_for_others() {
    let mut world = World::new();
    let remote = "192.0.2.7:4000".parse().unwrap();
    let mut node = world.connected(1, Source::Stream { number: 5, remote });
    let Some(RootMessage::Registered(answer)) = node.ask_to_register(&mut world, 600) else { panic!() };
    assert_eq!(answer.voucher.address, "[::]:0".parse().unwrap());
    world.root.handle_disconnect(node.source);
    assert_eq!((world.root.nodes(), world.root.registered()), (0, 1));
}

#[test]
fn renewing_keeps_the_name_and_an_old_registration_changes_nothing() {
    let mut world = World::new();
    let mut node = world.registered(1, source(1));
    let (channel, token) = (node.channel, node.token);
    let old = Registration::sign(&node.identity, &config().identity.node_id(), node.sequence, 600);
    node.register(&mut world, 600);
    assert_eq!((node.channel, node.token), (channel, token));
    // A new session, as after a restart of the node.
    node.connect(&mut world);
    node.register(&mut world, 600);
    assert_eq!((node.channel, node.token), (channel, token));
    let replayed = RootMessage::Register { registration: old, access: Vec::new() };
    assert_eq!(node.ask(&mut world, &replayed), refused());
    assert_eq!(world.root.counters().registrations_refused.get(), 1);
}

#[test]
fn a_clock_that_went_back_counts_again_in_a_new_session_and_nothing_that_was_said_before_it() {
    let mut world = World::new();
    let mut node = world.registered(1, source(1));
    let root = config().identity.node_id();
    let late = Registration::sign(&node.identity, &root, node.sequence + 5, 600);
    let late = node.seal_message(&RootMessage::Register { registration: late, access: Vec::new() });
    // The clock went back a year. In the same session the registration is old.
    node.sequence -= 31_536_000_000;
    assert_eq!(node.ask_to_register(&mut world, 600), refused());
    world.pass(SECOND);
    node.connect(&mut world);
    let channel = node.channel;
    node.register(&mut world, 600);
    assert_eq!(node.channel, channel);
    // A message delayed in the earlier session changes nothing and gets no notice.
    let sequence = node.sequence;
    assert_eq!(world.send(source(1), &late), []);
    let mut other = world.connected(2, source(2));
    let found = other.look_up(&mut world, LookUpKey::Id(node.identity.node_id()));
    let Some(RootMessage::Found { result: Ok(entry), .. }) = found else { panic!("{found:?}") };
    assert_eq!(entry.registration.sequence, sequence);
    node.register(&mut world, 600);
}

#[test]
fn those_who_come_in_numbers_leave_others_what_they_need() {
    let mut world = World::new();
    let mut stays = world.registered(1, source(1));
    let mut comes = world.connected(2, source(2));
    // All nodes are in one prefix.
    let mut answered = 0;
    for number in 0..1500u32 {
        let mut seed = [4; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        let from = Source::Udp { socket: 0, remote: ([192, 0, 2, 1], 1000 + number as u16).into() };
        let mut node = Node::of(Identity::from_seed(&seed), from);
        if number % 50 == 0 {
            world.now += SECOND;
        }
        node.connect(&mut world);
        answered += usize::from(node.ask_to_register(&mut world, 600).is_some());
    }
    assert_eq!(answered, 1500, "as many come in half a minute");
    stays.register(&mut world, 600);
    comes.register(&mut world, 600);
}

#[test]
fn the_same_registration_again_is_answered_again() {
    let mut world = World::new();
    let mut node = world.registered(1, source(1));
    let same = Registration::sign(&node.identity, &config().identity.node_id(), node.sequence, 600);
    let again = node.ask(&mut world, &RootMessage::Register { registration: same, access: Vec::new() });
    assert!(matches!(again, Some(RootMessage::Registered(answer)) if answer.channel == node.channel));
}

#[test]
fn what_another_node_or_for_another_root_signed_is_refused() {
    let mut world = World::new();
    let mut node = world.connected(1, source(1));
    let other = Identity::from_seed(&[2; 32]);
    let root = config().identity.node_id();
    let sequence = node.sequence + 1;
    for registration in [
        Registration::sign(&other, &root, sequence, 600),
        Registration::sign(&node.identity, &other.node_id(), sequence, 600),
        Registration::sign(&node.identity, &root, sequence, 9),
    ] {
        let message = RootMessage::Register { registration, access: Vec::new() };
        assert_eq!(node.ask(&mut world, &message), refused());
    }
    assert_eq!(world.root.registered(), 0);
}

#[test]
fn the_access_token_is_asked_for() {
    let mut config = config();
    config.access = Some(Zeroizing::new(b"open sesame".to_vec()));
    let mut world = World::with(config);
    let mut node = world.connected(1, source(1));
    for access in [&b""[..], b"open", b"open sesame!", b"open sesamf"] {
        node.access = access.to_vec();
        assert_eq!(node.ask_to_register(&mut world, 600), refused());
    }
    world.pass(SECOND * 5);
    node.access = b"open sesame".to_vec();
    node.register(&mut world, 600);
}

#[test]
fn a_registration_ends_and_so_does_one_that_nobody_hears_of() {
    let mut world = World::new();
    let mut node = world.registered(1, source(1));
    let mut other = world.connected(2, source(2));
    let key = LookUpKey::Id(node.identity.node_id());
    let found = |answer| matches!(answer, Some(RootMessage::Found { result: Ok(_), .. }));
    assert!(found(other.look_up(&mut world, key)));
    world.pass(SECOND * 89);
    assert!(found(other.look_up(&mut world, key)));
    world.pass(SECOND * 2);
    let nobody = Some(RootMessage::Found { id: 77, result: Err(NotFound::Unknown) });
    assert_eq!(other.look_up(&mut world, key), nobody);
    world.send(source(1), &node.seal(&[0; 10]));
    assert!(found(other.look_up(&mut world, key)), "it was only silent");
    world.pass(SECOND * 600);
    assert_eq!(world.root.registered(), 0);
    assert_eq!(world.root.counters().registrations_expired.get(), 1);
}

#[test]
fn a_node_that_registers_all_the_time_is_limited() {
    let mut world = World::new();
    let mut node = world.connected(1, source(1));
    let answered = (0..100).filter(|_| node.ask_to_register(&mut world, 600).is_some()).count();
    assert_eq!(answered, 5);
    assert_eq!(world.root.counters().registrations_limited.get(), 95);
}

#[test]
fn a_registered_node_gets_a_voucher_for_another_address_and_stays_where_it_is() {
    let mut world = World::new();
    let mut node = world.registered(1, source(1));
    let question = node.seal_message(&RootMessage::Vouch);
    let sent = world.send(udp("[2001:db8::7]:5000"), &question);
    let [(to, answer)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(
        (*to, answer.len()),
        (udp("[2001:db8::7]:5000"), question.len()),
        "no longer than the question"
    );
    let message = RootMessage::parse(&node.open(answer).expect("sealed"));
    let Ok(RootMessage::Vouched(voucher)) = message else { panic!("{message:?}") };
    assert_eq!(voucher.address, "[2001:db8::7]:5000".parse().unwrap());
    assert!(voucher.verify(config().identity.public(), &node.identity.node_id()));
    assert!(world.root.clients.by_source(&source(1)).is_some(), "it receives where it did");
    assert_eq!(world.root.counters().challenges_sent.get(), 0);
}

#[test]
fn vouchers_are_for_registered_nodes_not_for_streams_and_not_without_end() {
    let mut world = World::new();
    let mut stranger = world.connected(1, source(1));
    assert_eq!(stranger.ask(&mut world, &RootMessage::Vouch), None);
    let mut node = world.registered(2, source(2));
    let stream = Source::Stream { number: 5, remote: "192.0.2.7:4000".parse().unwrap() };
    let question = node.seal_message(&RootMessage::Vouch);
    assert_eq!(world.send(stream, &question), []);
    let mut ask = |world: &mut World| {
        let question = node.seal_message(&RootMessage::Vouch);
        world.send(source(3), &question).len()
    };
    let asked: usize = (0..100).map(|_| ask(&mut world)).sum();
    assert_eq!(asked, 5);
    assert_eq!(world.root.counters().vouchers.get(), 5);
    assert_eq!(world.root.counters().vouchers_refused.get(), 96);
    world.pass(SECOND);
    assert_eq!(ask(&mut world), 1);
}
