//! State that the node keeps for each socket of the stack: waiting tasks, the last route, and the send stage.

use std::any::Any;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use peersock_overlay::{NetworkIndex, Peer, PeerDescription, Route, Watch};
use peersock_stack::InterfaceId;

use crate::membership::Reported;
use crate::multicast::Asked;
use crate::path_checks::Doubt;
use crate::rules::PeerFlows;
use crate::stage::Stage;
use peersock_primitives::sync;
use peersock_primitives::wait::Waiters;

/// Node's share of one socket's state.
#[derive(Default)]
pub struct SocketState {
    waiters: Waiters,
    /// Route of the last packet.
    kept: Mutex<Option<Kept>>,
    stage: Stage,
    /// Bytes in flight that this flow has reported to its peer's [`PeerLink`].
    reported: AtomicI64,
    /// Watch on the peer of an open connection.
    watch: Mutex<Option<Watch>>,
    /// Address in memory of that peer, so that the comparison takes no lock; 0 for none.
    watched: AtomicUsize,
    /// Size of the largest packet that the socket wants to send, bytes; 0 for the path's size.
    largest_packet: AtomicUsize,
    /// Other end of a connection, as of when it was established.
    peer: OnceLock<Arc<PeerDescription>>,
}

impl SocketState {
    /// Returns the state kept in a socket's context slot, made on first use. Nothing else may be kept there.
    pub fn of(context: &OnceLock<Arc<dyn Any + Send + Sync>>) -> &SocketState {
        context
            .get_or_init(|| Arc::new(SocketState::default()))
            .downcast_ref()
            .expect("only the data path fills the contexts of sockets")
    }

    /// Returns the waiters of the socket.
    pub fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    /// Fragments packets larger than `bytes`, whatever the path takes (IPV6_USE_MIN_MTU).
    pub fn set_largest_packet(&self, bytes: Option<usize>) {
        self.largest_packet.store(bytes.unwrap_or(0), Ordering::Relaxed);
    }

    /// Returns the size limit in bytes of this socket's packets on a path that takes `mtu`.
    pub fn limit(&self, mtu: usize) -> usize {
        match self.largest_packet.load(Ordering::Relaxed) {
            0 => mtu,
            largest => largest.min(mtu),
        }
    }

    pub(super) fn is_limited(&self) -> bool {
        self.largest_packet.load(Ordering::Relaxed) != 0
    }

    /// Returns the route of the last packet, if it left through the same interface and no route has changed
    /// since.
    pub(super) fn kept(&self, generation: u64, interface: InterfaceId) -> Option<Kept> {
        let kept = sync::lock(&self.kept);
        kept.as_ref().filter(|kept| (kept.generation, kept.interface) == (generation, interface)).cloned()
    }

    pub(super) fn keep(&self, route: Kept) {
        *sync::lock(&self.kept) = Some(route);
    }

    /// Notes who is at the other end of a connection, once.
    pub(super) fn set_peer(&self, peer: Arc<PeerDescription>) {
        // A connection is established once.
        let _ = self.peer.set(peer);
    }

    pub(super) fn peer(&self) -> Option<Arc<PeerDescription>> {
        self.peer.get().cloned()
    }

    pub(super) fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Makes the overlay watch the peer of an open connection, instead of an earlier one.
    pub(super) fn watch(&self, peer: &Arc<Peer>, is_open: impl FnOnce() -> bool) {
        // Compared by address in memory, which costs no lock per packet.
        let address = Arc::as_ptr(peer).addr();
        if self.watched.load(Ordering::Relaxed) != address && is_open() {
            *sync::lock(&self.watch) = Some(peer.watch());
            self.watched.store(address, Ordering::Relaxed);
        }
    }

    /// Stops the watch because the connection has ended.
    pub(super) fn unwatch(&self) {
        if self.watched.load(Ordering::Relaxed) != 0 {
            *sync::lock(&self.watch) = None;
            self.watched.store(0, Ordering::Relaxed);
        }
    }

    /// Reports this flow's bytes in flight to the peer's link; returns the total of all its flows.
    pub(super) fn report_in_flight(&self, link: &PeerLink, now: usize) -> usize {
        let now = now as i64;
        let change = now - self.reported.swap(now, Ordering::Relaxed);
        let total = link.in_flight.fetch_add(change, Ordering::Relaxed) + change;
        // Relaxed updates of two flows may interleave, so the sum can be negative for a moment.
        total.max(0) as usize
    }
}

impl std::fmt::Debug for SocketState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SocketState").finish_non_exhaustive()
    }
}

/// Route of a socket's last packet. Most sockets send many packets in one direction; for the others it saves
/// the look-up of the network.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    /// Generation of the table of routes, read before the route.
    pub(super) generation: u64,
    pub(super) interface: InterfaceId,
    pub(super) network: NetworkIndex,
    pub(super) destination: IpAddr,
    pub(super) route: Route,
}

/// State that the data path keeps for each peer.
#[derive(Debug, Default)]
pub(super) struct PeerLink {
    /// Unacknowledged bytes of all flows to the peer.
    in_flight: AtomicI64,
    /// Time at which a packet to a group requested a session.
    pub(super) asked: Asked,
    /// Groups that the peer wants.
    pub(super) reported: Reported,
    /// State of the path checks for datagrams.
    pub(super) doubt: Doubt,
    /// Flows that rules have allowed.
    pub(super) flows: PeerFlows,
}

impl PeerLink {
    /// Returns the link kept in a peer's context slot, made on first use.
    pub(super) fn of(peer: &Peer) -> &PeerLink {
        peer.context()
            .get_or_init(|| Arc::new(PeerLink::default()))
            .downcast_ref()
            .expect("only the data path fills the contexts of peers")
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_kept_route_is_of_one_interface_and_one_generation() {
        let state = SocketState::default();
        let (interface, destination) = (InterfaceId(1), Ipv4Addr::LOCALHOST.into());
        state.keep(Kept {
            generation: 7,
            interface,
            network: NetworkIndex(3),
            destination,
            route: Route::Local,
        });
        assert!(state.kept(7, interface).is_some());
        assert!(state.kept(8, interface).is_none(), "a route has changed");
        assert!(state.kept(7, InterfaceId(2)).is_none(), "another network may have the same address");
    }
}
