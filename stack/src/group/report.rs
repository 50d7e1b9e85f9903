//! Membership reports: a node reports to its neighbours that it joins or leaves a group, by IGMPv3 (RFC 3376)
//! or MLDv2 (RFC 3810).
//!
//! The stack itself neither sends nor reads reports. The driver learns of changes from
//! [`Batch::memberships`](crate::Batch::memberships) and decides on the recipients.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{IpProtocol, Ipv4Packet};

use crate::ip::checksum;

/// Destinations of reports (RFC 3376 4.2.14, RFC 3810 5.2.14).
const REPORTS_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
const REPORTS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

const IGMP_REPORT: u8 = 0x22;
const MLD_REPORT: u8 = 143;
const HOP_BY_HOP: u8 = 0;
const IGMP: u8 = 2;
const ICMPV6: u8 = 58;

/// Types of records (RFC 3376 4.2.12).
const IS_INCLUDE: u8 = 1;
const IS_EXCLUDE: u8 = 2;
const TO_INCLUDE: u8 = 3;
const TO_EXCLUDE: u8 = 4;
const ALLOW: u8 = 5;

/// Maximum number of records read from one report.
const MAX_RECORDS: usize = 64;

/// Returns an IP packet that reports that the node at `source` has joined or left `group`; `None` if they are
/// of different families.
pub fn membership_report(source: IpAddr, group: IpAddr, joined: bool) -> Option<Vec<u8>> {
    // Without a list of sources, EXCLUDE means all sources and INCLUDE none (RFC 3376 4.2.12).
    let kind = if joined { TO_EXCLUDE } else { TO_INCLUDE };
    match (source, group) {
        (IpAddr::V4(source), IpAddr::V4(group)) => {
            let mut report = vec![IGMP_REPORT, 0, 0, 0, 0, 0, 0, 1, kind, 0, 0, 0];
            report.extend(group.octets());
            let sum = checksum::icmp((source.into(), REPORTS_V4.into()), &report);
            report[2..4].copy_from_slice(&sum.to_be_bytes());
            // Do not fragment, hop limit 1, internetwork control; with a router alert (RFC 2113), as RFC 3376
            // 4 demands.
            let mut packet = vec![0x46, 0xc0, 0, 24 + report.len() as u8, 0, 0, 0x40, 0, 1, IGMP, 0, 0];
            packet.extend([source.octets(), REPORTS_V4.octets(), [0x94, 4, 0, 0]].concat());
            packet.extend(report);
            Ipv4Packet::new_unchecked(&mut packet).fill_checksum();
            Some(packet)
        }
        (IpAddr::V6(source), IpAddr::V6(group)) => {
            let mut report = vec![MLD_REPORT, 0, 0, 0, 0, 0, 0, 1, kind, 0, 0, 0];
            report.extend(group.octets());
            let ends = (source.into(), REPORTS_V6.into());
            let sum = checksum::pseudo(ends, IpProtocol::Icmpv6, &report);
            report[2..4].copy_from_slice(&sum.to_be_bytes());
            let mut packet = vec![0x60, 0, 0, 0, 0, 8 + report.len() as u8, HOP_BY_HOP, 1];
            packet.extend([source.octets(), REPORTS_V6.octets()].concat());
            // A router alert for MLD (RFC 2711), and padding.
            packet.extend([ICMPV6, 0, 5, 2, 0, 0, 1, 0]);
            packet.extend(report);
            Some(packet)
        }
        _ => None,
    }
}

/// Reads a report: groups, and true if its sender is a member. `None` if the packet is no report.
///
/// A node that wants only some sources is a member; blocking sources changes nothing. Only the first 64
/// records of a report are read.
pub fn read_membership_report(packet: &[u8]) -> Option<Vec<(IpAddr, bool)>> {
    let (report, group_len) = match packet.first()? >> 4 {
        4 => (igmp(packet)?, 4),
        6 => (mld(packet)?, 16),
        _ => return None,
    };
    let count = u16::from_be_bytes([*report.get(6)?, *report.get(7)?]);
    let mut rest = report.get(8..)?;
    let mut groups = Vec::new();
    // The count is the peer's, so it is no bound.
    for _ in 0..usize::from(count).min(MAX_RECORDS) {
        let (header, after) = rest.split_at_checked(4 + group_len)?;
        let (auxiliary, sources) = (header[1], u16::from_be_bytes([header[2], header[3]]));
        let group = address(&header[4..])?;
        let joined = match (header[0], sources) {
            (IS_EXCLUDE | TO_EXCLUDE, _) => Some(true),
            (IS_INCLUDE | TO_INCLUDE, 0) => Some(false),
            // Some sources are wanted. This node sends to a group or not, so it sends, and the peer's socket
            // filters.
            (IS_INCLUDE | TO_INCLUDE | ALLOW, 1..) => Some(true),
            _ => None,
        };
        groups.extend(joined.filter(|_| group.is_multicast()).map(|joined| (group, joined)));
        rest = after.get(usize::from(sources) * group_len + usize::from(auxiliary) * 4..)?;
    }
    Some(groups)
}

fn igmp(packet: &[u8]) -> Option<&[u8]> {
    let header_len = usize::from(packet.first()? & 15) * 4;
    let is_report = *packet.get(9)? == IGMP && packet.get(16..20)? == REPORTS_V4.octets();
    // A header length below 20 is malformed; `max` keeps the slice behind the fixed header.
    packet.get(header_len.max(20)..).filter(|report| is_report && report.first() == Some(&IGMP_REPORT))
}

fn mld(packet: &[u8]) -> Option<&[u8]> {
    let is_report = *packet.get(6)? == HOP_BY_HOP && packet.get(24..40)? == REPORTS_V6.octets();
    let options = packet.get(40..)?;
    let is_icmp = *options.first()? == ICMPV6;
    let report = options.get(usize::from(*options.get(1)?) * 8 + 8..)?;
    (is_report && is_icmp && report.first() == Some(&MLD_REPORT)).then_some(report)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn what_is_made_is_read_and_its_checksums_are_right() {
        for (source, group) in [("10.7.0.1", "239.1.2.3"), ("fd00::1", "ff05::1:3")] {
            for joined in [true, false] {
                let packet = membership_report(ip(source), ip(group), joined).expect("one family");
                assert_eq!(read_membership_report(&packet), Some(vec![(ip(group), joined)]));
                match packet[0] >> 4 {
                    4 => {
                        assert!(Ipv4Packet::new_checked(&packet[..]).expect("a packet").verify_checksum());
                        assert_eq!(checksum::icmp((ip(source), REPORTS_V4.into()), &packet[24..]), 0);
                    }
                    _ => {
                        let ends = (ip(source), REPORTS_V6.into());
                        assert_eq!(checksum::pseudo(ends, IpProtocol::Icmpv6, &packet[48..]), 0);
                    }
                }
            }
        }
        assert_eq!(membership_report(ip("10.7.0.1"), ip("ff05::1"), true), None);
    }

    #[test]
    fn who_wants_some_sources_is_a_member() {
        let mut packet = membership_report(ip("10.7.0.1"), ip("239.1.2.3"), true).expect("one family");
        let record = packet.len() - 8;
        packet.extend([10, 7, 0, 9]);
        for (kind, sources, joined) in [
            (IS_INCLUDE, 1, Some(true)),
            (ALLOW, 1, Some(true)),
            (TO_INCLUDE, 0, Some(false)),
            (IS_EXCLUDE, 1, Some(true)),
            (6, 1, None),
            (77, 0, None),
        ] {
            (packet[record], packet[record + 3]) = (kind, sources);
            let expected = joined.map(|joined| (ip("239.1.2.3"), joined)).into_iter().collect();
            assert_eq!(read_membership_report(&packet), Some(expected), "{kind}");
        }
        packet[record + 3] = 2;
        assert_eq!(read_membership_report(&packet), None, "the second source is missing");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(
            mut bytes in prop::collection::vec(any::<u8>(), 0..120),
            six in any::<bool>(),
            at in 0usize..100,
        ) {
            let _ = read_membership_report(&bytes);
            let (source, group) = if six { ("fd00::1", "ff05::1") } else { ("10.7.0.1", "239.1.2.3") };
            let mut packet = membership_report(ip(source), ip(group), true).expect("one family");
            let from = at.min(packet.len());
            packet.truncate(from);
            packet.append(&mut bytes);
            for (group, _) in read_membership_report(&packet).unwrap_or_default() {
                prop_assert!(group.is_multicast());
            }
        }
    }
}
