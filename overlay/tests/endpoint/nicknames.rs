//! Nicknames at roots: the first node that claims one has it while it is renewed. Lying roots can refuse
//! nicknames, and nothing more to nodes that know the owner.

use std::time::Duration;

use peersock_overlay::wire::{NicknameClaim, NicknameOwner};
use peersock_overlay::{Identity, NamedNode, Nickname, NicknameError, NicknameText, NodeId};

use crate::net::{Net, UNIX_TIME};
use crate::roots::{add_liar, add_root, apart, apart_with_liars, config_of, id, use_root, use_roots};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn nickname(text: &str) -> Nickname {
    text.parse().expect("a nickname")
}

fn text(text: &str) -> NicknameText {
    text.parse().expect("a nickname's text")
}

fn claim(net: &mut Net, node: usize, name: &str, port: u16) -> Result<NicknameText, NicknameError> {
    let mut outcome = None;
    net.wait(5 * SECOND, |net| {
        let now = net.now;
        outcome = net.nodes[node].endpoint.claim_nickname(now, &nickname(name), port);
        net.pump();
        outcome.is_some()
    });
    outcome.expect("it was waited for")
}

fn find(net: &mut Net, node: usize, text: &NicknameText) -> Result<NamedNode, NicknameError> {
    let mut outcome = None;
    // A test without other activity sees the time pass in steps.
    for _ in 0..500 {
        outcome = net.nodes[node].endpoint.find_nickname(net.now, text);
        if outcome.is_some() {
            break;
        }
        net.run(SECOND / 100);
    }
    outcome.expect("within 5 s")
}

fn found(net: &mut Net, node: usize, name: &str) -> Result<(NodeId, u16), NicknameError> {
    find(net, node, &text(name)).map(|found| (found.identity.node_id(), found.port))
}

fn ours(net: &Net, node: usize) -> Vec<String> {
    net.nodes[node].endpoint.nicknames().iter().map(ToString::to_string).collect()
}

#[test]
fn a_node_is_found_by_its_nickname_in_one_round_trip_with_the_port_that_it_says() {
    let mut net = apart(2);
    net.run(SECOND);
    net.latency = SECOND / 50;
    let begin = net.now;
    let full = claim(&mut net, 0, "Alice", 10001).expect("nobody has it");
    assert_eq!(net.now - begin, 2 * net.latency);
    assert_eq!(full, NicknameText::of(nickname("alice"), &id(0)));
    assert_eq!(ours(&net, 0), ["alice"]);
    for text in ["alice.peersock", &full.to_string()] {
        assert_eq!(found(&mut net, 1, text), Ok((id(0), 10001)), "{text}");
        assert_eq!(found(&mut net, 0, text), Ok((id(0), 10001)), "of itself, too");
    }
    assert_eq!(found(&mut net, 1, "bob.peersock"), Err(NicknameError::NotFound));
    assert_eq!(claim(&mut net, 0, "alice", 10002).as_ref(), Ok(&full));
    assert_eq!(found(&mut net, 1, "alice.peersock"), Ok((id(0), 10002)));
}

#[test]
fn another_node_cannot_take_a_nickname_that_lives_and_can_once_it_is_released() {
    let mut net = apart(2);
    net.run(SECOND);
    claim(&mut net, 0, "alice", 1).expect("nobody has it");
    assert_eq!(claim(&mut net, 1, "alice", 2), Err(NicknameError::Taken));
    assert!(ours(&net, 1).is_empty());
    // The squatter goes on trying.
    for _ in 0..20 {
        net.run(60 * SECOND);
        assert_eq!(claim(&mut net, 1, "alice", 2), Err(NicknameError::Taken));
        assert_eq!(found(&mut net, 1, "alice.peersock"), Ok((id(0), 1)));
    }
    let now = net.now;
    assert!(net.nodes[0].endpoint.release_nickname(now, &nickname("alice")));
    assert!(!net.nodes[0].endpoint.release_nickname(now, &nickname("alice")));
    net.run(SECOND);
    assert_eq!(found(&mut net, 1, "alice.peersock"), Err(NicknameError::NotFound));
    claim(&mut net, 1, "alice", 2).expect("it was given back");
    assert_eq!(found(&mut net, 0, "alice.peersock"), Ok((id(1), 2)));
    // The previous owner's text now leads to no node.
    let before = NicknameText::of(nickname("alice"), &id(0));
    assert_eq!(find(&mut net, 0, &before), Err(NicknameError::NotFound));
}

#[test]
fn a_nickname_is_renewed_while_its_node_is_there_and_kept_for_an_hour_while_it_is_not() {
    let mut net = apart(1);
    net.run(SECOND);
    claim(&mut net, 0, "alice", 1).expect("nobody has it");
    net.run(5 * HOUR);
    assert_eq!(found(&mut net, 1, "alice.peersock"), Ok((id(0), 1)));
    net.nodes[0].up = false;
    net.run(HOUR - 300 * SECOND);
    assert_eq!(claim(&mut net, 1, "alice", 2), Err(NicknameError::Taken), "it may come back");
    // The same key again, in another process.
    let unix_time = UNIX_TIME + 6 * HOUR;
    net.restart(0, 4000, unix_time);
    use_roots(&mut net, 0);
    net.run(SECOND);
    claim(&mut net, 0, "alice", 3).expect("it is its own");
    assert_eq!(found(&mut net, 1, "alice.peersock"), Ok((id(0), 3)));
    net.nodes[0].up = false;
    // A claim lives for an hour after its last renewal.
    net.run(HOUR + SECOND);
    assert_eq!(found(&mut net, 1, "alice.peersock"), Err(NicknameError::NotFound));
    claim(&mut net, 1, "alice", 2).expect("its time is over");
}

#[test]
fn a_root_that_was_restarted_learns_the_nicknames_anew() {
    let mut net = apart(1);
    net.run(SECOND);
    claim(&mut net, 0, "alice", 1).expect("nobody has it");
    let now = net.now;
    net.roots[0].root.restart(now);
    assert_eq!(net.roots[0].root.real().root().nicknames(), 0);
    // The node notices the restart by its next packet to the root, after 25 s at most.
    net.run(40 * SECOND);
    assert_eq!(net.roots[0].root.real().root().nicknames(), 1);
    assert_eq!(found(&mut net, 1, "alice.peersock"), Ok((id(0), 1)));
}

#[test]
fn a_root_that_comes_later_is_told_and_asked() {
    let mut net = apart(0);
    for node in 0..2 {
        let now = net.now;
        assert_eq!(net.nodes[node].endpoint.claim_nickname(now, &nickname(["a", "b"][node]), 1), None);
    }
    add_root(&mut net, 1);
    (0..2).for_each(|node| use_roots(&mut net, node));
    net.run(SECOND);
    claim(&mut net, 0, "a", 1).expect("it was claimed at once");
    assert_eq!(found(&mut net, 1, "a.peersock"), Ok((id(0), 1)));
    assert_eq!(found(&mut net, 0, "b.peersock"), Ok((id(1), 1)));
}

#[test]
fn roots_that_disagree_are_an_error_unless_the_text_says_whom_it_means() {
    let mut net = apart(2);
    // Each uses one root, where it is the first.
    (0..2).for_each(|node| use_root(&mut net, node, node));
    net.run(SECOND);
    let own = [0, 1].map(|node| claim(&mut net, node, "alice", node as u16).expect("nobody has it here"));
    let asker = net.add(3);
    net.join(asker, &crate::net::open_network());
    use_roots(&mut net, asker);
    net.run(SECOND);
    let mut both = vec![id(0), id(1)];
    both.sort_unstable();
    assert_eq!(found(&mut net, asker, "alice.peersock"), Err(NicknameError::Ambiguous(both)));
    for (node, text) in own.iter().enumerate() {
        assert_eq!(found(&mut net, asker, &text.to_string()), Ok((id(node), node as u16)));
    }
    // A node that wants it at both gets it at neither, and disturbs no other.
    assert_eq!(claim(&mut net, asker, "alice", 3), Err(NicknameError::Taken));
    // One that is taken at one root is given back at the other.
    claim(&mut net, 0, "bob", 7).expect("nobody has it");
    assert_eq!(claim(&mut net, asker, "bob", 3), Err(NicknameError::Taken));
    net.run(SECOND);
    claim(&mut net, 1, "bob", 8).expect("it was given back");
}

/// Makes a root answer all nickname look-ups with this owner.
fn lie(net: &mut Net, root: usize, owner: Option<NicknameOwner>) {
    net.roots[root].root.lies().owner = Some(owner);
}

#[test]
fn a_lying_root_cannot_make_up_a_claim_nor_use_one_for_something_else() {
    let mut net = apart_with_liars(1);
    net.run(SECOND);
    let (root, owner) = (*net.roots[0].root.identity(), Identity::from_seed(&[1; 32]));
    let (liar, unix) = (Identity::from_seed(&[0x66; 32]), UNIX_TIME.as_millis() as u64);
    let alice = nickname("alice");
    let sign = |node: &Identity, name: &Nickname, sequence, lifetime| {
        NicknameClaim::sign(node, &root.node_id(), name, sequence, lifetime, 1)
    };
    let good = sign(&owner, &alice, unix, 3600);
    let elsewhere = NicknameClaim::sign(&owner, &liar.node_id(), &alice, unix, 3600, 1);
    let lies = [
        ("by another node", sign(&liar, &alice, unix, 3600)),
        ("for another root", elsewhere),
        ("for another nickname", sign(&owner, &nickname("alice-2"), unix, 3600)),
        ("extended", NicknameClaim { lifetime: 7200, ..good }),
        ("renewed", NicknameClaim { sequence: unix + 1, ..good }),
        ("to another port", NicknameClaim { port: 2, ..good }),
        ("of last week", sign(&owner, &alice, unix - 7 * 24 * 3_600_000, 3600)),
        ("given back", sign(&owner, &alice, unix, 0)),
    ];
    for (number, (what, claim)) in (1..).zip(lies) {
        lie(&mut net, 0, Some(NicknameOwner { identity: *owner.public(), claim }));
        assert_eq!(found(&mut net, 1, "alice.peersock"), Err(NicknameError::NotFound), "{what}");
        assert_eq!(net.counter(1, "root_answers_refused"), number, "{what}");
    }
    lie(&mut net, 0, Some(NicknameOwner { identity: *owner.public(), claim: good }));
    assert_eq!(found(&mut net, 1, "alice.peersock"), Ok((id(0), 1)), "the test can find it");
}

#[test]
fn a_root_with_an_accomplice_deceives_only_those_who_do_not_say_whom_they_mean() {
    let mut net = apart(0);
    add_liar(&mut net, 1);
    add_root(&mut net, 2);
    (0..2).for_each(|node| use_roots(&mut net, node));
    net.run(SECOND);
    let full = claim(&mut net, 0, "alice", 1).expect("nobody has it");
    let accomplice = Identity::from_seed(&[0x66; 32]);
    let root = net.roots[0].root.identity().node_id();
    let unix = UNIX_TIME.as_millis() as u64;
    let claim = NicknameClaim::sign(&accomplice, &root, &nickname("alice"), unix, 3600, 666);
    lie(&mut net, 0, Some(NicknameOwner { identity: *accomplice.public(), claim }));
    assert!(matches!(found(&mut net, 1, "alice.peersock"), Err(NicknameError::Ambiguous(_))));
    assert_eq!(found(&mut net, 1, &full.to_string()), Ok((id(0), 1)));
    // A lying root alone is believed, as documented.
    use_root(&mut net, 1, 0);
    assert_eq!(found(&mut net, 1, "alice.peersock"), Ok((accomplice.node_id(), 666)));
    assert_eq!(found(&mut net, 1, &full.to_string()), Err(NicknameError::NotFound));
    // It can deny a nickname to any node.
    lie(&mut net, 0, None);
    assert_eq!(found(&mut net, 1, "alice.peersock"), Err(NicknameError::NotFound));
}

#[test]
fn a_root_that_is_away_delays_an_answer_by_two_seconds_at_most() {
    let mut net = apart(2);
    net.run(SECOND);
    claim(&mut net, 0, "alice", 1).expect("nobody has it");
    net.roots[1].up = false;
    let begin = net.now;
    assert_eq!(found(&mut net, 1, "alice.peersock"), Ok((id(0), 1)));
    // Further roots have two seconds after the first answer.
    assert!(net.now - begin <= 2 * SECOND + SECOND / 10, "{:?}", net.now - begin);
    let (begin, full) = (net.now, NicknameText::of(nickname("alice"), &id(0)));
    assert!(find(&mut net, 1, &full).is_ok());
    assert!(net.now - begin <= SECOND / 10, "one root that knows it is enough");
}

// Otherwise an attacker who announces a root on the LAN, or forges a list, could deny every nickname.
#[test]
fn roots_of_lists_have_no_say_beside_one_that_is_named_by_its_key() {
    let mut net = apart(2);
    // Another node has the nickname at the second root, which others have in a list.
    use_root(&mut net, 1, 1);
    net.run(SECOND);
    claim(&mut net, 1, "alice", 2).expect("nobody has it there");
    let [named, mut listed] = [config_of(&net.roots[0]), config_of(&net.roots[1])];
    listed.is_listed = true;
    let asker = net.add(3);
    net.join(asker, &crate::net::open_network());
    for node in [0, asker] {
        net.nodes[node].endpoint.set_roots(net.now, vec![listed.clone(), named.clone()]);
        net.pump();
    }
    net.run(SECOND);
    assert_eq!(found(&mut net, asker, "alice.peersock"), Err(NicknameError::NotFound));
    claim(&mut net, 0, "alice", 1).expect("the named root gives it");
    assert_eq!(found(&mut net, asker, "alice.peersock"), Ok((id(0), 1)));
    // Without another root it is better than none.
    net.nodes[asker].endpoint.set_roots(net.now, vec![listed]);
    net.pump();
    net.run(SECOND);
    assert_eq!(found(&mut net, asker, "alice.peersock"), Ok((id(1), 2)));
}

#[test]
fn who_gives_a_nickname_back_while_another_waits_for_it_is_heeded() {
    let mut net = apart(1);
    net.run(SECOND);
    net.latency = SECOND;
    let (now, alice) = (net.now, nickname("alice"));
    let endpoint = &mut net.nodes[0].endpoint;
    assert_eq!(endpoint.claim_nickname(now, &alice, 1), None);
    assert_eq!(endpoint.nickname_claimed(now, &alice, 1), None);
    assert_eq!(endpoint.nickname_claimed(now, &alice, 2), Some(Err(NicknameError::GivenBack)));
    net.pump();
    assert!(net.nodes[0].endpoint.release_nickname(now, &alice));
    assert_eq!(net.nodes[0].endpoint.nickname_claimed(now, &alice, 1), Some(Err(NicknameError::GivenBack)));
    net.run(10 * SECOND);
    net.latency = SECOND / 1000;
    assert!(ours(&net, 0).is_empty());
    assert_eq!(found(&mut net, 1, "alice.peersock"), Err(NicknameError::NotFound));
}
