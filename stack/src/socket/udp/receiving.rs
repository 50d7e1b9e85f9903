//! Input of UDP sockets: datagrams, and errors about sent datagrams.

use std::net::SocketAddr;

use smoltcp::wire::UdpPacket;

use super::{UdpRoute, UdpSocket};
use crate::host::clock::Time;
use crate::host::interface::Interface;
use crate::host::stack::Shared;
use crate::icmp::{Problem, report};
use crate::ip::IpHeader;
use crate::ip::received_headers::HeaderChain;
use crate::socket::inbox::Origin;
use crate::{Batch, Error, ErrorReport, Fragmentation, TrafficClass};

/// Finds the sockets for the UDP datagram in `packet` and queues it there.
pub(crate) fn receive(
    shared: &Shared,
    time: Time,
    interface: &Interface,
    packet: &[u8],
    ip: &IpHeader,
    batch: &mut Batch,
) {
    let counters = &shared.counters;
    let Ok(udp) = UdpPacket::new_checked(&packet[ip.header_len..ip.total_len]) else {
        return counters.udp_malformed.increment();
    };
    // Port 0 is reserved (RFC 6335 6), so no socket can have it.
    if udp.dst_port() == 0 {
        return counters.udp_malformed.increment();
    }
    if interface.checksums && !udp.verify_checksum(&ip.source.into(), &ip.destination.into()) {
        return counters.ip_checksum_errors.increment();
    }
    // Every peer may send to a service's port. Other sockets get only answers, which come from a service's
    // port.
    let service = interface.allows(udp.dst_port());
    if !service && !interface.allows(udp.src_port()) {
        return counters.port_not_allowed.increment();
    }
    let origin = Origin {
        source: SocketAddr::new(ip.source, udp.src_port()),
        destination: SocketAddr::new(ip.destination, udp.dst_port()),
        interface: interface.id,
        hop_limit: ip.hop_limit,
        traffic_class: TrafficClass(ip.traffic_class),
    };
    if ip.destination.is_multicast() {
        let data = (HeaderChain::of(packet, ip), udp.payload());
        return receive_for_group(shared, (time, service), &origin, data, batch);
    }
    let route = UdpRoute { interface: interface.id, source: origin.destination, destination: origin.source };
    // With SO_REUSEPORT, all datagrams of one sender go to the same socket.
    let spread = || shared.listener_key.digest((origin.destination, origin.source));
    let bound =
        || shared.udp_binds.find_shared(interface.id, origin.destination, UdpSocket::shares_port, spread);
    let connected = shared.udp_connected.find(&route);
    // Without this check, an unconnected client socket would be open to any service port of the network.
    if connected.is_none() && !service && !bound().is_some_and(|socket| socket.expects(time, &origin)) {
        return counters.port_not_allowed.increment();
    }
    let Some(socket) = connected.or_else(bound) else {
        counters.udp_no_socket.increment();
        return report(shared, time, interface, packet, Problem::PortUnreachable, batch);
    };
    socket.deliver(origin, (HeaderChain::of(packet, ip), udp.payload()));
    batch.touch_udp(&shared.rounds, socket);
}

/// Delivers a copy to every member.
fn receive_for_group(
    shared: &Shared,
    (time, service): (Time, bool),
    origin: &Origin,
    data: (HeaderChain<'_>, &[u8]),
    batch: &mut Batch,
) {
    let members = shared.udp_binds.matching(origin.interface, origin.destination);
    let mut delivered = false;
    for socket in members {
        if socket.is_member(origin) && (service || socket.expects(time, origin)) {
            delivered = true;
            socket.deliver(*origin, data);
            batch.touch_udp(&shared.rounds, socket);
        }
    }
    // Without a member no error is sent, because errors never answer multicast (RFC 1122 3.2.2).
    if !delivered {
        shared.counters.udp_no_socket.increment();
    }
}

impl UdpSocket {
    /// Returns true if the socket expects answers from there: it is connected to the source, or has sent
    /// there recently.
    fn expects(&self, now: Time, origin: &Origin) -> bool {
        let mut inner = self.lock();
        let connected = inner.peer.is_some_and(|peer| peer.destination == origin.source);
        let known = inner.correspondents.as_mut();
        connected || known.is_some_and(|known| known.expects(now, origin.interface, origin.source))
    }

    fn is_member(&self, origin: &Origin) -> bool {
        self.lock().inbox.groups.takes(origin.interface, origin.destination.ip(), origin.source.ip())
    }

    /// Processes an ICMP error about one of the socket's datagrams; returns `false` if the socket ignores it.
    pub(crate) fn complain(&self, report: &ErrorReport, hard: bool, payload: &[u8]) -> bool {
        let ip = self.ip.load();
        let mut inner = self.lock();
        // A socket that lets routers fragment needs no reports of sizes.
        if report.error == Error::MessageSize && ip.fragmentation == Fragmentation::Always {
            return false;
        }
        let hard = hard && inner.peer.is_some();
        inner.inbox.complain(&self.shared, &ip, hard, *report, payload)
    }

    /// Reports a failure of all traffic to the addresses that `is_meant` selects. Returns `false` if the
    /// socket is not connected to one of them.
    pub(crate) fn fail_route(&self, error: Error, is_meant: impl Fn(&UdpRoute) -> bool) -> bool {
        let ip = self.ip.load();
        let mut inner = self.lock();
        let Some(peer) = inner.peer.filter(is_meant) else { return false };
        let report = ErrorReport::local(error, peer.destination);
        // Fragmentation settings do not matter here, because fragments do not arrive either.
        inner.inbox.complain(&self.shared, &ip, true, report, &[])
    }

    /// Queues a datagram; a connected socket accepts only its peer's.
    fn deliver(&self, origin: Origin, (between, data): (HeaderChain<'_>, &[u8])) {
        let headers = between.listed(|| self.ip.load().receive_headers);
        let mut inner = self.lock();
        // Checked under the lock, because the socket may have been connected or closed since the look-up.
        if inner.peer.is_some_and(|peer| peer.destination != origin.source) || self.is_closed() {
            return;
        }
        let counters = &self.shared.counters;
        match inner.inbox.push(origin, &headers, data) {
            true => counters.udp_received.increment(),
            false => counters.udp_queue_overflows.increment(),
        }
    }
}
