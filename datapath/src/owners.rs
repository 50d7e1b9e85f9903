//! Mapping from addresses to peers, for the stack's limits, and the identities of connections' other ends.

use std::any::Any;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use peersock_overlay::{NetworkIndex, PeerDescription, Prefix, Route, Routes};
use peersock_stack::{Flow, InterfaceId, Owners, Ready};

use crate::Datapath;
use crate::networks::Networks;
use crate::socket::SocketState;

/// Look-up of addresses in the table of routes, of all networks.
pub(super) struct AddressOwners {
    pub(super) routes: Arc<Routes>,
    pub(super) networks: Arc<Networks>,
}

impl Owners for AddressOwners {
    /// Returns the self-certifying address of the member that has `address`, or a block that contains it. A
    /// program with its own keys counts as the member that has certified it, and perhaps many others.
    fn owner(&self, interface: InterfaceId, address: IpAddr) -> Option<IpAddr> {
        let (network, id) = self.networks.of_interface(interface)?;
        match self.routes.get(network, address)? {
            Route::Peer(peer) => match peer.machine() {
                Some(machine) => Some(id.address_of(&machine.node_id()).into()),
                None => peer.prefixes().first().map(Prefix::address),
            },
            Route::Local => None,
        }
    }

    /// Keeps who the peer is now, because it may have gone when a program asks.
    fn established(
        &self,
        interface: InterfaceId,
        remote: IpAddr,
        context: &OnceLock<Arc<dyn Any + Send + Sync>>,
    ) {
        let Some((network, id)) = self.networks.of_interface(interface) else { return };
        if let Some(Route::Peer(peer)) = self.routes.get(network, remote) {
            SocketState::of(context).set_peer(peer.described_at(id, remote));
        }
    }
}

impl Datapath {
    /// Returns who is at the other end of a connection, as of when it was established; `None` before that.
    /// It stays after the connection and the session have ended.
    pub fn peer_of(&self, flow: &Flow) -> Option<Arc<PeerDescription>> {
        let known = SocketState::of(flow.context()).peer();
        if known.is_some() || !flow.readiness().contains(Ready::CONNECTED) {
            return known;
        }
        // Only a connection of this node with itself has none.
        let network = self.network_by_interface(flow.interface())?;
        match self.routes.get(network, flow.remote().ip())? {
            Route::Local => self.own_description(network),
            Route::Peer(_) => None,
        }
    }

    /// Returns who has an address now: this node, or a peer that is admitted to the network.
    pub fn peer_at(&self, interface: InterfaceId, address: IpAddr) -> Option<Arc<PeerDescription>> {
        let (network, id) = self.networks.of_interface(interface)?;
        match self.routes.get(network, address)? {
            Route::Peer(peer) => peer.is_admitted().then(|| peer.described_at(id, address)),
            Route::Local => self.own_description(network),
        }
    }

    fn own_description(&self, network: NetworkIndex) -> Option<Arc<PeerDescription>> {
        self.control().own_description(network).map(Arc::new)
    }
}
