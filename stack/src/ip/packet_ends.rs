//! Ends of a packet, for a junction that decides which flows may pass.

use std::net::IpAddr;

use smoltcp::wire::IpProtocol;

use crate::icmp;
use crate::ip::{IpHeader, extensions};

/// Length of TCP's header up to and including the flags, bytes.
const TCP_FLAGS: usize = 14;

/// Types of ICMPv6 that report memberships of groups (RFC 2710, RFC 3810).
const MEMBERSHIP_TYPES: [u8; 4] = [130, 131, 132, 143];

/// Part of a packet in its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketPart {
    /// The packet opens a flow: a TCP connection, or a question of ICMP.
    Opens,
    /// A segment of a TCP connection that is open already.
    Continues,
    /// An answer to a question of ICMP.
    Answers,
    /// A packet of a protocol that does not show who has begun, as UDP.
    Either,
    /// No flow: an ICMP error, a report of group memberships, or a later fragment, which means nothing
    /// without the first.
    Apart,
}

/// Ends of an IP packet, and its part in their flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketEnds {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Number of the IP protocol.
    pub protocol: u8,
    /// Ports of source and destination; 0 for protocols without ports.
    pub ports: (u16, u16),
    /// Part of the packet in the flow.
    pub part: PacketPart,
}

/// Returns the ends of an IP packet. `None` for a packet that hides them: it is malformed, a fragment that
/// could replace TCP's flags, or its headers do not end.
///
/// ```
/// use peersock_stack::packet_ends;
///
/// assert!(packet_ends(&[0x45; 19]).is_none());
/// ```
pub fn packet_ends(packet: &[u8]) -> Option<PacketEnds> {
    let ip = IpHeader::parse(packet, false).ok()?;
    let packet = &packet[..ip.total_len];
    let upper = extensions::upper(packet)?;
    let bytes = packet.get(upper.at..).unwrap_or_default();
    let ends = |ports, part| PacketEnds {
        source: ip.source,
        destination: ip.destination,
        protocol: upper.protocol.into(),
        ports,
        part,
    };
    if upper.offset > 0 {
        // RFC 3128: a second fragment could overwrite the flags of the first.
        let hides = upper.protocol == IpProtocol::Tcp && upper.offset < TCP_FLAGS;
        return (!hides).then_some(ends((0, 0), PacketPart::Apart));
    }
    let ports = |bytes: &[u8]| match *bytes {
        [a, b, c, d, ..] => Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))),
        _ => None,
    };
    match upper.protocol {
        IpProtocol::Tcp => {
            let flags = *bytes.get(TCP_FLAGS - 1)?;
            let (syn, ack) = (flags & 2 != 0, flags & 16 != 0);
            let part = if syn && !ack { PacketPart::Opens } else { PacketPart::Continues };
            Some(ends(ports(bytes)?, part))
        }
        IpProtocol::Udp => Some(ends(ports(bytes)?, PacketPart::Either)),
        IpProtocol::Igmp => Some(ends((0, 0), PacketPart::Apart)),
        protocol if icmp::is_for(ip.source, protocol) => {
            let kind = *bytes.first()?;
            let is_membership = ip.source.is_ipv6() && MEMBERSHIP_TYPES.contains(&kind);
            let part = match icmp::is_answer(ip.source, kind) {
                _ if icmp::is_error(ip.source, kind) || is_membership => PacketPart::Apart,
                true => PacketPart::Answers,
                false => PacketPart::Opens,
            };
            Some(ends((0, 0), part))
        }
        _ => Some(ends((0, 0), PacketPart::Either)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(protocol: u8, rest: &[u8]) -> Vec<u8> {
        let header = [0x60, 0, 0, 0, 0, rest.len() as u8, protocol, 64];
        [header.as_slice(), &[0xfd; 32], rest].concat()
    }

    fn tcp(flags: u8) -> Vec<u8> {
        packet(6, &[0, 9, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0])
    }

    #[test]
    fn the_part_says_who_may_have_begun() {
        let part = |packet: &[u8]| packet_ends(packet).map(|ends| (ends.ports, ends.part));
        assert_eq!(part(&tcp(2)), Some(((9, 80), PacketPart::Opens)));
        assert_eq!(part(&tcp(0x12)), Some(((9, 80), PacketPart::Continues)));
        assert_eq!(part(&tcp(3)), Some(((9, 80), PacketPart::Opens)), "what a kernel may take for a request");
        assert_eq!(part(&packet(17, &[0, 9, 0, 53, 0, 8, 0, 0])), Some(((9, 53), PacketPart::Either)));
        assert_eq!(part(&packet(47, &[0; 4])), Some(((0, 0), PacketPart::Either)));
        for (kind, wanted) in [
            (128, PacketPart::Opens),
            (129, PacketPart::Answers),
            (1, PacketPart::Apart),
            (143, PacketPart::Apart),
        ] {
            assert_eq!(part(&packet(58, &[kind, 0, 0, 0, 0, 0, 0, 0])), Some(((0, 0), wanted)), "{kind}");
        }
        assert_eq!(packet_ends(&tcp(2)).map(|ends| ends.protocol), Some(6));
    }

    #[test]
    fn what_hides_the_ends_has_none() {
        let whole = tcp(2);
        for length in 0..54 {
            let mut cut = whole[..length].to_vec();
            if let Some(byte) = cut.get_mut(5) {
                *byte = length.saturating_sub(40) as u8;
            }
            assert_eq!(packet_ends(&cut), None, "{length}");
        }
        let fragment = |offset: u8| packet(44, &[&[6, 0, 0, offset, 0, 0, 0, 1], &whole[40..]].concat());
        assert_eq!(packet_ends(&fragment(8)), None, "it could replace the flags");
        assert_eq!(packet_ends(&fragment(16)).map(|ends| ends.part), Some(PacketPart::Apart));
        assert_eq!(packet_ends(&fragment(1)).map(|ends| ends.part), Some(PacketPart::Opens), "the first");
    }
}
