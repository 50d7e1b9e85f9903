//! ICMP and ICMPv6 (RFC 792, RFC 4443): echo both ways, errors both ways.

mod errors;
mod rate;
mod report;
mod socket;

use std::net::IpAddr;

use smoltcp::wire::IpProtocol;

use crate::Batch;
use crate::host::clock::Time;
use crate::host::interface::Interface;
use crate::host::stack::Shared;
use crate::ip::checksum;
use crate::ip::extension_headers::{ExtensionHeaders, write_headers};
use crate::ip::{Fields, HOP_LIMIT, IpHeader};

pub(crate) use errors::Complaint;
pub(crate) use rate::Rates;
pub(crate) use report::{Problem, report};
pub use report::{Undelivered, tcp_reset};
pub use socket::{EchoReply, EchoRequest, IcmpSocket};

/// Length of the header: type, code, checksum and four bytes that depend on the type.
const HEADER: usize = 8;

/// Message types of one family.
struct Types {
    protocol: IpProtocol,
    echo_request: u8,
    echo_reply: u8,
    unreachable: u8,
    time_exceeded: u8,
    parameter_problem: u8,
    port_unreachable_code: u8,
}

const V4: Types = Types {
    protocol: IpProtocol::Icmp,
    echo_request: 8,
    echo_reply: 0,
    unreachable: 3,
    time_exceeded: 11,
    parameter_problem: 12,
    port_unreachable_code: 3,
};

const V6: Types = Types {
    protocol: IpProtocol::Icmpv6,
    echo_request: 128,
    echo_reply: 129,
    unreachable: 1,
    time_exceeded: 3,
    parameter_problem: 4,
    port_unreachable_code: 4,
};

/// Returns true if a message of this type is an error, which must not be answered with another.
pub(crate) fn is_error(address: IpAddr, kind: u8) -> bool {
    match address {
        // Unreachable, source quench, redirect, time exceeded, parameter problem (RFC 1122 3.2.2).
        IpAddr::V4(_) => matches!(kind, 3 | 4 | 5 | 11 | 12),
        // RFC 4443 2.1; 137 is the redirect (RFC 4443 2.4 (e.2)).
        IpAddr::V6(_) => kind < 128 || kind == 137,
    }
}

fn types(address: IpAddr) -> &'static Types {
    if address.is_ipv4() { &V4 } else { &V6 }
}

/// Returns true if `protocol` is the ICMP of the address's family.
pub(crate) fn is_for(address: IpAddr, protocol: IpProtocol) -> bool {
    types(address).protocol == protocol
}

/// Returns true if a message of this type is an error or an echo reply.
pub(crate) fn is_answer(address: IpAddr, kind: u8) -> bool {
    kind == types(address).echo_reply || is_error(address, kind)
}

/// Processes the ICMP message in `packet`.
pub(crate) fn receive(
    shared: &Shared,
    time: Time,
    interface: &Interface,
    ip: &IpHeader,
    packet: &[u8],
    batch: &mut Batch,
) {
    let counters = &shared.counters;
    let types = types(ip.source);
    let message = &packet[ip.header_len..ip.total_len];
    if message.len() < HEADER {
        return counters.icmp_malformed.increment();
    }
    if interface.checksums && checksum::icmp((ip.source, ip.destination), message) != 0 {
        return counters.ip_checksum_errors.increment();
    }
    match message[0] {
        // Answering multicast echo requests is optional in IPv4 (RFC 1122 3.2.2.6) and required in IPv6 (RFC
        // 4443 4.2). No other message may go to a group.
        kind if ip.destination.is_multicast() && (kind != types.echo_request || ip.source.is_ipv4()) => {
            counters.icmp_ignored.increment();
        }
        kind if kind == types.echo_request => answer_echo(shared, interface, ip, message, batch),
        kind if kind == types.echo_reply => socket::receive_reply(shared, interface, ip, packet, batch),
        kind if errors::is_complaint(ip.source, kind) => {
            errors::receive(shared, time, interface, ip, message, batch);
        }
        _ => counters.icmp_ignored.increment(),
    }
}

/// Answers an echo request (RFC 1122 3.2.2.6, RFC 4443 4.2): everything after the type comes back, and the
/// traffic class (RFC 1349 5.1).
fn answer_echo(shared: &Shared, interface: &Interface, ip: &IpHeader, request: &[u8], batch: &mut Batch) {
    if !ip.source_is_unicast() || request[1] != 0 {
        return shared.counters.icmp_ignored.increment();
    }
    // A group cannot be a source, so the answer comes from a local address.
    let own = Some(ip.destination).filter(|own| !own.is_multicast());
    let Some(own) = own.or_else(|| interface.source_for(ip.source)) else { return };
    shared.counters.icmp_echo_requests.increment();
    batch.reply(interface.id, ip.source, request.len() + 40, |buf| {
        let addresses = (own, ip.source);
        let head = [types(ip.source).echo_reply, 0];
        // The ECN bits describe the path of the request, so the reply does not repeat them.
        let fields =
            Fields { traffic_class: ip.traffic_class & !3, ..reply_fields(ip.source, request.len()) };
        write(buf, addresses, head, &[&request[4..]], &fields, interface.checksums).unwrap_or(0)
    });
}

/// Returns the header of an answer to `source` with `len` bytes behind it.
fn reply_fields(source: IpAddr, len: usize) -> Fields {
    // A small answer, which every path carries, must not be fragmented.
    let may_fragment = len + 20 > 576;
    Fields { protocol: types(source).protocol, hop_limit: HOP_LIMIT, traffic_class: 0, may_fragment }
}

/// Writes a message: type and code, and everything after the checksum in parts. Returns `None` if `buf` is
/// too short.
fn write(
    buf: &mut [u8],
    addresses: (IpAddr, IpAddr),
    head: [u8; 2],
    parts: &[&[u8]],
    fields: &Fields,
    checksums: bool,
) -> Option<usize> {
    write_with_headers(buf, addresses, head, parts, (fields, None), checksums)
}

/// Writes a message as [`write`] does, behind extension headers.
fn write_with_headers(
    buf: &mut [u8],
    addresses: (IpAddr, IpAddr),
    [kind, code]: [u8; 2],
    parts: &[&[u8]],
    (fields, headers): (&Fields, Option<&ExtensionHeaders>),
    checksums: bool,
) -> Option<usize> {
    let len = 4 + parts.iter().map(|part| part.len()).sum::<usize>();
    let ip_len = write_headers(buf, addresses, fields, headers, len, checksums)?;
    let message = &mut buf[ip_len..ip_len + len];
    message[..4].copy_from_slice(&[kind, code, 0, 0]);
    let mut rest = &mut message[4..];
    for part in parts {
        let (here, behind) = rest.split_at_mut(part.len());
        here.copy_from_slice(part);
        rest = behind;
    }
    if checksums {
        let sum = checksum::icmp(addresses, message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    Some(ip_len + len)
}
