//! Names and pool addresses of members that this node has not met, while no controller answers: other members
//! know them.

use std::time::Duration;

use peersock_overlay::membership::{
    Answer, Credentials, Delegation, Denial, Grant, MemberName, NetworkSecret, Question, Rights, UnixTime,
};
use peersock_overlay::{Event, Identity};

use crate::managed::{Authority, CONTROLLER, DAY, SECOND, config, id, members, network, node_id, say};
use crate::net::{Net, UNIX_TIME};
use crate::roots::use_roots;
use crate::used::{GIVEN_UP, NAME_WAIT, OTHER, OWN, THIRD, apart, description, entry, find, named, restart};

/// Lets two nodes admit each other.
fn meet(net: &mut Net, one: usize, other: usize) {
    net.send(one, other, b"hello");
    net.run(2 * SECOND);
    assert!(net.peer(one, other).is_admitted() && net.peer(other, one).is_admitted());
}

/// Returns nodes of which the second has met the others, and these have not met. The controller is off.
fn acquainted(authority: &Authority) -> Net {
    let mut net = apart(authority);
    meet(&mut net, OTHER, THIRD);
    meet(&mut net, OWN, OTHER);
    net.nodes[0].up = false;
    net
}

#[test]
fn a_member_that_another_one_has_met_is_found_by_name_through_a_root_alone() {
    let authority = Authority::new();
    let mut net = acquainted(&authority);
    assert!(named(&net, OWN, "node-3").is_empty());
    assert!(find(&mut net, OWN, "node-3"));
    let took = net.wait(NAME_WAIT, |net| !named(net, OWN, "node-3").is_empty());
    assert!(took < NAME_WAIT / 2, "{took:?}");
    let to = named(&net, OWN, "node-3");
    assert!(to.contains(&[10, 7, 0, 3].into()), "{to:?}");
    net.send_to(OWN, network(&net, OWN), to[0], b"by name");
    net.wait(2 * SECOND, |net| net.received(THIRD).contains(&b"by name".to_vec()));
}

#[test]
fn its_pool_address_leads_to_it_too() {
    let authority = Authority::new();
    let mut net = acquainted(&authority);
    net.send_to(OWN, network(&net, OWN), [10, 7, 0, 3].into(), b"by address");
    net.wait(2 * SECOND, |net| net.received(THIRD).contains(&b"by address".to_vec()));
}

#[test]
fn a_node_that_has_just_started_asks_a_member_that_it_has_used() {
    let authority = Authority::new();
    let mut net = acquainted(&authority);
    restart(&mut net, &authority, OWN, &[entry("node-2", 2)]);
    net.run(SECOND / 5);
    assert!(find(&mut net, OWN, "node-3"));
    net.wait(NAME_WAIT, |net| !named(net, OWN, "node-3").is_empty());
}

/// Makes the second node one that leaves its answers to the test, as it does to a controller's program.
fn liar(authority: &Authority) -> Net {
    let mut net = apart(authority);
    let since = net.now - crate::net::instant();
    net.restart(OTHER, 4000, UNIX_TIME + since);
    net.join(OTHER, &description(true, authority.credentials(2, since), &[]));
    use_roots(&mut net, OTHER);
    net.run(SECOND);
    meet(&mut net, OWN, OTHER);
    net.nodes[0].up = false;
    net
}

/// Answers all look-ups that the second node was asked.
fn lie(net: &mut Net, answer: &Answer) -> usize {
    let is_asked = |(_, event): &mut (_, Event)| matches!(event, Event::Asked(..));
    let asked: Vec<_> = net.nodes[OTHER].events.extract_if(.., is_asked).collect();
    for (_, event) in &asked {
        let Event::Asked(peer, number, _) = event else { unreachable!() };
        net.nodes[OTHER].endpoint.answer(net.now, peer, *number, answer);
    }
    net.pump();
    asked.len()
}

#[test]
fn a_member_that_lies_leads_to_no_other_member_and_ends_no_look_up() {
    let authority = Authority::new();
    let mut net = liar(&authority);
    let at = net.now - crate::net::instant();
    let named_so = || Grant::new(node_id(2), "node-3".parse().expect("a name"));
    let found = |identity: u8, credentials: Credentials| Answer::Found {
        identity: *Identity::from_seed(&[identity; 32]).public(),
        credentials: Box::new(credentials),
    };
    let forged = {
        let mut bytes = authority.sign(named_so(), at).to_bytes();
        *bytes.last_mut().expect("bytes") ^= 1;
        Credentials::parse(&bytes).expect("well-formed")
    };
    let mut foreign = Authority::new();
    let other_key = NetworkSecret::from_seed(&[99; 32]);
    let (issuer, serial) = (*foreign.identity.public(), foreign.delegation.serial());
    foreign.delegation = Delegation::sign(&other_key, id(), issuer, serial, 9 * DAY, Rights::ALL);
    let ended = Authority::new().lasting(SECOND);
    let lies = [
        ("another member", found(2, authority.credentials(2, at))),
        ("the certificate of another node", found(2, authority.credentials(3, at))),
        ("a forged signature", found(2, forged)),
        ("an issuer by another key", found(2, foreign.sign(named_so(), at))),
        ("a certificate that has ended", found(2, ended.sign(named_so(), Duration::ZERO))),
        ("no such member", Answer::Absent),
        ("a removal", Answer::Denied { time: UnixTime::from(UNIX_TIME + at), reason: Denial::Removed }),
    ];
    for (what, lie_told) in lies {
        restart(&mut net, &authority, OWN, &[entry("node-2", 2)]);
        net.run(SECOND);
        assert!(find(&mut net, OWN, "node-3"), "{what}");
        let mut told = 0;
        for _ in 0..20 {
            net.run(SECOND / 20);
            told += lie(&mut net, &lie_told);
        }
        assert!(told > 0, "{what}: it is asked");
        assert!(named(&net, OWN, "node-3").is_empty(), "{what}");
        let of_own = network(&net, OWN);
        assert!(!net.nodes[OWN].endpoint.is_name_absent(net.now, of_own, "node-3"), "{what}");
        assert!(!net.nodes[OWN].endpoint.membership(of_own).expect("managed").is_removed(), "{what}");
    }
    // The truth from the same mouth counts.
    net.run(GIVEN_UP);
    let question = Question::FindName("node-3".parse().expect("a name"));
    assert!({
        let at = network(&net, OWN);
        net.nodes[OWN].endpoint.find_member(net.now, at, &question)
    });
    for _ in 0..20 {
        net.run(SECOND / 20);
        lie(&mut net, &found(3, authority.credentials(3, at)));
    }
    assert!(!named(&net, OWN, "node-3").is_empty());
}

#[test]
fn members_tell_strangers_nothing() {
    let authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1, 2]);
    meet(&mut net, 1, 2);
    let stranger = net.add(5);
    net.join(stranger, &config(None));
    net.run(4 * SECOND);
    net.send(stranger, 1, b"a session");
    net.run(2 * SECOND);
    let name: MemberName = "node-2".parse().expect("a name");
    let question = Question::FindName(name).to_bytes();
    let asked = [&[0x0f, 0, 0, 0, 0, 1][..], &question].concat();
    for (from, is_answered) in [(2, true), (stranger, false)] {
        net.run(SECOND);
        net.sent.clear();
        say(&mut net, from, 1, &asked);
        net.run(SECOND / 10);
        let (own, to) = (net.nodes[1].socket, net.nodes[from].socket);
        let answered = net.sent.iter().any(|one| one.from == own && one.to == to && one.bytes.len() > 300);
        assert_eq!(answered, is_answered, "node {from}");
    }
}

#[test]
fn a_name_that_no_member_has_is_put_to_few_members_and_once_to_each() {
    let authority = Authority::new();
    let identities: Vec<u8> = std::iter::once(CONTROLLER).chain(10..40).collect();
    let mut net = members(&authority, &identities);
    for other in 2..identities.len() {
        net.send(1, other, b"hello");
    }
    net.run(5 * SECOND);
    net.nodes[0].up = false;
    // Longer than any keepalive needs.
    net.run(60 * SECOND);
    let own = net.nodes[1].socket;
    let count = |net: &Net| net.sent.iter().filter(|one| one.from == own).count();
    net.sent.clear();
    net.run(GIVEN_UP);
    let idle = count(&net);
    net.sent.clear();
    assert!(find(&mut net, 1, "none"));
    net.run(GIVEN_UP);
    let asking = count(&net);
    assert!(asking > idle, "members are asked");
    assert!(asking < idle + 60, "{asking} datagrams, {idle} without a question");
}
