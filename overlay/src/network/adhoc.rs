//! Ad-hoc networks: no list and no names; the ID names the allowed ports.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::{NetworkConfig, NetworkSummary, Policy, Prefix, StaticMember};
use crate::id::{DiscoveryKey, NetworkId, NetworkKind, NodeId, Psk};

#[derive(Debug)]
pub(super) struct AdHoc {
    id: NetworkId,
    psk: Option<Psk>,
    /// Addresses given to nodes.
    given: BTreeMap<NodeId, Vec<IpAddr>>,
}

impl AdHoc {
    pub(super) fn new(id: NetworkId, psk: Option<Psk>) -> Self {
        Self { id, psk, given: BTreeMap::new() }
    }
}

impl Policy for AdHoc {
    fn id(&self) -> NetworkId {
        self.id
    }

    fn psk(&self) -> Option<&Psk> {
        self.psk.as_ref()
    }

    fn discovery_key(&self) -> DiscoveryKey {
        DiscoveryKey::new(self.id, self.psk.as_ref(), None)
    }

    fn ports(&self) -> RangeInclusive<u16> {
        match self.id.kind() {
            NetworkKind::AdHoc { ports } => ports,
            // This is no ad-hoc network's ID, and is refused before the network is joined.
            NetworkKind::Static | NetworkKind::Managed => RangeInclusive::new(1, 0),
        }
    }

    fn admits_anyone(&self) -> bool {
        true
    }

    fn admits(&self, _: &NodeId) -> bool {
        true
    }

    fn members(&self) -> Vec<&StaticMember> {
        Vec::new()
    }

    fn addresses_of(&self, node: &NodeId) -> Vec<IpAddr> {
        let given = self.given.get(node).into_iter().flatten();
        std::iter::once(self.id.address_of(node).into()).chain(given.copied()).collect()
    }

    fn set_addresses(&mut self, node: &NodeId, addresses: &[IpAddr]) {
        if addresses.is_empty() {
            self.given.remove(node);
        } else {
            self.given.insert(*node, addresses.to_vec());
        }
    }

    fn prefixes(&self) -> Vec<Prefix> {
        vec![self.id.certified_prefix()]
    }

    /// Returns true for any self-certifying address.
    fn may_exist(&self, address: IpAddr) -> bool {
        self.id.certified_prefix().contains(address)
    }

    fn name_of(&self, _: &NodeId) -> Option<&str> {
        None
    }

    fn nodes_named(&self, _: &str) -> Vec<NodeId> {
        Vec::new()
    }

    fn keeps(&self, _: &NodeId) -> bool {
        false
    }

    fn is_described_by(&self, config: &NetworkConfig) -> bool {
        matches!(config, NetworkConfig::AdHoc { id, psk } if (*id, psk) == (self.id, &self.psk))
    }

    fn summary(&self) -> NetworkSummary {
        NetworkSummary {
            kind: "ad-hoc",
            secret: self.psk.is_some(),
            closed: false,
            by_file: false,
            ports: self.ports(),
            prefixes: self.prefixes(),
        }
    }
}
