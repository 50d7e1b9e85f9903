//! Roots that relay only handshakes and a few messages: another way is used if there is one.

use std::net::SocketAddr;
use std::time::Duration;

use peersock_overlay::wire::{Channel, NoticeCode, RootMessage};
use peersock_overlay::{Event, NodeId};
use peersock_testnet::TestRoot;

use crate::net::{Net, Sent};
use crate::roots::{add_liar, apart, apart_with_liars, id, talk, use_roots};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_root_that_relays_is_used_before_one_that_relays_little() {
    for scarce in 0..2 {
        let mut net = apart(0);
        (1..=2).for_each(|number| add_liar(&mut net, number));
        net.roots[scarce].root.lies().is_scarce = true;
        (0..2).for_each(|node| use_roots(&mut net, node));
        net.run(SECOND);
        net.send(0, 1, b"first");
        talk(&mut net, 3 * SECOND);
        let wanted = net.roots[1 - scarce].socket;
        assert_eq!(paths(&mut net), [wanted; 2], "{scarce}");
        let before = [0, 1].map(|node| changes(&net, node));
        talk(&mut net, Duration::from_secs(120));
        assert_eq!(
            (paths(&mut net), [0, 1].map(|node| changes(&net, node))),
            ([wanted; 2], before),
            "{scarce}"
        );
    }
}

#[test]
fn a_root_that_relays_little_and_nothing_now_costs_no_time_where_another_one_relays() {
    let took = |scarce: Option<usize>| {
        let mut net = apart(0);
        net.latency = Duration::from_millis(20);
        (1..=2).for_each(|number| add_liar(&mut net, number));
        if let Some(scarce) = scarce {
            net.roots[scarce].root.lies().is_scarce = true;
        }
        (0..2).for_each(|node| use_roots(&mut net, node));
        net.run(2 * SECOND);
        if let Some(scarce) = scarce {
            net.roots[scarce].root.lies().swallows = true;
        }
        net.send(0, 1, b"first");
        net.wait(2 * SECOND, |net| !net.received(1).is_empty())
    };
    assert_eq!([0, 1].map(|scarce| took(Some(scarce))), [took(None); 2], "whichever answers first");
}

#[test]
fn of_two_roots_that_relay_little_one_has_the_first_initiation() {
    let mut net = apart(0);
    (1..=2).for_each(|number| add_liar(&mut net, number));
    (0..2).for_each(|root| net.roots[root].root.lies().is_scarce = true);
    (0..2).for_each(|node| use_roots(&mut net, node));
    net.run(SECOND);
    net.send(0, 1, b"first");
    net.wait(SECOND, |net| !net.received(1).is_empty());
    assert_eq!(net.counter(0, "handshakes_initiated"), 3, "with each root, and with the other node");
    let is_initiation = |sent: &&Sent| sent.bytes[0] == 0xD9 && sent.bytes[12] == 0xD1;
    let sent = net.sent.iter().filter(is_initiation);
    let by: std::collections::BTreeSet<_> =
        sent.filter(|sent| sent.from == net.nodes[0].socket).map(|sent| sent.to).collect();
    assert_eq!(by.len(), 1, "{by:?}");
}

#[test]
fn a_root_that_relays_little_is_used_as_long_as_nothing_else_answers() {
    let mut net = apart(0);
    (1..=2).for_each(|number| add_liar(&mut net, number));
    net.roots[0].root.lies().is_scarce = true;
    (0..2).for_each(|node| use_roots(&mut net, node));
    net.run(SECOND);
    net.send(0, 1, b"first");
    talk(&mut net, 3 * SECOND);
    assert_eq!(paths(&mut net), [net.roots[1].socket; 2]);
    net.roots[1].root.lies().swallows = true;
    let longest = talk(&mut net, 20 * SECOND);
    assert!(longest <= 2 * SECOND, "{longest:?}");
    assert_eq!(paths(&mut net), [net.roots[0].socket; 2]);
    net.roots[1].root.lies().swallows = false;
    // The better root is challenged now and then.
    let longest = talk(&mut net, Duration::from_secs(120));
    assert!(longest <= SECOND, "{longest:?}");
    assert_eq!(paths(&mut net), [net.roots[1].socket; 2]);
}

#[test]
fn a_root_that_relays_little_from_now_on_is_left_for_another_one() {
    left_within(15 * SECOND, |root, node| {
        root.lies().is_scarce = true;
        root.fake().register_again(node)
    });
}

#[test]
fn a_root_that_will_end_is_left_before_it_does() {
    let drains = RootMessage::Notice { code: NoticeCode::Drains, channel: Channel(0) };
    // A root continues for ten seconds unless configured otherwise.
    left_within(8 * SECOND, |root, node| root.fake().say(node, &drains));
}

/// Makes the relaying root send each of two nodes a message, and checks that they then use another root.
fn left_within(time: Duration, says: impl Fn(&mut TestRoot, &NodeId) -> Vec<(SocketAddr, Vec<u8>)>) {
    let mut net = apart_with_liars(2);
    net.run(SECOND);
    net.send(0, 1, b"first");
    talk(&mut net, 3 * SECOND);
    let [used, same] = paths(&mut net);
    assert_eq!(used, same);
    let (at, now) = (net.roots.iter().position(|root| root.socket == used).unwrap(), net.now);
    for node in 0..2 {
        for (to, bytes) in says(&mut net.roots[at].root, &id(node)) {
            net.inject(Sent { at: now, from: used, to, bytes });
        }
    }
    talk(&mut net, time);
    assert_eq!(paths(&mut net), [net.roots[1 - at].socket; 2]);
}

fn paths(net: &mut Net) -> [SocketAddr; 2] {
    [(0, 1), (1, 0)].map(|(at, of)| net.peer(at, of).path().unwrap().remote())
}

fn changes(net: &Net, node: usize) -> usize {
    net.count(node, |event| matches!(event, Event::PathChanged(_)))
}
