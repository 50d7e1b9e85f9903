//! The joined networks, as both cores know them: a list that is replaced as a whole and read without copying.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, RwLock};

use peersock_overlay::{NetworkId, NetworkIndex};
use peersock_stack::{Cidr, InterfaceId};

use super::Datapath;
use crate::sync;

/// A joined network as both cores know it.
#[derive(Debug, Clone)]
pub struct JoinedNetwork {
    /// Its ID.
    pub id: NetworkId,
    /// The overlay's handle.
    pub index: NetworkIndex,
    /// The stack's handle.
    pub interface: InterfaceId,
    /// This node's addresses in it, the self-certifying one first.
    pub addresses: Vec<IpAddr>,
    /// The same, each with the length of the network's prefix in which it lies.
    pub prefixes: Vec<Cidr>,
    /// The addresses that are reached over the network: its prefixes of the families in which this node has
    /// an address.
    pub routes: Vec<Cidr>,
    /// The TCP and UDP ports on which services may be offered and reached.
    pub ports: RangeInclusive<u16>,
}

/// The list, in the order of joining.
#[derive(Default)]
pub(super) struct Networks(RwLock<Arc<[JoinedNetwork]>>);

impl Networks {
    pub(super) fn add(&self, network: JoinedNetwork) {
        let mut list = sync::write(&self.0);
        *list = list.iter().cloned().chain([network]).collect();
    }

    pub(super) fn remove(&self, id: NetworkId) {
        let mut list = sync::write(&self.0);
        *list = list.iter().filter(|network| network.id != id).cloned().collect();
    }

    fn list(&self) -> Arc<[JoinedNetwork]> {
        sync::read(&self.0).clone()
    }

    fn find<T>(
        &self,
        matches: impl Fn(&JoinedNetwork) -> bool,
        take: impl Fn(&JoinedNetwork) -> T,
    ) -> Option<T> {
        sync::read(&self.0).iter().find(|network| matches(network)).map(take)
    }
}

impl Datapath {
    /// The joined networks, in the order of joining.
    pub fn networks(&self) -> Arc<[JoinedNetwork]> {
        self.networks.list()
    }

    /// The network of that ID, if it is joined.
    pub fn network(&self, id: NetworkId) -> Option<JoinedNetwork> {
        self.networks.find(|network| network.id == id, JoinedNetwork::clone)
    }

    pub(super) fn interface_by_network(&self, index: NetworkIndex) -> Option<InterfaceId> {
        self.networks.find(|network| network.index == index, |network| network.interface)
    }

    pub(super) fn network_by_interface(&self, interface: InterfaceId) -> Option<NetworkIndex> {
        self.networks.find(|network| network.interface == interface, |network| network.index)
    }
}
