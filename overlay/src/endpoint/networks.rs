//! The joined networks: their policies, their peers by node and by address, and the addresses being looked
//! up.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::asking::Asking;
use super::eviction::EvictionOrder;
use super::revocations::Pull;
use super::rules::RulesSpread;
use crate::id::{DiscoveryKey, NetworkId, NodeId, Psk};
use crate::link::PeerKey;
use crate::network::{NetworkIndex, Policy, Prefix, RootsPolicy};
use crate::session::SessionStats;

/// Maximum number of networks that one node joins at a time. Each costs some work per beacon heard.
pub(super) const MAX_NETWORKS: usize = 64;

/// Time after the last look-up of an address for which beacons ask for it.
const ASKED_FOR: Duration = Duration::from_secs(10);

/// Time for which a failed look-up is remembered, so that a handshake starts when the owner is found: the
/// longest round trip plus the other node's queueing time.
const FAILED_LOOKUP_LIFETIME: Duration = Duration::from_secs(12);

/// Maximum number of such addresses per network; the one asked for longest ago makes room.
const MAX_WANTED: usize = 64;

/// The joined networks by handle, and the roots' hidden one, which only explicit queries see.
#[derive(Debug)]
pub(super) struct Networks {
    joined: BTreeMap<NetworkIndex, JoinedNetwork>,
    roots: JoinedNetwork,
}

impl Default for Networks {
    fn default() -> Self {
        let roots = JoinedNetwork::new(NetworkIndex::ROOTS, Box::new(RootsPolicy::default()));
        Self { joined: BTreeMap::new(), roots }
    }
}

impl Networks {
    pub(super) fn get(&self, index: &NetworkIndex) -> Option<&JoinedNetwork> {
        if *index == NetworkIndex::ROOTS { Some(&self.roots) } else { self.joined.get(index) }
    }

    pub(super) fn get_mut(&mut self, index: &NetworkIndex) -> Option<&mut JoinedNetwork> {
        if *index == NetworkIndex::ROOTS { Some(&mut self.roots) } else { self.joined.get_mut(index) }
    }

    pub(super) fn insert(&mut self, index: NetworkIndex, network: JoinedNetwork) {
        self.joined.insert(index, network);
    }

    pub(super) fn remove(&mut self, index: &NetworkIndex) -> Option<JoinedNetwork> {
        self.joined.remove(index)
    }

    /// Returns the networks that users have joined, in the order of joining.
    pub(super) fn values(&self) -> impl Iterator<Item = &JoinedNetwork> + Clone {
        self.joined.values()
    }

    /// Returns the same to change them.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut JoinedNetwork> {
        self.joined.values_mut()
    }

    /// Returns true if users have joined no network.
    pub(super) fn is_empty(&self) -> bool {
        self.joined.is_empty()
    }

    /// Returns the number of networks that users have joined.
    pub(super) fn len(&self) -> usize {
        self.joined.len()
    }

    /// Sets which nodes are roots.
    pub(super) fn set_roots(&mut self, policy: RootsPolicy) {
        self.roots.policy = Box::new(policy);
    }

    /// Returns true if a node is one of this node's roots.
    pub(super) fn is_root(&self, node: &NodeId) -> bool {
        self.roots.policy.admits(node)
    }
}

#[derive(Debug)]
pub(super) struct JoinedNetwork {
    pub(super) index: NetworkIndex,
    pub(super) id: NetworkId,
    /// Decisions about membership, addresses and names.
    pub(super) policy: Box<dyn Policy>,
    /// Key for handshakes: 32 zero bytes in an open network.
    pub(super) psk: Psk,
    pub(super) discovery: DiscoveryKey,
    pub(super) by_node: BTreeMap<NodeId, PeerKey>,
    wanted: BTreeMap<IpAddr, Instant>,
    /// Questions to controllers that are not answered yet.
    pub(super) asking: Asking,
    /// Sets of revocations that are being fetched from a peer, one of each issuer.
    pub(super) pulls: BTreeMap<NodeId, Pull>,
    /// Access rules that are being fetched, and repetitions of this node's word about its own.
    pub(super) rules: RulesSpread,
    /// Time of the next word about heads to all peers.
    pub(super) have_at: Option<Instant>,
    /// Time up to which the members are noted that this node has sent data to.
    pub(super) used_until: Option<Instant>,
    /// Order in which peers make room for newcomers.
    pub(super) order: EvictionOrder,
    /// Number of forgotten peers.
    pub(super) forgotten: u64,
    /// Traffic of the sessions of forgotten peers.
    pub(super) past: SessionStats,
}

impl JoinedNetwork {
    pub(super) fn new(index: NetworkIndex, policy: Box<dyn Policy>) -> Self {
        Self {
            index,
            id: policy.id(),
            // One handshake for all networks: an open one mixes in zeros, which proves nothing.
            psk: policy.psk().cloned().unwrap_or(Psk::open()),
            discovery: policy.discovery_key(),
            policy,
            by_node: BTreeMap::new(),
            wanted: BTreeMap::new(),
            asking: Asking::default(),
            pulls: BTreeMap::new(),
            rules: RulesSpread::default(),
            have_at: None,
            used_until: None,
            order: EvictionOrder::default(),
            forgotten: 0,
            past: SessionStats::default(),
        }
    }

    /// Records that traffic waits for the owner of this address.
    pub(super) fn want(&mut self, address: IpAddr, now: Instant) {
        self.forget_unwanted(now);
        // A program that scans a network would otherwise fill the memory.
        if self.wanted.len() >= MAX_WANTED && !self.wanted.contains_key(&address) {
            let oldest = self.wanted.iter().min_by_key(|&(_, since)| since).map(|(&address, _)| address);
            oldest.and_then(|address| self.wanted.remove(&address));
        }
        self.wanted.insert(address, now);
    }

    /// Returns true if traffic waits for one of these addresses.
    pub(super) fn wants(&mut self, addresses: &[IpAddr], now: Instant) -> bool {
        self.forget_unwanted(now);
        addresses.iter().any(|address| self.wanted.contains_key(address))
    }

    /// Returns true if traffic waits for an address in one of these prefixes, and forgets that it waits.
    pub(super) fn take_wanted(&mut self, prefixes: &[Prefix], now: Instant) -> bool {
        self.forget_unwanted(now);
        let before = self.wanted.len();
        // Taken, so that one demand begins one handshake, however many hellos follow.
        self.wanted.retain(|address, _| !prefixes.iter().any(|prefix| prefix.contains(*address)));
        self.wanted.len() < before
    }

    /// Returns true if beacons should ask for an address.
    pub(super) fn asks(&self, now: Instant) -> bool {
        self.wanted.values().any(|&since| now.saturating_duration_since(since) < ASKED_FOR)
    }

    fn forget_unwanted(&mut self, now: Instant) {
        self.wanted.retain(|_, &mut since| now.saturating_duration_since(since) < FAILED_LOOKUP_LIFETIME);
    }
}
