//! ICMP errors that go out (RFC 1122 3.2.2, RFC 4443 2.4).

use super::{HEADER, is_error, reply_fields, types, write};
use crate::Batch;
use crate::host::clock::Time;
use crate::host::interface::Interface;
use crate::host::stack::Shared;
use crate::ip::{IpHeader, extensions, is_unicast};

/// What is wrong with a packet, for its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// No socket has the port.
    PortUnreachable,
    /// Nobody here takes the protocol, which the byte at `named_at` names.
    ProtocolUnreachable { named_at: usize },
    /// Other fragments of the packet have not come.
    ReassemblyTimeout,
    /// The byte at `pointer` has an unexpected value. Those `to_groups` are reported for multicast too.
    Parameter { code: u8, pointer: usize, to_groups: bool },
}

/// Tells the sender of `packet`, a whole one or a fragment, what is wrong with it; unless it must not be
/// told, or was told much already.
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
    // RFC 4443 2.2 (b): the address that was asked for, or one that suits if it was a group's.
    let own = Some(ip.destination).filter(|&own| is_unicast(own));
    let Some(own) = own.or_else(|| interface.source_for(ip.source)) else { return };
    if !shared.icmp_rates.allow(time, ip.source) {
        return shared.counters.icmp_rate_limited.increment();
    }
    shared.counters.icmp_errors_sent.increment();
    // RFC 1812 4.3.2.3 and RFC 4443 2.4 (c): as much as fits a packet that every path takes.
    let smallest_mtu = if ip.source.is_ipv4() { 576 } else { 1280 };
    let quoted = packet.len().min(smallest_mtu - 40 - HEADER);
    batch.reply(interface.id, ip.source, smallest_mtu, |buf| {
        let (head, field) = header(&ip, problem);
        let fields = reply_fields(ip.source, 0);
        let parts = [&field, &packet[..quoted]];
        write(buf, (own, ip.source), head, &parts, &fields, interface.checksums).unwrap_or(0)
    });
}

/// RFC 1122 3.2.2 and RFC 4443 2.4 (e): never in answer to an error, to what was not sent to or by a single
/// node, or to IPv4 fragments other than the first.
fn may_answer(ip: &IpHeader, packet: &[u8], problem: Problem) -> bool {
    let to_groups = matches!(problem, Problem::Parameter { to_groups: true, .. }) && ip.source.is_ipv6();
    if !ip.source_is_unicast() || !(is_unicast(ip.destination) || to_groups) {
        return false;
    }
    // Headers that do not end may hide an error; RFC 7112 wants the chain reported all the same.
    let Some(upper) = extensions::upper(packet) else { return ip.source.is_ipv6() };
    if upper.offset > 0 {
        return ip.source.is_ipv6();
    }
    let kind = packet.get(upper.at);
    upper.protocol != types(ip.source).protocol || kind.is_some_and(|&kind| !is_error(ip.source, kind))
}

/// Type and code, and the four bytes behind the checksum.
fn header(ip: &IpHeader, problem: Problem) -> ([u8; 2], [u8; 4]) {
    let types = types(ip.source);
    match problem {
        Problem::PortUnreachable => ([types.unreachable, types.port_unreachable_code], [0; 4]),
        // RFC 1122 3.2.2.1; RFC 4443 3.4 code 1, unrecognized next header.
        Problem::ProtocolUnreachable { .. } if ip.source.is_ipv4() => ([types.unreachable, 2], [0; 4]),
        Problem::ProtocolUnreachable { named_at } => {
            ([types.parameter_problem, 1], (named_at as u32).to_be_bytes())
        }
        Problem::ReassemblyTimeout => ([types.time_exceeded, 1], [0; 4]),
        Problem::Parameter { code, pointer, .. } if ip.source.is_ipv4() => {
            ([types.parameter_problem, code], [pointer as u8, 0, 0, 0])
        }
        Problem::Parameter { code, pointer, .. } => {
            ([types.parameter_problem, code], (pointer as u32).to_be_bytes())
        }
    }
}
