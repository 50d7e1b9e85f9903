//! A controller that gets another node key: it goes to the members, and they take its certificates.

use std::time::Duration;

use peersock_overlay::membership::Refusal;
use peersock_overlay::{Event, Identity, ManagedNetwork, NetworkConfig, NodeId, PublicIdentity};

use crate::managed::{
    Authority, CONTROLLER, DAY, SECOND, assert_reach, certified, expelled, members, network, node_id, secret,
    separate, serve, set_revocations,
};
use crate::net::Net;
use crate::roots::{add_root, through_roots, use_roots};

/// Identity of the controller's next key.
const NEXT: u8 = 8;

/// Time in which members are back after their controller's key was revoked.
const BACK: Duration = Duration::from_secs(10);

fn since_start(net: &Net) -> Duration {
    net.now - crate::net::instant()
}

fn public(identity: u8) -> PublicIdentity {
    *Identity::from_seed(&[identity; 32]).public()
}

/// Ends the node with the former key, and starts one with the next key in its place. With `is_now`, it
/// revokes the former one.
fn rekey(net: &mut Net, next: &mut Authority, is_now: bool) -> usize {
    rekey_apart(net, next, is_now, &[])
}

/// Does the same with a new node that some others do not hear.
fn rekey_apart(net: &mut Net, next: &mut Authority, is_now: bool, apart: &[usize]) -> usize {
    net.nodes[0].up = false;
    let node = net.add(NEXT);
    if !apart.is_empty() {
        let apart: Vec<_> = apart.iter().map(|&other| (node, other)).collect();
        separate(net, &apart);
    }
    let at = since_start(net);
    let mut config = ManagedNetwork::new(crate::managed::id());
    (config.key, config.is_controller) = (Some(secret().public()), true);
    config.credentials = Some(next.credentials(NEXT, at));
    net.join(node, &NetworkConfig::Managed(Box::new(config)));
    if !net.roots.is_empty() {
        use_roots(net, node);
    }
    let removed = if is_now { CONTROLLER } else { 99 };
    let head = next.revoke(removed, at);
    set_revocations(net, node, &head);
    node
}

fn visit(net: &mut Net, node: usize, members: &[u8]) -> usize {
    let at = network(net, node);
    let members: Vec<_> = members.iter().map(|one| public(*one)).collect();
    let sought = net.nodes[node].endpoint.visit_members(net.now, at, &members);
    net.pump();
    sought.len()
}

/// Returns the issuer of a node's certificate.
fn issuer(net: &Net, node: usize) -> NodeId {
    let known = net.nodes[node].endpoint.membership(network(net, node)).expect("managed");
    known.credentials().expect("a member").delegation().issuer().node_id()
}

fn knows(net: &Net, node: usize, controller: u8) -> bool {
    let known = net.nodes[node].endpoint.membership(network(net, node)).expect("managed");
    known.controllers().contains(&public(controller))
}

/// Serves until a condition holds, and returns the time that took.
fn serve_until(
    net: &mut Net,
    node: usize,
    next: &Authority,
    limit: Duration,
    is_done: impl Fn(&Net) -> bool,
) -> Duration {
    let begun = net.now;
    while !is_done(net) {
        assert!(net.now - begun < limit, "not within {limit:?}");
        net.run(Duration::from_millis(50));
        serve(net, node, |member, _, at| certified(next, member, at));
    }
    net.now - begun
}

/// Returns a controller and two members that talk to each other.
fn office() -> Net {
    let mut net = members(&Authority::new(), &[CONTROLLER, 1, 2]);
    for (from, to) in [(0, 1), (0, 2), (1, 2)] {
        net.send(from, to, b"open");
    }
    net.run(SECOND);
    net
}

/// Returns the same where only a root leads from node to node.
fn behind_a_root() -> Net {
    let mut net = Net::new();
    net.filter = through_roots();
    add_root(&mut net, 1);
    let authority = Authority::new();
    for identity in [CONTROLLER, 1, 2] {
        let node = net.add(identity);
        let mut config = ManagedNetwork::new(crate::managed::id());
        (config.key, config.is_controller) = (Some(secret().public()), identity == CONTROLLER);
        config.credentials = Some(authority.credentials(identity, Duration::ZERO));
        net.join(node, &NetworkConfig::Managed(Box::new(config)));
        use_roots(&mut net, node);
    }
    net.run(4 * SECOND);
    for (from, to) in [(1, 0), (2, 0)] {
        net.send(from, to, b"open");
    }
    net.run(2 * SECOND);
    // One that has met the controller alone.
    assert!(net.nodes[1].endpoint.has_controller(network(&net, 1)));
    net
}

#[test]
fn members_go_on_with_a_former_key_and_renew_by_the_next_one() {
    for mut net in [office(), behind_a_root()] {
        let mut next = Authority::with(NEXT, 365 * DAY);
        let node = rekey(&mut net, &mut next, false);
        assert!(!knows(&net, 1, NEXT));
        net.run(SECOND);
        assert_eq!(visit(&mut net, node, &[1, 2]), 2);
        serve_until(&mut net, node, &next, BACK, |net| knows(net, 1, NEXT) && knows(net, 2, NEXT));
        let gone = expelled(&net, 1) + expelled(&net, 2);
        assert_reach(&mut net, 1, node);
        assert_reach(&mut net, node, 2);
        assert_eq!(visit(&mut net, node, &[1, 2]), 0, "they have sessions");
        // In time, with the former controller first in their list.
        let old = node_id(CONTROLLER);
        assert_eq!((issuer(&net, 1), issuer(&net, 2)), (old, old));
        serve_until(&mut net, node, &next, Duration::from_secs(2600), |net| {
            [1, 2].iter().all(|member| issuer(net, *member) == node_id(NEXT))
        });
        assert_eq!(expelled(&net, 1) + expelled(&net, 2), gone, "nobody was out");
    }
}

#[test]
fn members_are_back_soon_after_the_former_key_was_revoked() {
    for (place, mut net) in [("local network", office()), ("root", behind_a_root())] {
        let mut next = Authority::with(NEXT, 365 * DAY);
        let node = rekey(&mut net, &mut next, true);
        net.run(SECOND);
        visit(&mut net, node, &[1, 2]);
        let took = serve_until(&mut net, node, &next, BACK, |net| {
            [1, 2].iter().all(|member| issuer(net, *member) == node_id(NEXT))
        });
        assert!(took < 3 * SECOND, "{place}: {took:?}");
        assert_reach(&mut net, 1, node);
        assert_reach(&mut net, 1, 2);
        assert!(!knows(&net, 1, CONTROLLER) && !knows(&net, 2, CONTROLLER), "{place}");
        // The former key is refused, and what it signs.
        let former = Authority::new();
        let thief = net.add(66);
        let mut config = ManagedNetwork::new(crate::managed::id());
        config.key = Some(secret().public());
        config.credentials = Some(former.credentials(66, since_start(&net)));
        net.join(thief, &NetworkConfig::Managed(Box::new(config)));
        if !net.roots.is_empty() {
            use_roots(&mut net, thief);
        }
        net.run(4 * SECOND);
        net.nodes[1].inbox.clear();
        net.send(thief, 1, b"evil");
        net.run(5 * SECOND);
        assert!(net.received(1).is_empty(), "{place}");
        let is_refused = |event: &Event| matches!(event, Event::RefusedBy(_, Refusal::Revoked));
        assert!(net.count(thief, is_refused) > 0, "{place}");
    }
}

/// The controller reaches one member, and the other one hears from that one alone.
#[test]
fn a_member_learns_the_next_controller_from_another_member() {
    for is_now in [false, true] {
        let mut net = office();
        let mut next = Authority::with(NEXT, 365 * DAY);
        let node = rekey_apart(&mut net, &mut next, is_now, &[2]);
        net.run(SECOND);
        visit(&mut net, node, &[1]);
        if is_now {
            serve_until(&mut net, node, &next, BACK, |net| issuer(net, 1) == node_id(NEXT));
            serve_until(&mut net, node, &next, BACK, |net| knows(net, 2, NEXT));
            net.filter = Box::new(|_| true);
            serve_until(&mut net, node, &next, BACK, |net| issuer(net, 2) == node_id(NEXT));
            assert_reach(&mut net, 1, 2);
        } else {
            // By the head, which each member tells the others.
            serve_until(&mut net, node, &next, BACK, |net| knows(net, 2, NEXT));
            assert_eq!(expelled(&net, 1) + expelled(&net, 2), 0);
        }
    }
}

#[test]
fn only_a_controller_visits_and_few_at_a_time() {
    let mut net = office();
    let many: Vec<_> = (100..200).collect();
    assert_eq!(visit(&mut net, 1, &many), 0);
    assert_eq!(visit(&mut net, 0, &many), peersock_overlay::Endpoint::MAX_VISITS);
    // Those that are away are looked for, and forgotten.
    net.run(30 * SECOND);
    assert_reach(&mut net, 1, 2);
    assert_reach(&mut net, 0, 1);
}
