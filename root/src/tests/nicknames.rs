//! Tests of nicknames: the first claim wins, only its owner renews it, within limits, for a while.

use peersock_overlay::Nickname;
use peersock_overlay::wire::{
    ClaimRefusal, NicknameClaim, NicknameMessage, NicknameOwner, NotFound, RootMessage,
};

use super::*;

fn nickname(text: &str) -> Nickname {
    text.parse().expect("a nickname")
}

/// Returns the next claim of this node, signed by it.
fn claim_of(node: &mut Node, name: &str, lifetime: u32) -> NicknameMessage {
    node.sequence += 1;
    let (root, nickname) = (config().identity.node_id(), nickname(name));
    let claim = NicknameClaim::sign(&node.identity, &root, &nickname, node.sequence, lifetime, 10001);
    NicknameMessage::Claim { nickname, claim }
}

fn say(world: &mut World, node: &mut Node, message: &NicknameMessage) -> Option<Result<u32, ClaimRefusal>> {
    let NicknameMessage::Claim { claim, .. } = message else { panic!("{message:?}") };
    match node.ask(world, &RootMessage::Nickname(message.clone()))? {
        RootMessage::Nickname(NicknameMessage::Claimed { sequence, result }) => {
            assert_eq!(sequence, claim.sequence);
            Some(result)
        }
        other => panic!("{other:?}"),
    }
}

fn claim(world: &mut World, node: &mut Node, name: &str, lifetime: u32) -> Option<Result<u32, ClaimRefusal>> {
    let message = claim_of(node, name, lifetime);
    say(world, node, &message)
}

fn find(world: &mut World, node: &mut Node, name: &str) -> Result<NicknameOwner, NotFound> {
    let find = NicknameMessage::Find { id: 77, nickname: nickname(name) };
    match node.ask(world, &RootMessage::Nickname(find)) {
        Some(RootMessage::Nickname(NicknameMessage::Found { id: 77, result })) => result,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_that_claims_a_nickname_has_it_until_it_is_not_renewed() {
    let mut world = World::new();
    let [mut first, mut second] = [1, 2].map(|seed| world.registered(seed, source(seed.into())));
    assert_eq!(claim(&mut world, &mut first, "alice", 600), Some(Ok(600)));
    for _ in 0..10 {
        world.pass(SECOND * 300);
        // Both renew their sessions, because a silent session ends.
        first.connect(&mut world);
        first.register(&mut world, 600);
        second.connect(&mut world);
        second.register(&mut world, 600);
        assert_eq!(claim(&mut world, &mut second, "alice", 600), Some(Err(ClaimRefusal::Taken)));
        assert_eq!(claim(&mut world, &mut first, "alice", 600), Some(Ok(600)));
        let owner = find(&mut world, &mut second, "alice").expect("somebody has it");
        assert_eq!(owner.identity, *first.identity.public());
        assert!(owner.claim.verify(&owner.identity, &config().identity.node_id(), &nickname("alice")));
    }
    world.pass(SECOND * 600);
    assert_eq!(world.root.nicknames(), 0);
    second.connect(&mut world);
    second.register(&mut world, 600);
    assert_eq!(find(&mut world, &mut second, "alice"), Err(NotFound::Unknown));
    assert_eq!(claim(&mut world, &mut second, "alice", 600), Some(Ok(600)));
    assert_eq!(world.root.counters().nicknames_expired.get(), 1);
}

#[test]
fn a_claim_that_comes_again_or_late_changes_nothing() {
    let mut world = World::new();
    let mut node = world.registered(1, source(1));
    let old = claim_of(&mut node, "alice", 600);
    let new = claim_of(&mut node, "alice", 20);
    assert_eq!(say(&mut world, &mut node, &new), Some(Ok(20)));
    assert_eq!(say(&mut world, &mut node, &old), None, "it was signed before");
    world.pass(SECOND * 15);
    assert_eq!(say(&mut world, &mut node, &new), None, "the same once more makes it last no longer");
    world.pass(SECOND * 6);
    assert_eq!(world.root.nicknames(), 0);
    // An older claim does not restore a released nickname.
    let late = claim_of(&mut node, "bob", 600);
    assert_eq!(claim(&mut world, &mut node, "bob", 600), Some(Ok(600)));
    assert_eq!(claim(&mut world, &mut node, "bob", 0), Some(Ok(0)));
    assert_eq!(say(&mut world, &mut node, &late), None);
    assert_eq!(world.root.nicknames(), 0);
    // A session is newer than earlier claims, whatever the node's clock says.
    node.connect(&mut world);
    node.sequence = 5;
    assert_eq!(claim(&mut world, &mut node, "bob", 600), Some(Ok(600)));
}

#[test]
fn nobody_says_in_anothers_name_what_that_has_signed() {
    let mut world = World::new();
    let [mut owner, mut other] = [1, 2].map(|seed| world.registered(seed, source(seed.into())));
    other.sequence += 100;
    let signed = claim_of(&mut owner, "alice", 600);
    assert_eq!(say(&mut world, &mut other, &signed), Some(Err(ClaimRefusal::Refused)));
    assert_eq!(world.root.nicknames(), 0);
    assert_eq!(say(&mut world, &mut owner, &signed), Some(Ok(600)));
    assert_eq!(claim(&mut world, &mut other, "alice", 0), Some(Err(ClaimRefusal::Taken)), "nor gives back");
    let NicknameMessage::Claim { nickname, claim } = claim_of(&mut owner, "alice", 600) else { panic!() };
    let extended = NicknameClaim { lifetime: 3600, ..claim };
    let extended = NicknameMessage::Claim { nickname, claim: extended };
    assert_eq!(say(&mut world, &mut owner, &extended), Some(Err(ClaimRefusal::Refused)), "it is not signed");
    assert!(find(&mut world, &mut other, "alice").is_ok());
}

#[test]
fn only_those_who_are_registered_claim_and_ask() {
    let mut world = World::new();
    let mut stranger = world.connected(1, source(1));
    assert_eq!(claim(&mut world, &mut stranger, "alice", 600), Some(Err(ClaimRefusal::Refused)));
    let mut node = world.registered(2, source(2));
    for (lifetime, result) in [(9, Err(ClaimRefusal::Refused)), (10, Ok(10)), (u32::MAX, Ok(3600))] {
        assert_eq!(claim(&mut world, &mut node, "alice", lifetime), Some(result));
    }
    // If registration needs a token, strangers cannot guess names.
    assert_eq!(find(&mut world, &mut stranger, "alice"), Err(NotFound::Unknown));
    assert!(find(&mut world, &mut node, "alice").is_ok());
    let answers: Vec<_> = (0..100).map(|_| find(&mut world, &mut node, "alice")).collect();
    assert_eq!(answers.iter().filter(|answer| **answer == Err(NotFound::Limited)).count(), 41);
}

#[test]
fn memory_is_bounded_per_node_per_prefix_and_in_all() {
    let mut config = config();
    config.limits.nicknames_per_prefix = 6;
    config.limits.nicknames = 8;
    let mut world = World::with(config);
    // The first three nodes are in one prefix.
    let mut nodes: Vec<_> =
        [1, 2, 3, 0x100, 0x200].iter().enumerate().map(|(n, from)| (n as u8 + 1, *from)).collect();
    let mut nodes: Vec<_> =
        nodes.drain(..).map(|(seed, from)| world.registered(seed, source(from))).collect();
    let mut full = |world: &mut World, node: usize, count: usize| {
        for n in 0..count {
            let name = format!("n{node}-{n}");
            assert_eq!(claim(world, &mut nodes[node], &name, 600), Some(Ok(600)), "{name}");
        }
        let name = format!("n{node}-more");
        assert_eq!(claim(world, &mut nodes[node], &name, 600), Some(Err(ClaimRefusal::Full)), "{name}");
    };
    full(&mut world, 0, 4);
    full(&mut world, 1, 2);
    full(&mut world, 2, 0);
    full(&mut world, 3, 2);
    full(&mut world, 4, 0);
    assert_eq!(world.root.nicknames(), 8);
    // A known claim is renewed in spite of the limit, and a released nickname makes room.
    assert_eq!(claim(&mut world, &mut nodes[0], "n0-0", 700), Some(Ok(700)));
    assert_eq!(claim(&mut world, &mut nodes[0], "n0-1", 0), Some(Ok(0)));
    assert_eq!(claim(&mut world, &mut nodes[2], "n2-0", 600), Some(Ok(600)));
    assert_eq!(world.root.nicknames(), 8);
    // The claims of one node are limited.
    let answers = (0..50).filter(|_| claim(&mut world, &mut nodes[0], "n0-0", 600).is_some()).count();
    assert!(answers <= 10, "{answers}");
    world.pass(SECOND * 700);
    assert_eq!(world.root.nicknames(), 0);
}

#[test]
fn nothing_is_answered_to_where_a_node_has_not_shown_that_it_receives() {
    let mut world = World::new();
    let mut node = world.registered(1, source(1));
    let elsewhere = source(9);
    let find = NicknameMessage::Find { id: 1, nickname: nickname("a") };
    for message in [claim_of(&mut node, "alice", 600), find] {
        let datagram = node.seal_message(&RootMessage::Nickname(message));
        let sent = world.send(elsewhere, &datagram);
        let is_short = |(_, answer): &(Source, Vec<u8>)| answer.len() <= datagram.len();
        assert!(sent.iter().all(is_short), "a challenge at most");
    }
    assert_eq!(world.root.nicknames(), 0);
    assert_eq!(world.root.counters().nickname_look_ups.get(), 0);
}
