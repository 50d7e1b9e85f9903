//! Networks whose inner side is a device of the machine instead of this node's stack: another IP stack (a
//! kernel behind a TUN device) sends and receives the packets.

use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use peersock_overlay::{DATA_OVERHEAD, Route, Sender};
use peersock_stack::{
    Batch, Flushed, InterfaceId, PartialChecksum, SuperSegment, Undelivered, fill_checksums, may_pass,
    prepare_checksum,
};

use crate::addresses::{destination_address, source_address};
use crate::datagrams::MINIMUM_MTU;
use crate::egress::Buffers;
use crate::gso::MAX_BATCH;
use crate::networks::Known;
use crate::route::Resolved;
use crate::{Datapath, GsoBatch, ecn};

/// Receiver of a network's packets in place of the stack.
///
/// ```
/// use peersock_datapath::{Device, Offload};
///
/// #[derive(Debug)]
/// struct Blackhole;
///
/// impl Device for Blackhole {
///     fn deliver(&self, _packet: &[u8], _offload: &Offload) {}
/// }
/// ```
pub trait Device: Send + Sync + fmt::Debug {
    /// Takes an IP packet from a peer, which owns its source address, to this node, a network behind it or a
    /// group. Any receiving thread may call it, so it must not block; packets that find no space are lost.
    fn deliver(&self, packet: &[u8], offload: &Offload);
}

/// Work that a packet's sender leaves to the next layer: the part used here of virtio's header for network
/// devices (virtio 1.2, 5.1.6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offload {
    /// Checksum that must still be completed. `None`: it is complete, or the packet has none.
    pub checksum: Option<PartialChecksum>,
    /// Set if the packet is several TCP segments in one.
    pub segments: Option<Segments>,
}

/// Instructions for cutting one packet into several TCP segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    /// Bytes of the IP and TCP headers.
    pub header_len: usize,
    /// Payload size in bytes of each segment but the last, which may be shorter.
    pub payload: usize,
}

/// Delivers a packet released by the coalescer to a device.
pub(super) fn deliver(device: &dyn Device, flushed: Flushed<'_>) {
    let segments =
        flushed.joined.map(|joined| Segments { header_len: joined.header_len, payload: joined.segment });
    let checksum = prepare_checksum(flushed.packet);
    device.deliver(flushed.packet, &Offload { checksum, segments });
}

impl Datapath {
    /// Sends a packet made by the host behind a device. The packet may wait in `gso` for others of its turn,
    /// which the caller sends with [`Datapath::send_gso`]. Woken flows and sockets land in `batch`, for
    /// [`Datapath::settle`].
    ///
    /// If a packet cannot be sent, the device gets an ICMP error, as from a router.
    pub fn send_from_device(
        &self,
        now: Instant,
        interface: InterfaceId,
        packet: &mut [u8],
        offload: &Offload,
        gso: &mut GsoBatch,
        batch: &mut Batch,
    ) {
        let addresses = source_address(packet).zip(destination_address(packet));
        let Some((source, destination)) = addresses else {
            return self.counters.device_malformed.increment();
        };
        let Some(network) = self.known_by_interface(interface) else { return };
        if !self.is_own(&network, source) && !self.is_error_of_gateway(&network, packet) {
            // Peers would drop these sources: neighbours' addresses, or the link-local ones that kernels give
            // devices.
            return self.counters.device_source_not_own.increment();
        }
        // The peer would drop the packet, too, but without an error for the host.
        if !may_pass(packet, &network.ports) {
            self.counters.device_port_refused.increment();
            return self.answer(now, &network, packet, Undelivered::Prohibited);
        }
        if destination.is_multicast() {
            // Each peer's copy may be fragmented or queued, so its checksum must be complete.
            complete(packet, offload);
            return self.send_to_group(now, interface, destination, packet, batch);
        }
        let peer = match self.resolve(now, interface, None, destination) {
            Resolved::Route(Route::Peer(peer)) => peer,
            Resolved::Unknown => {
                complete(packet, offload);
                return self.wait_for_peer(now, interface, destination, packet, batch);
            }
            // Packets to the host itself only come here if its routes are wrong.
            Resolved::Route(Route::Local) | Resolved::NoRoute => {
                self.counters.out_no_route.increment();
                return self.answer(now, &network, packet, Undelivered::NoRoute);
            }
        };
        let Some(sender) = peer.sender() else {
            complete(packet, offload);
            return self.wait_for_session(now, interface, &peer, destination, packet, batch);
        };
        if network.guard.is_on() && self.refuses_outgoing(now, &network, &peer, packet, true) {
            complete(packet, offload);
            return self.answer_refused(now, &network, packet);
        }
        self.send_to_peer(now, &network, &sender, packet, offload, gso, batch);
    }

    #[expect(clippy::too_many_arguments, reason = "a packet, how to cut it, its way, and where more leaves")]
    fn send_to_peer(
        &self,
        now: Instant,
        network: &Known,
        sender: &Sender,
        packet: &mut [u8],
        offload: &Offload,
        gso: &mut GsoBatch,
        batch: &mut Batch,
    ) {
        let mtu = sender.path.datagram_size - DATA_OVERHEAD;
        if let Some(segments) = offload.segments {
            // Waiting packets leave first, so that the host's packets stay in order.
            self.send_gso(now, gso, batch);
            // Segments larger than the path's size are cut once more; the host gets no error.
            let whole = SuperSegment::from_packet(packet, segments.payload).and_then(|whole| {
                let most = mtu.saturating_sub(whole.header_len());
                if most >= segments.payload { Some(whole) } else { SuperSegment::from_packet(packet, most) }
            });
            match whole {
                Some(whole) => self.send_segments(now, sender, whole, packet, batch),
                None => self.counters.device_malformed.increment(),
            }
            return;
        }
        if packet.len() <= mtu {
            self.join_others(now, sender, packet, gso, batch);
            return;
        }
        // As above: packets stay in order.
        self.send_gso(now, gso, batch);
        if self.refuse_too_big(now, network.interface, packet, mtu) {
            return;
        }
        self.send_sealed(now, network.interface, sender, packet, batch);
    }

    /// Answers the host behind a device if its packet exceeds the path's `mtu` and must not be fragmented;
    /// then returns true.
    pub(super) fn refuse_too_big(
        &self,
        now: Instant,
        interface: InterfaceId,
        packet: &[u8],
        mtu: usize,
    ) -> bool {
        if packet.len() <= mtu || !must_not_be_cut(packet, mtu) {
            return false;
        }
        // Packets of sockets are fragmented by this node instead, because it is their source.
        let network = self.known_by_interface(interface).filter(|network| network.device.is_some());
        let Some(network) = network else { return false };
        self.counters.out_too_big.increment();
        self.answer(now, &network, packet, Undelivered::TooBig { mtu });
        true
    }

    /// Sends a super-segment from the host in pieces that fit the path.
    fn send_segments(
        &self,
        now: Instant,
        sender: &Sender,
        mut whole: SuperSegment,
        packet: &mut [u8],
        batch: &mut Batch,
    ) {
        let size = whole.packet_len() + sender.overhead();
        let most = self.most_segments(sender, size);
        let ecn = ecn::of(packet);
        Buffers::with(|Buffers { sealed, .. }| {
            let (mut length, mut count) = (0, 0);
            while let Some(segment) = whole.next(packet) {
                let Ok(n) = sender.seal(segment, &mut sealed[length..]) else { break };
                (length, count) = (length + n, count + 1);
                if count == most || length + size > MAX_BATCH {
                    self.transmit(sender, &sealed[..length], Some(size), ecn);
                    (length, count) = (0, 0);
                }
            }
            if count > 0 {
                self.transmit(sender, &sealed[..length], Some(size), ecn);
            }
        });
        self.note_sent(now, &sender.session, batch);
    }

    /// Reports to the host why its packet was not delivered.
    fn answer(&self, now: Instant, network: &Known, packet: &[u8], why: Undelivered) {
        if let Some(device) = &network.device
            && let Some(error) = self.stack.icmp_error(now, packet, why)
        {
            device.deliver(&error, &Offload::default());
        }
    }

    /// Reports to the host behind an interface, if any, that a queued packet was not delivered.
    pub(super) fn answer_waiting(&self, now: Instant, interface: InterfaceId, packet: &[u8]) {
        if let Some(network) = self.known_by_interface(interface) {
            self.answer(now, &network, packet, Undelivered::HostUnreachable);
        }
    }

    /// Returns true if an address is this node's in a network, or in a block behind it.
    pub(super) fn is_own(&self, network: &Known, address: IpAddr) -> bool {
        matches!(self.routes.get(network.index, address), Some(Route::Local))
    }
}

/// Completes a packet's checksums before it is fragmented or queued.
fn complete(packet: &mut [u8], offload: &Offload) {
    if offload.checksum.is_some() {
        fill_checksums(packet);
    }
}

/// Returns true if the sender must shrink a packet that exceeds the path's `mtu`.
fn must_not_be_cut(packet: &[u8], mtu: usize) -> bool {
    match packet.first().map(|first| first >> 4) {
        // IPv4: the Don't Fragment bit.
        Some(4) => packet[6] & 0x40 != 0,
        // IPv6: routers never fragment (RFC 8200 section 5), but below the minimum MTU the sender cannot
        // help.
        _ => mtu >= MINIMUM_MTU,
    }
}
