//! Input of raw sockets: packets, and errors about sent packets.

use std::net::SocketAddr;
use std::sync::Arc;

use smoltcp::wire::{IpProtocol, Ipv4Packet};

use super::{RawSocket, SEND_ONLY};
use crate::host::interface::Interface;
use crate::host::stack::Shared;
use crate::icmp::Complaint;
use crate::ip::IpHeader;
use crate::ip::checksum;
use crate::ip::received_headers::HeaderChain;
use crate::socket::inbox::Origin;
use crate::{Batch, TrafficClass, icmp};

/// Delivers a whole packet to all matching raw sockets; returns `false` if there is none.
pub(crate) fn receive(
    shared: &Shared,
    interface: &Interface,
    packet: &mut [u8],
    ip: &IpHeader,
    batch: &mut Batch,
) -> bool {
    let protocol = u8::from(ip.protocol);
    // An IPPROTO_RAW socket never receives, as in Linux.
    if shared.raw.is_empty() || protocol == SEND_ONLY {
        return false;
    }
    let sockets = shared.raw.matching(interface.id, SocketAddr::new(ip.destination, protocol.into()));
    if sockets.is_empty() {
        return false;
    }
    // Overlay packets travel without checksums, but programs verify what a raw socket gives them.
    if !interface.checksums {
        complete(packet, ip);
    }
    let origin = Origin {
        source: SocketAddr::new(ip.source, 0),
        destination: SocketAddr::new(ip.destination, 0),
        interface: interface.id,
        hop_limit: ip.hop_limit,
        traffic_class: TrafficClass(ip.traffic_class),
    };
    let mut taken = false;
    for socket in sockets {
        if socket.wants(&origin, &packet[ip.header_len..], interface.checksums) {
            taken = true;
            // raw(7) and RFC 3542 section 3: IPv4 gives the IP header to the application, IPv6 does not.
            let data = if ip.source.is_ipv4() { &packet[..] } else { &packet[ip.header_len..] };
            socket.deliver(origin, (HeaderChain::of(packet, ip), data));
            batch.touch_raw(&shared.rounds, socket);
        }
    }
    taken
}

/// Fills in checksums that the stack skips, because a tunnel authenticates every byte. Programs with raw
/// sockets verify them.
fn complete(packet: &mut [u8], ip: &IpHeader) {
    if ip.source.is_ipv4() {
        Ipv4Packet::new_unchecked(&mut *packet).fill_checksum();
    }
    let message = &mut packet[ip.header_len..];
    if icmp::is_for(ip.source, ip.protocol) && message.len() >= 4 {
        message[2..4].fill(0);
        let sum = checksum::icmp((ip.source, ip.destination), message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Passes an ICMP error to the raw sockets whose packets it may concern; returns `false` if none uses it.
pub(crate) fn complain(
    shared: &Shared,
    interface: &Interface,
    complaint: &Complaint<'_>,
    batch: &mut Batch,
) -> bool {
    if shared.raw.is_empty() {
        return false;
    }
    let protocol = u8::from(complaint.protocol).into();
    let mut known = false;
    for socket in shared.raw.matching(interface.id, SocketAddr::new(complaint.source, protocol)) {
        if socket.complain(complaint) {
            known = true;
            batch.touch_raw(&shared.rounds, socket);
        }
    }
    known
}

impl RawSocket {
    fn wants(&self, origin: &Origin, payload: &[u8], verify: bool) -> bool {
        let inner = self.lock();
        let (source, destination) = (origin.source.ip(), origin.destination.ip());
        // As for UDP: a connected socket gets its peer's packets only, and a group's only as a member.
        let for_others = inner.peer.is_some_and(|peer| peer != source)
            || (destination.is_multicast()
                && !inner.inbox.groups.takes(origin.interface, destination, source));
        let is_icmp = icmp::is_for(source, IpProtocol::from(self.protocol));
        let filtered =
            is_icmp && payload.first().is_some_and(|&kind| !inner.options.icmp_filter.passes(kind));
        if for_others || filtered || self.is_closed() {
            return false;
        }
        // RFC 3542 3.1: a packet with a wrong checksum, or too short for one, is not received.
        let Some(offset) = self.checksum_offset(&inner.options).filter(|_| verify) else { return true };
        let protocol = IpProtocol::from(self.protocol);
        let fits = payload.len() >= offset + 2;
        let valid = fits && checksum::pseudo((source, destination), protocol, payload) == 0;
        if !valid {
            self.shared.counters.ip_checksum_errors.increment();
        }
        valid
    }

    fn deliver(&self, origin: Origin, (between, data): (HeaderChain<'_>, &[u8])) {
        let headers = between.listed(|| self.ip.load().receive_headers);
        let counters = &self.shared.counters;
        match self.lock().inbox.push(origin, &headers, data) {
            true => counters.raw_received.increment(),
            false => counters.raw_queue_overflows.increment(),
        }
    }

    /// Processes an ICMP error as [`UdpSocket`](crate::UdpSocket) does.
    fn complain(self: &Arc<Self>, complaint: &Complaint<'_>) -> bool {
        let ip = self.ip.load();
        let mut inner = self.lock();
        if inner.peer.is_some_and(|peer| peer != complaint.destination) {
            return false;
        }
        let report = complaint.report(SocketAddr::new(complaint.destination, 0));
        // An unconnected socket cannot tell which of its packets the error is about.
        let hard = complaint.is_hard() && inner.peer.is_some();
        let fails = inner.inbox.complain(&self.shared, &ip, hard, report, complaint.head);
        // A report that a packet was too big counts even if the socket wants no errors.
        fails || complaint.mtu().is_some()
    }
}
