//! A DHT on this machine, and nodes that meet through it.

// Each test program uses a part of this module.
#![allow(dead_code)]

pub(crate) mod liar;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use peersock_dht::{
    Bootstrap, Candidate, CandidateKind, Config, Contact, Event, Nat, Network, NodeTail, Record, Service,
    Settings, Target,
};
use peersock_overlay::{DiscoveryKey, Identity, NetworkId, Psk, PublicIdentity};

/// Timeout of the tests, far longer than anything takes on a busy machine.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(90);

/// A node that meets others.
pub(crate) struct Node {
    pub(crate) service: Service,
    pub(crate) events: Receiver<Event>,
    pub(crate) network: Network,
    pub(crate) identity: PublicIdentity,
    pub(crate) contact: Contact,
}

impl Node {
    pub(crate) fn new(seed: u8, entries: &[SocketAddrV4]) -> Self {
        Self::with(seed, entries, Config::default())
    }

    pub(crate) fn with(seed: u8, entries: &[SocketAddrV4], config: Config) -> Self {
        let identity = Arc::new(Identity::from_seed(&[seed; 32]));
        let mut settings = Settings::new(Bootstrap::Nodes(entries.to_vec()));
        settings.bind = Ipv4Addr::LOCALHOST;
        settings.config = config;
        let (sender, events) = channel();
        let public = *identity.public();
        let service = Service::start(identity, settings, move |event| {
            // The test has ended and needs no more events.
            let _ = sender.send(event);
        })
        .expect("a service");
        let network = service.join(&discovery_key());
        let address = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, seed), 4000).into();
        let contact = Contact::new(Nat::default(), [Candidate { kind: CandidateKind::Mapped, address }]);
        Self { service, events, network, identity: public, contact }
    }

    pub(crate) fn publish(&self) {
        self.service.publish(self.contact.clone());
    }

    pub(crate) fn target(&self) -> Target {
        Target::Address(NodeTail::of(&self.identity.node_id()))
    }

    /// Waits for an event that `wanted` accepts.
    pub(crate) fn wait<T>(&self, what: &str, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let end = Instant::now() + TEST_TIMEOUT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => {
                    if let Some(found) = wanted(event) {
                        return found;
                    }
                }
                Err(_) => panic!("no {what}; {:?}", self.service.counters()),
            }
        }
    }

    /// Looks for a node repeatedly, as a program that waits for it does.
    pub(crate) fn wait_found(&self, target: Target) -> Record {
        self.service.find(self.network, target);
        self.wait("record", |event| match event {
            Event::Found { record, .. } => Some(record),
            Event::NotFound { .. } => {
                self.service.find(self.network, target);
                None
            }
            _ => None,
        })
    }
}

pub(crate) fn discovery_key() -> DiscoveryKey {
    let network = NetworkId::ad_hoc(80..=80).expect("a port range");
    DiscoveryKey::new(network, Some(&Psk::new([3; 32])), None)
}

/// Starts two nodes that publish. One finds the other by its address and knocks. Returns the time until both
/// know each other's candidates.
pub(crate) fn meet(entries: &[SocketAddrV4], seeds: [u8; 2]) -> Duration {
    let begin = Instant::now();
    let [a, b] = seeds.map(|seed| Node::new(seed, entries));
    a.publish();
    b.publish();
    b.service.knock(b.network, a.target().tail());
    let record = b.wait_found(a.target());
    assert_eq!((record.identity, record.contact), (a.identity, a.contact.clone()));
    let knock = a.wait("knock", |event| match event {
        Event::Knocked { knock, .. } => Some(knock),
        _ => None,
    });
    assert_eq!((knock.identity, knock.contact), (b.identity, b.contact.clone()));
    b.service.met(b.network, &a.target().tail());
    begin.elapsed()
}

/// Lets several pairs meet one after another. Prints the median and does not assert it, because tests do not
/// depend on the machine's speed.
pub(crate) fn measure_meetings(what: &str, entries: &[SocketAddrV4], pairs: u8) {
    let mut times: Vec<_> = (0..pairs).map(|pair| meet(entries, [2 * pair + 1, 2 * pair + 2])).collect();
    times.sort_unstable();
    eprintln!(
        "{what}: both know each other's candidates after {:?} in the median of {pairs}; {times:?}",
        times[times.len() / 2]
    );
}
