//! Checksums of packets exchanged with another host's stack, such as a kernel behind a TUN device.
//!
//! Between nodes no checksums are used, because the overlay's tag covers every byte. A kernel verifies the
//! checksums of packets that it receives. It fills in the checksums of packets that it sends, unless the
//! device promises to (checksum offload).

use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Packet, checksum};

use crate::ip::{IpHeader, extensions, is_fragment};

/// Position of a checksum to be completed over all bytes from `start` to the packet's end. The field holds
/// the sum over the pseudo-header, as with `VIRTIO_NET_HDR_F_NEEDS_CSUM` (virtio 1.2, 5.1.6.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Start of the upper layer's packet, bytes from the start of the IP packet.
    pub start: u16,
    /// Position of the checksum in the upper layer's packet.
    pub offset: u16,
}

/// Prepares a packet of another node for a host that verifies checksums. Fills in IPv4's header checksum, and
/// starts that of TCP, UDP or ICMP, which the host or device completes. Returns `None` if there is none to
/// complete. A fragment's checksum was filled in before fragmentation, and other protocols use their own.
pub fn prepare_checksum(packet: &mut [u8]) -> Option<PartialChecksum> {
    let place = find(packet);
    fill_header(packet);
    let Place { start, offset, protocol, ip } = place?;
    let length = (ip.total_len - start) as u32;
    let sum = match protocol {
        // ICMP has no pseudo-header (RFC 792).
        IpProtocol::Icmp => 0,
        _ => checksum::pseudo_header(
            &IpAddress::from(ip.source),
            &IpAddress::from(ip.destination),
            protocol,
            length,
        ),
    };
    packet[start + offset..][..2].copy_from_slice(&sum.to_be_bytes());
    Some(PartialChecksum { start: start as u16, offset: offset as u16 })
}

/// Fills in all checksums of a whole packet: its header's, and that of TCP, UDP or ICMP. Use it before
/// fragmentation, because the checksum cannot be computed from a fragment.
pub fn fill_checksums(packet: &mut [u8]) {
    let Some(checksum) = prepare_checksum(packet) else { return };
    let (start, offset) = (usize::from(checksum.start), usize::from(checksum.offset));
    let Ok(ip) = IpHeader::parse(packet, false) else { return };
    let sum = !checksum::data(&packet[start..ip.total_len]);
    // RFC 768: a sum of zero is sent as all ones, because zero means "no checksum".
    let is_udp = offset == UDP_OFFSET;
    let sum = if sum == 0 && is_udp { 0xffff } else { sum };
    packet[start + offset..][..2].copy_from_slice(&sum.to_be_bytes());
}

const TCP_OFFSET: usize = 16;
const UDP_OFFSET: usize = 6;
const ICMP_OFFSET: usize = 2;

struct Place {
    start: usize,
    offset: usize,
    protocol: IpProtocol,
    ip: IpHeader,
}

/// Finds the upper layer's checksum; returns `None` for a fragment or an unknown protocol.
fn find(packet: &[u8]) -> Option<Place> {
    let ip = IpHeader::parse(packet, false).ok()?;
    // The sum covers all fragments, and only the first one has the field.
    if is_fragment(packet) {
        return None;
    }
    let upper = extensions::upper(&packet[..ip.total_len])?;
    let offset = match (upper.protocol, ip.source.is_ipv4()) {
        (IpProtocol::Tcp, _) => TCP_OFFSET,
        (IpProtocol::Udp, _) => UDP_OFFSET,
        (IpProtocol::Icmp, true) | (IpProtocol::Icmpv6, false) => ICMP_OFFSET,
        _ => return None,
    };
    // The packet is another node's, so its lengths are not trusted.
    (upper.at + offset + 2 <= ip.total_len).then_some(Place {
        start: upper.at,
        offset,
        protocol: upper.protocol,
        ip,
    })
}

fn fill_header(packet: &mut [u8]) {
    if packet.first().is_some_and(|first| first >> 4 == 4)
        && let Ok(mut view) = Ipv4Packet::new_checked(packet)
        && view.header_len() >= 20
    {
        view.fill_checksum();
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::ip::{Fields, write_fields};

    fn packet(protocol: IpProtocol, ipv6: bool, payload: &[u8]) -> Vec<u8> {
        let addresses = if ipv6 { ["fd00::1", "fd00::2"] } else { ["10.0.0.1", "10.0.0.2"] };
        let [source, destination] = addresses.map(|address| address.parse::<IpAddr>().unwrap());
        let fields = Fields { protocol, hop_limit: 9, traffic_class: 0, may_fragment: true };
        let mut packet = vec![0; 40 + payload.len()];
        let at = write_fields(&mut packet, (source, destination), &fields, payload.len(), false).unwrap();
        packet.truncate(at + payload.len());
        packet[at..].copy_from_slice(payload);
        packet
    }

    proptest! {
        #[test]
        fn what_is_filled_in_is_found_right(
            ipv6: bool,
            which in 0..3_usize,
            payload in prop::collection::vec(any::<u8>(), 20..200),
        ) {
            let icmp = if ipv6 { IpProtocol::Icmpv6 } else { IpProtocol::Icmp };
            let protocol = [IpProtocol::Tcp, IpProtocol::Udp, icmp][which];
            let mut packet = packet(protocol, ipv6, &payload);
            fill_checksums(&mut packet);
            let ip = IpHeader::parse(&packet, true).unwrap();
            let upper = &packet[ip.header_len..];
            let pseudo = match protocol {
                IpProtocol::Icmp => 0,
                _ => checksum::pseudo_header(&ip.source.into(), &ip.destination.into(), protocol, upper.len() as u32),
            };
            prop_assert_eq!(checksum::combine(&[pseudo, checksum::data(upper)]), 0xffff);
        }

        #[test]
        fn any_bytes_are_survived(mut packet in prop::collection::vec(any::<u8>(), 0..120), first in 0x40..0x70_u8) {
            if let Some(byte) = packet.first_mut() {
                *byte = first;
            }
            prepare_checksum(&mut packet);
            fill_checksums(&mut packet);
        }
    }

    #[test]
    fn fragments_and_unknown_protocols_are_left_alone() {
        let mut sctp = packet(IpProtocol::Unknown(132), true, &[7; 30]);
        let before = sctp.clone();
        assert_eq!(prepare_checksum(&mut sctp), None);
        assert_eq!(sctp, before);
        let mut first = packet(IpProtocol::Udp, false, &[7; 30]);
        first[6] |= 0x20;
        assert_eq!(prepare_checksum(&mut first), None);
        assert!(IpHeader::parse(&first, true).is_ok(), "the header's own is made");
        assert_eq!(first[20..], [7; 30]);
    }
}
