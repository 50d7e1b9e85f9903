use std::time::{Duration, Instant};

use peersock_overlay::PublicIdentity;

use crate::item::Item;
use crate::keys::NodeTail;
use crate::record::{Knock, Record, Refused};

/// The current time on two clocks: one for deadlines, and one that nodes agree about.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// A monotonic clock.
    pub instant: Instant,
    /// The time since the Unix epoch.
    pub unix: Duration,
}

/// One network that a [`Rendezvous`](crate::Rendezvous) takes part in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(pub(super) u32);

/// The node to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The node whose addresses have this tail. Any member can hide its record, none can forge it.
    Address(NodeTail),
    /// A node whose identity is known. Only nodes of the DHT can hide its record.
    Node(PublicIdentity),
}

impl Target {
    /// Returns the tail of the node's addresses.
    pub fn tail(&self) -> NodeTail {
        match self {
            Self::Address(tail) => *tail,
            Self::Node(node) => NodeTail::of(&node.node_id()),
        }
    }
}

/// The number of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub(super) u64);

/// An operation in the DHT.
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

/// A result of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// An item that a node of the DHT has. An operation can have any number of them.
    Value(Item),
    /// The end of the operation. Each operation has exactly one.
    Finished(Outcome),
}

/// The outcome of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The operation has completed.
    Done,
    /// The operation failed or timed out.
    Failed,
    /// The DHT has an item with an equal or higher sequence.
    Taken,
}

/// An event for the node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// This node's record can be found; reported once for each contact.
    Published {
        /// The network.
        network: Network,
    },
    /// A node's record, or a newer one, was found.
    Found {
        /// The network.
        network: Network,
        /// The node's record.
        record: Record,
    },
    /// A search has ended without a record.
    NotFound {
        /// The network.
        network: Network,
        /// The node that was looked for.
        node: NodeTail,
    },
    /// A knock is in the peer's mailbox: begin to punch.
    KnockSent {
        /// The network.
        network: Network,
        /// The peer.
        peer: NodeTail,
        /// The time from now until both sides begin.
        start_in: Duration,
    },
    /// All knocks at a peer have failed, and [`met`](crate::Rendezvous::met) was not called.
    KnockFailed {
        /// The network.
        network: Network,
        /// The peer.
        peer: NodeTail,
    },
    /// A peer wants to meet: decide about it, then begin to punch.
    Knocked {
        /// The network.
        network: Network,
        /// The knock, with the peer's identity and contact.
        knock: Knock,
        /// The time from now until both sides begin.
        start_in: Duration,
    },
}

/// Settings of a [`Rendezvous`](crate::Rendezvous).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Interval at which records are written again. Nodes of the DHT keep them for two hours (BEP 44), but
    /// come and go. Default 30 minutes, at least 10 s.
    pub republish: Duration,
    /// Validity of a record. Default 90 minutes, at most 18 hours.
    pub lifetime: Duration,
    /// Number of slots of this node's mailbox. More slots let more nodes knock at once, and each costs a
    /// look-up per reading. Default and minimum 2, at most 8.
    pub slots: u8,
    /// Interval at which an active node reads its mailbox. A node is active for [`Self::active`] after its
    /// first publication, a knock in either direction, or a search. A reading never begins before the last
    /// one has ended. Default 1 s, at least 100 ms.
    pub poll_active: Duration,
    /// Interval at which an idle node reads its mailbox. Default 15 s, at most 255 s.
    pub poll_idle: Duration,
    /// Time for which a node stays active. Default 2 minutes.
    pub active: Duration,
    /// Duration of a search. Default 60 s.
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
    /// Returns the nearest allowed values.
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

/// Numbers of items that were read and not used, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Items not sealed by a member for this place.
    pub not_sealed: u64,
    /// Items of wrong form.
    pub malformed: u64,
    /// Items of another node than the one looked for, or of this node itself.
    pub other_node: u64,
    /// Items with a wrong signature: the item's or the node's.
    pub bad_signature: u64,
    /// Items that were too old.
    pub expired: u64,
    /// Items from the future.
    pub from_future: u64,
    /// Items of which this or a newer version had been seen before.
    pub replayed: u64,
    /// Items beyond the rate limit.
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
