//! The peer table: a link per peer, and what the owner of the links keeps beside each.

use std::collections::BTreeMap;
use std::time::Instant;

use super::eviction::{Origin, Rank, Worth};
use crate::link::{Link, PeerKey};
use crate::network::NetworkIndex;

/// One peer in one network.
#[derive(Debug)]
pub(super) struct PeerState {
    pub(super) link: Link,
    /// Listed in a static network: never evicted.
    pub(super) listed: bool,
    /// The source prefixes from which it was learned of.
    pub(super) origin: Origin,
    /// Where it stands in its network's order of those that can make room.
    pub(super) rank: Option<Rank>,
    /// When local discovery last heard of it.
    pub(super) heard: Option<Instant>,
}

impl PeerState {
    pub(super) fn new(link: Link, listed: bool, origin: Origin) -> Self {
        Self { link, listed, origin, rank: None, heard: None }
    }

    /// Notes that local discovery heard of it.
    pub(super) fn note_heard(&mut self, now: Instant) {
        self.link.used = now;
        self.heard = Some(now);
        self.link.departed = false;
    }

    /// What is lost with it, and since when it is no more than that; `None` if it must stay, because it is
    /// listed.
    ///
    /// `any_proven`: the node has shown that it receives somewhere.
    pub(super) fn worth(&self, any_proven: bool) -> Option<(Worth, Instant)> {
        if self.listed {
            return None;
        }
        let sent = self.link.handle.activity().last_data_sent();
        if let Some(sent) = sent.filter(|_| self.link.has_confirmed_session()) {
            return Some((Worth::Used, sent));
        }
        // The instance is that of a handshake that was completed.
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
    /// In boxes: half of a tree's places are empty.
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

    /// Names the peers for which the condition holds.
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
