//! Peers that are wanted, for whoever looks for them where control does not: told each time that somebody
//! sends to one without a session.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::OnceLock;
use std::time::Duration;

use peersock_overlay::{NetworkIndex, Peer, PublicIdentity, Route};

use crate::Datapath;

/// A peer that is wanted and has no session.
#[derive(Debug, Clone)]
pub struct Want {
    /// In which network.
    pub network: NetworkIndex,
    /// Its self-certifying address.
    pub address: Ipv6Addr,
    /// Its identity, if the node knows it.
    pub identity: Option<PublicIdentity>,
}

/// Who is told. At most one, for the whole life of the data path.
#[derive(Default)]
pub(super) struct Elsewhere(OnceLock<Seeker>);

struct Seeker {
    patience: Duration,
    told: Box<dyn Fn(Want) + Send + Sync>,
}

impl Elsewhere {
    /// For how long a peer is looked for, if anybody looks.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.0.get().map(|seeker| seeker.patience)
    }
}

impl Datapath {
    /// Has `told` told of each peer that is wanted and has no session, often repeatedly. It must not block,
    /// nor call the data path. What waits for a peer then waits for `patience` instead of until it is
    /// unreachable. The first call counts.
    pub fn seek_elsewhere(&self, patience: Duration, told: Box<dyn Fn(Want) + Send + Sync>) {
        if self.elsewhere.0.set(Seeker { patience, told }).is_ok() {
            self.lock_waiting().patience = Some(patience);
        }
    }

    /// Whether there is a session with the peer that has an address.
    pub fn has_session(&self, network: NetworkIndex, address: IpAddr) -> bool {
        match self.routes.get(network, address) {
            Some(Route::Peer(peer)) => peer.sender().is_some(),
            Some(Route::Local) => true,
            None => false,
        }
    }

    /// An address is wanted that nobody is known to have.
    pub(super) fn tell_wanted_address(&self, network: NetworkIndex, address: IpAddr) {
        if let (Some(seeker), IpAddr::V6(address)) = (self.elsewhere.0.get(), address) {
            (seeker.told)(Want { network, address, identity: None });
        }
    }

    /// A peer is wanted that has no session.
    pub(super) fn tell_wanted(&self, peer: &Peer) {
        let Some(seeker) = self.elsewhere.0.get() else { return };
        let certified = peer.addresses().first().copied();
        if let Some(IpAddr::V6(address)) = certified {
            (seeker.told)(Want { network: peer.network(), address, identity: Some(*peer.identity()) });
        }
    }
}
