//! Roots of a managed network that lie, withhold and replay, also together with a node that was removed or is
//! no member: they make no session with either, no credentials of theirs count, and members reach each other
//! by another root.

use std::time::Duration;

use peersock_overlay::membership::{
    Certificate, Credentials, Delegation, Grant, Head, NetworkSecret, Revocation, Revocations, Rights,
    Serial, UnixTime,
};
use peersock_overlay::wire::{Channel, Entry, MembershipMessage, Registration};
use peersock_overlay::{Identity, ManagedNetwork, NetworkConfig};
use peersock_testnet::Lies;

use crate::managed::{
    Authority, CONTROLLER, DAY, SECOND, certified, config, id, network, node_id, observes, say, secret,
    serve, set_revocations,
};
use crate::net::{Net, Sent, UNIX_TIME};
use crate::roots::{add_liar, add_root, through_roots, use_roots};

/// Change that makes a root lie.
type Lie = fn(&mut Lies);

/// Places of the nodes: a controller, two members, and the node that the root is in league with.
const MEMBERS: [usize; 3] = [0, 1, 2];
const ALLY: usize = 3;

/// Identity of that node.
const ALLY_KEY: u8 = 4;

/// Creates the nodes, which reach only roots: one that can lie, and an honest one.
fn scene(authority: &Authority) -> Net {
    let mut net = Net::new();
    net.filter = through_roots();
    for identity in [CONTROLLER, 1, 2] {
        let node = net.add(identity);
        let mut known = ManagedNetwork::new(id());
        (known.key, known.is_controller) = (Some(secret().public()), identity == CONTROLLER);
        known.credentials = Some(authority.credentials(identity, Duration::ZERO));
        known.controllers = vec![*authority.identity.public()];
        net.join(node, &NetworkConfig::Managed(Box::new(known)));
    }
    net.add(ALLY_KEY);
    add_liar(&mut net, 1);
    add_root(&mut net, 2);
    (0..=ALLY).for_each(|node| use_roots(&mut net, node));
    net
}

/// Lets the members send to each other until each has what the others have sent.
fn assert_members_reach_each_other(net: &mut Net, case: &str) {
    for (from, to) in [(1, 2), (2, 1), (0, 1), (2, 0)] {
        let text = format!("{case} {from} {to} {:?}", net.now).into_bytes();
        net.send(from, to, &text);
        net.wait(20 * SECOND, |net| net.received(to).contains(&text));
    }
}

/// Lets the ally and the members try to talk, and checks that nothing passes.
fn assert_ally_is_out(net: &mut Net, case: &str) {
    let before = MEMBERS.map(|member| from_ally(net, member));
    let heard = net.received(ALLY).len();
    for member in MEMBERS {
        net.send(ALLY, member, b"let me in");
        net.send(member, ALLY, b"a secret");
    }
    net.run(10 * SECOND);
    assert_eq!(net.received(ALLY).len(), heard, "{case}");
    for (member, before) in MEMBERS.into_iter().zip(before) {
        assert_eq!(from_ally(net, member), before, "{case}");
        let known = net.nodes[member].endpoint.membership(network(net, member)).expect("managed");
        assert!(known.admission(&node_id(ALLY_KEY)).is_none(), "{case}");
    }
}

/// Returns the number of packets that a member has got from the ally.
fn from_ally(net: &Net, member: usize) -> usize {
    net.nodes[member].inbox.iter().filter(|(_, peer, _)| *peer.id() == node_id(ALLY_KEY)).count()
}

#[test]
fn members_reach_each_other_and_no_stranger_whatever_one_root_does() {
    let cases: [(&str, Lie); 9] = [
        ("swallows", |lies| lies.swallows = true),
        ("wrong channel", |lies| lies.wrong_channel = true),
        ("wrong voucher", |lies| lies.wrong_voucher = true),
        ("misdelivers", |lies| lies.misdelivers = true),
        ("refuses", |lies| lies.refuses = true),
        ("over the rate", |lies| lies.over_rate = true),
        ("repeats", |lies| lies.repeats = true),
        ("seen elsewhere", |lies| lies.seen_at = Some("203.0.113.66:53".parse().expect("an address"))),
        ("names its ally", |lies| {
            let ally = Identity::from_seed(&[ALLY_KEY; 32]);
            let root = Identity::from_seed(&[0xA1; 32]).node_id();
            let registration = Registration::sign(&ally, &root, 1, 600);
            lies.entry = Some(Entry { identity: *ally.public(), channel: Channel(5), registration });
        }),
    ];
    for (case, lie) in cases {
        let mut authority = Authority::new();
        let mut net = scene(&authority);
        net.join(ALLY, &config(None));
        lie(net.roots[0].root.lies());
        net.run(2 * SECOND);
        assert_members_reach_each_other(&mut net, case);
        // A removal reaches them, whatever the root withholds.
        let removal = authority.revoke(66, net.now - crate::net::instant());
        set_revocations(&mut net, 0, &removal);
        net.wait(30 * SECOND, |net| observes(net, 1, 66) && observes(net, 2, 66));
        assert_ally_is_out(&mut net, case);
        // So do other certificates.
        for _ in 0..26 {
            net.run(100 * SECOND);
            serve(&mut net, 0, |node, _, at| certified(&authority, node, at));
        }
        let at = network(&net, 1);
        let known = net.nodes[1].endpoint.membership(at).expect("managed");
        let begun = known.credentials().expect("a member").certificate().serial().time();
        assert!(begun > UnixTime::from(UNIX_TIME), "{case}: no renewal");
        assert_members_reach_each_other(&mut net, case);
    }
}

/// The ally has been a member. The root keeps all frames, and plays them back to their receivers and others.
#[test]
fn a_root_brings_no_removed_node_back_by_what_it_has_kept() {
    let mut authority = Authority::new();
    let mut net = scene(&authority);
    net.join(ALLY, &config(Some(authority.credentials(ALLY_KEY, Duration::ZERO))));
    // The liar alone relays at first, so it has all that was said.
    net.roots[1].up = false;
    net.run(2 * SECOND);
    for member in MEMBERS {
        net.send(ALLY, member, b"hello");
        net.send(member, ALLY, b"hello");
    }
    net.run(5 * SECOND);
    assert!(MEMBERS.iter().all(|member| from_ally(&net, *member) == 1), "it is a member");
    let older = authority.revoke(65, net.now - crate::net::instant());
    set_revocations(&mut net, 0, &older);
    net.run(5 * SECOND);
    let liar = net.roots[0].socket;
    let kept: Vec<Sent> = net.sent.iter().filter(|sent| sent.from == liar).cloned().collect();
    assert!(kept.len() > 50, "{}", kept.len());

    let removal = authority.revoke(ALLY_KEY, net.now - crate::net::instant());
    set_revocations(&mut net, 0, &removal);
    net.roots[1].up = true;
    net.wait(30 * SECOND, |net| MEMBERS.iter().all(|member| observes(net, *member, ALLY_KEY)));
    net.run(5 * SECOND);
    let inboxes = MEMBERS.map(|member| net.received(member).len());
    let all: Vec<_> = (0..=ALLY).map(|node| net.nodes[node].socket).collect();
    for sent in &kept {
        for to in &all {
            net.inject(Sent { at: net.now, to: *to, ..sent.clone() });
        }
        net.run(Duration::from_millis(20));
    }
    net.run(10 * SECOND);
    assert_eq!(MEMBERS.map(|member| net.received(member).len()), inboxes, "nothing is heard twice");
    assert!(MEMBERS.iter().all(|member| net.counter(*member, "data_replayed") > 0), "it was played to them");
    assert!(MEMBERS.iter().all(|member| observes(&net, *member, ALLY_KEY)), "the newest head stays");
    assert_ally_is_out(&mut net, "after the replay");
    assert_members_reach_each_other(&mut net, "after the replay");
}

/// The ally has the keys of another network, and shows everything that they can sign.
#[test]
fn forged_heads_and_certificates_that_a_root_leads_to_members_change_nothing() {
    let authority = Authority::new();
    let mut net = scene(&authority);
    // It is no member: what it joins with is signed by another network key.
    let (forger, other) = (Identity::from_seed(&[ALLY_KEY; 32]), NetworkSecret::from_seed(&[78; 32]));
    let now = UnixTime::from(UNIX_TIME);
    let serial = Serial::next(now, None);
    let delegation =
        |by: &NetworkSecret| Delegation::sign(by, id(), *forger.public(), serial, 365 * DAY, Rights::ALL);
    let grant = Grant::new(node_id(ALLY_KEY), "node-4".parse().expect("a name"));
    let signed = Certificate::sign(&forger, id(), grant, serial, DAY).expect("a good grant");
    let of_other = Credentials::new(other.public(), delegation(&other), signed.clone());
    // The key of this network, beside a delegation that another one has signed.
    let mixed = Credentials::new(secret().public(), delegation(&other), signed);
    let stolen = authority.credentials(2, Duration::ZERO);
    let foreign = ManagedNetwork {
        key: Some(other.public()),
        credentials: Some(of_other.clone()),
        ..ManagedNetwork::new(id())
    };
    net.join(ALLY, &NetworkConfig::Managed(Box::new(foreign)));
    net.run(2 * SECOND);
    assert_members_reach_each_other(&mut net, "before");
    for member in MEMBERS {
        net.send(ALLY, member, b"knock");
    }
    net.run(5 * SECOND);

    let mut set = Revocations::default();
    for victim in [1, 2, CONTROLLER] {
        let min_serial = Serial::next(now.plus(DAY), None);
        set.add(node_id(victim), Revocation { min_serial, until: now.plus(2 * DAY) });
    }
    let heads = [delegation(&other), authority.delegation.clone()]
        .map(|delegation| Head::sign(&forger, delegation, id(), 1_000, now.plus(SECOND), &set));
    let mut said = 0;
    for member in [1, 2] {
        if net.peer(ALLY, member).session().is_none() {
            continue;
        }
        for head in &heads {
            say(&mut net, ALLY, member, &MembershipMessage::Head(&head.to_bytes()).to_bytes());
            said += 1;
        }
        for credentials in [&of_other, &mixed, &stolen] {
            say(&mut net, ALLY, member, &MembershipMessage::Shown(&credentials.to_bytes()).to_bytes());
        }
        say(&mut net, ALLY, member, b"\x60evil");
    }
    net.run(5 * SECOND);
    assert!(said > 0, "a root leads the ally to members");
    for member in MEMBERS {
        let known = net.nodes[member].endpoint.membership(network(&net, member)).expect("managed");
        assert!(known.revocations().is_empty(), "a forged head counts");
        assert_eq!(known.key(), Some(&secret().public()));
        assert!(!known.controllers().contains(forger.public()));
    }
    assert_ally_is_out(&mut net, "with forged credentials");
    assert_members_reach_each_other(&mut net, "after");
}
