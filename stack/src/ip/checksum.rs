//! Internet checksums (RFC 1071), for interfaces that use them.

use std::net::IpAddr;

use smoltcp::wire::{IpProtocol, Ipv4Packet, TcpPacket, checksum};

use crate::ip::IpHeader;

/// Fills in the checksums of a whole TCP packet. Other packets stay unchanged.
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

/// Returns the checksum of an ICMP message; ICMPv6 includes the addresses (RFC 4443 2.3). It is zero for a
/// message with a valid checksum.
pub(crate) fn icmp(addresses: (IpAddr, IpAddr), message: &[u8]) -> u16 {
    match addresses.0 {
        IpAddr::V4(_) => !checksum::data(message),
        IpAddr::V6(_) => pseudo(addresses, IpProtocol::Icmpv6, message),
    }
}

/// Returns the checksum of an upper layer's packet and the pseudo-header (RFC 8200 8.1). It is zero for a
/// packet with a valid checksum.
pub(crate) fn pseudo((source, destination): (IpAddr, IpAddr), protocol: IpProtocol, packet: &[u8]) -> u16 {
    let header = match (source, destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            checksum::pseudo_header(&source.into(), &destination.into(), protocol, packet.len() as u32)
        }
        _ => 0,
    };
    !checksum::combine(&[header, checksum::data(packet)])
}
