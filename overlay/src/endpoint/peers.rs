//! The peer table: a link per peer, with the data that the links' owner keeps for each.

use std::collections::BTreeMap;
use std::time::Instant;

use super::credentials::Shown;
use super::eviction::{Origin, Rank, Worth};
use crate::link::{Link, PeerKey};
use crate::network::NetworkIndex;

/// One peer in one network.
#[derive(Debug)]
pub(super) struct PeerState {
    pub(super) link: Link,
    /// True if listed in a static network, and so never evicted.
    pub(super) listed: bool,
    /// Source prefixes from which the peer was learned.
    pub(super) origin: Origin,
    /// Rank in its network's eviction order.
    pub(super) rank: Option<Rank>,
    /// Time when local discovery last heard the peer.
    pub(super) heard: Option<Instant>,
    /// Credentials shown to each other, in a network that needs them.
    pub(super) shown: Option<Box<Shown>>,
}

impl PeerState {
    pub(super) fn new(link: Link, listed: bool, origin: Origin) -> Self {
        Self { link, listed, origin, rank: None, heard: None, shown: None }
    }

    /// Records that local discovery heard the peer.
    pub(super) fn note_heard(&mut self, now: Instant) {
        self.link.used = now;
        self.heard = Some(now);
        // It is heard, so its goodbye was that of an earlier instance.
        self.link.departed = false;
    }

    /// Returns the value of the peer and the time since which it has no more; `None` for a listed peer, which
    /// must stay.
    ///
    /// `any_proven`: the node has shown that it receives somewhere.
    pub(super) fn worth(&self, any_proven: bool) -> Option<(Worth, Instant)> {
        // The list is itself a limit, so a member never makes room.
        if self.listed {
            return None;
        }
        // Only what this node's programs sent counts: a peer must not keep its place by sending packets
        // itself.
        let sent = self.link.handle.activity().last_data_sent();
        if let Some(sent) = sent.filter(|_| self.link.has_confirmed_session()) {
            return Some((Worth::Used, sent));
        }
        // An instance is known only after a completed handshake.
        let proven = self.link.instance.is_some() || any_proven;
        let worth = match self.link.is_wanted() {
            true => Worth::Wanted,
            false if proven => Worth::Idle,
            false => Worth::Unproven,
        };
        Some((worth, self.link.used))
    }
}

/// All peers of all networks.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// Boxed, because half of a tree's slots are empty.
    table: BTreeMap<PeerKey, Box<PeerState>>,
    next: u64,
}

impl Peers {
    pub(super) fn insert(&mut self, peer: PeerState) -> PeerKey {
        let key = PeerKey(self.next);
        self.next += 1;
        self.table.insert(key, Box::new(peer));
        key
    }

    pub(super) fn get(&self, key: PeerKey) -> Option<&PeerState> {
        self.table.get(&key).map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, key: PeerKey) -> Option<&mut PeerState> {
        self.table.get_mut(&key).map(Box::as_mut)
    }

    pub(super) fn remove(&mut self, key: PeerKey) -> Option<PeerState> {
        self.table.remove(&key).map(|peer| *peer)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerKey, &PeerState)> {
        self.table.iter().map(|(&key, peer)| (key, &**peer))
    }

    /// Returns the keys of the peers that fulfil `condition`.
    pub(super) fn keys(&self, condition: impl Fn(&PeerState) -> bool) -> Vec<PeerKey> {
        self.iter().filter(|(_, peer)| condition(peer)).map(|(key, _)| key).collect()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut PeerState> {
        self.table.values_mut().map(Box::as_mut)
    }

    pub(super) fn of_network(&self, network: NetworkIndex) -> impl Iterator<Item = (PeerKey, &PeerState)> {
        self.iter().filter(move |(_, peer)| peer.link.handle.network() == network)
    }
}
