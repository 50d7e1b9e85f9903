//! Access rules spread to all members, never go back, and end with their issuer's key.

use std::time::Duration;

use peersock_overlay::membership::{Refusal, RulesHead, RulesRank, SignedRules, UnixTime};
use peersock_overlay::wire::MembershipMessage;
use peersock_overlay::{Event, NetworkConfig};

use crate::managed::{
    Authority, CONTROLLER, DAY, SECOND, config, id, kept, members, network, node_id, say, separate,
    set_revocations,
};
use crate::net::{Net, UNIX_TIME};

/// Signs rules at a time after the start of the test, with a version that is earlier by `behind`.
fn sign_behind(by: &Authority, at: Duration, behind: u64, rules: &[u8]) -> SignedRules {
    let time = UnixTime::from(UNIX_TIME + at);
    let version = time.as_millis() - behind;
    let head = RulesHead::sign(&by.identity, by.delegation.clone(), id(), version, time, rules);
    SignedRules::new(head, rules)
}

fn sign(by: &Authority, at: Duration, rules: &[u8]) -> SignedRules {
    sign_behind(by, at, 0, rules)
}

fn set(net: &mut Net, node: usize, signed: &SignedRules) -> Result<(), Refusal> {
    let at = network(net, node);
    let done = net.nodes[node].endpoint.set_rules(net.now, at, signed.clone());
    net.pump();
    done
}

/// Returns the rules that count at a node.
fn rules(net: &Net, node: usize) -> Option<Vec<u8>> {
    let known = net.nodes[node].endpoint.membership(network(net, node)).expect("managed");
    known.rules().map(|signed| signed.rules().to_vec())
}

fn have(net: &Net, nodes: &[usize], wanted: &[u8]) -> bool {
    nodes.iter().all(|&node| rules(net, node).as_deref() == Some(wanted))
}

fn connected(authority: &Authority, identities: &[u8], pairs: &[(usize, usize)]) -> Net {
    let mut net = members(authority, identities);
    for &(from, to) in pairs {
        net.send(from, to, b"open");
    }
    net.run(SECOND);
    net
}

#[test]
fn the_largest_rules_reach_all_members_at_once_also_over_others() {
    let authority = Authority::new();
    let mut net = connected(&authority, &[1, 2, 3, 4], &[(0, 1), (1, 2), (2, 3)]);
    separate(&mut net, &[(0, 2), (0, 3), (1, 3)]);
    let large = vec![7; RulesHead::MAX_RULES_LEN];
    set(&mut net, 0, &sign(&authority, 5 * SECOND, &large)).expect("signed by an issuer");
    let took = net.wait(10 * SECOND, |net| have(net, &[0, 1, 2, 3], &large));
    assert!(took < SECOND, "{took:?}");
    assert!(net.count(3, |event| matches!(event, Event::RulesChanged(_))) == 1);
    net.run(SECOND);
    let version = UnixTime::from(UNIX_TIME + 5 * SECOND).as_millis();
    let knows = |info: &peersock_overlay::PeerInfo| info.known_rules == Some(version);
    // The node at which they were signed can say whom they have reached.
    assert!(net.nodes[0].endpoint.peers().iter().any(knows));
    assert_eq!(net.nodes[3].endpoint.networks()[0].rules, Some(version));
    let at = network(&net, 3);
    let changed = net.nodes[3].endpoint.take_rules_changes();
    assert_eq!(changed.len(), 1);
    assert_eq!((changed[0].0, changed[0].1.as_ref().map(|one| one.rules().len())), (at, Some(large.len())));
    assert!(net.nodes[3].endpoint.take_rules_changes().is_empty());
}

#[test]
fn lost_datagrams_and_a_partition_delay_rules_and_no_more() {
    let authority = Authority::new();
    let mut net = connected(&authority, &[1, 2], &[(0, 1)]);
    separate(&mut net, &[(0, 1)]);
    set(&mut net, 0, &sign(&authority, 5 * SECOND, &[1; 5000])).expect("signed by an issuer");
    net.run(60 * SECOND);
    assert_eq!(rules(&net, 1), None);
    let mut dice = 0_u32;
    net.filter = Box::new(move |_| {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        dice >> 24 >= 76
    });
    net.wait(Duration::from_secs(90), |net| have(net, &[1], &[1; 5000]));
}

#[test]
fn a_member_that_restarts_alone_knows_its_rules_and_newcomers_learn_them() {
    let authority = Authority::new();
    let mut net = connected(&authority, &[1, 2], &[(0, 1)]);
    set(&mut net, 0, &sign(&authority, 5 * SECOND, b"rules")).expect("signed by an issuer");
    net.run(SECOND);
    let state = kept(&net, 1);
    let mut net = Net::new();
    let node = net.add(2);
    net.join(node, &NetworkConfig::Managed(Box::new(state)));
    assert!(have(&net, &[node], b"rules"), "nobody else is there");
    assert_eq!(net.nodes[node].endpoint.take_rules_changes().len(), 1, "the layer above hears of them");
    let new = net.add(3);
    net.join(new, &config(Some(authority.credentials(3, Duration::ZERO))));
    net.run(4 * SECOND);
    net.send(new, node, b"open");
    net.wait(5 * SECOND, |net| have(net, &[new], b"rules"));
}

#[test]
fn older_rules_never_come_back_and_of_two_of_one_version_all_have_the_same() {
    let authority = Authority::new();
    let mut net = connected(&authority, &[1, 2, 3], &[(0, 1), (1, 2), (0, 2)]);
    let old = sign(&authority, 5 * SECOND, b"old");
    let new = sign(&authority, 6 * SECOND, b"new");
    set(&mut net, 0, &new).expect("signed by an issuer");
    net.run(SECOND);
    set(&mut net, 1, &old).expect("ignored");
    net.run(SECOND);
    assert!(have(&net, &[0, 1, 2], b"new"));
    // A replay by a member.
    let rank = old.head().rank();
    let issuer = *authority.identity.node_id().as_bytes().first_chunk().expect("an ID");
    say(&mut net, 1, 2, &MembershipMessage::HaveRules { issuer, rank }.to_bytes());
    let part = MembershipMessage::RulesPart { digest: rank.digest, offset: 0, bytes: old.bytes() };
    say(&mut net, 1, 2, &part.to_bytes());
    net.run(SECOND);
    assert!(have(&net, &[0, 1, 2], b"new"));
    // One version with two contents, each at another node: the later one, then the one with the greater hash.
    let at = net.now - crate::net::instant();
    let [one, two] = [b"one", b"two"].map(|rules| sign(&authority, at, rules));
    let greater = if one.head().rank() > two.head().rank() { b"one" } else { b"two" };
    set(&mut net, 0, &one).expect("signed by an issuer");
    set(&mut net, 2, &two).expect("signed by an issuer");
    net.wait(5 * SECOND, |net| have(net, &[0, 1, 2], greater));
    let later = sign_behind(&authority, at + SECOND, 1000, b"later");
    assert_eq!(later.head().version(), one.head().version());
    set(&mut net, 1, &later).expect("signed by an issuer");
    net.wait(5 * SECOND, |net| have(net, &[0, 1, 2], b"later"));
}

#[test]
fn rules_of_a_stolen_key_end_with_it_and_those_of_another_issuer_count_again() {
    let (mut honest, stolen) = (Authority::with(8, 365 * DAY), Authority::new());
    let mut net = connected(&honest, &[1, 2, 3], &[(0, 1), (1, 2), (0, 2)]);
    set(&mut net, 0, &sign(&honest, 5 * SECOND, b"good")).expect("signed by an issuer");
    net.run(SECOND);
    set(&mut net, 2, &sign(&stolen, 7 * SECOND, b"evil")).expect("nobody knows yet");
    net.wait(5 * SECOND, |net| have(net, &[0, 1, 2], b"evil"));
    let at = net.now - crate::net::instant();
    let revoked = honest.revoke(CONTROLLER, at);
    set_revocations(&mut net, 0, &revoked);
    let took = net.wait(5 * SECOND, |net| have(net, &[0, 1, 2], b"good"));
    assert!(took < SECOND, "{took:?}");
    let again = set(&mut net, 2, &sign(&stolen, at + SECOND, b"evil again"));
    assert_eq!(again, Err(Refusal::Revoked));
    // Also after a restart with everything on the disk.
    let mut state = kept(&net, 1);
    state.rules.push(sign(&stolen, at, b"evil"));
    let mut net = Net::new();
    let node = net.add(2);
    net.join(node, &NetworkConfig::Managed(Box::new(state)));
    assert!(have(&net, &[node], b"good"));
}

#[test]
fn what_does_not_count_is_refused() {
    let authority = Authority::new();
    let mut net = members(&authority, &[1]);
    let now = UnixTime::from(UNIX_TIME + 5 * SECOND);
    let head = |version, time, rules: &[u8]| {
        let head =
            RulesHead::sign(&authority.identity, authority.delegation.clone(), id(), version, time, rules);
        SignedRules::new(head, rules)
    };
    let beyond = head(now.as_millis() + 1, now, b"x");
    assert_eq!(set(&mut net, 0, &beyond), Err(Refusal::Issuer), "a version beyond the time");
    let future = now.plus(3 * DAY);
    assert_eq!(set(&mut net, 0, &head(1, future, b"x")), Err(Refusal::NotYetValid));
    let long = vec![0; RulesHead::MAX_RULES_LEN + 1];
    assert_eq!(set(&mut net, 0, &head(1, now, &long)), Err(Refusal::Issuer));
    let other = Authority::with(8, 365 * DAY);
    let forged = RulesHead::sign(&other.identity, authority.delegation.clone(), id(), 1, now, b"x");
    assert_eq!(set(&mut net, 0, &SignedRules::new(forged, b"x")), Err(Refusal::Unauthentic));
    let swapped = SignedRules::new(head(1, now, b"x").head().clone(), b"y");
    assert!(SignedRules::parse(swapped.bytes().clone()).is_err(), "other rules than those that were signed");
    assert_eq!(rules(&net, 0), None);
}

#[test]
fn a_member_that_offers_what_it_does_not_have_keeps_nobody_from_it() {
    let authority = Authority::new();
    let mut net = connected(&authority, &[1, 2, 3], &[(0, 1), (1, 2)]);
    separate(&mut net, &[(0, 2)]);
    let issuer = *authority.identity.node_id().as_bytes().first_chunk().expect("an ID");
    let time = UnixTime::from(UNIX_TIME + DAY);
    let rank = RulesRank { version: time.as_millis(), time, digest: [9; 16] };
    for _ in 0..30 {
        say(&mut net, 0, 1, &MembershipMessage::HaveRules { issuer, rank }.to_bytes());
    }
    // Parts that nobody has asked for, and a beginning that no issuer has signed.
    for offset in [0, 1008, 4 * 1008, u32::MAX] {
        let part = MembershipMessage::RulesPart { digest: rank.digest, offset, bytes: &[5; 1008] };
        say(&mut net, 0, 1, &part.to_bytes());
    }
    set(&mut net, 2, &sign(&authority, 5 * SECOND, b"rules")).expect("signed by an issuer");
    let took = net.wait(10 * SECOND, |net| have(net, &[1], b"rules"));
    assert!(took < 3 * SECOND, "{took:?}");
    assert_ne!(node_id(1), node_id(2));
}
