//! Tests of a node that moves: the root believes it once it has answered from the new place.

use peersock_overlay::wire::{Control, LookUpKey, RootMessage};

use super::*;

/// Returns the node's answer to a challenge that it received.
fn answer_to(node: &mut Node, challenge: &[u8]) -> Vec<u8> {
    let plaintext = node.open(challenge).expect("sealed");
    let Ok(Control::Challenge { data, here: false }) = Control::parse(&plaintext) else {
        panic!("{plaintext:?}")
    };
    node.seal_control(Control::Answer { data })
}

#[test]
fn a_node_moves_when_it_answers_from_there_and_gets_a_new_voucher() {
    let mut world = World::new();
    let mut node = world.registered(1, source(1));
    let sent = world.send(source(2), &node.seal(&[0; 10]));
    let [(to, challenge)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(*to, source(2));
    let answer = answer_to(&mut node, challenge);
    let sent = world.send(source(2), &answer);
    let [(to, registered)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(*to, source(2));
    let message = RootMessage::parse(&node.open(registered).expect("sealed"));
    let Ok(RootMessage::Registered(answer)) = message else { panic!("{message:?}") };
    assert_eq!((answer.voucher.address, answer.channel), (source(2).remote(), node.channel));
    assert_eq!(world.root.counters().paths_moved.get(), 1);
    assert_eq!(world.root.nodes(), 1);
    node.source = source(2);
    node.register(&mut world, 600);
}

#[test]
fn an_answer_from_elsewhere_or_a_wrong_one_moves_nothing() {
    let mut world = World::new();
    let mut node = world.registered(1, source(1));
    let challenge = world.send(source(2), &node.seal(&[0; 10])).remove(0).1;
    let answer = answer_to(&mut node, &challenge);
    assert_eq!(world.send(source(3), &answer), []);
    let wrong = node.seal_control(Control::Answer { data: [0; 8] });
    assert_eq!(world.send(source(2), &wrong), []);
    assert_eq!(world.root.counters().answers_wrong.get(), 2);
    node.register(&mut world, 600);
}

#[test]
fn who_is_not_proven_gets_no_answers_that_are_longer_than_questions() {
    let mut world = World::new();
    let mut node = world.registered(1, source(1));
    let key = LookUpKey::Id(node.identity.node_id());
    let look_up = node.seal_message(&RootMessage::LookUp { id: 1, key });
    let sent = world.send(source(2), &look_up);
    assert_eq!(sent.len(), 1);
    assert_eq!(Control::parse(&node.open(&sent[0].1).unwrap()).map(|c| c.is_probing()), Ok(true));
    assert_eq!(world.root.counters().from_unproven.get(), 1);
}

#[test]
fn a_session_is_proven_where_its_response_went_not_where_it_is_used() {
    let mut world = World::new();
    let mut node = Node::new(1, source(1));
    let begun = node.begin(world.now);
    let response = world.send(source(1), &begun.datagram).remove(0).1;
    node.finish(&begun, &response);
    let sent = world.send(source(2), &node.seal(&[0; 10]));
    assert_eq!(sent.len(), 1, "a challenge");
    assert!(world.root.clients.by_source(&source(1)).is_some());
    assert!(world.root.clients.by_source(&source(2)).is_none());
}

#[test]
fn a_challenge_from_elsewhere_is_answered_while_the_node_is_where_it_was_and_else_challenged() {
    let mut world = World::new();
    let mut node = world.registered(1, source(1));
    let ask = |node: &mut Node| node.seal_control(Control::Challenge { data: [7; 8], here: false });
    let said = |node: &Node, sent: &[(Source, Vec<u8>)]| {
        let [(_, datagram)] = sent else { panic!("{sent:?}") };
        Control::parse(&node.open(datagram).expect("sealed"))
    };
    let sent = world.send(source(2), &ask(&mut node));
    assert_eq!(said(&node, &sent), Ok(Control::Answer { data: [7; 8] }), "it compares two ways");
    world.pass(SECOND * 25);
    let sent = world.send(source(2), &ask(&mut node));
    let answer = answer_to(&mut node, &sent[0].1);
    assert_eq!(world.send(source(2), &answer).len(), 1, "where it is now");
    let sent = world.send(source(2), &ask(&mut node));
    assert_eq!(said(&node, &sent), Ok(Control::Answer { data: [7; 8] }));
    assert!(world.root.clients.by_source(&source(2)).is_some());
}

#[test]
fn frames_from_an_unknown_address_go_nowhere() {
    let mut world = World::new();
    let node = world.registered(1, source(1));
    let frame = node.frame(node.channel, b"a datagram");
    assert_eq!(world.send(source(2), &frame), []);
    assert_eq!(world.root.counters().relay_unknown_source.get(), 1);
}

#[test]
fn who_comes_later_to_an_address_is_there() {
    let mut world = World::new();
    world.registered(1, source(1));
    let mut second = world.registered(2, source(1));
    assert_eq!(world.root.nodes(), 1);
    second.register(&mut world, 600);
}
