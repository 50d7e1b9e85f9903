//! Choice of the peer that makes room in a full peer table, without a search.
//!
//! Each network keeps its forgettable peers in order: first those that never proved to receive anywhere, then
//! by the time they were last asked for or heard, and last those to which this node's programs have sent
//! something, by that time. A peer's rank is checked again only when the peer comes first, or when its
//! attempt or a session ends. So the work for one newcomer does not grow with the table.
//!
//! A peer with a session but without packets from here is worth little, whatever it sends, because identities
//! cost nothing. A peer that programs sent something to within [`EVICTION_MIN_IDLE`] stays. A peer evicted
//! despite a connection loses only its session: the next packet, from either side, makes another one.
//!
//! Strangers can have many identities, but not many addresses. Once a table is half full, a source prefix
//! that holds a quarter as many peers as there are free places gets no more: its newcomers replace its own
//! peers. The same holds for a wider prefix and half of the free places, because one subscriber may have many
//! narrow ones. A relayed peer has the root's prefix. A peer that this node's own programs look for is
//! admitted from anywhere, while there is room at all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Endpoint;
use super::limiter::{prefix_of, provider_of};
use crate::link::PeerKey;
use crate::network::NetworkIndex;

/// Value of a peer, from little to much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// It never proved to receive anywhere: forged addresses can make such peers.
    Unproven,
    /// It has no session, or one on which this node's programs never sent anything.
    Idle,
    /// Traffic waits for it.
    Wanted,
    /// It has a session on which this node's programs have sent something.
    Used,
}

/// Time since the last packet to a peer within which it is not evicted.
const EVICTION_MIN_IDLE: Duration = Duration::from_secs(10);

/// Maximum number of outdated ranks corrected for one newcomer. The next newcomer continues from there.
const MAX_STEPS: usize = 64;

/// Rank of a peer in the order.
pub(super) type Rank = (Worth, Instant, PeerKey);

/// Prefixes of the address from which a peer was learned: the subscriber's and the provider's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Origin {
    narrow: u64,
    wide: u64,
}

/// One prefix with its kind, which decides whether its peers get a fourth or half of the free places.
type Key = (Part, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Fourth,
    Half,
}

impl Origin {
    pub(super) fn of(source: IpAddr) -> Self {
        Self { narrow: prefix_of(source), wide: provider_of(source) }
    }

    fn keys(&self) -> [Key; 2] {
        [(Part::Fourth, self.narrow), (Part::Half, self.wide)]
    }
}

/// Peers of one network that can make room for others, and the number of peers of each prefix.
#[derive(Debug, Default)]
pub(super) struct EvictionOrder {
    all: BTreeSet<Rank>,
    by_prefix: BTreeMap<Key, Holding>,
}

/// Peers that were learned from one source prefix.
#[derive(Debug, Default)]
struct Holding {
    places: BTreeSet<Rank>,
    /// Number of peers, including those that cannot make room.
    peers: usize,
}

impl EvictionOrder {
    /// Counts a new peer of this origin.
    pub(super) fn hold(&mut self, origin: Origin) {
        for key in origin.keys() {
            self.by_prefix.entry(key).or_default().peers += 1;
        }
    }

    /// Uncounts a removed peer of this origin, whose rank was removed before.
    pub(super) fn release(&mut self, origin: Origin) {
        for key in origin.keys() {
            if let Some(holding) = self.by_prefix.get_mut(&key) {
                holding.peers -= 1;
                // Prefixes come and go, so empty accounts must not stay.
                if holding.peers == 0 {
                    self.by_prefix.remove(&key);
                }
            }
        }
    }

    /// Moves a peer of this origin from one rank to another.
    pub(super) fn file(&mut self, origin: Origin, old: Option<Rank>, new: Option<Rank>) {
        let move_in = |places: &mut BTreeSet<Rank>| {
            old.iter().for_each(|old| _ = places.remove(old));
            places.extend(new);
        };
        for key in origin.keys() {
            let Some(holding) = self.by_prefix.get_mut(&key) else { return };
            move_in(&mut holding.places);
        }
        move_in(&mut self.all);
    }

    /// Returns the first peer of all, or of this prefix.
    fn first(&self, prefix: Option<Key>) -> Option<PeerKey> {
        let place = match prefix {
            None => self.all.first(),
            Some(prefix) => self.by_prefix.get(&prefix)?.places.first(),
        };
        place.map(|(_, _, key)| *key)
    }

    /// Returns the prefix in which a newcomer must replace a peer, with `peers` of `limit` places taken;
    /// `None` if the newcomer may have a free place.
    fn full_share(&self, origin: Origin, peers: usize, limit: usize) -> Option<Key> {
        let free = limit.saturating_sub(peers);
        let is_full = |key: &Key| {
            let share = match key.0 {
                Part::Fourth => free / 4,
                Part::Half => free / 2,
            };
            // At least one place, so that a newcomer gets in even when the table is full.
            self.by_prefix.get(key).is_some_and(|holding| holding.peers >= share.max(1))
        };
        origin.keys().into_iter().filter(|_| peers > limit / 2).find(is_full)
    }
}

impl Endpoint {
    /// Makes room in a network for a newcomer with these addresses from `source`, if needed. Returns false if
    /// there is no room.
    pub(super) fn make_room(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        addresses: &[IpAddr],
        source: IpAddr,
    ) -> bool {
        let Some(members) = self.networks.get_mut(&network) else { return false };
        let (limit, peers) = (self.limits.peers_per_network.max(1), members.by_node.len());
        let full_share = members.order.full_share(Origin::of(source), peers, limit);
        // A peer that local programs wait for is exempt, so that others in its prefix cannot keep it out.
        let own = full_share.filter(|_| !members.wants(addresses, now));
        if own.is_none() && peers < limit {
            return true;
        }
        let Some(evicted) = self.evictable(now, network, own) else {
            self.core.counters.peers_refused.increment();
            return false;
        };
        self.core.counters.peers_evicted.increment();
        self.remove_peer(now, evicted);
        true
    }

    /// Returns the first peer that may be forgotten, of all or of one prefix. Corrects the rank of each first
    /// peer that is worth more than its rank says.
    fn evictable(&mut self, now: Instant, network: NetworkIndex, prefix: Option<Key>) -> Option<PeerKey> {
        // Bounded, because each newcomer costs this work.
        for _ in 0..MAX_STEPS {
            let first = self.networks.get(&network)?.order.first(prefix)?;
            self.core.counters.eviction_steps.increment();
            if !self.refile(first) {
                let (worth, since, _) = self.peers.get(first)?.rank?;
                let is_spared =
                    worth == Worth::Used && now.saturating_duration_since(since) < EVICTION_MIN_IDLE;
                return (!is_spared).then_some(first);
            }
        }
        None
    }

    /// Moves a peer to its present rank in its network's order. Returns true if the rank changed.
    pub(super) fn refile(&mut self, key: PeerKey) -> bool {
        let Some(peer) = self.peers.get_mut(key) else { return false };
        let Some(network) = self.networks.get_mut(&peer.link.handle.network()) else { return false };
        let any_proven = self.nodes[peer.link.node].reach.any_proven();
        let new = peer.worth(any_proven).map(|(worth, since)| (worth, since, key));
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
    use crate::session::{Peer, Watched};
    use crate::testing::instant;

    #[test]
    fn the_least_worth_goes_first_and_then_the_one_unused_for_longest() {
        let (mut order, now) = (EvictionOrder::default(), instant());
        let (mut peers, mut nodes) = (Peers::default(), Nodes::default());
        let [one, two, three] = [1, 2, 3].map(|prefix| from(prefix, 0));
        let [a, b, c] = [one, one, two].map(|origin| {
            order.hold(origin);
            let identity = *Identity::from_seed(&[1; 32]).public();
            let node = nodes.find_or_add(&identity.node_id());
            let handle = Peer::new(identity, NetworkIndex(0), id(), &[], Watched::default(), now);
            peers.insert(PeerState::new(Link::new(Arc::new(handle), node, now), false, origin))
        });
        let later = now + Duration::from_secs(1);
        order.file(one, None, Some((Worth::Idle, now, a)));
        order.file(one, None, Some((Worth::Idle, later, b)));
        order.file(two, None, Some((Worth::Unproven, later, c)));
        assert_eq!(
            (order.first(None), order.first(Some(one.keys()[0])), order.first(Some(two.keys()[1]))),
            (Some(c), Some(a), Some(c))
        );
        assert_eq!(order.first(Some(three.keys()[0])), None);
        order.file(one, Some((Worth::Idle, now, a)), None);
        order.file(two, Some((Worth::Unproven, later, c)), None);
        order.release(two);
        assert_eq!((order.first(None), order.first(Some(two.keys()[0]))), (Some(b), None));
    }

    #[test]
    fn a_prefix_never_gets_the_last_free_places() {
        let mut order = EvictionOrder::default();
        let (limit, mut peers) = (1000, 0);
        for prefix in 0..8 {
            let (before, origin) = (peers, from(prefix, 0));
            while order.full_share(origin, peers, limit).is_none() {
                order.hold(origin);
                peers += 1;
            }
            assert!(peers > before, "prefix {prefix} got nothing");
        }
        assert!((501..limit - 50).contains(&peers), "{peers}");
        // A newcomer gets in even when the table is full; only the second of its prefix does not.
        let last = from(99, 0);
        assert!(order.full_share(last, limit, limit).is_none());
        order.hold(last);
        assert!(order.full_share(last, limit, limit).is_some());
        order.release(last);
        assert!(order.full_share(last, limit, limit).is_none());
    }

    #[test]
    fn who_has_many_prefixes_of_one_provider_does_not_get_most_of_a_table() {
        let mut order = EvictionOrder::default();
        let (limit, mut peers) = (1000, 400);
        for prefix in 0..=255 {
            let origin = from(7, prefix);
            while order.full_share(origin, peers, limit).is_none() {
                order.hold(origin);
                peers += 1;
            }
        }
        assert!(peers < limit * 3 / 4, "{peers}");
        assert!(order.full_share(from(8, 0), peers, limit).is_none(), "others have room");
        // IPv6, and IPv4 in IPv6 form.
        let origin = |text: &str| Origin::of(text.parse().unwrap());
        assert_eq!(origin("2001:db8:1::1").wide, origin("2001:db8:ffff::1").wide);
        assert_ne!(origin("2001:db8::1").wide, origin("2001:db9::1").wide);
        assert_eq!(origin("::ffff:192.0.2.9"), origin("192.0.2.1"));
    }

    fn from(wide: u8, narrow: u8) -> Origin {
        Origin::of(IpAddr::from([10, wide, narrow, 1]))
    }

    fn id() -> NetworkId {
        NetworkId::ad_hoc(1..=2).unwrap()
    }
}
