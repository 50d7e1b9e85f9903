//! The joined networks: who may be a member, who owns which overlay address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::peers::PeerKey;
use crate::id::{DiscoveryKey, NetworkId, NodeId, Psk, PublicIdentity};
use crate::network::{NetworkConfig, NetworkIndex, Prefix, StaticMember};
use crate::session::SessionStats;

/// Most networks that one node joins at a time. Each costs some work per beacon heard.
pub(super) const MAX_NETWORKS: usize = 64;

/// Addresses looked up in vain are remembered this long, so that a handshake starts when their owner is found.
const WANTED_FOR: Duration = Duration::from_secs(10);

/// Most such addresses per network; the one asked for longest ago makes room.
const MAX_WANTED: usize = 64;

#[derive(Debug)]
pub(super) struct Network {
    pub(super) index: NetworkIndex,
    pub(super) id: NetworkId,
    pub(super) psk: Psk,
    pub(super) discovery: DiscoveryKey,
    /// This node's addresses, the self-certifying one first.
    pub(super) addresses: Vec<IpAddr>,
    /// The other members of a static network; in an ad-hoc one everybody may be a member.
    members: Option<BTreeMap<NodeId, StaticMember>>,
    pub(super) by_node: BTreeMap<NodeId, PeerKey>,
    wanted: BTreeMap<IpAddr, Instant>,
    /// This node's name in a static network.
    pub(super) name: Option<String>,
    /// How many peers were forgotten.
    pub(super) forgotten: u64,
    /// What the sessions with those had carried.
    pub(super) past: SessionStats,
}

impl Network {
    /// Takes a valid configuration; `None` if it is static and does not list `own`.
    pub(super) fn new(index: NetworkIndex, config: NetworkConfig, own: &PublicIdentity) -> Option<Self> {
        let id = config.id();
        let own_id = own.node_id();
        let discovery = config.discovery_key();
        let psk = config.psk().cloned().unwrap_or(Psk::open());
        let mut addresses = vec![IpAddr::V6(id.address_of(&own_id))];
        let mut name = None;
        let members = match config {
            NetworkConfig::AdHoc { .. } => None,
            NetworkConfig::Static(network) => {
                let mut members: BTreeMap<_, _> =
                    network.members.into_iter().map(|member| (member.identity.node_id(), member)).collect();
                let own = members.remove(&own_id)?;
                addresses.extend(own.addresses);
                name = own.name;
                Some(members)
            }
        };
        Some(Self {
            index,
            id,
            psk,
            discovery,
            addresses,
            members,
            by_node: BTreeMap::new(),
            wanted: BTreeMap::new(),
            name,
            forgotten: 0,
            past: SessionStats::default(),
        })
    }

    /// Whether another description of the network says the same: the key, the members, and who has which
    /// address.
    pub(super) fn is_like(&self, other: &Network) -> bool {
        let Network { id, psk, addresses, members, .. } = self;
        (*id, psk, addresses, members) == (other.id, &other.psk, &other.addresses, &other.members)
    }

    /// The listed members of a static network; none in others.
    pub(super) fn listed(&self) -> impl Iterator<Item = &StaticMember> {
        self.members.iter().flat_map(BTreeMap::values)
    }

    /// The name that a static network lists for a member.
    pub(super) fn name_of(&self, node: &NodeId) -> Option<&str> {
        self.members.as_ref()?.get(node)?.name.as_deref()
    }

    pub(super) fn is_static(&self) -> bool {
        self.members.is_some()
    }

    /// Whether the holder of these keys may be a member, as far as can be told before its handshake proves the
    /// pre-shared key. Both keys must be the listed ones: the node ID is their hash.
    pub(super) fn admits(&self, identity: &PublicIdentity) -> bool {
        self.members.as_ref().is_none_or(|members| members.contains_key(&identity.node_id()))
    }

    /// The overlay addresses that the holder of these keys owns here.
    pub(super) fn addresses_of(&self, node: &NodeId) -> Vec<IpAddr> {
        let certified = IpAddr::V6(self.id.address_of(node));
        let listed = self.members.as_ref().and_then(|members| members.get(node));
        std::iter::once(certified)
            .chain(listed.into_iter().flat_map(|m| m.addresses.iter().copied()))
            .collect()
    }

    /// Whether a node that is not known yet can own the address: only self-certifying ones of ad-hoc networks, since
    /// the members of static ones are all known.
    pub(super) fn may_exist(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V6(v6) if !self.is_static() && v6.octets()[..6] == self.id.prefix())
    }

    /// Remembers that traffic waits for the owner of this address.
    pub(super) fn want(&mut self, address: IpAddr, now: Instant) {
        self.forget_unwanted(now);
        if self.wanted.len() >= MAX_WANTED && !self.wanted.contains_key(&address) {
            let oldest = self.wanted.iter().min_by_key(|&(_, since)| since).map(|(&address, _)| address);
            oldest.and_then(|address| self.wanted.remove(&address));
        }
        self.wanted.insert(address, now);
    }

    /// Whether traffic waits for one of these addresses; if so it no longer does.
    pub(super) fn take_wanted(&mut self, prefixes: &[Prefix], now: Instant) -> bool {
        self.forget_unwanted(now);
        let before = self.wanted.len();
        self.wanted.retain(|address, _| !prefixes.iter().any(|prefix| prefix.contains(*address)));
        self.wanted.len() < before
    }

    /// Whether traffic waits for anyone.
    pub(super) fn wants_any(&mut self, now: Instant) -> bool {
        self.forget_unwanted(now);
        !self.wanted.is_empty()
    }

    fn forget_unwanted(&mut self, now: Instant) {
        self.wanted.retain(|_, &mut since| now.saturating_duration_since(since) < WANTED_FOR);
    }
}
