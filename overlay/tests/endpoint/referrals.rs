//! Roots that other roots name: their use, and their potential for abuse.

use std::net::SocketAddr;
use std::time::Duration;

use peersock_overlay::wire::{Referral, Registration, RootRecord};
use peersock_overlay::{Identity, Place, RootState};
use peersock_testnet::TestRoot;

use crate::net::{Net, RootNode};
use crate::roots::{apart_with_liars, config_of, id, talk, use_root};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Length of an initiation for a root.
const INITIATION: usize = 198;

#[test]
fn nodes_of_different_roots_talk_through_the_root_of_the_one_that_is_sought() {
    let mut net = each_at_its_own_root();
    let referral = referral(&net);
    net.roots[0].root.fake().referrals = vec![(referral, [7; 32])];
    net.latency = 20 * MS;
    let begin = net.now;
    net.send(0, 1, b"first");
    net.wait(SECOND, |net| !net.received(1).is_empty());
    // Look-up, session, registration, look-up there; and two ways each for initiation, response, packet.
    assert!(net.now - begin <= 8 * 2 * net.latency + 2 * 2 * net.latency, "{:?}", net.now - begin);
    net.send(1, 0, b"back");
    net.wait(SECOND, |net| net.received(0) == [b"back".to_vec()]);
    let path = net.peer(0, 1).path().unwrap();
    assert!(matches!(path.place, Place::Relayed { root, .. } if root == net.roots[1].socket));
    let infos = net.nodes[0].endpoint.roots(net.now);
    assert_eq!(infos.iter().map(|info| info.is_guest).collect::<Vec<_>>(), [false, true]);
    assert_eq!(net.roots[1].root.fake().shown, [7; 32], "the pass, and no token of the node's own root");
    assert_eq!(net.nodes[1].endpoint.roots(net.now).len(), 1, "who is sought needs no other root");

    // The guest stays while it is used, and the node's own roots do not affect it.
    use_root(&mut net, 0, 0);
    talk(&mut net, Duration::from_secs(300));
    assert_eq!(net.nodes[0].endpoint.roots(net.now).len(), 2);
    // The peer goes; the root is left, and told.
    net.nodes[1].up = false;
    net.run(Duration::from_secs(900));
    assert_eq!(net.nodes[0].endpoint.roots(net.now).len(), 1);
    assert!(net.roots[1].root.fake().entry(&id(0)).is_none());
}

#[test]
fn a_root_that_another_one_has_named_is_asked_for_nobody_else() {
    let mut net = each_at_its_own_root();
    let referral = referral(&net);
    net.roots[0].root.fake().referrals = vec![(referral, [7; 32])];
    net.send(0, 1, b"first");
    net.wait(SECOND, |net| !net.received(1).is_empty());
    let asked = [0, 1].map(|root| net.roots[root].root.look_ups());
    let network = &net.nodes[0].endpoint.networks()[0];
    let nobody = network.id.address_of(&Identity::from_seed(&[99; 32]).node_id());
    let index = network.index;
    net.send_to(0, index, nobody.into(), b"is anybody there");
    net.run(5 * SECOND);
    assert!(net.roots[0].root.look_ups() > asked[0]);
    assert_eq!(net.roots[1].root.look_ups(), asked[1]);
}

#[test]
fn referrals_that_are_not_the_nodes_and_the_roots_own_word_lead_nowhere() {
    let good = { referral(&each_at_its_own_root()) };
    let stranger = Identity::from_seed(&[77; 32]);
    let mut moved = good.clone();
    moved.root.endpoints = "203.0.113.9:7420".to_owned();
    let mut another = good.clone();
    another.root = RootRecord::sign(&stranger, 1, "203.0.113.9:7420").unwrap();
    let mut of_another = good.clone();
    of_another.identity = *stranger.public();
    for forged in [moved, another, of_another] {
        let mut net = each_at_its_own_root();
        net.roots[0].root.fake().referrals = vec![(forged, [7; 32])];
        net.send(0, 1, b"first");
        net.run(15 * SECOND);
        assert_eq!(net.nodes[0].endpoint.roots(net.now).len(), 1);
        assert!(net.sent.iter().all(|sent| sent.to.ip() != SocketAddr::from(([203, 0, 113, 9], 0)).ip()));
    }
}

#[test]
fn roots_that_are_named_and_are_not_there_get_little_and_are_left() {
    let mut net = each_at_its_own_root();
    let node = Identity::from_seed(&[2; 32]);
    let victims: Vec<_> = (1..=20).map(|n| SocketAddr::from(([203, 0, 113, n], 7420))).collect();
    let begin = net.now;
    for (n, victim) in victims.iter().enumerate() {
        let root = Identity::from_seed(&[100 + n as u8; 32]);
        let registration = Registration::sign(&node, &root.node_id(), 1, 600);
        let root = RootRecord::sign(&root, 1, &victim.to_string()).unwrap();
        let referral = Referral { identity: *node.public(), registration, root };
        net.roots[0].root.fake().referrals = vec![(referral, [0; 32])];
        net.send(0, 1, b"first");
        net.run(10 * SECOND);
    }
    let at = |net: &Net, victim: &SocketAddr| net.sent.iter().filter(|sent| sent.to == *victim).count();
    let reached = victims.iter().filter(|victim| at(&net, victim) > 0).count();
    assert!((8..=16).contains(&reached), "{reached}");
    net.run(Duration::from_secs(300));
    assert_eq!(net.nodes[0].endpoint.roots(net.now).len(), 1);
    for victim in &victims {
        let bytes: usize =
            net.sent.iter().filter(|sent| sent.to == *victim).map(|sent| sent.bytes.len()).sum();
        assert!(bytes <= 10_000, "{bytes} in {:?}", net.now - begin);
    }
}

#[test]
fn a_root_that_names_many_others_leaves_places_for_what_another_one_names() {
    let mut net = each_at_its_own_root_and_one_with_two();
    for number in 0..12 {
        let bogus = bogus(number, "203.0.113.9:7420");
        net.roots[0].root.fake().referrals = vec![(bogus, [0; 32])];
        net.send(0, 1, b"first");
        net.run(6 * SECOND);
    }
    let named = |net: &Net| net.nodes[0].endpoint.roots(net.now).iter().filter(|root| root.is_guest).count();
    assert!(named(&net) >= 4, "{}", named(&net));
    assert!(net.counter(0, "root_referrals_ignored") > 0, "it has had its share");
    let good = referral(&net);
    net.roots[1].root.fake().referrals = vec![(good, [7; 32])];
    net.send(0, 1, b"at last");
    net.wait(10 * SECOND, |net| !net.received(1).is_empty());
    assert!(named(&net) <= 16);
}

#[test]
fn what_one_root_says_takes_nobody_the_pass_that_another_one_gave() {
    for liar in 0..2 {
        let mut net = each_at_its_own_root_and_one_with_two();
        let mut own = config_of(&net.roots[2]);
        own.access = vec![7; 32];
        net.nodes[1].endpoint.set_roots(net.now, vec![own]);
        let good = referral(&net);
        net.roots[1 - liar].root.fake().referrals = vec![(good.clone(), [7; 32])];
        net.roots[liar].root.fake().referrals = vec![(good, [9; 32])];
        net.roots[2].root.lies().wants = Some([7; 32]);
        net.send(0, 1, b"first");
        net.wait(20 * SECOND, |net| !net.received(1).is_empty());
        talk(&mut net, 30 * SECOND);
        // The node shows its pass again, and not the other one.
        net.roots[2].root.fake().restart();
        talk(&mut net, 60 * SECOND);
        let infos = net.nodes[0].endpoint.roots(net.now);
        assert_eq!(infos.last().map(|root| (root.is_guest, root.state)), Some((true, RootState::Registered)));
        net.nodes[1].inbox.clear();
        talk(&mut net, SECOND);
        assert!(!net.received(1).is_empty(), "{liar}");
    }
}

#[test]
fn who_is_named_as_a_root_gets_a_few_small_packets() {
    let mut net = each_at_its_own_root();
    let victim = SocketAddr::from(([203, 0, 113, 9], 7420)).ip();
    let endpoints: Vec<_> = (0..8).map(|port| SocketAddr::new(victim, 7420 + port).to_string()).collect();
    let endpoints = endpoints.join(",");
    let to_victim = |net: &Net| -> usize {
        let sent = net.sent.iter().filter(|sent| sent.to.ip() == victim);
        sent.map(|sent| sent.bytes.len()).sum()
    };
    let begin = net.now;
    for number in 0..20 {
        net.roots[0].root.fake().referrals = vec![(bogus(number, &endpoints), [0; 32])];
        net.send(0, 1, b"first");
        net.run(10 * SECOND);
        if number == 0 {
            let bytes = to_victim(&net);
            // Four addresses of a referral are tried, with four initiations each.
            assert!((1..=4 * 4 * INITIATION).contains(&bytes), "{bytes} for one referral");
        }
    }
    net.run(300 * SECOND);
    // The budget for addresses that a root names: 16 at once, and one in 10 s.
    let addresses = 16 + (net.now - begin).as_secs() as usize / 10;
    let bytes = to_victim(&net);
    assert!(bytes <= addresses * 4 * INITIATION, "{bytes}");
}

#[test]
fn private_and_loopback_addresses_are_not_for_roots_that_public_ones_name() {
    let mut net = each_at_its_own_root();
    let inside = [
        "127.0.0.1:53",
        "10.0.0.77:22",
        "192.168.1.1:80",
        "[::1]:53",
        "[::ffff:127.0.0.1]:53",
        "[fd00::1]:9",
    ];
    for (number, endpoints) in inside.iter().enumerate() {
        net.roots[0].root.fake().referrals = vec![(bogus(number as u8, endpoints), [0; 32])];
        let ignored = net.counter(0, "root_referrals_ignored");
        net.send(0, 1, b"first");
        net.wait(10 * SECOND, |net| net.counter(0, "root_referrals_ignored") > ignored);
    }
    let inside_ones = inside.map(|text| text.parse::<SocketAddr>().expect("an address"));
    let there = net.sent.iter().filter(|sent| inside_ones.contains(&sent.to));
    assert_eq!(there.map(|sent| sent.bytes.len()).sum::<usize>(), 0);
    assert_eq!(net.nodes[0].endpoint.roots(net.now).len(), 1);
    // Another, correct referral is used.
    let good = referral(&net);
    net.roots[0].root.fake().referrals = vec![(good, [7; 32])];
    net.send(0, 1, b"at last");
    net.wait(10 * SECOND, |net| !net.received(1).is_empty());
}

#[test]
fn a_root_at_a_private_address_may_name_others_at_such_addresses() {
    let mut net = apart_with_liars(2);
    for (number, root) in net.roots.iter_mut().enumerate() {
        root.socket = SocketAddr::from(([10, 0, 0, 1 + number as u8], 7420));
    }
    (0..2).for_each(|node| use_root(&mut net, node, node));
    net.run(SECOND);
    let good = referral(&net);
    net.roots[0].root.fake().referrals = vec![(good, [7; 32])];
    net.send(0, 1, b"first");
    net.wait(10 * SECOND, |net| !net.received(1).is_empty());
}

/// Creates two nodes that each reach only a root that the other does not know.
pub(crate) fn each_at_its_own_root() -> Net {
    let mut net = apart_with_liars(2);
    for node in 0..2 {
        use_root(&mut net, node, node);
    }
    net.run(SECOND);
    net
}

/// Creates the same with a second root for the first node; the other one is at the third.
fn each_at_its_own_root_and_one_with_two() -> Net {
    let mut net = apart_with_liars(3);
    let own = net.roots[..2].iter().map(config_of).collect();
    net.nodes[0].endpoint.set_roots(net.now, own);
    use_root(&mut net, 1, 2);
    net.run(SECOND);
    net
}

/// Returns a correct referral to the second node, which is at the last root.
pub(crate) fn referral(net: &Net) -> Referral {
    let Some(RootNode { root: TestRoot::Fake(root), socket, .. }) = net.roots.last() else {
        panic!("it refers")
    };
    root.referral(&id(1), &socket.to_string()).expect("the node is registered")
}

/// Returns the second node's statement that it is at an invented root, which claims to listen at `endpoints`.
fn bogus(number: u8, endpoints: &str) -> Referral {
    let (node, root) = (Identity::from_seed(&[2; 32]), Identity::from_seed(&[100 + number; 32]));
    let registration = Registration::sign(&node, &root.node_id(), 1, 600);
    let root = RootRecord::sign(&root, 1, endpoints).expect("it is short");
    Referral { identity: *node.public(), registration, root }
}
