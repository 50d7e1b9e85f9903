//! Datagrams of one turn to one peer that leave with one call (UDP GSO): several writes of a program.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use peersock_overlay::{DATA_OVERHEAD, Route, Sender};
use peersock_stack::{Batch, Error, InterfaceId};

use crate::route::Resolved;
use crate::socket::SocketState;
use crate::{Datapath, ecn};

/// Size of the largest batch of datagrams that one UDP GSO call takes: an IPv4 packet's UDP payload.
pub(super) const MAX_BATCH: usize = 65507;

/// Batch of sealed packets of equal size; only the last one may be shorter. A caller that adds packets must
/// send them with [`Datapath::send_gso`].
#[derive(Default)]
pub struct GsoBatch {
    /// Destination of the packets; `None` if the batch is empty.
    to: Option<Sender>,
    ecn: u8,
    /// Size of the first packet in bytes, with all overhead.
    size: usize,
    count: usize,
    /// Total size of all packets in bytes.
    length: usize,
    sealed: Vec<u8>,
}

impl GsoBatch {
    /// Returns true if the batch is empty.
    pub fn is_empty(&self) -> bool {
        self.to.is_none()
    }

    /// Returns true if the batch has room for another packet of `size` bytes.
    fn takes(&self, sender: &Sender, ecn: u8, size: usize, most: usize) -> bool {
        let same_way = self.to.as_ref().is_some_and(|to| {
            let (one, other) = (to.path, sender.path);
            one.place == other.place && Arc::ptr_eq(&to.session, &sender.session)
        });
        // A shorter datagram ends a GSO batch, so none may follow it.
        let is_even = self.length == self.count * self.size;
        same_way
            && self.ecn == ecn
            && is_even
            && size <= self.size
            && self.count < most
            && self.length + size <= MAX_BATCH
    }
}

impl Datapath {
    /// Sends like [`Datapath::send_packet`] to a single node, but a packet that fits the path may wait in
    /// `gso`, which keeps its order.
    pub(super) fn send_with_others(
        &self,
        now: Instant,
        interface: InterfaceId,
        (state, destination): (&SocketState, IpAddr),
        packet: &mut [u8],
        gso: &mut GsoBatch,
        batch: &mut Batch,
    ) -> Result<(), Error> {
        let resolved = self.resolve(now, interface, Some(state), destination);
        let peer = match &resolved {
            Resolved::Route(Route::Peer(peer)) => Some(peer),
            _ => None,
        };
        let sender = peer.and_then(|peer| peer.sender());
        let whole = packet.len() + DATA_OVERHEAD;
        // After an ICMP error of the destination a smaller size counts, to which `send_packet` cuts.
        let fits = |sender: &Sender| {
            whole <= sender.path.datagram_size && self.stack.path_mtu(interface, destination).is_none()
        };
        let Some(sender) = sender.filter(fits) else {
            self.send_gso(now, gso, batch);
            return self.send_packet(now, interface, Some(state), destination, packet, batch);
        };
        if let Some((network, peer)) = self.guarded(interface).zip(peer)
            && self.refuses_outgoing(now, &network, peer, packet, false)
        {
            return Err(Error::PermissionDenied);
        }
        // Datagrams are unreliable, so a packet lost with its session is no error.
        let _ = self.join_others(now, &sender, packet, gso, batch);
        Ok(())
    }

    /// Seals a packet into `gso`, after sending waiting packets that cannot leave with it. Returns false if
    /// the session has ended: then the packet is lost.
    pub(super) fn join_others(
        &self,
        now: Instant,
        sender: &Sender,
        packet: &[u8],
        gso: &mut GsoBatch,
        batch: &mut Batch,
    ) -> bool {
        let most = self.most_segments(sender, packet.len() + DATA_OVERHEAD);
        let size = packet.len() + sender.overhead();
        let ecn = ecn::of(packet);
        if !gso.takes(sender, ecn, size, most) {
            self.send_gso(now, gso, batch);
            (gso.ecn, gso.size) = (ecn, size);
        }
        if gso.sealed.is_empty() {
            // Fresh zeroed memory costs nothing until it is written to.
            gso.sealed = vec![0; MAX_BATCH + 1];
        }
        let Ok(length) = sender.seal(packet, &mut gso.sealed[gso.length..]) else { return false };
        (gso.length, gso.count) = (gso.length + length, gso.count + 1);
        gso.to.get_or_insert_with(|| sender.clone());
        if gso.count >= most {
            self.send_gso(now, gso, batch);
        }
        true
    }

    /// Sends the packets in `gso`. Woken flows and sockets land in `batch`, for [`Datapath::settle`].
    pub fn send_gso(&self, now: Instant, gso: &mut GsoBatch, batch: &mut Batch) {
        let Some(sender) = gso.to.take() else { return };
        let segment_size = (gso.count > 1).then_some(gso.size);
        self.transmit(&sender, &gso.sealed[..gso.length], segment_size, gso.ecn);
        (gso.length, gso.count) = (0, 0);
        self.note_sent(now, &sender.session, batch);
    }

    /// Sends like [`Datapath::send_gso`], and settles the consequences.
    pub fn send_gso_and_settle(&self, now: Instant, gso: &mut GsoBatch) {
        let mut batch = Batch::default();
        self.send_gso(now, gso, &mut batch);
        self.settle(now, &mut batch);
    }
}
