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
pub(crate) fn icmp(addresses: (IpAddr, IpAddr), message: &[u8]) -> u16 {
    match addresses.0 {
        IpAddr::V4(_) => !checksum::data(message),
        IpAddr::V6(_) => pseudo(addresses, IpProtocol::Icmpv6, message),
    }
}

/// The checksum over a packet of the upper layer and the pseudo-header (RFC 8200 8.1). Over a packet that
/// contains its own valid checksum it is zero.
pub(crate) fn pseudo((source, destination): (IpAddr, IpAddr), protocol: IpProtocol, packet: &[u8]) -> u16 {
    let header = match (source, destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            checksum::pseudo_header(&source.into(), &destination.into(), protocol, packet.len() as u32)
        }
        _ => 0,
    };
    !checksum::combine(&[header, checksum::data(packet)])
}
