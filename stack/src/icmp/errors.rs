//! Arriving ICMP errors, and the sockets that they concern.

use std::net::{IpAddr, SocketAddr};

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet};

use super::{HEADER, V6, socket, types};
use crate::host::clock::Time;
use crate::host::interface::Interface;
use crate::host::stack::Shared;
use crate::ip::{IpHeader, extensions};
use crate::socket::flow_table::FlowKey;
use crate::socket::raw;
use crate::{Batch, Cidr, Error, ErrorOrigin, ErrorReport, InterfaceId, Stack, UdpRoute};

/// ICMPv6 type "packet too big", and the type and code of the same error in IPv4: fragmentation needed.
pub(super) const TOO_BIG_V6: u8 = 2;
const TOO_BIG_V4: [u8; 2] = [3, 4];

/// An ICMP error that claims to concern a packet of this node.
pub(crate) struct Complaint<'a> {
    pub(crate) time: Time,
    /// Error reported to the socket.
    pub(crate) error: Error,
    kind: u8,
    code: u8,
    /// MTU of a packet that was too big, or pointer of a parameter problem.
    info: u32,
    offender: IpAddr,
    /// Length in bytes according to the quoted packet's header.
    total_len: usize,
    /// Quoted bytes behind the IP headers, at least eight.
    pub(crate) head: &'a [u8],
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: IpProtocol,
}

impl Stack {
    /// Fails connected UDP sockets, and sockets that wait for echo replies, because datagrams to some
    /// addresses do not arrive. Their next call fails with `error`, and they are listed in `batch`. Visits
    /// all such sockets.
    pub fn fail_datagrams(&self, interface: InterfaceId, remotes: &[Cidr], error: Error, batch: &mut Batch) {
        let is_meant =
            |through, address| through == interface && remotes.iter().any(|remote| remote.contains(address));
        for socket in self.shared.udp_binds.filter(|_| true) {
            if socket.fail_route(error, |route| is_meant(route.interface, route.destination.ip())) {
                batch.touch_udp(&self.shared.rounds, socket);
            }
        }
        socket::fail_waiting(
            &self.shared,
            error,
            |route| is_meant(route.interface, route.destination),
            batch,
        );
    }
}

/// Processes an error: destination unreachable, packet too big, time exceeded or parameter problem.
pub(super) fn receive(
    shared: &Shared,
    time: Time,
    interface: &Interface,
    ip: &IpHeader,
    message: &[u8],
    batch: &mut Batch,
) {
    let counters = &shared.counters;
    let Some(complaint) = Complaint::parse(time, ip, message) else {
        return counters.icmp_malformed.increment();
    };
    // A genuine error quotes a packet that this node has sent.
    if !interface.is_local(complaint.source) {
        return counters.icmp_ignored.increment();
    }
    if !may_complain(interface, complaint.offender, complaint.destination) {
        return counters.icmp_strangers.increment();
    }
    // Raw sockets get a copy, because they may have sent the packet under any protocol.
    let mut known = raw::complain(shared, interface, &complaint, batch);
    known |= match complaint.protocol {
        IpProtocol::Tcp => tcp(shared, interface, &complaint, batch),
        IpProtocol::Udp => udp(shared, interface, &complaint, batch),
        protocol if protocol == types(ip.source).protocol => {
            socket::receive_error(shared, interface, &complaint, ip, batch)
        }
        _ => false,
    };
    // An error about a packet that no socket sent changes nothing, not even the path's MTU.
    if !known {
        return counters.icmp_ignored.increment();
    }
    counters.icmp_errors_received.increment();
    if let Some(mtu) = complaint.mtu() {
        let path = (interface.id, complaint.destination);
        if shared.path_mtus.report(time, path, mtu, complaint.total_len) {
            counters.path_mtu_reports.increment();
        }
    }
}

/// Returns true if `offender` can have seen a packet to `destination`. This function alone decides which
/// errors are believed (RFC 5927 section 4). The caller of [`Stack::receive`](crate::Stack::receive) vouches
/// for the offender's address.
///
/// Packets go directly from member to member. So only the destination can report errors, and this node about
/// packets that it could not send. In a network with forwarding members, this function must accept them.
fn may_complain(interface: &Interface, offender: IpAddr, destination: IpAddr) -> bool {
    offender == destination || interface.is_local(offender)
}

fn tcp(shared: &Shared, interface: &Interface, complaint: &Complaint<'_>, batch: &mut Batch) -> bool {
    let (local, remote) = complaint.endpoints();
    let Some(flow) = shared.flows.find(&FlowKey::new(interface.id, local, remote)) else { return false };
    let seq = complaint.head.iter().skip(4).take(4).fold(0, |seq, &byte| seq << 8 | u32::from(byte));
    let concerned = match complaint.mtu() {
        // The flow reads the new MTU of the path at its next output.
        Some(_) => flow.has_in_flight(seq),
        None => flow.complain(complaint.time, seq, complaint.report(remote)),
    };
    if concerned {
        batch.touch_flow(&shared.rounds, flow);
    }
    concerned
}

/// Passes an error to a UDP socket (RFC 1122 4.1.3.3).
fn udp(shared: &Shared, interface: &Interface, complaint: &Complaint<'_>, batch: &mut Batch) -> bool {
    let (source, destination) = complaint.endpoints();
    let route = UdpRoute { interface: interface.id, source, destination };
    let bound = || shared.udp_binds.find(interface.id, source).filter(|socket| socket.peer().is_none());
    let Some(socket) = shared.udp_connected.find(&route).or_else(bound) else { return false };
    let payload = complaint.head.get(8..).unwrap_or_default();
    // An unconnected socket cannot assign the error to a datagram, so it gets reports only on request.
    let told = socket.complain(&complaint.report(destination), complaint.is_hard(), payload);
    if told {
        batch.touch_udp(&shared.rounds, socket);
    }
    // A report that a packet was too big counts even if the socket wants no errors.
    told || complaint.mtu().is_some()
}

impl<'a> Complaint<'a> {
    fn parse(time: Time, ip: &IpHeader, message: &'a [u8]) -> Option<Self> {
        let (header, quoted) = message.split_at_checked(HEADER)?;
        let (kind, code) = (header[0], header[1]);
        let (source, destination, total_len): (IpAddr, IpAddr, usize) =
            match (ip.source, quoted.first()? >> 4) {
                (IpAddr::V4(_), 4) if quoted.len() >= 20 => {
                    let view = Ipv4Packet::new_unchecked(quoted);
                    (view.src_addr().into(), view.dst_addr().into(), view.total_len().into())
                }
                (IpAddr::V6(_), 6) if quoted.len() >= 40 => {
                    let view = Ipv6Packet::new_unchecked(quoted);
                    (view.src_addr().into(), view.dst_addr().into(), view.total_len())
                }
                _ => return None,
            };
        // The quoted packet may be truncated, and may be the first of several fragments.
        let upper = extensions::upper(quoted).filter(|upper| upper.offset == 0)?;
        // RFC 792: eight bytes at least are quoted, with the ports and TCP's sequence number.
        let head = quoted.get(upper.at..).filter(|head| head.len() >= 8)?;
        let word = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let info = match ip.source {
            IpAddr::V4(_) if [kind, code] == TOO_BIG_V4 => word & 0xffff,
            IpAddr::V4(_) if kind == types(ip.source).parameter_problem => word >> 24,
            IpAddr::V6(_) if kind == TOO_BIG_V6 || kind == V6.parameter_problem => word,
            _ => 0,
        };
        Some(Self {
            time,
            error: meaning(ip.source, kind, code),
            kind,
            code,
            info,
            offender: ip.source,
            total_len,
            head,
            source,
            destination,
            protocol: upper.protocol,
        })
    }

    /// Returns the MTU of the next link if a packet was too big: bytes of an IP packet.
    pub(crate) fn mtu(&self) -> Option<usize> {
        (self.error == Error::MessageSize).then_some(self.info as usize)
    }

    /// Returns true if the error concerns more than this one packet (RFC 1122 3.2.2.4: an expired lifetime
    /// may be transient).
    pub(crate) fn is_hard(&self) -> bool {
        // RFC 1122 4.2.3.9: a hop limit that ran out may be a passing loop.
        self.kind != types(self.offender).time_exceeded
    }

    /// Returns source and destination with their ports, as TCP and UDP place them.
    fn endpoints(&self) -> (SocketAddr, SocketAddr) {
        let port = |at: usize| u16::from_be_bytes([self.head[at], self.head[at + 1]]);
        (SocketAddr::new(self.source, port(0)), SocketAddr::new(self.destination, port(2)))
    }

    /// Returns the report for a socket's error queue.
    pub(crate) fn report(&self, destination: SocketAddr) -> ErrorReport {
        ErrorReport {
            error: self.error,
            origin: if self.offender.is_ipv4() { ErrorOrigin::Icmp } else { ErrorOrigin::Icmpv6 },
            kind: self.kind,
            code: self.code,
            info: self.info,
            offender: Some(self.offender),
            destination,
            len: 0,
        }
    }
}

/// Returns the error that Linux derives from a type and code.
fn meaning(source: IpAddr, kind: u8, code: u8) -> Error {
    let types = types(source);
    if kind == types.time_exceeded {
        return Error::HostUnreachable;
    }
    if kind == types.parameter_problem {
        return Error::Protocol;
    }
    match (source, code) {
        (IpAddr::V6(_), _) if kind == TOO_BIG_V6 => Error::MessageSize,
        (IpAddr::V4(_), 4) => Error::MessageSize,
        // The same errors as Linux has for these codes (icmp_err_convert).
        (IpAddr::V4(_), 0 | 6 | 9 | 11) => Error::NetworkUnreachable,
        (IpAddr::V4(_), 2) => Error::ProtocolUnreachable,
        (IpAddr::V4(_), 3) => Error::ConnectionRefused,
        (IpAddr::V4(_), _) => Error::HostUnreachable,
        (IpAddr::V6(_), 0) => Error::NetworkUnreachable,
        (IpAddr::V6(_), 1 | 5 | 6) => Error::PermissionDenied,
        (IpAddr::V6(_), code) if code == V6.port_unreachable_code => Error::ConnectionRefused,
        (IpAddr::V6(_), _) => Error::HostUnreachable,
    }
}

/// Returns true if [`receive`] processes messages of this type.
pub(super) fn is_complaint(source: IpAddr, kind: u8) -> bool {
    let types = types(source);
    let too_big = source.is_ipv6() && kind == TOO_BIG_V6;
    too_big || [types.unreachable, types.time_exceeded, types.parameter_problem].contains(&kind)
}
