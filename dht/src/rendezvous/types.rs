use std::time::{Duration, Instant};

use peersock_overlay::PublicIdentity;

use crate::item::Item;
use crate::keys::NodeTail;
use crate::record::{Knock, Record, Refused};

/// What time it is, on both clocks: one for deadlines, and one that nodes agree about.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let now = peersock_dht::Moment { instant: Instant::now(), unix: Duration::from_secs(1_700_000_000) };
/// assert_eq!(now.unix.as_secs(), 1_700_000_000);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// A clock that never goes back.
    pub instant: Instant,
    /// The time since the Unix epoch.
    pub unix: Duration,
}

/// One network that a [`Rendezvous`](crate::Rendezvous) takes part in.
///
/// ```
/// use std::collections::BTreeMap;
///
/// let names: BTreeMap<peersock_dht::Network, &str> = BTreeMap::new();
/// assert!(names.is_empty());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(pub(super) u32);

/// Who is looked for.
///
/// ```
/// use peersock_dht::{NodeTail, Target};
/// use peersock_overlay::Identity;
///
/// let node = *Identity::from_seed(&[1; 32]).public();
/// assert_eq!(Target::Node(node).tail(), NodeTail::of(&node.node_id()));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The node with an address that ends so. Any member can hide its record, none can forge it.
    Address(NodeTail),
    /// A node whose identity is known. Nobody can hide its record, except from nodes of the DHT.
    Node(PublicIdentity),
}

impl Target {
    /// What the node's addresses end in.
    pub fn tail(&self) -> NodeTail {
        match self {
            Self::Address(tail) => *tail,
            Self::Node(node) => NodeTail::of(&node.node_id()),
        }
    }
}

/// Names one operation.
///
/// ```
/// use std::collections::BTreeSet;
///
/// let running: BTreeSet<peersock_dht::OperationId> = BTreeSet::new();
/// assert!(running.is_empty());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub(super) u64);

/// What to do in the DHT.
///
/// ```
/// let get = peersock_dht::Operation::Get { key: [1; 32] };
/// assert_eq!(get, peersock_dht::Operation::Get { key: [1; 32] });
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Read the item of that key, from all nodes of the DHT that should have it.
    Get {
        /// The item's public key.
        key: [u8; 32],
    },
    /// Store an item.
    Put(Item),
}

/// What came of an operation.
///
/// ```
/// use peersock_dht::{Answer, Outcome};
///
/// assert_eq!(Answer::Finished(Outcome::Done), Answer::Finished(Outcome::Done));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A node of the DHT has this. There can be any number of it.
    Value(Item),
    /// The operation is over. There is exactly one of it.
    Finished(Outcome),
}

/// How an operation ended.
///
/// ```
/// assert_ne!(peersock_dht::Outcome::Done, peersock_dht::Outcome::Taken);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Somebody has answered.
    Done,
    /// Nobody has.
    Failed,
    /// There is an item with a higher sequence.
    Taken,
}

/// What a node is told.
///
/// ```
/// fn log(event: &peersock_dht::Event) {
///     if let peersock_dht::Event::Knocked { knock, .. } = event {
///         println!("{:?} wants to meet", knock.identity);
///     }
/// }
/// # let _ = log;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// This node's record can be found: told once for each contact.
    Published {
        /// Where.
        network: Network,
    },
    /// A node's record was found, or a newer one.
    Found {
        /// Where.
        network: Network,
        /// What the node says of itself.
        record: Record,
    },
    /// A search has ended without a record.
    NotFound {
        /// Where.
        network: Network,
        /// Who was looked for.
        node: NodeTail,
    },
    /// A knock is in the peer's mailbox: begin to punch.
    KnockSent {
        /// Where.
        network: Network,
        /// At whose door.
        peer: NodeTail,
        /// How long from now both sides begin.
        start_in: Duration,
    },
    /// All knocks at a peer are over, and [`met`](crate::Rendezvous::met) was not called.
    KnockFailed {
        /// Where.
        network: Network,
        /// At whose door.
        peer: NodeTail,
    },
    /// Somebody wants to meet: admit it, or not; then begin to punch.
    Knocked {
        /// Where.
        network: Network,
        /// Who, and how to reach it.
        knock: Knock,
        /// How long from now both sides begin.
        start_in: Duration,
    },
}

/// Settings of a [`Rendezvous`](crate::Rendezvous).
///
/// ```
/// let config = peersock_dht::Config { slots: 4, ..Default::default() };
/// assert_eq!(config.slots, 4);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// How often what is published is written again. Nodes of the DHT keep it for two hours (BEP 44), but
    /// come and go. Default 30 minutes, at least 10 s.
    pub republish: Duration,
    /// How long a record is valid. Default 90 minutes, at most 18 hours.
    pub lifetime: Duration,
    /// How many slots this node's mailbox has: more let more nodes knock at once, and each costs a look-up
    /// each time. Default and least 2, at most 8.
    pub slots: u8,
    /// How often the mailbox is read while something happens: for [`Self::active`] after a publication when
    /// nothing was published, a knock, a search or a knock of one's own. Default 1 s, at least 100 ms. One
    /// reading begins when the last has ended at the earliest.
    pub poll_active: Duration,
    /// How often it is read otherwise. Default 15 s, at most 255 s.
    pub poll_idle: Duration,
    /// How long "while something happens" lasts. Default 2 minutes.
    pub active: Duration,
    /// How long a node is looked for. Default 60 s.
    pub search: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            republish: Duration::from_secs(30 * 60),
            lifetime: Duration::from_secs(90 * 60),
            slots: 2,
            poll_active: Duration::from_secs(1),
            poll_idle: Duration::from_secs(15),
            active: Duration::from_secs(120),
            search: Duration::from_secs(60),
        }
    }
}

impl Config {
    /// The nearest values that are allowed.
    pub(super) fn within_limits(self) -> Self {
        let poll_idle = self.poll_idle.clamp(Duration::from_secs(1), Duration::from_secs(255));
        Self {
            republish: self.republish.max(Duration::from_secs(10)),
            lifetime: self.lifetime.clamp(Duration::from_secs(60), Duration::from_secs(18 * 3600)),
            slots: self.slots.clamp(Record::MIN_SLOTS, Record::MAX_SLOTS),
            poll_active: self.poll_active.clamp(Duration::from_millis(100), poll_idle),
            poll_idle,
            ..self
        }
    }
}

/// How often something that was read was not used, by reason.
///
/// ```
/// assert_eq!(peersock_dht::Counters::default().replayed, 0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Not sealed by a member for this place.
    pub not_sealed: u64,
    /// The form was wrong.
    pub malformed: u64,
    /// It was of another node than the one looked for, or this node's own.
    pub other_node: u64,
    /// A signature was wrong: the item's or the node's.
    pub bad_signature: u64,
    /// It was too old.
    pub expired: u64,
    /// It was from the future.
    pub from_future: u64,
    /// It, or a newer one, had been seen before.
    pub replayed: u64,
    /// There were too many.
    pub over_rate: u64,
}

impl Counters {
    pub(super) fn count(&mut self, reason: Refused) {
        *match reason {
            Refused::Sealed => &mut self.not_sealed,
            Refused::Form => &mut self.malformed,
            Refused::Node => &mut self.other_node,
            Refused::Signature => &mut self.bad_signature,
            Refused::Expired => &mut self.expired,
            Refused::Future => &mut self.from_future,
            Refused::Replay => &mut self.replayed,
            Refused::Rate => &mut self.over_rate,
        } += 1;
    }
}
