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
    /// Returns the self-certifying address of the member that has `address`, or a block that contains it.
    fn owner(&self, interface: InterfaceId, address: IpAddr) -> Option<IpAddr> {
        let network =
            self.networks.find(|network| network.interface == interface, |network| network.index)?;
        match self.routes.get(network, address)? {
            Route::Peer(peer) => peer.prefixes().first().map(Prefix::address),
            Route::Local => None,
        }
    }
}
