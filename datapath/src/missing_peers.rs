//! Notifications of wanted peers, for a search outside of control: sent each time that a packet has no
//! session to leave through.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::OnceLock;
use std::time::Duration;

use peersock_overlay::{NetworkIndex, Peer, PublicIdentity, Route};

use crate::Datapath;

/// Wanted peer that has no session.
#[derive(Debug, Clone)]
pub struct Want {
    /// Network of the peer.
    pub network: NetworkIndex,
    /// Self-certifying address of the peer.
    pub address: Ipv6Addr,
    /// Identity of the peer, if the node knows it.
    pub identity: Option<PublicIdentity>,
}

/// Callback for wanted peers. At most one, for the whole life of the data path.
#[derive(Default)]
pub(super) struct Elsewhere(OnceLock<Seeker>);

struct Seeker {
    patience: Duration,
    told: Box<dyn Fn(Want) + Send + Sync>,
}

impl Elsewhere {
    /// Returns the time for which a peer is searched for, if a callback is set.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.0.get().map(|seeker| seeker.patience)
    }
}

impl Datapath {
    /// Registers `told`, which is called for each wanted peer without a session, often repeatedly. It must
    /// not block, nor call the data path. Packets and flows for a peer then wait for `patience` instead of
    /// until it is unreachable. Only the first call has an effect.
    pub fn seek_elsewhere(&self, patience: Duration, told: Box<dyn Fn(Want) + Send + Sync>) {
        if self.elsewhere.0.set(Seeker { patience, told }).is_ok() {
            self.lock_waiting().patience = Some(patience);
        }
    }

    /// Returns true if there is a session with the peer that has an address.
    pub fn has_session(&self, network: NetworkIndex, address: IpAddr) -> bool {
        match self.routes.get(network, address) {
            Some(Route::Peer(peer)) => peer.sender().is_some(),
            Some(Route::Local) => true,
            None => false,
        }
    }

    /// Reports a wanted address that has no known owner.
    pub(super) fn tell_wanted_address(&self, network: NetworkIndex, address: IpAddr) {
        if let (Some(seeker), IpAddr::V6(address)) = (self.elsewhere.0.get(), address) {
            (seeker.told)(Want { network, address, identity: None });
        }
    }

    /// Reports a wanted peer that has no session.
    pub(super) fn tell_wanted(&self, peer: &Peer) {
        let Some(seeker) = self.elsewhere.0.get() else { return };
        // The first address is the self-certifying one, which follows from the identity.
        let certified = peer.addresses().first().copied();
        if let Some(IpAddr::V6(address)) = certified {
            (seeker.told)(Want { network: peer.network(), address, identity: Some(*peer.identity()) });
        }
    }
}
