//! Datagrams of one turn to one peer that leave with one call (UDP GSO): what a program has written at once.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use peersock_overlay::{DATA_OVERHEAD, Route, Sender};
use peersock_stack::{Batch, InterfaceId};

use crate::egress::MAX_BATCH;
use crate::route::Resolved;
use crate::socket::SocketState;
use crate::{Datapath, ecn};

/// Sealed packets of equal size but for the last, which is no longer, that wait for others to leave with.
/// Whoever puts some there sends them with [`Datapath::send_gso`].
///
/// ```
/// assert!(peersock_datapath::GsoBatch::default().is_empty());
/// ```
#[derive(Default)]
pub struct GsoBatch {
    /// Where they go; `None` if there are none.
    to: Option<Sender>,
    ecn: u8,
    /// Bytes of the first, with all that is added to the packet.
    size: usize,
    count: usize,
    /// Bytes of all.
    length: usize,
    sealed: Vec<u8>,
}

impl GsoBatch {
    /// Whether nothing waits there.
    pub fn is_empty(&self) -> bool {
        self.to.is_none()
    }

    /// Whether another of `size` bytes may come behind those that are there.
    fn takes(&self, sender: &Sender, ecn: u8, size: usize, most: usize) -> bool {
        let same_way = self.to.as_ref().is_some_and(|to| {
            let (one, other) = (to.path, sender.path);
            one.place == other.place && Arc::ptr_eq(&to.session, &sender.session)
        });
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
    /// As [`Datapath::send_packet`] to a single node, but what goes to a peer whole may wait in `gso`,
    /// which keeps its order.
    pub(super) fn send_with_others(
        &self,
        now: Instant,
        interface: InterfaceId,
        (state, destination): (&SocketState, IpAddr),
        packet: &mut [u8],
        gso: &mut GsoBatch,
        batch: &mut Batch,
    ) {
        let resolved = self.resolve(now, interface, Some(state), destination);
        let sender = match &resolved {
            Resolved::Route(Route::Peer(peer)) => peer.sender(),
            _ => None,
        };
        let whole = packet.len() + DATA_OVERHEAD;
        let fits = |sender: &Sender| {
            whole <= sender.path.datagram_size && self.stack.path_mtu(interface, destination).is_none()
        };
        let Some(sender) = sender.filter(fits) else {
            self.send_gso(now, gso, batch);
            return self.send_packet(now, interface, Some(state), destination, packet, batch);
        };
        // A datagram may be lost.
        let _ = self.join_others(now, &sender, packet, gso, batch);
    }

    /// Seals a packet into `gso`, and sends those that it cannot leave with before it. False if the session
    /// has come to its end: then the packet is lost.
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

    /// Sends what waits in `gso`. What that wakes lands in `batch`, for [`Datapath::settle`].
    pub fn send_gso(&self, now: Instant, gso: &mut GsoBatch, batch: &mut Batch) {
        let Some(sender) = gso.to.take() else { return };
        let segment_size = (gso.count > 1).then_some(gso.size);
        self.transmit(&sender, &gso.sealed[..gso.length], segment_size, gso.ecn);
        (gso.length, gso.count) = (0, 0);
        self.note_sent(now, &sender.session, batch);
    }

    /// As above, and settles what that causes.
    pub fn send_gso_and_settle(&self, now: Instant, gso: &mut GsoBatch) {
        let mut batch = Batch::default();
        self.send_gso(now, gso, &mut batch);
        self.settle(now, &mut batch);
    }
}
