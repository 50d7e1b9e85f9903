//! Packets made by hand.

use std::net::IpAddr;

use crate::pair::address;

/// Protocol numbers of IPv6 extension headers and upper layers.
pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const UDP: u8 = 17;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const DESTINATION_OPTIONS: u8 = 60;

/// Returns an IPv6 packet to `destination` whose payload starts with a `next`.
pub(crate) fn v6_to(source: IpAddr, destination: IpAddr, next: u8, payload: &[u8]) -> Vec<u8> {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (source, destination) else { panic!("not IPv6") };
    let [high, low] = (payload.len() as u16).to_be_bytes();
    let header = [0x60, 0, 0, 0, high, low, next, 64];
    [&header[..], &source.octets(), &destination.octets(), payload].concat()
}

/// Returns an IPv6 packet from the other side to `to`.
pub(crate) fn v6(to: usize, next: u8, payload: &[u8]) -> Vec<u8> {
    v6_to(address(1 - to, true, 0).ip(), address(to, true, 0).ip(), next, payload)
}

/// Returns an IPv4 packet from the other side to `to`, with options, identification, and the field with flags
/// and offset.
pub(crate) fn v4(to: usize, options: &[u8], ident: u16, field: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) =
        (address(1 - to, false, 0).ip(), address(to, false, 0).ip())
    else {
        panic!("not IPv4")
    };
    let len = 20 + options.len();
    let [high, low] = ((len + payload.len()) as u16).to_be_bytes();
    let [ident_high, ident_low] = ident.to_be_bytes();
    let [field_high, field_low] = field.to_be_bytes();
    let first = 0x40 | (len / 4) as u8;
    let header = [first, 0, high, low, ident_high, ident_low, field_high, field_low, 64, protocol, 0, 0];
    [&header[..], &source.octets(), &destination.octets(), options, payload].concat()
}

/// Returns a UDP datagram without a checksum.
pub(crate) fn udp(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    let len = (8 + data.len()) as u16;
    let fields = [from, to, len, 0].map(u16::to_be_bytes);
    [fields.as_flattened(), data].concat()
}

/// Returns an IPv6 fragment header.
pub(crate) fn fragment_header(next: u8, ident: u32, offset: usize, more: bool) -> Vec<u8> {
    let [high, low] = (offset as u16 | u16::from(more)).to_be_bytes();
    [&[next, 0, high, low][..], &ident.to_be_bytes()].concat()
}

/// Returns an ICMP error to `to` from the other side, about the packet `quoted`.
pub(crate) fn icmp_error(to: usize, [kind, code]: [u8; 2], word: u32, quoted: &[u8]) -> Vec<u8> {
    let message = [&[kind, code, 0, 0][..], &word.to_be_bytes(), quoted].concat();
    if quoted[0] >> 4 == 4 { v4(to, &[], 0, 0, 1, &message) } else { v6(to, 58, &message) }
}

/// Returns the packet with another source address: a third member's, or the receiver's.
pub(crate) fn sent_by(source: IpAddr, mut packet: Vec<u8>) -> Vec<u8> {
    match source {
        IpAddr::V4(v4) => packet[12..16].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => packet[8..24].copy_from_slice(&v6.octets()),
    }
    packet
}
