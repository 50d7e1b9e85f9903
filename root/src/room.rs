//! Who holds how much of the room that there is, and who makes room for others.
//!
//! A node counts from when it has shown where it receives, and a registered one also while it is not there
//! any more. When the limits are reached, of all, of a source prefix or of a wider one, two kinds of nodes
//! give way: first those without a registration, which an honest node has a round trip after its session;
//! then those that are gone and silent. The one that was heard from least recently goes first.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use peersock_overlay::load::{prefix_of, provider_of};
use peersock_primitives::Key;

use crate::Limits;
use crate::budget::Nanos;
use crate::client::SILENCE;
use crate::clients::Slot;

pub(crate) struct Room {
    nodes: usize,
    prefixes: HashMap<u64, Prefix, Key>,
    providers: HashMap<u64, u32, Key>,
    /// Of each share those that may give way.
    order: BTreeSet<(Share, Rank)>,
}

/// The nodes of one source prefix.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Prefix {
    nodes: u32,
    /// When its bucket for relayed bytes is full.
    pub(crate) relay: Nanos,
}

/// Whose room it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Share {
    Prefix(u64),
    Provider(u64),
    All,
}

/// What is lost with a node, from little to much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Worth {
    /// It is not registered.
    Unregistered,
    /// It is, and not where it was.
    Away,
}

/// A node's place in the order: its worth, when it was heard from where it receives, and who it is.
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

    /// A node is there.
    pub(crate) fn take(&mut self, source: IpAddr) {
        self.nodes += 1;
        self.prefixes.entry(prefix_of(source)).or_default().nodes += 1;
        *self.providers.entry(provider_of(source)).or_default() += 1;
    }

    /// A node that was counted there is not any more.
    pub(crate) fn give_back(&mut self, source: IpAddr) {
        self.nodes -= 1;
        let (key, provider) = (prefix_of(source), provider_of(source));
        if let Some(prefix) = self.prefixes.get_mut(&key) {
            prefix.nodes -= 1;
            // The bucket goes with it: nodes that come again pay from their own ones, which begin almost
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

    /// From now on the node may give way.
    pub(crate) fn file(&mut self, source: IpAddr, worth: Worth, heard: Nanos, slot: Slot) {
        self.order.extend(Share::of(source).map(|share| (share, (worth, heard, slot))));
    }

    /// It does so no more.
    pub(crate) fn unfile(&mut self, source: IpAddr, worth: Worth, heard: Nanos, slot: Slot) {
        for share in Share::of(source) {
            self.order.remove(&(share, (worth, heard, slot)));
        }
    }

    /// The share of which a newcomer from there must take the place of another, if it must. A provider's
    /// prefix gets no more than half of the free places once half are taken, but always what a narrow one may
    /// have.
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

    /// Who gives way there, if anybody does.
    pub(crate) fn first(&self, share: Share, now: Nanos) -> Option<Slot> {
        let (of, (worth, heard, slot)) =
            self.order.range((share, (Worth::Unregistered, 0, Slot::FIRST))..).next()?;
        let gives_way = *worth == Worth::Unregistered || now >= heard.saturating_add(SILENCE);
        (*of == share && gives_way).then_some(*slot)
    }
}
