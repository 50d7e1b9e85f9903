//! Effects of the control state machine's events on connections and queued packets.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_overlay::{Endpoint, Event, Gone, Peer, Prefix, Route};
use peersock_stack::{Batch, Cidr, Departure, Error, InterfaceId};

use crate::Datapath;
use crate::route::Entry;
use crate::socket::PeerLink;

impl Datapath {
    /// Requests a session at once if anything waits for the new peer.
    pub(super) fn want_if_waited_for(&self, now: Instant, endpoint: &mut Endpoint, peer: &Arc<Peer>) {
        let Some(interface) = self.interface_by_network(peer.network()) else { return };
        // An open connection does not stay in the queue, and its timers rest without a session. Its peer may
        // have been away so long that it was forgotten.
        if self.lock_waiting().found(interface, |address| self.is_of(peer, address))
            || self.stack.has_waiting_flows(interface, &owned(peer))
        {
            endpoint.want_session(now, peer);
        }
    }

    /// Ends flows of a peer whose program is gone, as that program's resets would end them.
    pub(super) fn end_flows(&self, now: Instant, peer: &Peer, gone: Gone, batch: &mut Batch) {
        let Some(interface) = self.interface_by_network(peer.network()) else { return };
        let departure = match gone {
            Gone::Left => Departure::Orderly,
            // The program may still run; then its ends of the flows must end too.
            Gone::Refused => Departure::Presumed,
            Gone::Expelled => Departure::Barred,
            _ => Departure::Sudden,
        };
        let is_theirs = |address| self.is_of(peer, address);
        self.stack.lose_peer(now, interface, &owned(peer), departure, is_theirs, batch);
    }

    /// Ends flows to addresses that a peer has lost, because their new owner does not know these flows.
    pub(super) fn end_flows_to(&self, now: Instant, peer: &Peer, lost: &[Prefix], batch: &mut Batch) {
        let Some(interface) = self.interface_by_network(peer.network()) else { return };
        let length_in = |prefixes: &[Prefix], address| {
            prefixes.iter().filter(|prefix| prefix.contains(address)).map(Prefix::length).max()
        };
        // An address in a lost block may have belonged to another member with a longer prefix before.
        let is_lost = |address| {
            let others = match self.routes.get(peer.network(), address) {
                Some(Route::Local) => return false,
                Some(Route::Peer(owner)) => length_in(&owner.prefixes(), address),
                None => None,
            };
            !peer.owns(address) && length_in(lost, address) > others
        };
        self.stack.lose_peer(now, interface, &cidrs(lost), Departure::Sudden, is_lost, batch);
    }

    /// Returns true if a peer has an address, itself or in a block behind it, and no other member has a
    /// longer prefix there.
    pub(super) fn is_of(&self, peer: &Peer, address: IpAddr) -> bool {
        peer.has_address(address)
            || peer.owns(address)
                && !(address.is_multicast() || address.is_loopback() || address.is_unspecified())
                && match self.routes.get(peer.network(), address) {
                    Some(Route::Local) => false,
                    Some(Route::Peer(owner)) => std::ptr::eq(&*owner, peer),
                    None => true,
                }
    }

    /// Fails packets and flows that wait for addresses which a peer has lost and no peer has.
    fn fail_waiting_for(&self, now: Instant, peer: &Peer, lost: &[Prefix]) {
        let Some(interface) = self.interface_by_network(peer.network()) else { return };
        let in_lost = |address| lost.iter().any(|prefix| prefix.contains(address));
        let is_lost = |address| in_lost(address) && self.routes.get(peer.network(), address).is_none();
        let taken = self.lock_waiting().take(interface, is_lost);
        for (_, entry) in taken {
            self.fail_waiting(now, interface, entry);
        }
    }

    pub(super) fn act_on(&self, now: Instant, event: &Event, batch: &mut Batch) {
        match event {
            Event::PathChanged(peer) => self.log_path(peer),
            Event::SessionReady(peer) => {
                // The session may belong to a restarted instance with other memberships.
                PeerLink::of(peer).reported.forget();
                // It may have come back with another name or other tags.
                self.follow_identity(now, peer, batch);
                // Packets to a peer that was away, or to its dead predecessor, are lost; retransmit without
                // waiting for the timer.
                self.expedite_flows(peer, batch);
                self.send_waiting(now, peer, batch);
            }
            Event::PathConfirmed(peer) => {
                if let Some(interface) = self.interface_by_network(peer.network()) {
                    // Retransmission timers may have grown to a minute during the outage. Only this authentic
                    // proof revives flows; a forged ICMP message must not (RFC 5927).
                    self.stack.revive_flows(interface, &owned(peer), batch);
                }
            }
            // Packets in the size that no longer passes are lost; they leave again in the new size.
            Event::PathShrunk(peer) => self.expedite_flows(peer, batch),
            // The time at which the path carries more is unknown, so waiting writers get an error.
            Event::PathTooSmall(peer) => {
                if let Some(interface) = self.interface_by_network(peer.network()) {
                    self.stack.fail_waiting(now, interface, &owned(peer), Error::MessageSize, batch);
                }
                self.fail_datagrams(peer, batch);
            }
            Event::IdentityChanged(peer) => self.follow_identity(now, peer, batch),
            Event::AddressesChanged(peer, lost) => self.fail_waiting_for(now, peer, lost),
            // The overlay does not try to reach a forgotten peer, so packets would wait in vain.
            Event::PeerRemoved(peer) => self.fail_waiting_for_peer(now, peer),
            Event::PeerSilent(peer) => {
                self.tell_wanted(peer);
                let patience = self.elsewhere.patience().unwrap_or_default().max(SILENT_PEER);
                self.go_on_waiting(now, peer, patience, true);
            }
            // The answer may have given this node credentials, and with them addresses.
            Event::Answered(controller, _) => self.follow_own_addresses(now, controller.network(), batch),
            // The rendezvous may find the peer elsewhere.
            Event::PeerUnreachable(peer) => {
                self.tell_wanted(peer);
                match self.elsewhere.patience() {
                    Some(patience) => self.go_on_waiting(now, peer, patience, false),
                    None => self.fail_waiting_for_peer(now, peer),
                }
            }
            _ => {}
        }
    }

    /// Makes a peer's flows retransmit unacknowledged data at once.
    fn expedite_flows(&self, peer: &Peer, batch: &mut Batch) {
        if let Some(interface) = self.interface_by_network(peer.network()) {
            self.stack.expedite_flows(interface, &owned(peer), batch);
        }
    }

    fn log_path(&self, peer: &Peer) {
        if tracing::enabled!(tracing::Level::DEBUG)
            && let Some(path) = peer.path()
        {
            let interface = self.sink.interface_of(path.socket(), path.remote());
            let size = path.datagram_size;
            tracing::debug!(peer = %peer.id(), path = %format_args!("{} via {interface}", path.place), size, "path");
        }
    }

    fn fail_waiting_for_peer(&self, now: Instant, peer: &Peer) {
        for (interface, address, entry) in self.take_waiting(peer) {
            self.fail_waiting(now, interface, entry);
            self.tell_unanswered(interface, address);
        }
    }

    /// Limits the wait of packets and flows for a peer that is searched outside of control to `patience`.
    fn go_on_waiting(&self, now: Instant, peer: &Peer, patience: Duration, is_silent: bool) {
        let Some(interface) = self.interface_by_network(peer.network()) else { return };
        self.lock_waiting().limit(interface, |address| self.is_of(peer, address), patience, is_silent);
        if let Some(due) = self.lock_waiting().next_deadline() {
            self.sink.wake_at(due.max(now));
        }
    }

    /// Sends what waits for a peer.
    fn send_waiting(&self, now: Instant, peer: &Peer, batch: &mut Batch) {
        for (interface, destination, entry) in self.take_waiting(peer) {
            let Entry { flows, packets, .. } = entry;
            batch.flows.extend(flows);
            for mut packet in packets {
                let sent = self.send_packet(now, interface, None, destination, &mut packet, batch);
                if sent.is_err()
                    && let Some(network) = self.known_by_interface(interface)
                {
                    self.tell_refused(now, &network, &packet, batch);
                }
            }
        }
    }

    /// Goes on with what has just been queued for an address, if it is a known peer's by now.
    ///
    /// Another thread may have found the peer in between, and found nothing in the queue.
    pub(super) fn go_on_if_found(
        &self,
        now: Instant,
        interface: InterfaceId,
        destination: IpAddr,
        batch: &mut Batch,
    ) {
        let Some(network) = self.network_by_interface(interface) else { return };
        let Some(Route::Peer(peer)) = self.routes.get(network, destination) else { return };
        if self.lock_waiting().found(interface, |address| address == destination) {
            self.go_on(now, &peer, batch);
        }
    }

    /// Requests a session with a peer for which something has just been queued, or sends that if another
    /// thread has handled the event in between that there is one. Not for a flow whose session has ended: the
    /// peer still shows that session for a moment.
    pub(super) fn go_on(&self, now: Instant, peer: &Arc<Peer>, batch: &mut Batch) {
        match peer.sender() {
            Some(_) => self.send_waiting(now, peer, batch),
            None => self.with_control(now, batch, |endpoint, now| endpoint.want_session(now, peer)),
        }
    }

    fn take_waiting(&self, peer: &Peer) -> Vec<(InterfaceId, IpAddr, Entry)> {
        let Some(interface) = self.interface_by_network(peer.network()) else { return Vec::new() };
        let taken = self.lock_waiting().take(interface, |address| self.is_of(peer, address));
        taken.into_iter().map(|((interface, address), entry)| (interface, address, entry)).collect()
    }
}

/// Time for which datagrams wait for a peer that has an address and does not answer: it may have more to do,
/// or come back.
const SILENT_PEER: Duration = Duration::from_secs(12);

/// Returns all prefixes that a peer owns now.
pub(super) fn owned(peer: &Peer) -> Vec<Cidr> {
    cidrs(&peer.prefixes())
}

fn cidrs(prefixes: &[Prefix]) -> Vec<Cidr> {
    prefixes.iter().filter_map(|prefix| Cidr::new(prefix.address(), prefix.length())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Net, Node};

    /// The sender has found no peer or no session, and another thread handles the event that there is one
    /// before the packet is in the queue.
    #[test]
    fn a_packet_that_is_queued_after_its_peer_was_found_is_sent_all_the_same() {
        let mut net = Net::star(2, |_| [vec![], vec![]]);
        let (now, other, packet) = (net.now, net.address(0), [0x60; 40]);
        let mut batch = Batch::default();
        let is_empty = |net: &Net| {
            let Node { datapath, network, .. } = &net.nodes[1];
            datapath.lock_waiting().take(network.interface, |_| true).is_empty()
        };
        // The peer was found and has no session yet: it is requested, and the packet leaves with it.
        let Node { datapath, network, .. } = &net.nodes[1];
        datapath.wait_for_peer(now, network.interface, other, &packet, &mut batch);
        assert_eq!(datapath.lock_waiting().next_deadline(), None, "only the overlay gives it up");
        assert!(net.under_way() > 0, "no session was requested");
        net.deliver();
        assert!(net.nodes[1].datapath.has_session(net.nodes[1].network.index, other) && is_empty(&net));
        // It has one.
        let Node { datapath, network, .. } = &net.nodes[1];
        datapath.wait_for_peer(now, network.interface, other, &packet, &mut batch);
        assert!(is_empty(&net), "it waits for an event that is over");
        assert_eq!(net.under_way(), 1);
        let Some(Route::Peer(peer)) = datapath.routes.get(network.index, other) else { panic!("a member") };
        datapath.wait_for_session(now, network.interface, &peer, other, &packet, &mut batch);
        assert!(is_empty(&net), "it waits for a session that is there");
        assert_eq!(net.under_way(), 2);
    }
}
