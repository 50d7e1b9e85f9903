//! List of joined networks, as both cores know them. It is replaced as a whole and read without copying.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, RwLock};

use peersock_overlay::{NetworkId, NetworkIndex, Prefix};
use peersock_stack::{Cidr, InterfaceId};

use crate::rules::Guard;
use crate::{Datapath, Device};
use peersock_primitives::sync;

/// Joined network as both cores know it.
#[derive(Debug, Clone)]
pub struct JoinedNetwork {
    /// ID of the network.
    pub id: NetworkId,
    /// Handle in the overlay.
    pub index: NetworkIndex,
    /// Handle in the stack.
    pub interface: InterfaceId,
    /// Addresses of this node in the network, the self-certifying one first.
    pub addresses: Vec<IpAddr>,
    /// The same addresses, each with the length of the network's prefix that contains it.
    pub prefixes: Vec<Cidr>,
    /// Addresses reached over the network: its prefixes of the families in which this node has an address.
    pub routes: Vec<Cidr>,
    /// TCP and UDP ports on which services may be offered and reached.
    pub ports: RangeInclusive<u16>,
    /// Receiver of its packets that no socket of the stack takes.
    pub device: Option<Arc<dyn Device>>,
    /// Access rules.
    pub(super) guard: Arc<Guard>,
}

/// Both cores' handles of a network, and the receiver of its packets.
pub(super) struct Known {
    pub(super) index: NetworkIndex,
    pub(super) interface: InterfaceId,
    pub(super) ports: RangeInclusive<u16>,
    pub(super) device: Option<Arc<dyn Device>>,
    pub(super) id: NetworkId,
    pub(super) guard: Arc<Guard>,
}

impl Known {
    fn of(network: &JoinedNetwork) -> Known {
        let JoinedNetwork { id, index, interface, ref ports, ref device, ref guard, .. } = *network;
        Known { index, interface, ports: ports.clone(), device: device.clone(), id, guard: Arc::clone(guard) }
    }
}

/// List in the order of joining.
#[derive(Default)]
pub(super) struct Networks(RwLock<Arc<[JoinedNetwork]>>);

impl Networks {
    pub(super) fn add(&self, network: JoinedNetwork) {
        let mut list = sync::write(&self.0);
        // A new list, so that readers keep theirs without a lock.
        *list = list.iter().cloned().chain([network]).collect();
    }

    /// Replaces what is known of a network, unless it was left meanwhile.
    pub(super) fn replace(&self, network: JoinedNetwork) {
        let mut list = sync::write(&self.0);
        let changed = list.iter().map(|known| if known.index == network.index { &network } else { known });
        *list = changed.cloned().collect();
    }

    pub(super) fn remove(&self, id: NetworkId) {
        let mut list = sync::write(&self.0);
        *list = list.iter().filter(|network| network.id != id).cloned().collect();
    }

    fn list(&self) -> Arc<[JoinedNetwork]> {
        sync::read(&self.0).clone()
    }

    /// Returns the network of an interface.
    pub(super) fn of_interface(&self, interface: InterfaceId) -> Option<(NetworkIndex, NetworkId)> {
        self.find(|network| network.interface == interface, |network| (network.index, network.id))
    }

    pub(super) fn find<T>(
        &self,
        matches: impl Fn(&JoinedNetwork) -> bool,
        take: impl Fn(&JoinedNetwork) -> T,
    ) -> Option<T> {
        sync::read(&self.0).iter().find(|network| matches(network)).map(take)
    }
}

impl Datapath {
    /// Returns the joined networks, in the order of joining.
    pub fn networks(&self) -> Arc<[JoinedNetwork]> {
        self.networks.list()
    }

    /// Returns the network with an ID, if it is joined.
    pub fn network(&self, id: NetworkId) -> Option<JoinedNetwork> {
        self.networks.find(|network| network.id == id, JoinedNetwork::clone)
    }

    pub(super) fn known_by_network(&self, index: NetworkIndex) -> Option<Known> {
        self.networks.find(|network| network.index == index, Known::of)
    }

    pub(super) fn known_by_interface(&self, interface: InterfaceId) -> Option<Known> {
        self.networks.find(|network| network.interface == interface, Known::of)
    }

    pub(super) fn interface_by_network(&self, index: NetworkIndex) -> Option<InterfaceId> {
        self.networks.find(|network| network.index == index, |network| network.interface)
    }

    pub(super) fn network_by_interface(&self, interface: InterfaceId) -> Option<NetworkIndex> {
        self.networks.find(|network| network.interface == interface, |network| network.index)
    }
}

/// Returns an own address with the length of the network's prefix that contains it.
pub(super) fn within(address: IpAddr, prefixes: &[Prefix]) -> Cidr {
    let length = prefixes.iter().find(|prefix| prefix.contains(address)).map(Prefix::length);
    length.and_then(|length| Cidr::new(address, length)).unwrap_or(address.into())
}

/// Returns the prefixes that can be reached with these addresses as sources.
pub(super) fn routes(prefixes: &[Prefix], own: &[IpAddr]) -> Vec<Cidr> {
    let has_source = |prefix: &&Prefix| own.iter().any(|own| own.is_ipv4() == prefix.address().is_ipv4());
    let routes = prefixes.iter().filter(has_source);
    routes.filter_map(|prefix| Cidr::new(prefix.address(), prefix.length())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_lie_in_prefixes_and_routes_are_of_own_families() {
        let prefixes = ["fd12:3456:789a::/48", "10.7.0.0/30", "192.0.2.1/32"].map(prefix);
        let own: Vec<IpAddr> =
            ["fd12:3456:789a::1", "10.7.0.1"].iter().map(|ip| ip.parse().expect("an address")).collect();
        let shown = |cidrs: Vec<Cidr>| cidrs.iter().map(ToString::to_string).collect::<Vec<_>>();
        let within = own.iter().map(|own| within(*own, &prefixes)).collect();
        assert_eq!(shown(within), ["fd12:3456:789a::1/48", "10.7.0.1/30"]);
        let all = ["fd12:3456:789a::/48", "10.7.0.0/30", "192.0.2.1/32"];
        assert_eq!(shown(routes(&prefixes, &own)), all);
        // A node without an IPv4 address could not be answered there.
        assert_eq!(shown(routes(&prefixes, &own[..1])), all[..1]);
    }

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').expect("a prefix");
        Prefix::new(address.parse().expect("an address"), length.parse().expect("a length"))
            .expect("no longer")
    }
}
