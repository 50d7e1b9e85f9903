//! Shares of the node table, and the eviction order.
//!
//! A node counts from the time when it has shown that it receives. A registered node also counts while it is
//! absent. When a limit is reached, of all nodes, of a source prefix or of a wider one, two kinds of nodes
//! are evicted. First go nodes without a registration, because an honest node registers a round trip after
//! its session; then those that are gone and silent. The node heard least recently goes first.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use peersock_overlay::load::{prefix_of, provider_of};
use peersock_primitives::Key;

use crate::Limits;
use crate::budget::Nanos;
use crate::clients::Slot;

/// Silence after which a node counts as absent: it has missed three keepalives.
pub(crate) const ABSENT_SILENCE: Nanos = Duration::from_secs(90).as_nanos() as Nanos;

pub(crate) struct Room {
    nodes: usize,
    prefixes: HashMap<u64, Prefix, Key>,
    providers: HashMap<u64, u32, Key>,
    /// Nodes that may be evicted, for each share.
    order: BTreeSet<(Share, Rank)>,
}

/// Nodes of one source prefix.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Prefix {
    nodes: u32,
    /// Time at which its bucket for relayed bytes is full.
    pub(crate) relay: Nanos,
}

/// Part of the table that a limit covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Share {
    Prefix(u64),
    Provider(u64),
    All,
}

/// Loss if a node is evicted, from little to much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Worth {
    /// Not registered.
    Unregistered,
    /// Registered, and no longer at its place.
    Away,
}

/// Position of a node in the order: its worth, the time it was last heard at its place, and its slot.
type Rank = (Worth, Nanos, Slot);

impl Share {
    fn of(source: IpAddr) -> [Self; 3] {
        [Self::Prefix(prefix_of(source)), Self::Provider(provider_of(source)), Self::All]
    }
}

impl Room {
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        Self {
            nodes: 0,
            prefixes: HashMap::with_hasher(Key::new(seed, "prefixes")),
            providers: HashMap::with_hasher(Key::new(seed, "providers")),
            order: BTreeSet::new(),
        }
    }

    pub(crate) fn nodes(&self) -> usize {
        self.nodes
    }

    pub(crate) fn prefix(&mut self, source: IpAddr) -> Option<&mut Prefix> {
        self.prefixes.get_mut(&prefix_of(source))
    }

    /// Counts a node.
    pub(crate) fn take(&mut self, source: IpAddr) {
        self.nodes += 1;
        self.prefixes.entry(prefix_of(source)).or_default().nodes += 1;
        *self.providers.entry(provider_of(source)).or_default() += 1;
    }

    /// Stops counting a node.
    pub(crate) fn give_back(&mut self, source: IpAddr) {
        self.nodes -= 1;
        let (key, provider) = (prefix_of(source), provider_of(source));
        if let Some(prefix) = self.prefixes.get_mut(&key) {
            prefix.nodes -= 1;
            // The bucket goes with the prefix: returning nodes pay from their own buckets, which begin almost
            // empty.
            if prefix.nodes == 0 {
                self.prefixes.remove(&key);
            }
        }
        if let Some(nodes) = self.providers.get_mut(&provider) {
            *nodes -= 1;
            if *nodes == 0 {
                self.providers.remove(&provider);
            }
        }
    }

    /// Makes the node evictable.
    pub(crate) fn file(&mut self, source: IpAddr, worth: Worth, heard: Nanos, slot: Slot) {
        self.order.extend(Share::of(source).map(|share| (share, (worth, heard, slot))));
    }

    /// Makes the node not evictable.
    pub(crate) fn unfile(&mut self, source: IpAddr, worth: Worth, heard: Nanos, slot: Slot) {
        for share in Share::of(source) {
            self.order.remove(&(share, (worth, heard, slot)));
        }
    }

    /// Returns the share in which a newcomer must replace another node, if any. Once half of all places are
    /// taken, a provider's prefix gets no more than half of the free ones, but always as many as a narrow
    /// prefix.
    pub(crate) fn full(&self, source: IpAddr, limits: &Limits) -> Option<Share> {
        let free = limits.nodes.saturating_sub(self.nodes);
        let is_full = |share: &Share| match share {
            Share::Prefix(prefix) => {
                self.prefixes.get(prefix).is_some_and(|prefix| prefix.nodes >= limits.nodes_per_prefix)
            }
            Share::Provider(provider) => {
                let most = (free / 2).max(limits.nodes_per_prefix as usize);
                self.nodes > limits.nodes / 2
                    && self.providers.get(provider).is_some_and(|nodes| *nodes as usize >= most)
            }
            Share::All => free == 0,
        };
        Share::of(source).into_iter().find(is_full)
    }

    /// Returns the node that is evicted from a share, if any.
    pub(crate) fn first(&self, share: Share, now: Nanos) -> Option<Slot> {
        let (of, (worth, heard, slot)) =
            self.order.range((share, (Worth::Unregistered, 0, Slot::FIRST))..).next()?;
        let gives_way = *worth == Worth::Unregistered || now >= heard.saturating_add(ABSENT_SILENCE);
        (*of == share && gives_way).then_some(*slot)
    }
}
