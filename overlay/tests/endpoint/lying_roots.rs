//! Roots that lie, swallow and refuse: they can refuse their service, and nothing more.

use std::time::Duration;

use peersock_overlay::wire::{Channel, Entry, NoticeCode, Registration, RootMessage};
use peersock_overlay::{Event, HolePunch, Identity, RootState};
use peersock_testnet::Lies;

use crate::net::{Net, Sent, open_network};
use crate::roots::{add_liar, add_root, apart, apart_with_liars, id, talk, use_roots};

const SECOND: Duration = Duration::from_secs(1);

/// Change that makes a root lie.
type Lie = fn(&mut Lies);

#[test]
fn a_root_that_names_another_node_is_not_believed() {
    let mut net = apart_with_liars(2);
    net.add(3);
    net.run(SECOND);
    // The first root answers everything with a node of its choice, well signed.
    let liar = Identity::from_seed(&[0x66; 32]);
    let registration = Registration::sign(&liar, &net.roots[0].root.identity().node_id(), 1, 600);
    let lie = Entry { identity: *liar.public(), channel: Channel(5), registration };
    net.roots[0].root.lies().entry = Some(lie);
    net.send(0, 1, b"first");
    net.wait(SECOND, |net| !net.received(1).is_empty());
    assert_eq!(net.nodes[0].endpoint.peers().len(), 1);
    assert!(net.counter(0, "root_answers_refused") >= 1);
}

#[test]
fn a_registration_for_another_root_is_not_believed() {
    let mut net = apart_with_liars(2);
    net.run(SECOND);
    // The node's signed statement for the second root, shown by the first.
    let stolen = net.roots[1].root.fake().entry(&id(1));
    net.roots[0].root.lies().entry = stolen;
    net.send(0, 1, b"first");
    net.wait(SECOND, |net| !net.received(1).is_empty());
    assert_eq!(net.peer(0, 1).path().unwrap().remote(), net.roots[1].socket);
    assert!(net.counter(0, "root_answers_refused") >= 1);
}

#[test]
fn a_root_that_swallows_frames_or_names_wrong_channels_can_only_refuse() {
    for lie in 0..5 {
        let mut net = apart(0);
        add_liar(&mut net, 1);
        add_root(&mut net, 2);
        let lies = net.roots[0].root.lies();
        match lie {
            0 => lies.swallows = true,
            1 => lies.wrong_channel = true,
            2 => lies.wrong_voucher = true,
            3 => lies.misdelivers = true,
            _ => lies.refuses = true,
        }
        (0..2).for_each(|node| use_roots(&mut net, node));
        net.run(SECOND);
        net.send(0, 1, b"first");
        net.wait(2 * SECOND, |net| !net.received(1).is_empty());
        talk(&mut net, Duration::from_secs(30));
        assert_eq!(net.peer(0, 1).path().unwrap().remote(), net.roots[1].socket, "{lie}");
    }
}

#[test]
fn what_the_first_root_drops_or_refuses_another_one_relays_a_little_later() {
    let far = Duration::from_millis(20);
    let took = |liar: Option<usize>, lie: Lie| {
        let mut net = apart_with_liars(2);
        net.latency = far;
        net.run(2 * SECOND);
        if let Some(liar) = liar {
            lie(net.roots[liar].root.lies());
        }
        net.send(0, 1, b"first");
        net.wait(2 * SECOND, |net| !net.received(1).is_empty())
    };
    let (usual, round_trip) = (took(None, |_| ()), far * 2);
    let cases: [(Lie, Duration); 3] = [
        (|lies| lies.wrong_channel = true, round_trip),
        (|lies| lies.over_rate = true, round_trip),
        (|lies| lies.swallows = true, round_trip * 2 + Duration::from_millis(20)),
    ];
    for (case, (lie, price)) in cases.into_iter().enumerate() {
        let more = [0, 1].map(|liar| took(Some(liar), lie).saturating_sub(usual));
        assert!(more.contains(&Duration::ZERO), "one of them is not the first: {more:?}");
        let longest = more.into_iter().max().expect("two");
        assert!(longest > round_trip / 2, "one of them is: {more:?}");
        assert!(longest <= price + Duration::from_millis(2), "{case}: {more:?}");
    }
}

#[test]
fn a_root_that_begins_to_swallow_frames_is_left() {
    let mut net = apart_with_liars(2);
    net.run(SECOND);
    net.send(0, 1, b"first");
    net.run(5 * SECOND);
    let used = net.peer(0, 1).path().unwrap().remote();
    for root in net.roots.iter_mut().filter(|root| root.socket == used) {
        root.root.lies().swallows = true;
    }
    let longest = talk(&mut net, 20 * SECOND);
    assert!(longest <= 2 * SECOND, "{longest:?}");
}

#[test]
fn a_root_that_changes_where_frames_come_from_makes_no_more_than_two_places() {
    let mut net = apart_with_liars(1);
    net.run(SECOND);
    net.send(0, 1, b"first");
    net.run(SECOND);
    net.roots[0].root.lies().wrong_origin = true;
    talk(&mut net, 5 * SECOND);
    net.roots[0].root.lies().wrong_origin = false;
    talk(&mut net, 20 * SECOND);
    net.nodes[1].inbox.clear();
    net.send(0, 1, b"again");
    net.wait(SECOND, |net| net.received(1).contains(&b"again".to_vec()));
}

#[test]
fn a_voucher_of_somebody_else_registers_nobody() {
    let mut net = apart(0);
    add_liar(&mut net, 1);
    net.roots[0].root.lies().wrong_voucher = true;
    use_roots(&mut net, 0);
    net.run(SECOND);
    let info = &net.nodes[0].endpoint.roots(net.now)[0];
    assert_eq!((info.state, info.observed), (RootState::Connected, None));
    assert!(net.counter(0, "root_answers_refused") >= 1);
}

#[test]
fn a_root_that_refuses_is_asked_rarely() {
    let mut net = apart(0);
    add_liar(&mut net, 1);
    net.roots[0].root.lies().refuses = true;
    use_roots(&mut net, 0);
    net.run(Duration::from_secs(600));
    assert_eq!(net.nodes[0].endpoint.roots(net.now)[0].state, RootState::Refused);
    let registrations = net.roots[0].root.fake().registrations;
    // A root that has refused a node is asked again after 60 s.
    assert!((5..=25).contains(&registrations), "{registrations}");
}

#[test]
fn a_curious_root_finds_neither_the_network_nor_what_is_said_in_what_it_gets() {
    let mut net = apart_with_liars(1);
    net.roots[0].root.fake().heard = Some(Vec::new());
    net.run(SECOND);
    let text = b"for nobody else";
    net.send(0, 1, text);
    net.run(SECOND);
    net.send(1, 0, text);
    net.run(SECOND);
    assert_eq!([net.received(0), net.received(1)], [[text.to_vec()], [text.to_vec()]]);
    talk(&mut net, 300 * SECOND);
    let heard = net.roots[0].root.fake().heard.take().expect("it listens");
    let has = |bytes: &[u8]| heard.iter().any(|one| one.windows(bytes.len()).any(|part| part == bytes));
    assert!(heard.len() > 500 && has(&id(1).as_bytes()[..10]), "whom it was asked for");
    let network = open_network().id().as_u64();
    assert!(!has(&network.to_be_bytes()) && !has(&network.to_le_bytes()), "the network");
    assert!(!has(text), "what is said");
}

#[test]
fn a_root_that_repeats_frames_repeats_nothing_to_those_behind_them() {
    let mut net = apart_with_liars(1);
    net.run(SECOND);
    net.roots[0].root.lies().repeats = true;
    let texts: Vec<Vec<u8>> = (0..100u8).map(|number| vec![number]).collect();
    for text in &texts {
        net.send(0, 1, text);
        net.run(Duration::from_millis(20));
    }
    let mut received = net.received(1);
    received.sort();
    assert_eq!(received, texts);
    assert!(net.counter(1, "data_replayed") > 100);
}

#[test]
fn a_root_that_lies_about_addresses_aims_a_few_small_packets_and_no_path() {
    let mut net = apart(0);
    add_liar(&mut net, 1);
    let victim = "203.0.113.66:53".parse().unwrap();
    net.roots[0].root.lies().seen_at = Some(victim);
    (0..2).for_each(|node| use_roots(&mut net, node));
    net.run(SECOND);
    net.send(0, 1, b"first");
    talk(&mut net, 20 * SECOND);
    for (at, of) in [(0, 1), (1, 0)] {
        assert_eq!(net.peer(at, of).path().unwrap().remote(), net.roots[0].socket);
    }
    for node in &net.nodes {
        let aimed = net.sent.iter().filter(|sent| sent.from == node.socket && sent.to == victim);
        let sizes: Vec<usize> = aimed.map(|sent| sent.bytes.len()).collect();
        assert!(sizes.len() <= HolePunch::MAX_SHOTS_EACH && sizes.iter().all(|len| *len < 50), "{sizes:?}");
    }
}

#[test]
fn a_root_that_registers_a_node_again_and_again_causes_little() {
    let mut net = relayed_by_a_liar();
    let before = caused(&net);
    let mut at = 0;
    flood(&mut net, |net| {
        // Each time it sees the node elsewhere, and demands another token in its frames.
        at += 1;
        net.roots[0].root.lies().seen_at = Some(([203, 0, 113, 66], 1000 + at).into());
        net.roots[0].root.fake().register_again(&id(0))
    });
    let [events, told, registrations] = since(caused(&net), before);
    assert!(events <= MAX_EFFECTIVE_MESSAGES, "{events} events");
    // Each contact involves a question, which may be repeated, and the answer to the peer's own.
    assert!(told <= 3 * MAX_EFFECTIVE_MESSAGES, "{told} contacts told to a peer");
    assert!(registrations <= MAX_EFFECTIVE_MESSAGES, "{registrations} registrations");
    // Its last message takes effect soon.
    let last = ([203, 0, 113, 66], 7).into();
    net.roots[0].root.lies().seen_at = Some(last);
    say_once(&mut net, |net| net.roots[0].root.fake().register_again(&id(0)));
    net.wait(10 * SECOND, |net| net.nodes[0].endpoint.roots(net.now)[0].observed == Some(last));
    net.nodes[1].inbox.clear();
    talk(&mut net, 5 * SECOND);
    assert!(net.received(1).len() > 200, "the newest token is used");
}

#[test]
fn a_root_that_forgets_a_node_again_and_again_is_asked_now_and_then() {
    let mut net = relayed_by_a_liar();
    let before = caused(&net);
    let notice = RootMessage::Notice { code: NoticeCode::NotRegistered, channel: Channel(0) };
    flood(&mut net, |net| net.roots[0].root.fake().say(&id(0), &notice));
    let [events, told, registrations] = since(caused(&net), before);
    assert!(events + told + registrations <= MAX_EFFECTIVE_MESSAGES, "{events}, {told}, {registrations}");
    net.run(10 * SECOND);
    assert_eq!(net.nodes[0].endpoint.roots(net.now)[0].state, RootState::Registered);
}

/// Maximum number of a root's unasked messages in half a minute that have an effect: ten at once, and one in
/// three seconds.
const MAX_EFFECTIVE_MESSAGES: usize = 10 + 30 / 3 + 1;

/// Creates two nodes with a relaying root that can lie.
fn relayed_by_a_liar() -> Net {
    let mut net = apart_with_liars(1);
    net.run(SECOND);
    net.send(0, 1, b"first");
    talk(&mut net, 5 * SECOND);
    assert!(net.peer(0, 1).path().unwrap().place.relay().is_some());
    net
}

/// Makes the root send something to the first node every 10 ms, for half a minute.
fn flood(net: &mut Net, mut say: impl FnMut(&mut Net) -> Vec<(std::net::SocketAddr, Vec<u8>)>) {
    for _ in 0..3000 {
        say_once(net, &mut say);
        net.run(Duration::from_millis(10));
    }
}

fn say_once(net: &mut Net, say: impl FnOnce(&mut Net) -> Vec<(std::net::SocketAddr, Vec<u8>)>) {
    let (from, at) = (net.roots[0].socket, net.now);
    for (to, bytes) in say(net) {
        net.inject(Sent { at, from, to, bytes });
    }
}

/// Returns the effects of the first node's root so far: changes of paths, contacts told, and registrations.
fn caused(net: &Net) -> [usize; 3] {
    let events = net.count(0, |event| matches!(event, Event::PathChanged(_)));
    let counter = |name| usize::try_from(net.counter(0, name)).expect("a few");
    [events, counter("candidates_sent"), counter("root_registrations_sent")]
}

fn since(now: [usize; 3], then: [usize; 3]) -> [usize; 3] {
    std::array::from_fn(|at| now[at] - then[at])
}
