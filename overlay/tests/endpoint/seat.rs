//! A member that becomes the controller of its network, and an ordinary member again.

use std::time::Duration;

use peersock_overlay::membership::Serial;
use peersock_overlay::{Event, Identity, ManagedNetwork, NetworkConfig};

use crate::managed::{
    Authority, CONTROLLER, DAY, SECOND, assert_reach, certified, expelled, network, node_id, secret, serve,
};
use crate::net::Net;

/// Identity of another controller of the network.
const OTHER: u8 = 8;

const HOUR: Duration = Duration::from_secs(3600);

/// Returns a network of a machine with an issuer's identity that has joined it as an ordinary member, another
/// controller, and a member. Each knows both issuers.
fn office(authority: &Authority, other: &Authority) -> Net {
    let mut net = Net::new();
    for (identity, issuer, is_controller) in
        [(CONTROLLER, authority, false), (OTHER, other, true), (1, authority, false)]
    {
        let mut known = ManagedNetwork::new(crate::managed::id());
        (known.key, known.is_controller) = (Some(secret().public()), is_controller);
        known.credentials = Some(issuer.credentials(identity, Duration::ZERO));
        known.controllers = [CONTROLLER, OTHER].map(|one| *Identity::from_seed(&[one; 32]).public()).to_vec();
        let node = net.add(identity);
        net.join(node, &NetworkConfig::Managed(Box::new(known)));
    }
    net.run(4 * SECOND);
    net
}

fn set_controller(net: &mut Net, node: usize, is_controller: bool) {
    let at = network(net, node);
    net.nodes[node].endpoint.set_controller(net.now, at, is_controller);
    net.pump();
}

fn asked(net: &Net, node: usize) -> usize {
    net.count(node, |event| matches!(event, Event::Asked(..)))
}

/// Returns the number of questions of the machine with the issuer's identity to the other controller.
fn own_questions(net: &Net) -> usize {
    net.count(1, |event| matches!(event, Event::Asked(peer, ..) if *peer.id() == node_id(CONTROLLER)))
}

fn serial(net: &Net, node: usize) -> Serial {
    let known = net.nodes[node].endpoint.membership(network(net, node)).expect("managed");
    known.credentials().expect("a member").certificate().serial()
}

#[test]
fn a_member_that_becomes_the_controller_hears_questions_and_asks_nobody() {
    let (authority, other) = (Authority::new(), Authority::with(OTHER, 365 * DAY));
    let mut net = office(&authority, &other);
    // The other controller is away, so everybody turns to the machine, which is no controller yet.
    net.nodes[1].up = false;
    let new = net.add(2);
    let mut known = ManagedNetwork::new(crate::managed::id());
    known.key = Some(secret().public());
    known.controllers = vec![*Identity::from_seed(&[CONTROLLER; 32]).public()];
    net.join(new, &NetworkConfig::Managed(Box::new(known)));
    net.run(5 * SECOND);
    assert_eq!(asked(&net, 0), 0, "an ordinary member hears no questions");
    set_controller(&mut net, 0, true);
    let at = network(&net, new);
    let mut waited = 0;
    while net.nodes[new].endpoint.membership(at).expect("managed").credentials().is_none() {
        net.run(SECOND);
        serve(&mut net, 0, |node, _, at| certified(&authority, node, at));
        waited += 1;
        assert!(waited < 20, "the new controller answers nobody");
    }
    assert_reach(&mut net, new, 2);
    // Beside another controller, it wants none of its certificates.
    net.nodes[1].up = true;
    for _ in 0..3 * 12 {
        net.run(HOUR / 12);
        serve(&mut net, 0, |node, _, at| certified(&authority, node, at));
    }
    assert_eq!(own_questions(&net), 0, "a controller asks nobody");
    assert_eq!((expelled(&net, 2), expelled(&net, 0)), (0, 0));
}

#[test]
fn a_controller_that_becomes_an_ordinary_member_stays_one_and_renews_as_any_other() {
    let (authority, other) = (Authority::new(), Authority::with(OTHER, 365 * DAY));
    let mut net = office(&authority, &other);
    set_controller(&mut net, 0, true);
    assert_reach(&mut net, 2, 0);
    net.run(2 * HOUR);
    let own = authority.credentials(CONTROLLER, net.now - crate::net::instant());
    let at = network(&net, 0);
    net.nodes[0].endpoint.set_credentials(net.now, at, &own).expect("its own");
    net.pump();
    net.run(SECOND);
    net.nodes.iter_mut().for_each(|node| node.events.clear());
    set_controller(&mut net, 0, false);
    // At once, because the others tell it of removals.
    net.run(2 * SECOND);
    assert!(net.nodes[0].endpoint.has_controller(at), "it keeps a session with another controller");
    assert_reach(&mut net, 2, 0);
    assert_reach(&mut net, 0, 2);
    assert_eq!(own_questions(&net), 0, "its certificate is new");
    // It renews by the other controller before the certificate ends, and no controller is asked in vain.
    let before = serial(&net, 0);
    let mut waited = 0;
    while serial(&net, 0) == before {
        net.run(Duration::from_secs(60));
        serve(&mut net, 1, |node, _, at| certified(&other, node, at));
        waited += 1;
        assert!(waited <= 41, "it does not renew");
    }
    assert!(waited > 1, "the pace is that of a member");
    assert_eq!(asked(&net, 0), 0, "it is no controller any more");
    assert_reach(&mut net, 2, 0);
    let gone = [0, 1, 2].map(|node| expelled(&net, node));
    assert_eq!(gone, [0, 0, 0]);
    // The request that is planned meanwhile is that of a member alone.
    net.nodes[1].events.clear();
    set_controller(&mut net, 0, true);
    net.run(2 * HOUR);
    assert_eq!(own_questions(&net), 0, "a controller again, it asks nobody");
}
