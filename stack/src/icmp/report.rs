//! Outgoing ICMP errors (RFC 1122 3.2.2, RFC 4443 2.4).

use std::net::IpAddr;
use std::time::Instant;

use smoltcp::wire::IpProtocol;

use super::errors::TOO_BIG_V6;
use super::{HEADER, is_error, reply_fields, types, write};
use crate::host::clock::Time;
use crate::host::interface::Interface;
use crate::host::stack::Shared;
use crate::ip::{IpHeader, extensions, is_unicast};
use crate::tcp::TcpHeader;
use crate::{Batch, Stack};

/// Problem with a packet, to be reported to its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// No socket has the port.
    PortUnreachable,
    /// The protocol, named by the byte at `named_at`, is unknown here.
    ProtocolUnreachable { named_at: usize },
    /// Other fragments of the packet have not arrived in time.
    ReassemblyTimeout,
    /// The byte at `pointer` has an unexpected value. With `to_groups`, it is reported for multicast too.
    Parameter { code: u8, pointer: usize, to_groups: bool },
    /// The packet cannot be forwarded.
    Undelivered(Undelivered),
}

/// Reason why a packet from another host's stack (such as a kernel behind a device) does not reach its
/// destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undelivered {
    /// The packet exceeds the path's MTU of `mtu` bytes and must not be fragmented (RFC 1191, RFC 8201).
    TooBig {
        /// MTU in bytes of an IP packet, at least 1280 for IPv6.
        mtu: usize,
    },
    /// No member has the address.
    NoRoute,
    /// The member that has the address is unreachable.
    HostUnreachable,
    /// The network does not allow the packet ([`may_pass`](crate::may_pass)).
    Prohibited,
}

impl Stack {
    /// Returns the ICMP error for the sender of `packet`, with its checksums, as if it came from the packet's
    /// destination. `None` if the packet must not be answered (RFC 1122 3.2.2, RFC 4443 2.4), or the rate
    /// limit is reached.
    pub fn icmp_error(&self, now: Instant, packet: &[u8], why: Undelivered) -> Option<Vec<u8>> {
        let problem = Problem::Undelivered(why);
        let ip = IpHeader::parse(packet, false).ok()?;
        let packet = &packet[..ip.total_len];
        let shared = &self.shared;
        if !may_answer(&ip, packet, problem) {
            return None;
        }
        if !shared.icmp_rates.allow(shared.clock.time(now), ip.source) {
            shared.counters.icmp_rate_limited.increment();
            return None;
        }
        shared.counters.icmp_errors_sent.increment();
        let mut error = vec![0; smallest_mtu(ip.source)];
        let length = message(&mut error, ip.destination, &ip, packet, problem, true)?;
        error.truncate(length);
        Some(error)
    }
}

/// Returns the reset that answers a TCP segment, as if it came from the segment's destination, with its
/// checksums. `None` for a reset, and for a packet that is no TCP segment to one host.
pub fn tcp_reset(packet: &[u8]) -> Option<Vec<u8>> {
    let ip = IpHeader::parse(packet, false).ok()?;
    let is_whole = ip.plain && ip.protocol == IpProtocol::Tcp;
    if !is_whole || !ip.source_is_unicast() || !is_unicast(ip.destination) {
        return None;
    }
    let segment = TcpHeader::parse(packet, &ip, false).ok()?;
    let mut reset = vec![0; smallest_mtu(ip.source)];
    let length = segment.write_reset(&ip, true, &mut reset);
    reset.truncate(length);
    (length > 0).then_some(reset)
}

/// Reports a problem to the sender of `packet`, which may be a fragment, unless an answer is forbidden or the
/// rate limit is reached.
pub(crate) fn report(
    shared: &Shared,
    time: Time,
    interface: &Interface,
    packet: &[u8],
    problem: Problem,
    batch: &mut Batch,
) {
    let Ok(ip) = IpHeader::parse(packet, false) else { return };
    let packet = &packet[..ip.total_len];
    if !may_answer(&ip, packet, problem) {
        return;
    }
    // RFC 4443 2.2 (b): the addressed address, or a suitable one if that was a group.
    let own = Some(ip.destination).filter(|&own| is_unicast(own));
    let Some(own) = own.or_else(|| interface.source_for(ip.source)) else { return };
    if !shared.icmp_rates.allow(time, shared.owner(interface.id, ip.source)) {
        return shared.counters.icmp_rate_limited.increment();
    }
    shared.counters.icmp_errors_sent.increment();
    batch.reply(interface.id, ip.source, smallest_mtu(ip.source), |buf| {
        message(buf, own, &ip, packet, problem, interface.checksums).unwrap_or(0)
    });
}

/// Returns the bytes that every path carries unfragmented.
fn smallest_mtu(address: IpAddr) -> usize {
    if address.is_ipv4() { 576 } else { 1280 }
}

/// Writes the error about `packet` from `own` to its sender; returns its length.
fn message(
    buf: &mut [u8],
    own: IpAddr,
    ip: &IpHeader,
    packet: &[u8],
    problem: Problem,
    checksums: bool,
) -> Option<usize> {
    // RFC 1812 4.3.2.3 and RFC 4443 2.4 (c): quote as much as fits into a packet that every path carries.
    let quoted = packet.len().min(smallest_mtu(ip.source) - 40 - HEADER);
    let (head, field) = header(ip, problem);
    let fields = reply_fields(ip.source, 0);
    write(buf, (own, ip.source), head, &[&field, &packet[..quoted]], &fields, checksums)
}

/// Returns true if the packet may be answered (RFC 1122 3.2.2 and RFC 4443 2.4 (e)). Errors, packets not to
/// or from a single node, and IPv4 fragments other than the first get no answer.
fn may_answer(ip: &IpHeader, packet: &[u8], problem: Problem) -> bool {
    let to_groups = matches!(problem, Problem::Parameter { to_groups: true, .. }) && ip.source.is_ipv6();
    if !ip.source_is_unicast() || !(is_unicast(ip.destination) || to_groups) {
        return false;
    }
    // Truncated headers may hide an error; RFC 7112 nevertheless demands a report of the incomplete chain.
    let Some(upper) = extensions::upper(packet) else { return ip.source.is_ipv6() };
    if upper.offset > 0 {
        return ip.source.is_ipv6();
    }
    let kind = packet.get(upper.at);
    upper.protocol != types(ip.source).protocol || kind.is_some_and(|&kind| !is_error(ip.source, kind))
}

/// Returns type and code, and the four bytes after the checksum.
fn header(ip: &IpHeader, problem: Problem) -> ([u8; 2], [u8; 4]) {
    let types = types(ip.source);
    match problem {
        Problem::PortUnreachable => ([types.unreachable, types.port_unreachable_code], [0; 4]),
        // RFC 1122 3.2.2.1; RFC 4443 3.4 code 1, unrecognized next header.
        Problem::ProtocolUnreachable { .. } if ip.source.is_ipv4() => ([types.unreachable, 2], [0; 4]),
        Problem::ProtocolUnreachable { named_at } => {
            ([types.parameter_problem, 1], (named_at as u32).to_be_bytes())
        }
        Problem::Undelivered(Undelivered::TooBig { mtu }) if ip.source.is_ipv4() => {
            // RFC 1191 4: the lower half of the word.
            ([types.unreachable, 4], (mtu.min(0xffff) as u32).to_be_bytes())
        }
        Problem::Undelivered(Undelivered::TooBig { mtu }) => ([TOO_BIG_V6, 0], (mtu as u32).to_be_bytes()),
        Problem::Undelivered(Undelivered::NoRoute) => ([types.unreachable, 0], [0; 4]),
        // RFC 1812 5.2.7.1, communication administratively prohibited; RFC 4443 3.1.
        Problem::Undelivered(Undelivered::Prohibited) if ip.source.is_ipv4() => {
            ([types.unreachable, 13], [0; 4])
        }
        Problem::Undelivered(Undelivered::Prohibited) => ([types.unreachable, 1], [0; 4]),
        // Host unreachable; RFC 4443 3.1, address unreachable.
        Problem::Undelivered(Undelivered::HostUnreachable) if ip.source.is_ipv4() => {
            ([types.unreachable, 1], [0; 4])
        }
        Problem::Undelivered(Undelivered::HostUnreachable) => ([types.unreachable, 3], [0; 4]),
        Problem::ReassemblyTimeout => ([types.time_exceeded, 1], [0; 4]),
        Problem::Parameter { code, pointer, .. } if ip.source.is_ipv4() => {
            ([types.parameter_problem, code], [pointer as u8, 0, 0, 0])
        }
        Problem::Parameter { code, pointer, .. } => {
            ([types.parameter_problem, code], (pointer as u32).to_be_bytes())
        }
    }
}
