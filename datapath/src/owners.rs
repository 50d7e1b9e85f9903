//! Mapping from addresses to peers, for the stack's limits.

use std::net::IpAddr;
use std::sync::Arc;

use peersock_overlay::{Prefix, Route, Routes};
use peersock_stack::{InterfaceId, Owners};

use crate::networks::Networks;

/// Look-up of addresses in the table of routes, of all networks.
pub(super) struct AddressOwners {
    pub(super) routes: Arc<Routes>,
    pub(super) networks: Arc<Networks>,
}

impl Owners for AddressOwners {
    /// Returns the self-certifying address of the member that has `address`, or a block that contains it. A
    /// program with keys of its own counts as the member that has certified it, and perhaps many others.
    fn owner(&self, interface: InterfaceId, address: IpAddr) -> Option<IpAddr> {
        let (network, id) = self
            .networks
            .find(|network| network.interface == interface, |network| (network.index, network.id))?;
        match self.routes.get(network, address)? {
            Route::Peer(peer) => match peer.machine() {
                Some(machine) => Some(id.address_of(&machine.node_id()).into()),
                None => peer.prefixes().first().map(Prefix::address),
            },
            Route::Local => None,
        }
    }
}
