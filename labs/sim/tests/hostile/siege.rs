//! The attacker's tools: a recording of the wire, blows, and an exact account of the verdicts on them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use peersock_overlay::wire::{Data, Initiation, MessageType};
use peersock_overlay::{NetworkConfig, NetworkId, Psk, RecvMeta, SessionIndex, SocketIndex};
use peersock_sim::{Plan, Random};

use crate::lab::{Lab, PORT, open_network};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Counters of a dropped or accepted datagram. Each datagram is in exactly one of these.
const VERDICTS: &[&str] = &[
    "data_malformed",
    "data_unauthentic",
    "data_replayed",
    "data_too_old",
    "data_expired",
    "bad_source",
    "unknown_message",
    "relayed_unknown",
    "data_unknown_session",
    "unknown_session_received",
    "handshake_malformed",
    "mac1_invalid",
    "handshake_unauthentic",
    "handshakes_refused",
    "initiations_replayed",
    "initiations_stale",
    "handshakes_answered",
    "strangers_refused",
    "responses_unexpected",
    "cookies_sent",
    "cookies_received",
    "beacons_received",
    "hellos_received",
    "hellos_unknown",
    "hellos_limited",
    "discovery_malformed",
];

/// Counters that no blow may increase: inner packets accepted, or sessions established.
const FORBIDDEN: &[&str] = &["ip_received", "sessions_established", "keepalives_received", "closes_received"];

/// A datagram that was on the wire.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) payload: Vec<u8>,
}

impl Recorded {
    pub(crate) fn kind(&self) -> Option<MessageType> {
        MessageType::of(&self.payload)
    }
}

/// A lab whose wire is recorded.
pub(crate) struct Siege {
    pub(crate) lab: Lab,
    wire: Rc<RefCell<Vec<Recorded>>>,
    pub(crate) random: Random,
    /// Blows so far, by verdict.
    tally: BTreeMap<&'static str, u64>,
}

impl Siege {
    /// Makes nodes on one LAN that are all in an open and in a secret network, and have talked in both.
    pub(crate) fn of_acquainted(nodes: u8) -> Self {
        let mut siege = Self::new(Lab::new(nodes, &[open_network(), secret_network()]));
        let nodes = usize::from(nodes);
        for pair in (0..nodes).flat_map(|client| (0..nodes).map(move |server| (client, server))) {
            if pair.0 != pair.1 {
                siege.converse(0, pair, 400_000);
                siege.converse(1, pair, 100_000);
            }
        }
        siege.lab.run(20 * SECOND);
        let (complete, begun) = siege.lab.world.ledger.completed();
        assert_eq!(complete, begun);
        siege
    }

    pub(crate) fn new(mut lab: Lab) -> Self {
        let wire: Rc<RefCell<Vec<Recorded>>> = Rc::default();
        let tap = wire.clone();
        lab.world.set_tap(Some(Box::new(move |tapped| {
            let (from, to) = (tapped.from, tapped.to);
            tap.borrow_mut().push(Recorded { from, to, payload: tapped.payload.to_vec() });
        })));
        Self { lab, wire, random: Random::from_seed(7), tally: BTreeMap::new() }
    }

    /// Begins a conversation of that size in one of the networks.
    pub(crate) fn converse(&mut self, network: usize, pair: (usize, usize), most: u64) {
        let id = self.lab.networks[network].id();
        let plan = Plan::random(&mut self.random, id, pair, PORT, most, SECOND);
        self.lab.world.converse(plan.into()).expect("a conversation");
    }

    /// Returns everything that was on the wire so far.
    pub(crate) fn recording(&self) -> Vec<Recorded> {
        self.wire.borrow().clone()
    }

    /// Returns the data packets for node `to` whose session exists.
    pub(crate) fn live_data(&self, to: usize) -> Vec<Recorded> {
        let here = endpoint(to);
        let is_live = |recorded: &Recorded| {
            Data::parse(&recorded.payload).is_ok_and(|data| self.knows(to, data.receiver))
        };
        self.recording().into_iter().filter(|recorded| recorded.to == here && is_live(recorded)).collect()
    }

    /// Returns true if a node has a session of that index.
    pub(crate) fn knows(&self, node: usize, index: SessionIndex) -> bool {
        let node = self.lab.world.machines()[node].node().expect("it runs");
        node.datapath().sessions().get(index).is_some()
    }

    /// Returns true if a node has sent an initiation of that index.
    pub(crate) fn waits_for(&self, node: usize, index: SessionIndex) -> bool {
        let own = |recorded: &&Recorded| recorded.from == endpoint(node);
        let recording = self.wire.borrow();
        let initiations = recording.iter().filter(own).filter_map(|r| Initiation::parse(&r.payload).ok());
        initiations.into_iter().any(|initiation| initiation.sender == index)
    }

    /// Hits a node with datagrams from one address, and checks that each was counted as expected. Where rate
    /// limits permit several verdicts, the first of a class represents all; see [`class`].
    #[track_caller]
    pub(crate) fn strike(&mut self, node: usize, from: SocketAddr, blows: &[(Vec<u8>, &'static str)]) {
        let before = self.lab.world.counters(node);
        let meta = RecvMeta { remote: from, socket: SocketIndex(0), multicast: false, relay: None };
        let datagrams = blows.iter().map(|(datagram, _)| datagram.as_slice());
        self.lab.world.strike(node, meta, datagrams).expect("no violation");
        let after = self.lab.world.counters(node);

        let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
        for (_, verdict) in blows {
            assert!(VERDICTS.contains(verdict), "{verdict} is no verdict");
            *expected.entry(class(verdict)).or_default() += 1;
            *self.tally.entry(verdict).or_default() += 1;
        }
        let mut counted: BTreeMap<&str, u64> = BTreeMap::new();
        for name in VERDICTS.iter().filter(|name| after[*name] != before[*name]) {
            *counted.entry(class(name)).or_default() += after[name] - before[name];
        }
        if counted != expected {
            let single = blows.len() == 1;
            let first = blows.first().map(|(datagram, _)| datagram.as_slice()).filter(|_| single);
            panic!("node {node} counted {counted:?} and not {expected:?} {first:02x?}");
        }
        for name in FORBIDDEN {
            assert_eq!(after[name], before[name], "{name} grew by {blows:02x?}");
        }
    }

    /// Hits a node with the blows in portions, from different addresses.
    #[track_caller]
    pub(crate) fn strike_all(&mut self, node: usize, blows: &[(Vec<u8>, &'static str)]) {
        for portion in blows.chunks(500) {
            let from = if self.random.chance(0.5) { self.stranger() } else { endpoint(1 - node.min(1)) };
            self.strike(node, from, portion);
        }
    }

    /// Hits a node with one genuine datagram of the past. Checks that any one verdict counted it once, and
    /// that it had no effect.
    #[track_caller]
    pub(crate) fn strike_unjudged(&mut self, node: usize, from: SocketAddr, datagram: &[u8]) {
        let before = self.lab.world.counters(node);
        let meta = RecvMeta { remote: from, socket: SocketIndex(0), multicast: false, relay: None };
        self.lab.world.strike(node, meta, [datagram]).expect("no violation");
        let after = self.lab.world.counters(node);
        let grown: Vec<&'static str> =
            VERDICTS.iter().copied().filter(|name| after[name] != before[name]).collect();
        let [verdict] = grown[..] else { panic!("node {node} counted {grown:?} for {datagram:02x?}") };
        assert_eq!(after[verdict], before[verdict] + 1);
        *self.tally.entry(verdict).or_default() += 1;
        for name in FORBIDDEN {
            assert_eq!(after[name], before[name], "{name} grew by {datagram:02x?}");
        }
    }

    /// Adds blows with another kind of verdict to the account.
    pub(crate) fn note(&mut self, what: &'static str, blows: usize) {
        *self.tally.entry(what).or_default() += blows as u64;
    }

    /// Returns an address that no host has.
    pub(crate) fn stranger(&mut self) -> SocketAddr {
        let [a, b, port_high, port_low] = self.random.bytes();
        SocketAddr::from(([198, 18, a, b], u16::from_be_bytes([port_high, port_low]).max(1)))
    }

    /// Checks that all nodes can still talk to each other, and closes the account.
    pub(crate) fn conclude(&mut self, name: &str) {
        let before = self.lab.world.ledger.completed();
        let nodes = self.lab.world.machines().len();
        for pair in [(0, 1), (1, 0), (nodes - 1, 0)] {
            let plan = self.lab.greeting(pair.0, pair.1);
            self.lab.world.converse(plan.into()).expect("a conversation");
        }
        self.lab.run(20 * SECOND);
        let after = self.lab.world.ledger.completed();
        assert_eq!((after.0 - before.0, after.1 - before.1), (3, 3), "they talk as before");
        let total: u64 = self.tally.values().sum();
        eprintln!("{name}: {total} datagrams injected, none accepted: {:?}", self.tally);
    }
}

/// Returns the class of verdicts that differ only by a rate limit.
fn class(verdict: &'static str) -> &'static str {
    match verdict {
        "hellos_limited" => "hellos_unknown",
        "data_too_old" => "data_replayed",
        "handshakes_refused" | "cookies_sent" => "handshake_unauthentic",
        other => other,
    }
}

/// Returns the endpoint of a lab's node `number`.
pub(crate) fn endpoint(number: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number as u8 + 1], 4000))
}

pub(crate) fn secret_network() -> NetworkConfig {
    let id = NetworkId::ad_hoc(2000..=2999).expect("a range");
    NetworkConfig::AdHoc { id, psk: Some(Psk::new([9; 32])) }
}
