//! Forged, replayed and random datagrams: their cost, the node's answers, and the bounds of both.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peersock_overlay::wire::{Beacon, Hello};
use peersock_overlay::{
    Endpoint, EndpointConfig, Event, Identity, NetworkConfig, RecvMeta, SocketIndex, SuiteSet,
};
use proptest::prelude::*;

use crate::net::{Net, Sent, UNIX_TIME, instant, lan_socket, open_network};

const BEACON: u8 = 0xD5;

/// Returns every kind of message of a busy hour, and two nodes that are in that state.
fn recorded() -> (Net, Vec<Sent>) {
    let mut net = Net::connected_pair();
    for second in 0..400 {
        net.send(second % 2, 1 - second % 2, b"some data");
        net.run(Duration::from_secs(1));
    }
    net.restart(1, 4001, UNIX_TIME + Duration::from_secs(1000));
    net.join(1, &open_network());
    net.send(1, 0, b"new");
    net.run(Duration::from_secs(2));
    let recording = std::mem::take(&mut net.sent);
    (net, recording)
}

#[test]
fn no_unproven_address_gets_more_than_it_sent() {
    let (mut net, recording) = recorded();
    let mut balance = Balance::default();
    // Sends everything once more, from addresses that never receive anything, also as if from the discovery
    // socket.
    for (n, datagram) in recording.iter().enumerate() {
        for multicast in [false, true] {
            balance.inject(&mut net, n, multicast, &datagram.bytes);
        }
        // Slightly altered.
        let mut altered = datagram.bytes.clone();
        let at = n * 7 % altered.len();
        altered[at] ^= 1 << (n % 8);
        balance.inject(&mut net, n, false, &altered);
        // Cut off.
        balance.inject(&mut net, n, false, &datagram.bytes[..datagram.bytes.len() * (n % 10) / 10]);
        net.run(Duration::from_millis(50));
        balance.account(&mut net);
    }
    net.run(Duration::from_secs(200));
    balance.account(&mut net);
    assert!(balance.answered > 100, "the test must provoke answers to mean something: {}", balance.answered);
}

#[test]
fn a_replayed_hour_delivers_nothing_and_loses_nothing() {
    let (mut net, recording) = recorded();
    for node in &mut net.nodes {
        node.inbox.clear();
        node.events.clear();
    }
    for datagram in recording {
        net.inject(datagram);
        net.run(Duration::from_millis(1));
    }
    assert!(net.nodes.iter().all(|node| node.inbox.is_empty()));
    for node in 0..2 {
        assert_eq!(net.count(node, |event| matches!(event, Event::SessionLost(_))), 0);
    }
    net.send(0, 1, b"still here");
    net.run(Duration::from_millis(10));
    assert_eq!(net.received(1), [b"still here".to_vec()]);
}

#[test]
fn hellos_of_many_identities_are_answered_and_leave_nothing_behind() {
    let mut net = Net::connected_pair();
    let key = open_network().discovery_key();
    let answered = net.counter(0, "hellos_sent");
    for n in 0u32..20_000 {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        let hello = Hello {
            identity: *Identity::from_seed(&seed).public(),
            instance: n.into(),
            reply_wanted: true,
            suites: SuiteSet::CHACHA20_POLY1305,
            echo: [0; 24],
        };
        let mut bytes = Vec::new();
        let mut nonce = [1; 24];
        nonce[..4].copy_from_slice(&n.to_be_bytes());
        hello.seal(&key, nonce, &mut bytes);
        net.deliver(0, from(n as usize), &bytes);
        net.run(Duration::from_millis(2));
    }
    assert_eq!(net.counter(0, "hellos_sent") - answered, 20_000);
    assert_eq!(net.nodes[0].endpoint.peers().len(), 1);
    assert_eq!(net.count(0, |event| matches!(event, Event::PeerAdded(_))), 1);
    assert_eq!(net.counter(0, "peers_evicted") + net.counter(0, "eviction_steps"), 0);
    net.send(0, 1, b"still here");
    net.run(Duration::from_millis(10));
    assert_eq!(net.received(1), [b"still here".to_vec()]);
}

#[test]
fn one_who_floods_the_group_keeps_no_others_from_meeting() {
    let mut net = Net::pair();
    net.join(0, &open_network());
    net.run(Duration::from_secs(10));
    let stranger = RecvMeta { multicast: true, remote: "192.0.2.99:7000".parse().unwrap(), ..from(0) };
    let mut beacon = vec![7; Beacon::LEN];
    beacon[..2].copy_from_slice(&net.sent[0].bytes[..2]);
    net.join(1, &open_network());
    for n in 0u32..20_000 {
        beacon[2..6].copy_from_slice(&n.to_be_bytes());
        for node in 0..2 {
            net.deliver(node, stranger, &beacon);
        }
        net.run(Duration::from_micros(100));
        if n == 3000 {
            // They forget each other; afterwards they know each other only from beacons that met the flood.
            net.restart(1, 4001, UNIX_TIME + Duration::from_secs(1000));
            net.join(1, &open_network());
        }
    }
    assert_eq!(net.nodes[1].endpoint.peers().len(), 1);
    assert!(net.counter(1, "beacons_received") > 10_000);
}

#[test]
fn initiations_of_many_identities_leave_nothing_behind() {
    let mut net = Net::connected_pair();
    for n in 0u32..2000 {
        let mut seed = [8; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        let bytes = initiation_of(&seed, open_network(), n);
        net.deliver(1, from(n as usize), &bytes);
        net.run(Duration::from_millis(10));
    }
    assert!(net.counter(1, "handshakes_answered") > 1000);
    // Unconfirmed sessions live for 12 s, so at most the last 1200 remain.
    let sessions = net.nodes[1].endpoint.sessions().len();
    assert!(sessions <= 1210, "{sessions}");
    net.run(Duration::from_secs(13));
    assert!(net.nodes[1].endpoint.sessions().len() <= 4);
    // A node that completed no handshake was never announced.
    assert_eq!(net.count(1, |event| matches!(event, Event::PeerAdded(_))), 1);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let transcript = || {
        let (net, recording) = recorded();
        let begin = recording[0].at;
        let lines = recording.into_iter().map(move |sent| (sent.at - begin, sent.from, sent.to, sent.bytes));
        (lines.collect::<Vec<_>>(), net.nodes[0].endpoint.counters().snapshot())
    };
    let (one, two) = (transcript(), transcript());
    assert!(one.0.len() > 400);
    assert!(one == two);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // Random bytes behind each message type never panic, and change only counters.
    #[test]
    fn random_datagrams_are_dropped(
        datagrams in prop::collection::vec((0xD0u8..=0xDF, prop::collection::vec(any::<u8>(), 0..300), any::<bool>()), 1..100)
    ) {
        let mut net = Net::acquainted_pair();
        net.sent.clear();
        let mut balance = Balance::default();
        for (n, (kind, mut bytes, multicast)) in datagrams.into_iter().enumerate() {
            bytes.insert(0, kind);
            balance.inject(&mut net, n, multicast, &bytes);
            net.run(Duration::from_millis(1));
            balance.account(&mut net);
        }
        prop_assert_eq!(net.nodes[0].endpoint.peers().len(), 1);
        prop_assert!(net.nodes[0].endpoint.sessions().is_empty());
    }

    // Any combination of loss, delay and traffic ends in delivery once the network works again.
    #[test]
    fn any_weather_passes(seed: u64, loss in 0u64..60, latency in 1u64..400, both: bool) {
        let mut net = Net::acquainted_pair();
        net.latency = Duration::from_millis(latency);
        let mut state = seed | 1;
        net.filter = Box::new(move |_| {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % 100 >= loss
        });
        for _ in 0..30 {
            net.send(0, 1, b"x");
            if both {
                net.send(1, 0, b"y");
            }
            net.run(Duration::from_secs(1));
        }
        net.filter = Box::new(|_| true);
        net.nodes[1].inbox.clear();
        let begin = net.now;
        while net.nodes[1].inbox.is_empty() {
            net.send(0, 1, b"fair again");
            net.run(Duration::from_millis(100));
            prop_assert!(net.now - begin <= Duration::from_millis(5200 + 4 * latency));
        }
    }
}

/// Bytes received from and sent to each forged address.
#[derive(Default)]
struct Balance {
    credit: BTreeMap<SocketAddr, i64>,
    seen: usize,
    answered: usize,
}

impl Balance {
    fn inject(&mut self, net: &mut Net, n: usize, multicast: bool, bytes: &[u8]) {
        let meta = RecvMeta { multicast, ..from(n) };
        *self.credit.entry(meta.remote).or_default() += bytes.len() as i64;
        net.deliver(0, meta, bytes);
        net.pump();
        self.account(net);
    }

    fn account(&mut self, net: &mut Net) {
        for sent in &net.sent[self.seen..] {
            if let Some(credit) = self.credit.get_mut(&sent.to) {
                *credit -= sent.bytes.len() as i64;
                self.answered += 1;
                assert!(*credit >= 0, "{:02x} to {}: {credit}", sent.bytes[0], sent.to);
            } else {
                assert!(
                    sent.bytes[0] == BEACON || sent.to.ip().to_string().starts_with("192.0.2."),
                    "{sent:?}"
                );
            }
        }
        self.seen = net.sent.len();
    }
}

/// Returns one of many unused addresses.
fn from(n: usize) -> RecvMeta {
    let [.., b, c, d] = (n as u32).to_be_bytes();
    RecvMeta { remote: ([100, b, c, d], 1000).into(), socket: SocketIndex(0), multicast: false, relay: None }
}

/// Returns a true first initiation of that identity to node 1.
fn initiation_of(seed: &[u8; 32], network: NetworkConfig, n: u32) -> Vec<u8> {
    use peersock_overlay::noise::{InitiationPayload, Initiator, MacWriter, Timestamp};
    let target = Identity::from_seed(&[2; 32]);
    let payload = InitiationPayload {
        network: network.id(),
        timestamp: Timestamp::from_unix(UNIX_TIME),
        instance: n.into(),
        receive_buffer: 0,
        suites: SuiteSet::CHACHA20_POLY1305,
        introduction: Vec::new(),
        room: 0,
    };
    let mut bytes = Vec::new();
    let index = SESSION_INDEX;
    Initiator::start(&Identity::from_seed(seed), target.public(), *seed, index, &payload, &mut bytes)
        .unwrap();
    MacWriter::new(&target.node_id()).append(instant(), &mut bytes);
    bytes
}

const SESSION_INDEX: peersock_overlay::SessionIndex =
    peersock_overlay::SessionIndex::from_be_bytes([1, 2, 3]);

#[test]
fn an_endpoint_without_sockets_sends_nothing_and_does_not_mind() {
    let config = EndpointConfig::new(Arc::new(Identity::from_seed(&[1; 32])));
    let now = instant();
    let mut endpoint = Endpoint::new(config, [1; 32], now, UNIX_TIME);
    endpoint.join(now, open_network()).unwrap();
    assert_eq!(endpoint.poll_timeout(), None);
    assert!(endpoint.poll_transmit(now, &mut Vec::new()).is_none());
    endpoint.set_sockets(now, vec![lan_socket()]);
    assert!(endpoint.poll_transmit(now, &mut Vec::new()).is_some());
}
