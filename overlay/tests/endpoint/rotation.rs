//! Another key for a managed network: who follows it, and who does not any more.

use std::time::Duration;

use peersock_overlay::membership::{Head, Refusal, Revocations};
use peersock_overlay::wire::MembershipMessage;
use peersock_overlay::{Event, ManagedNetwork, NetworkConfig, PeerInfo};

use crate::managed::{
    Authority, CONTROLLER, DAY, SECOND, assert_reach, certified, config, expelled, id, members, network,
    node_id, say, secret, separate, serve, set_revocations,
};
use crate::net::Net;

const HOUR: Duration = Duration::from_secs(3600);

fn since_start(net: &Net) -> Duration {
    net.now - crate::net::instant()
}

/// Gives a node the credentials that an issuer signs now.
fn certify(net: &mut Net, node: usize, identity: u8, authority: &Authority) {
    let (at, own) = (network(net, node), authority.credentials(identity, since_start(net)));
    net.nodes[node].endpoint.set_credentials(net.now, at, &own).expect("its own");
    net.pump();
}

/// Returns the number of successions that a node knows.
fn known(net: &Net, node: usize) -> usize {
    let membership = net.nodes[node].endpoint.membership(network(net, node)).expect("managed");
    membership.keys().expect("known").successions().len()
}

fn is_contested(net: &Net, node: usize) -> bool {
    net.nodes[node].endpoint.networks()[0].is_key_contested
}

/// Returns what a node shows of another one.
fn info(net: &Net, node: usize, of: u8) -> PeerInfo {
    let peers = net.nodes[node].endpoint.peers();
    peers.into_iter().find(|peer| *peer.peer.id() == node_id(of)).expect("a peer")
}

/// Runs for a time in which the first node answers as the controller.
fn run_served(net: &mut Net, authority: &Authority, time: Duration) {
    let end = net.now + time;
    while net.now < end {
        net.run(10 * SECOND);
        serve(net, 0, |node, _, at| certified(authority, node, at));
    }
}

/// Returns a controller and two members that talk to each other.
fn office(authority: &Authority) -> Net {
    let mut net = members(authority, &[CONTROLLER, 1, 2]);
    for (from, to) in [(0, 1), (0, 2), (1, 2)] {
        net.send(from, to, b"open");
    }
    net.run(SECOND);
    net
}

#[test]
fn members_follow_another_key_and_no_connection_breaks() {
    let mut authority = Authority::new();
    let mut net = office(&authority);
    let at = since_start(&net);
    authority.rekey(78, at, at + DAY);
    certify(&mut net, 0, CONTROLLER, &authority);
    // Heads come right behind the credentials, and need the key that these show.
    let removal = authority.revoke(66, at);
    set_revocations(&mut net, 0, &removal);
    let took = net.wait(5 * SECOND, |net| {
        [1, 2].iter().all(|&node| {
            let membership = net.nodes[node].endpoint.membership(network(net, node)).expect("managed");
            known(net, node) == 1 && membership.revocations().len() == 1
        })
    });
    assert!(took < SECOND, "{took:?}");
    let changed = |net: &Net| net.count(1, |event| matches!(event, Event::KeyChanged(_)));
    assert_eq!(changed(&net), 1);
    assert_reach(&mut net, 1, 2);
    // All have certificates by the new key long before the former one ends.
    for _ in 0..26 {
        run_served(&mut net, &authority, HOUR);
        assert_reach(&mut net, 1, 2);
        certify(&mut net, 0, CONTROLLER, &authority);
    }
    assert_eq!((expelled(&net, 1), expelled(&net, 2), changed(&net)), (0, 0, 1));
    // A machine that joins by the first key alone.
    let new = net.add(3);
    net.join(new, &config(None));
    run_served(&mut net, &authority, 30 * SECOND);
    assert_eq!(known(&net, new), 1);
    assert_reach(&mut net, new, 2);
}

/// Members show the new key once they have certificates by it, which they get within half a minute.
#[test]
fn a_member_that_never_meets_the_controller_learns_the_key_and_the_removals_from_others() {
    let mut authority = Authority::new();
    let mut net = office(&authority);
    separate(&mut net, &[(0, 2)]);
    let at = since_start(&net);
    authority.rekey(78, at, at + DAY);
    certify(&mut net, 0, CONTROLLER, &authority);
    let removal = authority.revoke(66, at);
    set_revocations(&mut net, 0, &removal);
    net.run(5 * SECOND);
    assert_eq!((known(&net, 1), known(&net, 2)), (1, 0));
    let begun = net.now;
    let has_all = |net: &Net| {
        let membership = net.nodes[2].endpoint.membership(network(net, 2)).expect("managed");
        known(net, 2) == 1 && membership.revocations().len() == 1
    };
    while !has_all(&net) {
        net.run(SECOND);
        serve(&mut net, 0, |node, _, at| certified(&authority, node, at));
        assert!(net.now - begun < 40 * SECOND, "{}", known(&net, 2));
    }
    assert_reach(&mut net, 1, 2);
}

#[test]
fn a_head_by_a_key_that_is_not_known_waits_for_the_credentials() {
    let mut authority = Authority::new();
    let mut net = office(&authority);
    let at = since_start(&net);
    authority.rekey(78, at, at + DAY);
    let (head, set) = authority.revoke(66, at);
    let index = network(&net, 0);
    let refused = net.nodes[0].endpoint.set_revocations(net.now, index, &head, &set);
    assert_eq!(refused, Err(Refusal::Issuer));
    say(&mut net, 0, 1, &MembershipMessage::Head(&head.to_bytes()).to_bytes());
    net.run(SECOND);
    let revoked = |net: &Net| -> usize {
        let membership = net.nodes[1].endpoint.membership(network(net, 1)).expect("managed");
        membership.revocations().len()
    };
    assert_eq!((known(&net, 1), revoked(&net)), (0, 0), "nothing is learned from it");
    certify(&mut net, 0, CONTROLLER, &authority);
    set_revocations(&mut net, 0, &(head, set));
    net.wait(SECOND, |net| known(net, 1) == 1 && revoked(net) == 1);
}

#[test]
fn what_a_former_key_has_made_ends_in_open_sessions() {
    // At once, and after an hour.
    for lasts in [Duration::ZERO, HOUR] {
        let mut authority = Authority::new();
        let mut net = office(&authority);
        let at = since_start(&net);
        authority.rekey(78, at, at + lasts);
        certify(&mut net, 0, CONTROLLER, &authority);
        // No controller answers, so the members have what the former key has made.
        if !lasts.is_zero() {
            net.run(lasts - 60 * SECOND);
            assert_reach(&mut net, 1, 2);
        }
        net.wait(61 * SECOND, |net| !net.peer(1, 2).is_admitted() && !net.peer(2, 1).is_admitted());
        let before = net.received(2).len();
        net.send(1, 2, b"late");
        net.run(5 * SECOND);
        assert_eq!(net.received(2).len(), before);
        // They have asked since, and are back when the controller answers.
        run_served(&mut net, &authority, 60 * SECOND);
        assert_reach(&mut net, 1, 2);
    }
}

#[test]
fn a_member_that_was_away_learns_the_key_when_others_refuse_it() {
    let mut authority = Authority::new().lasting(30 * DAY);
    let mut net = office(&authority);
    net.nodes[2].up = false;
    let at = since_start(&net);
    authority.rekey(78, at, at + HOUR);
    authority.rekey(79, at + SECOND, at + 2 * HOUR);
    certify(&mut net, 0, CONTROLLER, &authority);
    run_served(&mut net, &authority, 3 * HOUR);
    assert_eq!((known(&net, 1), known(&net, 2)), (2, 0));
    net.nodes[2].up = true;
    net.send(2, 1, b"back");
    net.run(5 * SECOND);
    let refused = |event: &Event| matches!(event, Event::RefusedBy(_, Refusal::KeyEnded));
    assert!(net.count(2, refused) > 0, "its credentials are by the first key");
    run_served(&mut net, &authority, 120 * SECOND);
    assert_eq!(known(&net, 2), 2);
    assert_reach(&mut net, 2, 1);
}

/// Somebody has the first key, and makes an issuer and a member by it.
#[test]
fn a_thief_of_a_former_key_gets_nowhere_where_the_next_one_is_known() {
    let mut authority = Authority::new();
    let mut net = office(&authority);
    let at = since_start(&net);
    authority.rekey(78, at, at);
    certify(&mut net, 0, CONTROLLER, &authority);
    run_served(&mut net, &authority, 60 * SECOND);
    assert_reach(&mut net, 1, 2);
    // By that key alone, and by a successor that the thief has made.
    let mut thief = Authority::with(50, 365 * DAY);
    for (identity, refusal) in [(3, Refusal::KeyEnded), (4, Refusal::OtherSuccession)] {
        if identity == 4 {
            assert!(!is_contested(&net, 1));
            thief.rekey(99, at, at);
        }
        let node = net.add(identity);
        let own = thief.credentials(identity, since_start(&net));
        net.join(node, &config(Some(own)));
        net.run(2 * SECOND);
        net.send(1, node, b"hello");
        net.run(5 * SECOND);
        assert!(net.received(node).is_empty(), "{identity}");
        let shown = info(&net, 1, identity);
        assert_eq!((shown.admitted, shown.refusal), (false, Some(refusal)));
        // The thief's removals count nowhere either, whichever node shows them.
        let (head, _) = thief.revoke(2, since_start(&net));
        say(&mut net, 2, 1, &MembershipMessage::Head(&head.to_bytes()).to_bytes());
        net.run(2 * SECOND);
        assert_eq!(known(&net, 1), 1);
        assert_reach(&mut net, 1, 2);
    }
    // The network's administrator can see it.
    assert!(is_contested(&net, 1));
    let refused = net.counter(1, "credentials_refused");
    assert!(refused >= 2, "{refused}");
}

/// A restart forgets no key.
#[test]
fn a_key_that_was_learned_is_kept_by_the_description_of_the_network() {
    let mut authority = Authority::new();
    let old = [2, 3].map(|identity| authority.credentials(identity, Duration::ZERO));
    let mut net = members(&authority, &[CONTROLLER]);
    let at = since_start(&net);
    authority.rekey(78, at, at);
    certify(&mut net, 0, CONTROLLER, &authority);
    let successions = authority.credentials(1, at).successions().to_vec();
    let described = |own: usize, successions: Vec<_>| {
        let (key, credentials) = (Some(secret().public()), Some(old[own].clone()));
        NetworkConfig::Managed(Box::new(ManagedNetwork {
            key,
            credentials,
            successions,
            ..ManagedNetwork::new(id())
        }))
    };
    let node = net.add(2);
    net.join(node, &described(0, successions.clone()));
    assert_eq!(known(&net, node), 1);
    // It knows that its credentials have ended, and asks.
    run_served(&mut net, &authority, 20 * SECOND);
    assert_reach(&mut net, node, 0);
    // Successions that are not signed right are none.
    let mut wrong = authority.credentials(1, at).successions().to_vec();
    wrong.insert(0, wrong[0].clone());
    let other = net.add(3);
    net.join(other, &described(1, wrong));
    assert_eq!(known(&net, other), 0);
}

/// Removals that the former key's issuers have signed stay, and their heads are not offered any more.
#[test]
fn heads_of_a_former_key_are_forgotten_at_its_end() {
    let mut authority = Authority::new();
    let mut net = office(&authority);
    let removal = authority.revoke(66, since_start(&net));
    set_revocations(&mut net, 0, &removal);
    net.run(2 * SECOND);
    let heads = |net: &Net| -> Vec<Head> {
        let membership = net.nodes[1].endpoint.membership(network(net, 1)).expect("managed");
        membership.heads().map(|(head, _)| head.clone()).collect()
    };
    assert_eq!(heads(&net), std::slice::from_ref(&removal.0));
    let at = since_start(&net);
    authority.rekey(78, at, at);
    certify(&mut net, 0, CONTROLLER, &authority);
    net.run(SECOND);
    assert_eq!(heads(&net), []);
    let membership = net.nodes[1].endpoint.membership(network(&net, 1)).expect("managed");
    assert_eq!(membership.revocations().len(), 1);
    let (head, set): (Head, Revocations) = authority.revoke(67, at);
    set_revocations(&mut net, 0, &(head.clone(), set));
    run_served(&mut net, &authority, 60 * SECOND);
    assert_eq!(heads(&net), [head]);
}
