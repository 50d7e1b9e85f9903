//! IP: headers of arriving packets and of packets made here; `extensions` and `options` in them;
//! `extension_headers` of datagrams that are sent and that have come; `fragments` and their `reassembly`;
//! MTUs of paths (`pmtu`); the choice of a `source` address; checksums and ports of packets between peers and
//! a device (`offload`, `port_rules`).

pub(crate) mod checksum;
pub(crate) mod extended;
pub(crate) mod extension_headers;
pub(crate) mod extensions;
pub(crate) mod fragments;
pub(crate) mod offload;
pub(crate) mod options;
pub(crate) mod packet_ends;
pub(crate) mod pmtu;
pub(crate) mod port_rules;
pub(crate) mod reassembly;
pub(crate) mod received_headers;
pub(crate) mod source;
pub(crate) mod traffic_class;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use smoltcp::phy::{Checksum, ChecksumCapabilities};
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, Ipv4Packet, Ipv6Packet};

/// Length of the largest IP packet that the stack accepts or makes, bytes.
pub const MAX_PACKET: usize = 65_535;

/// Length of the largest IP packet that a datagram socket makes before fragmentation, bytes: an IPv6 header
/// and 65,535 bytes. It suffices as the buffer for [`UdpSocket::send`](crate::UdpSocket::send).
pub const MAX_DATAGRAM: usize = 40 + 65_535;

/// Hop limit of packets whose sender sets none (RFC 1700's default TTL).
pub(crate) const HOP_LIMIT: u8 = 64;

/// Length of the longest IP and TCP headers that smoltcp writes: IPv6, TCP and 40 bytes of options.
pub(crate) const MAX_HEADERS: usize = 40 + 60;

/// Addresses and other fields of a packet's IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IpHeader {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: IpProtocol,
    pub(crate) hop_limit: u8,
    /// Differentiated services and ECN bits: IPv4's type of service, IPv6's traffic class.
    pub(crate) traffic_class: u8,
    /// Bytes of the IP header, including options and extension headers.
    pub(crate) header_len: usize,
    /// Bytes of the whole packet according to the header, never more than there are.
    pub(crate) total_len: usize,
    /// True if a header without options is followed by the whole upper layer. For other packets see
    /// `extended.rs`.
    pub(crate) plain: bool,
}

/// Reason to drop a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IpError {
    Malformed,
    Checksum,
}

impl IpHeader {
    /// Reads the first header of `packet`; `verify` demands a valid IPv4 header checksum.
    pub(crate) fn parse(packet: &[u8], verify: bool) -> Result<Self, IpError> {
        match packet.first().map(|byte| byte >> 4) {
            Some(4) => Self::parse_v4(packet, verify),
            Some(6) => Self::parse_v6(packet),
            _ => Err(IpError::Malformed),
        }
    }

    fn parse_v4(packet: &[u8], verify: bool) -> Result<Self, IpError> {
        let view = Ipv4Packet::new_checked(packet).map_err(|_| IpError::Malformed)?;
        let header_len = usize::from(view.header_len());
        if header_len < 20 {
            return Err(IpError::Malformed);
        }
        if verify && !view.verify_checksum() {
            return Err(IpError::Checksum);
        }
        let fragment = view.more_frags() || view.frag_offset() != 0;
        Ok(Self {
            source: view.src_addr().into(),
            destination: view.dst_addr().into(),
            protocol: view.next_header(),
            hop_limit: view.hop_limit(),
            traffic_class: view.dscp() << 2 | view.ecn(),
            header_len,
            total_len: usize::from(view.total_len()),
            plain: header_len == 20 && !fragment,
        })
    }

    fn parse_v6(packet: &[u8]) -> Result<Self, IpError> {
        let view = Ipv6Packet::new_checked(packet).map_err(|_| IpError::Malformed)?;
        Ok(Self {
            source: view.src_addr().into(),
            destination: view.dst_addr().into(),
            protocol: view.next_header(),
            hop_limit: view.hop_limit(),
            traffic_class: view.traffic_class(),
            header_len: view.header_len(),
            total_len: view.total_len(),
            plain: !extensions::is_extension(view.next_header()),
        })
    }

    /// Returns true if the source may be answered (RFC 1122 3.2.1.3, RFC 4443 2.4 (e.6)).
    pub(crate) fn source_is_unicast(&self) -> bool {
        is_unicast(self.source)
    }
}

/// Returns true if a packet is a fragment of a larger one.
pub(crate) fn is_fragment(packet: &[u8]) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) => {
            // The mask covers the more-fragments bit and the offset, not don't-fragment.
            packet.get(6..8).is_some_and(|field| u16::from_be_bytes([field[0], field[1]]) & 0x3fff != 0)
        }
        _ => extensions::fragment_header(packet).is_some(),
    }
}

/// Returns true if `address` belongs to a single node.
pub(crate) fn is_unicast(address: IpAddr) -> bool {
    // An answer to such an address would reach many nodes (RFC 1122 3.2.2).
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || broadcast)
}

/// Returns the address without IPv6's flow label and scope, so that equal endpoints compare equal.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

/// Returns smoltcp's form of an interface's checksum setting.
pub(crate) fn checksum_caps(on: bool) -> ChecksumCapabilities {
    let mut caps = ChecksumCapabilities::ignored();
    if on {
        caps.ipv4 = Checksum::Both;
        caps.tcp = Checksum::Both;
        caps.udp = Checksum::Both;
        caps.icmpv4 = Checksum::Both;
        caps.icmpv6 = Checksum::Both;
    }
    caps
}

/// Writes an IP header for `payload_len` bytes of `protocol` to the front of `buf`. Returns its length, or
/// `None` if the packet does not fit `buf`.
pub(crate) fn write_header(
    buf: &mut [u8],
    (source, destination): (IpAddr, IpAddr),
    (protocol, hop_limit): (IpProtocol, u8),
    payload_len: usize,
    checksums: bool,
) -> Option<usize> {
    if let (IpAddr::V6(source), IpAddr::V6(destination)) = (source, destination) {
        return write_v6(buf, (source, destination), (protocol, hop_limit), payload_len);
    }
    let repr = IpRepr::new(IpAddress::from(source), destination.into(), protocol, payload_len, hop_limit);
    let total = repr.buffer_len();
    if total > buf.len() || total > MAX_PACKET {
        return None;
    }
    repr.emit(&mut buf[..total], &checksum_caps(checksums));
    Some(repr.header_len())
}

/// Writes an IPv6 header (RFC 8200 section 3).
fn write_v6(
    buf: &mut [u8],
    (source, destination): (Ipv6Addr, Ipv6Addr),
    (protocol, hop_limit): (IpProtocol, u8),
    payload_len: usize,
) -> Option<usize> {
    let length = u16::try_from(payload_len).ok().filter(|_| buf.len() >= 40 + payload_len)?;
    let header = buf.first_chunk_mut::<40>()?;
    // A flow label of 0 means that the sender sets none (RFC 6437 section 2).
    header[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    header[4..6].copy_from_slice(&length.to_be_bytes());
    header[6..8].copy_from_slice(&[protocol.into(), hop_limit]);
    header[8..24].copy_from_slice(&source.octets());
    header[24..].copy_from_slice(&destination.octets());
    Some(header.len())
}

/// Fields of a datagram's header besides its addresses and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) protocol: IpProtocol,
    pub(crate) hop_limit: u8,
    pub(crate) traffic_class: u8,
    /// True if routers may fragment the packet, which only IPv4's header can say.
    pub(crate) may_fragment: bool,
}

/// Writes a header as [`write_header`] does, with all fields chosen by the caller.
pub(crate) fn write_fields(
    buf: &mut [u8],
    addresses: (IpAddr, IpAddr),
    fields: &Fields,
    payload_len: usize,
    checksums: bool,
) -> Option<usize> {
    let protocol = (fields.protocol, fields.hop_limit);
    let header_len = write_header(buf, addresses, protocol, payload_len, checksums)?;
    if addresses.0.is_ipv6() {
        Ipv6Packet::new_unchecked(buf).set_traffic_class(fields.traffic_class);
        return Some(header_len);
    }
    let mut view = Ipv4Packet::new_unchecked(buf);
    view.set_dscp(fields.traffic_class >> 2);
    view.set_ecn(fields.traffic_class & 3);
    view.set_dont_frag(!fields.may_fragment);
    if checksums {
        view.fill_checksum();
    }
    Some(header_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_headers_parse() {
        for (source, destination) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let addresses = (source.parse().unwrap(), destination.parse().unwrap());
            let mut buf = [0; 100];
            let len = write_header(&mut buf, addresses, (IpProtocol::Udp, 9), 30, true).unwrap();
            let header = IpHeader::parse(&buf, true).unwrap();
            assert_eq!((header.source, header.destination), addresses);
            assert_eq!((header.header_len, header.total_len), (len, len + 30));
            assert_eq!((header.protocol, header.hop_limit), (IpProtocol::Udp, 9));
            assert!(write_header(&mut buf, addresses, (IpProtocol::Udp, 9), 90, true).is_none());
        }
    }

    #[test]
    fn fragments_extension_headers_and_short_packets_are_told_apart() {
        let mut v4 = [0; 20];
        v4[0] = 0x45;
        v4[3] = 20;
        let plain = |packet: &[u8]| IpHeader::parse(packet, false).unwrap().plain;
        assert!(plain(&v4));
        assert_eq!(IpHeader::parse(&v4, true), Err(IpError::Checksum));
        v4[6] = 0x20;
        assert!(!plain(&v4));
        let mut v6 = [0; 40];
        v6[0] = 0x60;
        for (next_header, expected) in [(17, true), (44, false), (0, false), (59, false)] {
            v6[6] = next_header;
            assert_eq!(plain(&v6), expected);
        }
        for len in 0..20 {
            assert_eq!(IpHeader::parse(&v4[..len], false), Err(IpError::Malformed));
        }
        v4[0] = 0x44;
        assert_eq!(IpHeader::parse(&v4, false), Err(IpError::Malformed));
    }
}
