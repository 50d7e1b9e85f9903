//! Networks whose inner side is a device of the machine instead of this node's stack: another IP, the
//! kernel's behind a TUN device, makes the packets and takes them in.

use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use peersock_overlay::{DATA_OVERHEAD, Route, Sender};
use peersock_stack::{
    Batch, Flushed, InterfaceId, PartialChecksum, SuperSegment, Undelivered, fill_checksums, may_pass,
    prepare_checksum,
};

use crate::addresses::{destination_address, source_address};
use crate::egress::{Buffers, MAX_BATCH};
use crate::networks::Known;
use crate::route::Resolved;
use crate::{Datapath, GsoBatch, ecn};

/// The least that IPv6 asks of a link, bytes (RFC 8200 section 5). What is larger than a path that takes less
/// is cut, for its sender would not make it smaller.
const MINIMUM_MTU: usize = 1280;

/// What takes a network's packets in the place of the stack.
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
    /// group. Called by whichever thread receives, so it must not wait: what finds no room is lost.
    fn deliver(&self, packet: &[u8], offload: &Offload);
}

/// What a packet's maker has left to whoever comes after it: virtio's header for network devices (virtio 1.2,
/// 5.1.6) as far as it is used here.
///
/// ```
/// assert_eq!(peersock_datapath::Offload::default().checksum, None);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offload {
    /// The checksum is still to be completed. `None`: it is there, or the packet has none.
    pub checksum: Option<PartialChecksum>,
    /// The packet is several TCP segments in one.
    pub segments: Option<Segments>,
}

/// How one packet is to become several TCP segments.
///
/// ```
/// let segments = peersock_datapath::Segments { header_len: 60, payload: 1360 };
/// assert_eq!(segments.header_len + segments.payload, 1420);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    /// Bytes of the IP and TCP headers.
    pub header_len: usize,
    /// Bytes of payload of each but the last, which may have less.
    pub payload: usize,
}

/// Gives a device what the coalescer lets go.
pub(super) fn deliver(device: &dyn Device, flushed: Flushed<'_>) {
    let segments =
        flushed.joined.map(|joined| Segments { header_len: joined.header_len, payload: joined.segment });
    let checksum = prepare_checksum(flushed.packet);
    device.deliver(flushed.packet, &Offload { checksum, segments });
}

impl Datapath {
    /// Sends a packet that the host behind a device has made. It may wait in `gso` for others of its turn,
    /// which the caller sends with [`Datapath::send_gso`]; what it causes lands in `batch`, for
    /// [`Datapath::settle`].
    ///
    /// What cannot be sent is answered with an ICMP error to the device, as a router would.
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
            // Peers would drop it: neighbours' addresses, or the link-local ones that kernels give devices.
            return self.counters.device_source_not_own.increment();
        }
        if !may_pass(packet, &network.ports) {
            self.counters.device_port_refused.increment();
            return self.answer(now, &network, packet, Undelivered::Prohibited);
        }
        if destination.is_multicast() {
            complete(packet, offload);
            return self.send_to_group(now, interface, destination, packet, batch);
        }
        let peer = match self.resolve(now, interface, None, destination) {
            Resolved::Route(Route::Peer(peer)) => peer,
            Resolved::Unknown => {
                complete(packet, offload);
                let kept = self.lock_waiting().add_packet(now, false, interface, destination, packet);
                return self.counters.out_waiting_dropped.add(u64::from(!kept));
            }
            // What is for the host itself does not come here, unless its routes are wrong.
            Resolved::Route(Route::Local) | Resolved::NoRoute => {
                self.counters.out_no_route.increment();
                return self.answer(now, &network, packet, Undelivered::NoRoute);
            }
        };
        let Some(sender) = peer.sender() else {
            complete(packet, offload);
            return self.wait_for_session(now, interface, &peer, destination, packet, batch);
        };
        self.send_to_peer(now, &network, &sender, packet, offload, gso, batch);
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a packet, how it is to be cut, its way, and where more leaves"
    )]
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
            self.send_gso(now, gso, batch);
            // Larger segments than the path takes are cut once more: the kernel need not know.
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
        self.send_gso(now, gso, batch);
        if self.refuse_too_big(now, network.interface, packet, mtu) {
            return;
        }
        self.send_sealed(now, network.interface, sender, packet, batch);
    }

    /// Answers a host behind a device whose packet is over the path's `mtu` and must not be cut, and returns
    /// true. Packets of sockets are cut by this node, which is their source.
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
        let network = self.known_by_interface(interface).filter(|network| network.device.is_some());
        let Some(network) = network else { return false };
        self.counters.out_too_big.increment();
        self.answer(now, &network, packet, Undelivered::TooBig { mtu });
        true
    }

    /// Sends what the host has left whole, in pieces that the path takes.
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

    /// Tells the host what has become of its packet.
    fn answer(&self, now: Instant, network: &Known, packet: &[u8], why: Undelivered) {
        if let Some(device) = &network.device
            && let Some(error) = self.stack.icmp_error(now, packet, why)
        {
            device.deliver(&error, &Offload::default());
        }
    }

    /// Tells the host behind an interface, if there is one, that packets have waited in vain.
    pub(super) fn answer_waiting(&self, now: Instant, interface: InterfaceId, packet: &[u8]) {
        if let Some(network) = self.known_by_interface(interface) {
            self.answer(now, &network, packet, Undelivered::HostUnreachable);
        }
    }

    /// Whether an address is this node's in a network, or in a block behind it.
    pub(super) fn is_own(&self, network: &Known, address: IpAddr) -> bool {
        matches!(self.routes.get(network.index, address), Some(Route::Local))
    }
}

/// Has a packet's checksums be there, before it is cut or kept.
fn complete(packet: &mut [u8], offload: &Offload) {
    if offload.checksum.is_some() {
        fill_checksums(packet);
    }
}

/// Whether the sender of a packet that is over the path's `mtu` shall make it smaller.
fn must_not_be_cut(packet: &[u8], mtu: usize) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) => packet[6] & 0x40 != 0,
        _ => mtu >= MINIMUM_MTU,
    }
}
