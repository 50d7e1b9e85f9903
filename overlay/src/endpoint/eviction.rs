//! Who makes room in a full peer table, found without a search.
//!
//! Each network keeps the peers that may be forgotten in order: first those that never proved to receive anywhere,
//! then by when they were last asked for or heard of. A peer's place is looked at again only when it comes first, or
//! when its attempt or a session ends; what makes it worth more in between moves it then. So the work for one newcomer
//! does not grow with the table.
//!
//! Strangers can have many identities, but not many addresses. Once a table is half full, a source prefix that holds
//! a quarter as many peers as there are free places gets no more of them: its newcomers take the places of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use super::Endpoint;
use super::load::prefix_of;
use crate::link::PeerKey;
use crate::network::NetworkIndex;

/// What is lost with a peer, from little to much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// It never proved to receive anywhere: anybody can make such a peer from forged addresses.
    Unproven,
    /// It has no session, or one on which this node never sent anything.
    Idle,
    /// Traffic waits for it.
    Wanted,
}

/// A peer's place in the order, its rank.
pub(super) type Rank = (Worth, Instant, PeerKey);

/// The peers of one network that can make room for others, and who holds how many.
#[derive(Debug, Default)]
pub(super) struct EvictionOrder {
    all: BTreeSet<Rank>,
    by_prefix: BTreeMap<u64, Holding>,
}

/// The peers that were learned of from one source prefix.
#[derive(Debug, Default)]
struct Holding {
    places: BTreeSet<Rank>,
    /// Those that cannot make room included.
    peers: usize,
}

impl EvictionOrder {
    pub(super) fn hold(&mut self, prefix: u64) {
        self.by_prefix.entry(prefix).or_default().peers += 1;
    }

    /// A peer of this prefix is gone; its place was given up before.
    pub(super) fn release(&mut self, prefix: u64) {
        if let Some(holding) = self.by_prefix.get_mut(&prefix) {
            holding.peers -= 1;
            if holding.peers == 0 {
                self.by_prefix.remove(&prefix);
            }
        }
    }

    /// Moves a peer of this prefix from one place to another.
    pub(super) fn file(&mut self, prefix: u64, old: Option<Rank>, new: Option<Rank>) {
        let Some(holding) = self.by_prefix.get_mut(&prefix) else { return };
        for places in [&mut self.all, &mut holding.places] {
            old.iter().for_each(|old| _ = places.remove(old));
            places.extend(new);
        }
    }

    /// The first of all, or of this prefix.
    fn first(&self, prefix: Option<u64>) -> Option<PeerKey> {
        let place = match prefix {
            None => self.all.first(),
            Some(prefix) => self.by_prefix.get(&prefix)?.places.first(),
        };
        place.map(|(_, _, key)| *key)
    }

    /// Whether a newcomer from this prefix must take the place of one from there, with so many peers of `limit`.
    fn has_its_share(&self, prefix: u64, peers: usize, limit: usize) -> bool {
        let share = limit.saturating_sub(peers) / 4;
        peers > limit / 2 && self.by_prefix.get(&prefix).is_some_and(|holding| holding.peers >= share.max(1))
    }
}

impl Endpoint {
    /// Makes room in a network for a newcomer from `source`, if that needs any; false if there is none for it.
    pub(super) fn make_room(&mut self, now: Instant, network: NetworkIndex, source: IpAddr) -> bool {
        let Some(members) = self.networks.get(&network) else { return false };
        let (prefix, peers) = (prefix_of(source), members.by_node.len());
        let limit = self.limits.peers_per_network.max(1);
        let own = members.order.has_its_share(prefix, peers, limit).then_some(prefix);
        if own.is_none() && peers < limit {
            return true;
        }
        let Some(evicted) = self.evictable(network, own) else {
            self.core.counters.peers_refused.increment();
            return false;
        };
        self.core.counters.peers_evicted.increment();
        self.remove_peer(now, evicted);
        true
    }

    /// The first that may be forgotten, of all or of one prefix. Ends, because each peer that was worth more than its
    /// place said is put where it belongs.
    fn evictable(&mut self, network: NetworkIndex, prefix: Option<u64>) -> Option<PeerKey> {
        loop {
            let first = self.networks.get(&network)?.order.first(prefix)?;
            self.core.counters.eviction_steps.increment();
            if !self.refile(first) {
                return Some(first);
            }
        }
    }

    /// Puts a peer where it belongs in its network's order; true if that was not where it was.
    pub(super) fn refile(&mut self, key: PeerKey) -> bool {
        let Some(peer) = self.peers.get_mut(key) else { return false };
        let Some(network) = self.networks.get_mut(&peer.link.handle.network()) else { return false };
        let any_proven = self.nodes[peer.link.node].reach.any_proven();
        let new = peer.worth(any_proven).map(|worth| (worth, peer.link.used, key));
        let old = std::mem::replace(&mut peer.rank, new);
        if old != new {
            network.order.file(peer.origin, old, new);
        }
        old != new
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::nodes::Nodes;
    use super::super::peers::{PeerState, Peers};
    use super::*;
    use crate::id::{Identity, NetworkId};
    use crate::link::Link;
    use crate::session::Peer;
    use crate::testing::instant;

    #[test]
    fn the_least_worth_goes_first_and_then_the_one_unused_for_longest() {
        let (mut order, now) = (EvictionOrder::default(), instant());
        let (mut peers, mut nodes) = (Peers::default(), Nodes::default());
        let [a, b, c] = [1, 1, 2].map(|prefix| {
            order.hold(prefix);
            let identity = *Identity::from_seed(&[1; 32]).public();
            let node = nodes.find_or_add(&identity.node_id());
            let handle = Peer::new(identity, NetworkIndex(0), id(), &[], now);
            peers.insert(PeerState::new(Link::new(Arc::new(handle), node, now), false, prefix))
        });
        let later = now + Duration::from_secs(1);
        order.file(1, None, Some((Worth::Idle, now, a)));
        order.file(1, None, Some((Worth::Idle, later, b)));
        order.file(2, None, Some((Worth::Unproven, later, c)));
        assert_eq!(
            (order.first(None), order.first(Some(1)), order.first(Some(2))),
            (Some(c), Some(a), Some(c))
        );
        assert_eq!((order.first(Some(0)), order.first(Some(3))), (None, None));
        order.file(1, Some((Worth::Idle, now, a)), None);
        order.file(2, Some((Worth::Unproven, later, c)), None);
        order.release(2);
        assert_eq!((order.first(None), order.first(Some(2))), (Some(b), None));
    }

    #[test]
    fn a_prefix_never_gets_the_last_free_places() {
        let mut order = EvictionOrder::default();
        let (limit, mut peers) = (1000, 0);
        for prefix in 0..8 {
            let before = peers;
            while !order.has_its_share(prefix, peers, limit) {
                order.hold(prefix);
                peers += 1;
            }
            assert!(peers > before, "prefix {prefix} got nothing");
        }
        assert!((501..limit - 50).contains(&peers), "{peers}");
        // A newcomer gets in even when all is taken; it is the second of its prefix that does not.
        assert!(!order.has_its_share(99, limit, limit));
        order.hold(99);
        assert!(order.has_its_share(99, limit, limit));
        order.release(99);
        assert!(!order.has_its_share(99, limit, limit));
    }
    fn id() -> NetworkId {
        NetworkId::ad_hoc(1..=2).unwrap()
    }
}
