//! Removals of members: how they spread, last and are forgotten.

use std::time::Duration;

use peersock_overlay::membership::{
    Answer, Denial, Head, Refusal, Revocation, Revocations, Serial, UnixTime,
};
use peersock_overlay::wire::MembershipMessage;
use peersock_overlay::{DATA_OVERHEAD, Event, Lookup, ManagedNetwork, NetworkConfig, NodeId};

use crate::managed::{
    Authority, CONTROLLER, DAY, SECOND, certified, config, expelled, id, kept, members, network, observes,
    say, secret, separate, serve, set_revocations,
};
use crate::net::{Net, Sent, UNIX_TIME};

/// First byte of an initiation.
const INITIATION: u8 = 0xD1;

#[test]
fn a_revocation_reaches_everybody_and_ends_what_was_open() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1, 2, 3]);
    // The controller knows 1 alone, so that the revocation has to travel from peer to peer.
    for (from, to) in [(0, 1), (1, 2), (2, 3), (1, 3)] {
        net.send(from, to, b"open");
    }
    net.run(SECOND);
    let (head, set) = authority.revoke(3, Duration::from_secs(10));
    let at = network(&net, 0);
    net.nodes[0].endpoint.set_revocations(net.now, at, &head, &set).expect("signed by the issuer");
    let took = net.wait(5 * SECOND, |net| expelled(net, 1) == 1 && expelled(net, 2) == 1);
    assert!(took < SECOND, "{took:?}");
    for member in [1, 2] {
        let before = net.received(3).len();
        net.send(member, 3, b"late");
        net.run(5 * SECOND);
        assert_eq!(net.received(3).len(), before);
        let before = net.received(member).len();
        net.send(3, member, b"late");
        net.run(5 * SECOND);
        assert_eq!(net.received(member).len(), before);
    }
    // It heard why, and others still reach each other.
    assert!(net.count(3, |event| matches!(event, Event::RefusedBy(_, Refusal::Revoked))) > 0);
    net.send(1, 2, b"on");
    net.run(SECOND);
    assert_eq!(net.received(2).last(), Some(&b"on".to_vec()));
    // An old head changes nothing, and a later certificate counts.
    let again = authority.credentials(3, Duration::from_secs(100));
    let at = network(&net, 3);
    net.nodes[3].endpoint.set_credentials(net.now, at, &again).expect("its own");
    net.pump();
    net.run(2 * SECOND);
    net.send(3, 1, b"again");
    net.run(SECOND);
    assert_eq!(net.received(1).last(), Some(&b"again".to_vec()));
}

/// Members that talk to no other member hear of a removal, because each keeps a session with a controller.
#[test]
fn a_revocation_reaches_members_that_were_never_asked_for_anything() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1, 2, 3]);
    net.send(1, 2, b"open");
    net.run(10 * SECOND);
    let (head, set) = authority.revoke(2, Duration::from_secs(14));
    let at = network(&net, 0);
    net.nodes[0].endpoint.set_revocations(net.now, at, &head, &set).expect("signed by the issuer");
    let took = net.wait(5 * SECOND, |net| {
        expelled(net, 1) == 1
            && [1, 3].iter().all(|&node| {
                let at = network(net, node);
                net.nodes[node].endpoint.membership(at).is_some_and(|known| known.revocations().len() == 1)
            })
    });
    assert!(took < SECOND, "{took:?}");
}

/// Messages that were sent while the path was cut are lost, and no node waits for the next minute.
#[test]
fn a_revocation_during_an_outage_is_heard_soon_after_it() {
    for outage in [1, 5, 15, 25, 40, 100] {
        let mut authority = Authority::new();
        let mut net = members(&authority, &[CONTROLLER, 1, 2]);
        net.send(1, 0, b"open");
        net.run(10 * SECOND);
        separate(&mut net, &[(0, 1), (1, 2)]);
        net.run(SECOND);
        let (head, set) = authority.revoke(2, net.now - crate::net::instant());
        set_revocations(&mut net, 0, &(head, set));
        net.run(outage * SECOND);
        net.filter = Box::new(|_| true);
        let took = net.wait(Duration::from_secs(100), |net| {
            let known = net.nodes[1].endpoint.membership(network(net, 1)).expect("managed");
            !known.revocations().is_empty()
        });
        assert!(took < 21 * SECOND, "{took:?} after {outage} s");
    }
}

/// A removal is heard within 5 s wherever a word about it can pass by then.
#[test]
fn words_about_a_removal_that_are_lost_are_soon_repeated() {
    for outage in [400, 1500, 3000] {
        let mut authority = Authority::new();
        let mut net = members(&authority, &[CONTROLLER, 1]);
        net.send(1, 0, b"open");
        net.run(10 * SECOND);
        separate(&mut net, &[(0, 1)]);
        let removal = authority.revoke(66, net.now - crate::net::instant());
        set_revocations(&mut net, 0, &removal);
        net.run(Duration::from_millis(outage));
        separate(&mut net, &[]);
        let took = net.wait(Duration::from_secs(100), |net| observes(net, 1, 66));
        assert!(took < SECOND, "{took:?} after {outage} ms");
    }
}

#[test]
fn heads_that_are_lost_at_the_beginning_of_a_session_are_soon_repeated() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[1, 2]);
    let removal = authority.revoke(66, net.now - crate::net::instant());
    set_revocations(&mut net, 0, &removal);
    net.run(10 * SECOND);
    let (from, head) = (net.nodes[0].socket, Head::LEN + 2 + DATA_OVERHEAD);
    let mut lost = 0;
    net.filter = Box::new(move |sent| {
        lost += u32::from(sent.from == from && sent.bytes.len() == head);
        lost > 3 || sent.from != from || sent.bytes.len() != head
    });
    net.send(0, 1, b"open");
    let took = net.wait(Duration::from_secs(100), |net| observes(net, 1, 66));
    assert!(took < 4 * SECOND, "{took:?}");
}

/// Makes a set of this many removals, which is different in each round.
pub(super) fn many(round: u32, entries: u32, lasts: Duration) -> Revocations {
    let entry = |n: u32| {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&[round.to_be_bytes(), n.to_be_bytes()].concat());
        let until = UnixTime::from(UNIX_TIME).plus(lasts);
        (NodeId::from_bytes(bytes), Revocation { min_serial: Serial::from_u64(1), until })
    };
    (0..entries).map(entry).collect()
}

#[test]
fn a_large_set_arrives_whole_in_spite_of_loss() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1]);
    net.send(0, 1, b"open");
    net.run(SECOND);
    authority.revoked = many(0, 10_000, 2 * DAY);
    authority.epoch = 4;
    let head = Head::sign(
        &authority.identity,
        authority.delegation.clone(),
        id(),
        5,
        UnixTime::from(UNIX_TIME),
        &authority.revoked,
    );
    let mut dice = 1_u32;
    net.filter = Box::new(move |_| {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        dice >> 24 >= 25
    });
    let at = network(&net, 0);
    net.nodes[0].endpoint.set_revocations(net.now, at, &head, &authority.revoked).expect("signed");
    let at = network(&net, 1);
    net.wait(Duration::from_secs(60), |net| {
        net.nodes[1].endpoint.membership(at).is_some_and(|known| known.revocations().len() == 10_000)
    });
}

#[test]
fn revocations_of_all_issuers_survive_a_restart() {
    let issuers = [20, 21, 22];
    let mut authorities = issuers.map(|identity| Authority::with(identity, 365 * DAY));
    let mut net = Net::new();
    let node = net.add(1);
    net.join(node, &config(Some(authorities[0].credentials(1, Duration::ZERO))));
    let at = network(&net, node);
    // Each has removed another member, and not heard of the others.
    for (authority, removed) in authorities.iter_mut().zip([2, 3, 4]) {
        authority.epoch = u64::from(removed);
        let (head, set) = authority.revoke(removed, SECOND);
        net.nodes[node].endpoint.set_revocations(net.now, at, &head, &set).expect("signed by an issuer");
    }
    let kept = kept(&net, node);
    assert_eq!((kept.revocations.len(), kept.others.len()), (3, 0));
    net.restart(node, 4000, UNIX_TIME + SECOND);
    net.join(node, &NetworkConfig::Managed(Box::new(kept)));
    for removed in [2, 3, 4] {
        let former = net.add(removed);
        net.join(former, &config(Some(authorities[0].credentials(removed, Duration::ZERO))));
        net.run(4 * SECOND);
        net.send(former, node, b"back");
        net.run(2 * SECOND);
        assert!(!net.peer(node, former).is_admitted(), "{removed}");
    }
    assert!(net.received(node).is_empty());
}

/// Waits until a node has a session with another one, and returns the time from then until it observes a
/// removal.
fn hears_after_session(net: &mut Net, node: usize, from: usize, removed: u8) -> Duration {
    let at = network(net, node);
    let address = net.address(node, at, from);
    net.wait(Duration::from_secs(130), |net| {
        let found = net.nodes[node].endpoint.lookup(net.now, at, address);
        matches!(found, Lookup::Peer(peer) if peer.session().is_some())
    });
    net.wait(Duration::from_secs(130), |net| observes(net, node, removed))
}

#[test]
fn a_node_that_restarts_hears_of_removals_as_soon_as_it_has_a_session() {
    // The node knows no head, or an older one.
    for knows_older in [false, true] {
        let mut authority = Authority::new();
        let mut net = members(&authority, &[CONTROLLER, 1]);
        net.send(1, 0, b"open");
        net.run(SECOND);
        if knows_older {
            let older = authority.revoke(65, Duration::from_secs(5));
            set_revocations(&mut net, 0, &older);
            net.run(20 * SECOND);
        }
        let kept = kept(&net, 1);
        assert_eq!(kept.revocations.len(), usize::from(knows_older));
        net.nodes[1].up = false;
        let removal = authority.revoke(66, net.now - crate::net::instant());
        set_revocations(&mut net, 0, &removal);
        net.run(20 * SECOND);
        assert!(net.peer(0, 1).is_admitted(), "it has not said goodbye");
        net.restart(1, 4001, UNIX_TIME + (net.now - crate::net::instant()));
        net.join(1, &NetworkConfig::Managed(Box::new(kept)));
        let took = hears_after_session(&mut net, 1, 0, 66);
        assert!(took < SECOND, "{took:?}, knows an older one: {knows_older}");
    }
}

#[test]
fn a_node_hears_in_each_session_what_it_has_missed_without_one() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1]);
    net.send(1, 0, b"open");
    net.run(SECOND);
    separate(&mut net, &[(0, 1)]);
    net.wait(Duration::from_secs(600), |net| {
        net.peer(0, 1).session().is_none() && net.peer(1, 0).session().is_none()
    });
    let removal = authority.revoke(66, net.now - crate::net::instant());
    set_revocations(&mut net, 0, &removal);
    net.run(20 * SECOND);
    separate(&mut net, &[]);
    let took = hears_after_session(&mut net, 1, 0, 66);
    assert!(took < SECOND, "{took:?}");
}

/// A node whose words are lost in one direction still learns of a newer head, because its own is answered.
#[test]
fn who_shows_an_older_head_is_answered_by_the_newer_one_and_no_more() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[1, 2]);
    net.send(0, 1, b"open");
    net.run(SECOND);
    let (older, _) = authority.revoke(65, Duration::from_secs(5));
    let newer = authority.revoke(66, Duration::from_secs(5));
    set_revocations(&mut net, 0, &newer);
    set_revocations(&mut net, 1, &newer);
    net.run(20 * SECOND);
    net.sent.clear();
    for _ in 0..100 {
        say(&mut net, 1, 0, &MembershipMessage::Head(&older.to_bytes()).to_bytes());
    }
    net.run(SECOND);
    // A burst for all of a peer's messages, then four a second.
    let answers = net.sent.iter().filter(|sent| sent.from == net.nodes[0].socket).count();
    assert!((1..=40).contains(&answers), "{answers}");
}

#[test]
fn an_issuer_stays_revoked_until_its_delegation_ends() {
    let (mut authority, former) = (Authority::with(8, 365 * DAY), Authority::new());
    let mut net = members(&authority, &[1]);
    let friend = net.add(2);
    net.join(friend, &config(Some(former.credentials(2, Duration::ZERO))));
    net.run(4 * SECOND);
    net.send(0, friend, b"hello");
    net.run(2 * SECOND);
    assert!(net.peer(0, friend).is_admitted());
    // The entry of one issuer ends early for the other one, which it does not know.
    let at = network(&net, 0);
    let (head, set) = authority.revoke_for(CONTROLLER, Duration::from_secs(10), 20 * SECOND);
    net.nodes[0].endpoint.set_revocations(net.now, at, &head, &set).expect("signed by an issuer");
    net.run(Duration::from_secs(60));
    authority.revoked = Revocations::default();
    let (head, set) = authority.revoke(7, Duration::from_secs(60));
    net.nodes[0].endpoint.set_revocations(net.now, at, &head, &set).expect("signed by an issuer");
    let again = former.credentials(2, Duration::from_secs(60));
    let at = network(&net, friend);
    net.nodes[friend].endpoint.set_credentials(net.now, at, &again).expect("its own");
    net.run(4 * SECOND);
    net.send(friend, 0, b"again");
    net.run(2 * SECOND);
    assert!(!net.peer(0, friend).is_admitted());
}

#[test]
fn a_member_that_does_not_deliver_a_set_keeps_nobody_from_it() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1, 2, 3]);
    for (from, to) in [(1, 2), (1, 3), (2, 0), (3, 0), (2, 3)] {
        net.send(from, to, b"open");
    }
    net.run(4 * SECOND);
    for n in 100..200 {
        authority.revoke(n, Duration::from_secs(8));
    }
    let (head, set) = authority.revoke(200, Duration::from_secs(8));
    // 1 never hears the controller. 2 tells it of the head, and is silent when it is asked for the set.
    let sockets: Vec<_> = net.nodes.iter().map(|node| node.socket).collect();
    net.filter = Box::new(move |sent| {
        let is_between = |a: usize, b: usize| sent.from == sockets[a] && sent.to == sockets[b];
        let is_part = sent.bytes.len() > 700 && is_between(2, 1);
        !(is_part || is_between(0, 1) || is_between(1, 0))
    });
    let at = network(&net, 0);
    net.nodes[0].endpoint.set_revocations(net.now, at, &head, &set).expect("signed by the issuer");
    let at = network(&net, 1);
    let took = net.wait(Duration::from_secs(300), |net| {
        net.nodes[1].endpoint.membership(at).is_some_and(|known| known.revocations().len() == 101)
    });
    assert!(took < 5 * SECOND, "{took:?}");
}

#[test]
fn a_removed_node_is_told_at_once_that_it_reaches_nobody_until_it_is_admitted_again() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1, 2]);
    net.send(1, 2, b"hello");
    net.send(1, 0, b"hello");
    net.run(SECOND);
    let (head, set) = authority.revoke(1, net.now - crate::net::instant());
    let at = network(&net, 0);
    net.nodes[0].endpoint.set_revocations(net.now, at, &head, &set).expect("signed by the issuer");
    for _ in 0..50 {
        serve(&mut net, 0, |_, _, at| Answer::Denied {
            time: UnixTime::from(UNIX_TIME + at),
            reason: Denial::Removed,
        });
        net.run(SECOND / 10);
    }
    // What was open has ended, and what begins ends at once.
    assert_eq!(expelled(&net, 1), 2);
    let unreachable = |event: &Event| matches!(event, Event::PeerUnreachable(_));
    let before = net.count(1, unreachable);
    net.send(1, 2, b"late");
    net.pump();
    assert_eq!(net.count(1, unreachable), before + 1);
    // Its controller certifies it again a minute or two later.
    for _ in 0..1300 {
        serve(&mut net, 0, |node, _, at| certified(&authority, node, at));
        net.run(SECOND / 10);
    }
    let before = net.received(2).len();
    net.send(1, 2, b"again");
    net.run(SECOND);
    assert_eq!(net.received(2).len(), before + 1);
}

/// Each session with a peer tells a removed node anew that it is removed.
#[test]
fn a_removed_node_asks_a_controller_that_is_away_ever_more_rarely() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1, 2, 3, 4, 5]);
    for member in 1..5 {
        net.send(5, member, b"open");
    }
    net.run(10 * SECOND);
    separate(&mut net, &[(0, 5)]);
    let removal = authority.revoke(5, net.now - crate::net::instant());
    set_revocations(&mut net, 0, &removal);
    net.run(300 * SECOND);
    net.sent.clear();
    net.run(1200 * SECOND);
    let tried = initiations(&net, 5, 0);
    // Some in a minute for the session that every member keeps, and some for each question.
    assert!((20..300).contains(&tried), "{tried} initiations in 20 minutes");
}

#[test]
fn a_removed_node_that_a_controller_answers_tries_the_others_for_a_moment_only() {
    let (mut authority, other) = (Authority::new(), Authority::with(8, 365 * DAY));
    let mut net = members(&authority, &[CONTROLLER, 1]);
    let away = net.add(8);
    net.join(away, &config(Some(other.credentials(8, Duration::ZERO))));
    let removed = net.add(2);
    let mut known = ManagedNetwork::new(id());
    known.key = Some(secret().public());
    known.credentials = Some(authority.credentials(2, Duration::ZERO));
    known.controllers = vec![*other.identity.public()];
    net.join(removed, &NetworkConfig::Managed(Box::new(known)));
    net.run(4 * SECOND);
    for to in [away, 0] {
        net.send(removed, to, b"open");
    }
    net.run(4 * SECOND);
    net.nodes[away].up = false;
    let removal = authority.revoke(2, net.now - crate::net::instant());
    set_revocations(&mut net, 0, &removal);
    for second in 0..1500 {
        if second == 300 {
            net.sent.clear();
        }
        serve(&mut net, 0, |_, _, at| Answer::Denied {
            time: UnixTime::from(UNIX_TIME + at),
            reason: Denial::Removed,
        });
        net.run(SECOND);
    }
    // Some for each question.
    let tried = initiations(&net, removed, away);
    assert!((20..300).contains(&tried), "{tried} initiations in 20 minutes");
}

/// Returns the number of initiations that one node has sent to another one.
fn initiations(net: &Net, from: usize, to: usize) -> usize {
    let [from, to] = [from, to].map(|node| net.nodes[node].socket);
    let is_meant = |sent: &&Sent| sent.from == from && sent.to == to && sent.bytes[0] == INITIATION;
    net.sent.iter().filter(is_meant).count()
}
