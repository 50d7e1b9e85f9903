//! Internet checksums (RFC 1071), where an interface wants them.

use std::net::IpAddr;

use smoltcp::wire::{IpProtocol, Ipv4Packet, TcpPacket, checksum};

use crate::ip::IpHeader;

/// Fills in the checksums of a whole TCP packet. Anything else stays as it is.
pub(crate) fn fill_tcp(packet: &mut [u8]) {
    let Ok(ip) = IpHeader::parse(packet, false) else { return };
    if ip.source.is_ipv4() {
        Ipv4Packet::new_unchecked(&mut *packet).fill_checksum();
    }
    let Some(segment) = packet.get_mut(ip.header_len..ip.total_len) else { return };
    if let Ok(mut tcp) = TcpPacket::new_checked(segment) {
        tcp.fill_checksum(&ip.source.into(), &ip.destination.into());
    }
}

/// The checksum over an ICMP message; ICMPv6's covers the addresses too (RFC 4443 2.3). Over a message
/// that contains its own valid checksum it is zero.
pub(crate) fn icmp((source, destination): (IpAddr, IpAddr), message: &[u8]) -> u16 {
    let data = checksum::data(message);
    let sum = match (source, destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let length = message.len() as u32;
            let addresses = (&source.into(), &destination.into());
            let pseudo = checksum::pseudo_header(addresses.0, addresses.1, IpProtocol::Icmpv6, length);
            checksum::combine(&[pseudo, data])
        }
        _ => data,
    };
    !sum
}
