//! Handshakes: the common case, loss, races, replays, and age.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use peersock_overlay::{EntropySource, Event, NoEntropy, RecvMeta, SocketIndex};

use crate::net::{Net, Sent, UNIX_TIME, instant, open_network};

const STALE_REPLY: u8 = 0xD8;
const INITIATION: u8 = 0xD1;
const RESPONSE: u8 = 0xD2;
const BEACON: u8 = 0xD5;

#[test]
fn first_packet_arrives_after_discovery_and_one_round_trip() {
    let mut net = Net::acquainted_pair();
    net.send(0, 1, b"hello");
    let took = net.wait(Duration::from_secs(1), |net| !net.nodes[1].inbox.is_empty());
    // Initiation, response, data: three times the latency of 1 ms.
    assert_eq!(took, Duration::from_millis(3));
    assert_eq!(net.received(1), [b"hello".to_vec()]);
    for node in 0..2 {
        assert_eq!(net.count(node, |event| matches!(event, Event::SessionReady(_))), 1);
        assert_eq!(net.counter(node, "handshake_x25519"), 5);
    }
}

#[test]
fn retransmit_ladder_doubles_to_five_seconds_then_gives_up() {
    let mut net = Net::acquainted_pair();
    net.filter = Box::new(|datagram| datagram.bytes[0] != INITIATION);
    let begin = net.now;
    net.send(0, 1, b"hello");
    net.run(Duration::from_secs(200));
    let times: Vec<_> = initiations(&net).map(|sent| (sent.at - begin).as_millis()).collect();
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The jitter shortens each wait by up to a fifth.
    for (gap, full) in gaps.iter().zip([250, 500, 1000, 2000, 4000, 5000, 5000, 5000]) {
        assert!((full * 4 / 5..=full).contains(gap), "{gaps:?}");
    }
    // An attempt ends 90 s after the last demand.
    assert!((80_000..90_000).contains(times.last().unwrap()), "{times:?}");
    let unreachable = |event: &Event| matches!(event, Event::PeerSilent(_));
    assert_eq!(net.count(0, unreachable), 1);
    let when = net.nodes[0].events.iter().find(|(_, event)| unreachable(event)).unwrap().0;
    assert_eq!(when - begin, Duration::from_secs(5));
    assert_eq!((net.counter(0, "attempts_given_up"), net.nodes[0].endpoint.sessions().len()), (1, 0));
}

#[test]
fn whoever_asks_during_an_attempt_is_told_of_its_failure_too() {
    let mut net = Net::acquainted_pair();
    net.filter = Box::new(|datagram| datagram.bytes[0] != INITIATION);
    let unreachable = |event: &Event| matches!(event, Event::PeerSilent(_));
    for asked in 1..=3 {
        net.send(0, 1, b"hello");
        net.run(Duration::from_millis(4999));
        assert_eq!(net.count(0, unreachable), asked - 1);
        // The next demand comes after 13 s, so within the same attempt.
        net.run(Duration::from_millis(8001));
        assert_eq!(net.count(0, unreachable), asked);
    }
    assert_eq!(net.counter(0, "attempts_started"), 1);
}

#[test]
fn a_lost_response_costs_one_retransmission() {
    let mut net = Net::acquainted_pair();
    let lost = Cell::new(false);
    net.filter = Box::new(move |datagram| datagram.bytes[0] != RESPONSE || lost.replace(true));
    net.send(0, 1, b"hello");
    let took = net.wait(Duration::from_secs(1), |net| !net.nodes[1].inbox.is_empty());
    // The retransmission leaves after 250 ms at most; its answer and the packet take 3 ms.
    assert!(took <= Duration::from_millis(253), "{took:?}");
}

#[test]
fn a_lost_confirmation_is_made_good_by_the_next_packet() {
    let mut net = Net::acquainted_pair();
    let lost = Cell::new(false);
    // Drops the keepalive.
    net.filter = Box::new(move |datagram| datagram.bytes.len() != 38 || lost.replace(true));
    net.send(0, 1, b"hello");
    net.wait(Duration::from_millis(10), |net| !net.nodes[1].inbox.is_empty());
    assert!(net.peer(1, 0).sender().is_some());
}

#[test]
fn a_round_trip_longer_than_the_interval_still_completes() {
    for latency in [400, 1000, 1400] {
        let mut net = Net::acquainted_pair();
        net.latency = Duration::from_millis(latency);
        net.send(0, 1, b"hello");
        let took = net.wait(Duration::from_secs(20), |net| !net.nodes[1].inbox.is_empty());
        assert_eq!(took, Duration::from_millis(3 * latency));
        net.run(Duration::from_secs(20));
        // Nothing remains of the other initiations.
        assert!(net.nodes.iter().all(|node| node.endpoint.sessions().len() == 1));
    }
}

#[test]
fn a_round_trip_of_ten_seconds_completes_at_the_first_initiation() {
    // A first contact, and one with a peer that was reached before, which is tried each second.
    for known in [false, true] {
        let mut net = if known { Net::connected_pair() } else { Net::acquainted_pair() };
        if known {
            net.run(Duration::from_secs(200));
            assert!(net.peer(0, 1).session().is_none());
        }
        net.latency = Duration::from_secs(5);
        net.send(0, 1, b"hello");
        let took = net.wait(Duration::from_secs(60), |net| !net.nodes[1].inbox.is_empty());
        assert_eq!(took, Duration::from_secs(15), "known: {known}");
        // Bounded: at most eight initiations at once, and four unused answers.
        net.run(Duration::from_secs(30));
        assert!(net.nodes.iter().all(|node| node.endpoint.sessions().len() <= 3));
        net.nodes[0].inbox.clear();
        net.send(1, 0, b"and back");
        net.wait(Duration::from_secs(6), |net| !net.nodes[0].inbox.is_empty());
    }
}

#[test]
fn an_attempt_that_is_not_answered_keeps_few_initiations() {
    let mut net = Net::connected_pair();
    net.run(Duration::from_secs(200));
    net.filter = Box::new(|datagram| datagram.bytes[0] != INITIATION);
    for _ in 0..60 {
        net.send(0, 1, b"hello");
        net.run(Duration::from_secs(1));
        // An attempt keeps at most eight initiations.
        assert!(net.nodes[0].endpoint.sessions().len() <= 8);
    }
    assert!(initiations(&net).count() > 50);
}

#[test]
fn simultaneous_initiations_both_succeed_and_packets_flow() {
    let mut net = Net::acquainted_pair();
    net.latency = Duration::from_millis(50);
    net.send(0, 1, b"from 0");
    net.send(1, 0, b"from 1");
    net.run(Duration::from_secs(1));
    assert_eq!((net.received(1), net.received(0)), (vec![b"from 0".to_vec()], vec![b"from 1".to_vec()]));
    for node in 0..2 {
        assert_eq!(net.count(node, |event| matches!(event, Event::SessionReady(_))), 1);
        assert!(net.nodes[node].endpoint.sessions().len() <= 2);
    }
    // Minutes of traffic both ways need only one handshake per two minutes.
    let before = initiations(&net).count();
    for second in 0..600 {
        net.send(second % 2, 1 - second % 2, b"x");
        net.run(Duration::from_secs(1));
    }
    assert_eq!((net.received(1).len(), net.received(0).len()), (301, 301));
    let rekeys = initiations(&net).count() - before;
    assert!((4..=6).contains(&rekeys), "{rekeys}");
}

#[test]
fn rekeys_under_traffic_lose_nothing() {
    let mut net = Net::connected_pair();
    let first = net.peer(0, 1).session().unwrap().index();
    for _ in 0..3000 {
        net.send(0, 1, b"x");
        net.run(Duration::from_millis(100));
    }
    assert_eq!(net.received(1).len(), 3000);
    assert_ne!(net.peer(0, 1).session().unwrap().index(), first);
    // In 300 s, at one renewal in 110 to 120 s.
    assert_eq!(net.counter(0, "rekeys"), 2);
    assert_eq!(net.counter(1, "rekeys"), 0);
    assert_eq!(net.count(1, |event| matches!(event, Event::SessionLost(_))), 0);
}

#[test]
fn an_idle_session_ends_at_its_age_and_leaves_no_timer() {
    let mut net = Net::connected_pair();
    // Sessions end at an age of 180 s.
    net.run(Duration::from_secs(181));
    for node in 0..2 {
        assert_eq!(net.count(node, |event| matches!(event, Event::SessionLost(_))), 1);
        assert!(net.nodes[node].endpoint.sessions().is_empty());
    }
    assert!(net.peer(0, 1).sender().is_none());
    // Only the regular beacon remains.
    let next = net.nodes[0].endpoint.poll_timeout().unwrap();
    let before = net.sent.len();
    net.run(next - net.now);
    assert!(net.sent[before..].iter().all(|sent| sent.bytes[0] == BEACON));
    assert_eq!(initiations(&net).count(), 1);
    net.send(0, 1, b"again");
    net.wait(Duration::from_millis(10), |net| net.received(1) == [b"again".to_vec()]);
}

#[test]
fn one_way_traffic_is_answered_by_keepalives() {
    let mut net = Net::connected_pair();
    for _ in 0..100 {
        net.send(0, 1, b"x");
        net.run(Duration::from_secs(1));
    }
    let keepalives = net.counter(1, "keepalives_sent");
    // In 100 s, at one keepalive in 10 s.
    assert!((7..=10).contains(&keepalives), "{keepalives}");
    assert_eq!(net.counter(0, "silences"), 0);
    assert_eq!(initiations(&net).count(), 1);
    // Without traffic, silence.
    net.run(Duration::from_secs(15));
    let before = net.counter(1, "keepalives_sent") + net.counter(0, "keepalives_sent");
    net.run(Duration::from_secs(15));
    assert_eq!(net.counter(1, "keepalives_sent") + net.counter(0, "keepalives_sent"), before);
}

#[test]
fn replayed_initiations_are_never_answered() {
    let mut net = Net::connected_pair();
    let initiation = initiations(&net).next().unwrap().clone();
    let x25519 = net.counter(1, "handshake_x25519");
    for _ in 0..1000 {
        net.inject(initiation.clone());
    }
    net.run(Duration::from_secs(1));
    assert_eq!(net.counter(1, "initiations_replayed"), 1000);
    assert_eq!(net.counter(1, "handshake_x25519"), x25519);
    assert_eq!(net.counter(1, "handshakes_answered"), 1);
}

#[test]
fn no_ephemeral_key_is_made_from_the_seed_alone() {
    let ephemerals = |entropy: Option<EntropySource>| {
        let mut net = Net::new();
        net.entropy = entropy;
        (1..=2).for_each(|identity| _ = net.add(identity));
        (0..2).for_each(|node| _ = net.join(node, &open_network()));
        net.run(Duration::from_secs(4));
        net.send(0, 1, b"hello");
        net.run(Duration::from_secs(1));
        let initiation = initiations(&net).next().expect("an initiation").bytes[5..37].to_vec();
        let response = net.sent.iter().find(|sent| sent.bytes[0] == RESPONSE).expect("a response");
        [initiation, response.bytes[8..40].to_vec()]
    };
    let source = |fill: u8| -> Option<EntropySource> {
        Some(Arc::new(move |out| {
            out.fill(fill);
            Ok(())
        }))
    };
    // The simulator requires that.
    assert_eq!(ephemerals(None), ephemerals(None));
    // The same state continues twice, as after restoring a snapshot of the machine, or forking the process.
    let (one, other) = (ephemerals(source(1)), ephemerals(source(2)));
    assert!(one.iter().all(|key| !other.contains(key)));
}

#[test]
fn without_randomness_a_node_says_nothing_that_needs_it_until_there_is_some() {
    let works = Arc::new(AtomicBool::new(true));
    let asked = works.clone();
    let mut net = Net::new();
    net.entropy = Some(Arc::new(move |out| {
        out.fill(7);
        asked.load(Ordering::Relaxed).then_some(()).ok_or(NoEntropy)
    }));
    net.add(1);
    net.entropy = None;
    net.add(2);
    (0..2).for_each(|node| _ = net.join(node, &open_network()));
    net.run(Duration::from_secs(4));
    works.store(false, Ordering::Relaxed);
    let begin = net.sent.len();
    net.send(0, 1, b"hello");
    net.send(1, 0, b"hello");
    net.run(Duration::from_secs(10));
    let own = net.nodes[0].socket;
    let said: Vec<_> =
        net.sent[begin..].iter().filter(|sent| sent.from == own).map(|sent| sent.bytes[0]).collect();
    assert!(said.iter().all(|kind| *kind == BEACON), "{said:x?}");
    assert!(net.counter(0, "entropy_failures") > 2);
    assert_eq!(net.nodes[0].endpoint.sessions().len(), 0);
    works.store(true, Ordering::Relaxed);
    net.wait(Duration::from_secs(6), |net| (0..2).all(|node| !net.nodes[node].inbox.is_empty()));
}

#[test]
fn a_node_whose_clock_went_back_gets_a_session() {
    let mut net = Net::connected_pair();
    net.restart(0, 4001, UNIX_TIME - Duration::from_secs(86_400));
    let socket = net.nodes[0].socket;
    // Neither side hears beacons: only the restarted node knows where the other is.
    net.filter = Box::new(move |datagram| datagram.bytes[0] != BEACON || datagram.from == socket);
    net.join(0, &open_network());
    net.send(0, 1, b"I am back in time");
    let took = net.wait(Duration::from_secs(2), |net| !net.nodes[1].inbox.is_empty());
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[test]
fn a_node_that_is_started_again_and_again_with_its_clock_going_back_connects_at_once_each_time() {
    for with_beacons in [true, false] {
        let mut net = Net::connected_pair();
        let known = net.nodes[1].socket;
        for run in 1..=20 {
            let port = 4000 + run as u16;
            net.restart(0, port, UNIX_TIME - Duration::from_secs(3600 * run));
            let started = net.nodes[0].socket;
            // Without beacons, only the restarted node knows where the other is.
            net.filter =
                Box::new(move |sent| with_beacons || sent.bytes[0] != BEACON || sent.from == started);
            net.join(0, &open_network());
            net.nodes[1].inbox.clear();
            net.send(0, 1, b"I am back in time");
            let took = net.wait(Duration::from_secs(60), |net| !net.nodes[1].inbox.is_empty());
            assert!(took < Duration::from_millis(300), "run {run}, beacons {with_beacons}: {took:?}");
            net.run(Duration::from_millis(500));
        }
        assert_eq!(net.nodes[1].socket, known);
        assert!(net.counter(0, "clock_behind") >= 1, "the node knows why");
    }
}

#[test]
fn a_stale_reply_is_read_once_and_by_the_sender_of_its_initiation_only() {
    let mut net = Net::connected_pair();
    net.restart(0, 4001, UNIX_TIME - Duration::from_secs(86_400));
    net.join(0, &open_network());
    net.send(0, 1, b"x");
    net.wait(Duration::from_secs(2), |net| !net.nodes[1].inbox.is_empty());
    let reply = net.sent.iter().find(|sent| sent.bytes[0] == STALE_REPLY).expect("a stale reply").clone();
    let initiation = initiations(&net).find(|sent| sent.bytes[2..5] == reply.bytes[1..4]).expect("its cause");
    assert!(reply.bytes.len() < initiation.bytes.len());
    assert_eq!(net.counter(0, "clock_behind"), 1);
    // Copies, altered ones too, reach no node that waits for one.
    let sent = initiations(&net).count();
    for n in 0..1000 {
        let mut copy = reply.clone();
        let at = 1 + n % (copy.bytes.len() - 1);
        copy.bytes[at] ^= (n / copy.bytes.len()) as u8;
        net.inject(copy);
        net.run(Duration::from_millis(1));
    }
    assert_eq!(net.counter(0, "clock_behind"), 1);
    assert_eq!(initiations(&net).count(), sent);
}

#[test]
fn replayed_old_initiations_get_few_and_short_answers() {
    let mut net = Net::acquainted_pair();
    // A node that cannot hear makes a hundred initiations, all genuine.
    net.filter = Box::new(|_| false);
    for _ in 0..120 {
        net.send(0, 1, b"x");
        net.run(Duration::from_secs(5));
    }
    let old: Vec<_> = initiations(&net).map(|sent| sent.bytes.clone()).collect();
    assert!(old.len() > 100, "{}", old.len());
    net.filter = Box::new(|_| true);
    net.send(0, 1, b"x");
    net.run(Duration::from_secs(10));
    let begin = net.sent.len();
    for bytes in old.iter().cycle().take(1000) {
        let remote = "203.0.113.9:9".parse().unwrap();
        net.deliver(1, RecvMeta { remote, socket: SocketIndex(0), multicast: false, relay: None }, bytes);
        net.run(Duration::from_millis(10));
    }
    let answers: Vec<_> =
        net.sent[begin..].iter().filter(|sent| sent.to.ip().to_string() == "203.0.113.9").collect();
    let bytes: usize = answers.iter().map(|sent| sent.bytes.len()).sum();
    // In 10 s, at one stale reply in 250 ms after a burst of eight.
    assert!((1..=60).contains(&answers.len()), "{}", answers.len());
    assert!(bytes < 198 * answers.len() + 198, "{bytes}");
    assert_eq!(net.count(1, |event| matches!(event, Event::SessionLost(_))), 0);
}

#[test]
fn a_flood_turns_cookies_on_and_costs_no_x25519() {
    let mut net = Net::acquainted_pair();
    let template = {
        let mut net = Net::acquainted_pair();
        net.send(0, 1, b"x");
        initiations(&net).next().unwrap().clone()
    };
    // Ten thousand initiations per second with a valid MAC1 and garbage inside, from everywhere.
    let x25519 = net.counter(1, "handshake_x25519");
    let delivered = Rc::new(Cell::new(0));
    for n in 0u32..30_000 {
        let bytes = forged(&template.bytes, n);
        let remote = ([10, (n >> 16) as u8, (n >> 8) as u8, n as u8], 5000).into();
        net.deliver(1, RecvMeta { remote, socket: SocketIndex(0), multicast: false, relay: None }, &bytes);
        delivered.set(delivered.get() + 1);
        if n == 15_000 {
            net.send(0, 1, b"hello through the flood");
        }
        net.run(Duration::from_micros(100));
    }
    assert_eq!(net.received(1), [b"hello through the flood".to_vec()]);
    let spent = net.counter(1, "handshake_x25519") - x25519;
    // The first burst, the initiations admitted until it is over, and the one true handshake.
    assert!(spent <= 2 * 650 + 10, "{spent}");
    assert!(net.counter(0, "cookies_received") >= 1);
    assert!(net.nodes[1].endpoint.peers().len() == 1 && net.nodes[1].endpoint.sessions().len() <= 4);
}

/// Returns a message with the same header and MAC1 key, but other contents.
fn forged(initiation: &[u8], n: u32) -> Vec<u8> {
    let node = peersock_overlay::Identity::from_seed(&[2; 32]).node_id();
    let mut message = initiation[..initiation.len() - 32].to_vec();
    message[40..44].copy_from_slice(&n.to_be_bytes());
    peersock_overlay::noise::MacWriter::new(&node).append(instant(), &mut message);
    message
}

fn initiations(net: &Net) -> impl Iterator<Item = &Sent> {
    net.sent.iter().filter(|sent| sent.bytes[0] == INITIATION)
}
