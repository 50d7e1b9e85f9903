//! Issuers learn which members have their newest head, so that people hear whom a removal has reached.

use std::time::Duration;

use peersock_overlay::membership::{Head, Refusal};
use peersock_overlay::wire::MembershipMessage;
use peersock_overlay::{DATA_OVERHEAD, PeerInfo};

use crate::managed::{
    Authority, CONTROLLER, SECOND, config, members, node_id, say, separate, set_revocations,
};
use crate::net::Net;

/// Returns what a node shows of another one.
fn info(net: &Net, node: usize, of: u8) -> PeerInfo {
    let peers = net.nodes[node].endpoint.peers();
    peers.into_iter().find(|peer| *peer.peer.id() == node_id(of)).expect("a peer")
}

fn known(net: &Net, of: u8) -> Option<u64> {
    info(net, 0, of).known_epoch
}

/// Removes a node by the controller, which is the first one.
fn remove(net: &mut Net, authority: &mut Authority, removed: u8) -> u64 {
    let removal = authority.revoke(removed, net.now - crate::net::instant());
    set_revocations(net, 0, &removal);
    removal.0.epoch()
}

/// Creates a controller and members that have sessions with it.
fn controller_and(authority: &Authority, identities: &[u8]) -> Net {
    let mut net = members(authority, &[&[CONTROLLER], identities].concat());
    for node in 1..=identities.len() {
        net.send(node, 0, b"open");
    }
    net.run(10 * SECOND);
    net
}

#[test]
fn an_issuer_knows_at_once_who_has_taken_its_head_over() {
    let mut authority = Authority::new();
    let mut net = controller_and(&authority, &[1, 2, 3]);
    assert_eq!(net.nodes[0].endpoint.networks()[0].signed_epoch, None);
    assert_eq!((known(&net, 1), known(&net, 2)), (None, None));
    for removed in [3, 66] {
        let epoch = remove(&mut net, &mut authority, removed);
        assert_eq!(net.nodes[0].endpoint.networks()[0].signed_epoch, Some(epoch));
        assert!(known(&net, 1) < Some(epoch), "nobody has said so yet");
        let took = net.wait(SECOND, |net| known(net, 1) == Some(epoch) && known(net, 2) == Some(epoch));
        // Before the words that follow each change after half a second.
        assert!(took < Duration::from_millis(400), "{took:?}");
    }
    let removed = info(&net, 0, 3);
    assert_eq!(
        (removed.admitted, removed.refusal, removed.known_epoch),
        (false, Some(Refusal::Revoked), None)
    );
    // Members have signed nothing, so no node tells them which nodes know it.
    assert_eq!(net.nodes[1].endpoint.networks()[0].signed_epoch, None);
    assert_eq!(info(&net, 1, CONTROLLER).known_epoch, None);
    assert!(info(&net, 0, 1).admitted && info(&net, 0, 1).refusal.is_none());
}

#[test]
fn a_member_that_does_not_hear_is_known_to_have_the_head_before() {
    let mut authority = Authority::new();
    let mut net = controller_and(&authority, &[1, 2]);
    let first = remove(&mut net, &mut authority, 66);
    net.run(SECOND);
    separate(&mut net, &[(0, 1), (1, 2)]);
    let second = remove(&mut net, &mut authority, 67);
    net.run(5 * SECOND);
    assert!(info(&net, 0, 1).peer.session().is_some(), "it counts as connected for a while");
    assert_eq!((known(&net, 1), known(&net, 2)), (Some(first), Some(second)));
    separate(&mut net, &[]);
    net.wait(Duration::from_secs(60), |net| known(net, 1) == Some(second));
}

/// The member hears of it from another one, and tells the issuer as it tells everybody.
#[test]
fn an_issuer_knows_who_has_its_head_from_others() {
    let mut authority = Authority::new();
    let mut net = controller_and(&authority, &[1, 2]);
    net.send(1, 2, b"open");
    net.run(SECOND);
    let sockets: Vec<_> = net.nodes.iter().map(|node| node.socket).collect();
    net.filter = Box::new(move |sent| (sent.from, sent.to) != (sockets[0], sockets[1]));
    let epoch = remove(&mut net, &mut authority, 66);
    let took = net.wait(5 * SECOND, |net| known(net, 1) == Some(epoch));
    assert!(took < SECOND, "{took:?}");
}

#[test]
fn a_member_that_restarts_has_to_show_the_head_again() {
    let mut authority = Authority::new();
    let mut net = controller_and(&authority, &[1]);
    let epoch = remove(&mut net, &mut authority, 66);
    net.run(SECOND);
    assert_eq!(known(&net, 1), Some(epoch));
    // It has forgotten the head, and does not get it again.
    let (controller, head) = (net.nodes[0].socket, Head::LEN + 2 + DATA_OVERHEAD);
    net.filter = Box::new(move |sent| sent.from != controller || sent.bytes.len() != head);
    net.restart(1, 4001, crate::net::UNIX_TIME + (net.now - crate::net::instant()));
    net.join(1, &config(Some(authority.credentials(1, Duration::ZERO))));
    net.run(4 * SECOND);
    net.send(1, 0, b"open");
    net.run(4 * SECOND);
    assert!(info(&net, 0, 1).admitted);
    assert_eq!(known(&net, 1), None);
}

#[test]
fn words_of_strangers_and_of_other_heads_count_nothing() {
    let mut authority = Authority::new();
    let mut net = controller_and(&authority, &[1]);
    let stranger = net.add(2);
    net.join(stranger, &config(None));
    net.run(4 * SECOND);
    net.send(0, stranger, b"hello");
    net.run(4 * SECOND);
    // The controller's own words to the member are lost.
    let sockets = [net.nodes[0].socket, net.nodes[1].socket];
    net.filter = Box::new(move |sent| (sent.from, sent.to) != (sockets[0], sockets[1]));
    let (head, set) = authority.revoke(66, net.now - crate::net::instant());
    set_revocations(&mut net, 0, &(head.clone(), set));
    let issuer = *node_id(CONTROLLER).as_bytes().first_chunk().expect("32 bytes");
    let have = |epoch, digest| MembershipMessage::Have { issuer, epoch, digest }.to_bytes();
    let right = have(head.epoch(), head.digest());
    net.sent.clear();
    for _ in 0..20 {
        say(&mut net, stranger, 0, &right);
        say(&mut net, stranger, 0, &MembershipMessage::Head(&head.to_bytes()).to_bytes());
    }
    net.run(SECOND);
    assert_eq!(known(&net, 2), None, "a stranger is no member");
    // Of a member only the newest head counts, not one that no controller has signed.
    for other in [have(head.epoch(), [7; 8]), have(head.epoch() + 1, head.digest()), have(0, [0; 8])] {
        let before = known(&net, 1);
        say(&mut net, 1, 0, &other);
        net.run(Duration::from_millis(10));
        assert_eq!(known(&net, 1), before);
    }
    say(&mut net, 1, 0, &right);
    net.run(Duration::from_millis(10));
    assert_eq!(known(&net, 1), Some(head.epoch()));
}

/// Each member says it once to the one from which it has the head. No node answers, or repeats anything.
#[test]
fn one_word_follows_each_head_that_is_taken_over() {
    let mut authority = Authority::new();
    let identities: Vec<u8> = (20..40).collect();
    let mut net = controller_and(&authority, &identities);
    let all = identities.len();
    net.sent.clear();
    let epoch = remove(&mut net, &mut authority, 66);
    net.run(Duration::from_millis(400));
    assert!(identities.iter().all(|&one| known(&net, one) == Some(epoch)));
    let controller = net.nodes[0].socket;
    let to_controller = net.sent.iter().filter(|sent| sent.to == controller).count();
    // A question for the set, and the word that it has come.
    assert!(to_controller <= 2 * all + all / 2, "{to_controller} datagrams of {all} members");
    net.sent.clear();
    net.run(Duration::from_secs(50));
    let head = Head::LEN + 2 + DATA_OVERHEAD;
    assert!(net.sent.iter().all(|sent| sent.bytes.len() != head), "a head that everybody has");
}
