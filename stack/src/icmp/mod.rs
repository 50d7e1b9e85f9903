//! ICMP and ICMPv6 (RFC 792, RFC 4443): echo both ways, errors both ways.

mod errors;
mod socket;

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use smoltcp::wire::IpProtocol;

use crate::clock::{Time, since};
use crate::interface::Interface;
use crate::ip::{HOP_LIMIT, IpHeader, write_header};
use crate::stack::Shared;
use crate::{Batch, checksum};

pub use socket::{EchoReply, EchoRequest, IcmpSocket};

/// Type, code, checksum and four bytes that depend on the type.
const HEADER: usize = 8;

/// The message types of one family.
struct Types {
    protocol: IpProtocol,
    echo_request: u8,
    echo_reply: u8,
    unreachable: u8,
    time_exceeded: u8,
    port_unreachable_code: u8,
}

const V4: Types = Types {
    protocol: IpProtocol::Icmp,
    echo_request: 8,
    echo_reply: 0,
    unreachable: 3,
    time_exceeded: 11,
    port_unreachable_code: 3,
};

const V6: Types = Types {
    protocol: IpProtocol::Icmpv6,
    echo_request: 128,
    echo_reply: 129,
    unreachable: 1,
    time_exceeded: 3,
    port_unreachable_code: 4,
};

fn types(address: IpAddr) -> &'static Types {
    if address.is_ipv4() { &V4 } else { &V6 }
}

/// Takes in the ICMP message in `packet`.
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
    if message.len() < HEADER || ip.protocol != types.protocol {
        return counters.icmp_malformed.bump();
    }
    if interface.checksums && checksum::icmp((ip.source, ip.destination), message) != 0 {
        return counters.ip_checksum_errors.bump();
    }
    match message[0] {
        kind if kind == types.echo_request => answer_echo(shared, interface, ip, message, batch),
        kind if kind == types.echo_reply => socket::receive_reply(shared, interface, ip, message, batch),
        kind if kind == types.unreachable || kind == types.time_exceeded => {
            errors::receive(shared, time, interface, ip, message, batch);
        }
        _ => counters.icmp_ignored.bump(),
    }
}

/// RFC 1122 3.2.2.6, RFC 4443 4.2: everything after the type comes back.
fn answer_echo(shared: &Shared, interface: &Interface, ip: &IpHeader, request: &[u8], batch: &mut Batch) {
    if !ip.source_is_unicast() || request[1] != 0 {
        return shared.counters.icmp_ignored.bump();
    }
    shared.counters.icmp_echo_requests.bump();
    batch.reply(interface.id, ip.source, ip.total_len + 20, |buf| {
        let addresses = (ip.destination, ip.source);
        let head = [types(ip.source).echo_reply, 0];
        write(buf, addresses, head, &request[4..], HOP_LIMIT, interface.checksums).unwrap_or(0)
    });
}

/// Writes a message: type and code, and everything after the checksum. `None` if `buf` is too short.
fn write(
    buf: &mut [u8],
    addresses: (IpAddr, IpAddr),
    [kind, code]: [u8; 2],
    rest: &[u8],
    hop_limit: u8,
    checksums: bool,
) -> Option<usize> {
    let len = 4 + rest.len();
    let protocol = (types(addresses.0).protocol, hop_limit);
    let ip_len = write_header(buf, addresses, protocol, len, checksums)?;
    let message = &mut buf[ip_len..ip_len + len];
    message[..4].copy_from_slice(&[kind, code, 0, 0]);
    message[4..].copy_from_slice(rest);
    if checksums {
        let sum = checksum::icmp(addresses, message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    Some(ip_len + len)
}

/// A port is not in use: tell the sender, within the rate.
pub(crate) fn port_unreachable(
    shared: &Shared,
    time: Time,
    interface: &Interface,
    ip: &IpHeader,
    packet: &[u8],
    batch: &mut Batch,
) {
    // RFC 1122 3.2.2: never in answer to what was not sent to, or comes not from, a single node.
    if !ip.source_is_unicast() || !crate::ip::is_unicast(ip.destination) {
        return;
    }
    if !shared.icmp_rate.allows(time) {
        return shared.counters.icmp_rate_limited.bump();
    }
    shared.counters.icmp_errors_sent.bump();
    // RFC 1812 4.3.2.3 and RFC 4443 2.4 (c): as much as fits a packet that every path takes.
    let smallest_mtu = if ip.source.is_ipv4() { 576 } else { 1280 };
    let quoted = ip.total_len.min(smallest_mtu - 40 - HEADER);
    batch.reply(interface.id, ip.source, smallest_mtu, |buf| {
        let mut rest = [0; 1280];
        rest[4..4 + quoted].copy_from_slice(&packet[..quoted]);
        let types = types(ip.source);
        let head = [types.unreachable, types.port_unreachable_code];
        let addresses = (ip.destination, ip.source);
        write(buf, addresses, head, &rest[..4 + quoted], HOP_LIMIT, interface.checksums).unwrap_or(0)
    });
}

/// A token bucket that holds one second's worth.
pub(crate) struct Rate {
    per_second: u32,
    state: Mutex<(Time, f64)>,
}

impl Rate {
    pub(crate) fn new(per_second: u32, time: Time) -> Self {
        Self { per_second, state: Mutex::new((time, f64::from(per_second))) }
    }

    fn allows(&self, time: Time) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = f64::from(self.per_second);
        let (last, tokens) = *state;
        let tokens = (tokens + since(time, last).as_secs_f64() * rate).min(rate);
        let allowed = tokens >= 1.0;
        *state = (time.max(last), if allowed { tokens - 1.0 } else { tokens });
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_allows_a_burst_and_then_its_share() {
        let rate = Rate::new(10, Time::from_secs(1));
        let allowed = |time| (0..100).filter(|_| rate.allows(time)).count();
        assert_eq!(allowed(Time::from_secs(1)), 10);
        assert_eq!(allowed(Time::from_millis(1500)), 5);
        assert_eq!(allowed(Time::from_secs(60)), 10);
        assert_eq!(allowed(Time::from_secs(1)), 0, "a clock that goes back gives nothing");
    }
}
