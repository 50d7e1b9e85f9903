//! The hidden network of this node and its roots: sessions, and nothing else. It has no addresses and no
//! look-ups, and no user can join it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::{NetworkConfig, NetworkSummary, Policy, Prefix, StaticMember};
use crate::id::{DiscoveryKey, NetworkId, NodeId, Psk};

/// Policy that admits the configured roots. It applies to nodes that begin handshakes, which roots never do.
#[derive(Debug, Default)]
pub(crate) struct Roots {
    pub(crate) nodes: BTreeSet<NodeId>,
}

impl Policy for Roots {
    fn id(&self) -> NetworkId {
        NetworkId::ROOTS
    }

    fn psk(&self) -> Option<&Psk> {
        None
    }

    fn discovery_key(&self) -> DiscoveryKey {
        DiscoveryKey::new(self.id(), None, None)
    }

    fn ports(&self) -> RangeInclusive<u16> {
        RangeInclusive::new(1, 0)
    }

    fn admits_anyone(&self) -> bool {
        false
    }

    fn admits(&self, node: &NodeId) -> bool {
        self.nodes.contains(node)
    }

    fn members(&self) -> Vec<&StaticMember> {
        Vec::new()
    }

    fn addresses_of(&self, _: &NodeId) -> Vec<IpAddr> {
        Vec::new()
    }

    fn set_addresses(&mut self, _: &NodeId, _: &[IpAddr]) {}

    fn prefixes(&self) -> Vec<Prefix> {
        Vec::new()
    }

    fn may_exist(&self, _: IpAddr) -> bool {
        false
    }

    fn name_of(&self, _: &NodeId) -> Option<&str> {
        None
    }

    fn nodes_named(&self, _: &str) -> Vec<NodeId> {
        Vec::new()
    }

    fn keeps(&self, node: &NodeId) -> bool {
        self.admits(node)
    }

    fn is_described_by(&self, _: &NetworkConfig) -> bool {
        false
    }

    fn summary(&self) -> NetworkSummary {
        NetworkSummary {
            kind: "roots",
            secret: false,
            closed: true,
            by_file: false,
            ports: self.ports(),
            prefixes: self.prefixes(),
        }
    }
}
