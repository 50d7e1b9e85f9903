//! Port range of a network, for packets that no socket of this stack checks: packets between a device and
//! peers.

use std::ops::RangeInclusive;

use smoltcp::wire::IpProtocol;

use crate::ip::{IpHeader, extensions};

/// First port of clients, to which answers go (Linux's ip_local_port_range; RFC 6335's dynamic ports lie
/// within).
const FIRST_EPHEMERAL: u16 = 32_768;

/// Length of TCP's header up to and including the flags, bytes.
const TCP_FLAGS: usize = 14;

/// Returns true if a packet may pass in a network that restricts services to `ports`. Permitted are TCP
/// connections to them, UDP datagrams to them, answers from them to clients' ports, ICMP, and packets of
/// existing connections. With all ports allowed, every packet may pass.
pub fn may_pass(packet: &[u8], ports: &RangeInclusive<u16>) -> bool {
    // Port 0 is reserved, so 1 to 65,535 are all ports.
    if *ports.start() <= 1 && *ports.end() == u16::MAX {
        return true;
    }
    let Ok(ip) = IpHeader::parse(packet, false) else { return false };
    let packet = &packet[..ip.total_len];
    let Some(upper) = extensions::upper(packet) else { return false };
    let bytes = packet.get(upper.at..).unwrap_or_default();
    let is_icmp = upper.protocol == if ip.source.is_ipv4() { IpProtocol::Icmp } else { IpProtocol::Icmpv6 };
    match upper.protocol {
        // RFC 3128: a second fragment could overwrite the flags of the first.
        IpProtocol::Tcp if upper.offset > 0 => upper.offset >= TCP_FLAGS,
        IpProtocol::Udp if upper.offset > 0 => true,
        _ if is_icmp => true,
        IpProtocol::Tcp => match *bytes {
            [_, _, high, low, _, _, _, _, _, _, _, _, _, flags, ..] => {
                let (syn, ack) = (flags & 2 != 0, flags & 16 != 0);
                // Only the SYN is checked, because later segments mean nothing without it.
                !syn || ack || ports.contains(&u16::from_be_bytes([high, low]))
            }
            _ => false,
        },
        IpProtocol::Udp => match *bytes {
            [from_high, from_low, to_high, to_low, ..] => {
                let from = u16::from_be_bytes([from_high, from_low]);
                let to = u16::from_be_bytes([to_high, to_low]);
                ports.contains(&to) || ports.contains(&from) && to >= FIRST_EPHEMERAL
            }
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(protocol: u8, (from, to): (u16, u16), flags: u8) -> Vec<u8> {
        let mut packet = [[0x60, 0, 0, 0, 0, 20, protocol, 64].as_slice(), &[0xfd; 32]].concat();
        packet.extend(from.to_be_bytes());
        packet.extend(to.to_be_bytes());
        packet.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        packet
    }

    #[test]
    fn connections_and_datagrams_to_the_ports_pass_and_answers() {
        let passes = |packet: &[u8]| may_pass(packet, &(80..=90));
        assert!(passes(&packet(6, (40_000, 80), 2)));
        assert!(!passes(&packet(6, (80, 22), 2)), "a connection");
        assert!(passes(&packet(6, (80, 40_000), 0x12)), "its answer");
        assert!(passes(&packet(6, (80, 22), 0x10)), "a kernel without a connection refuses it");
        assert!(passes(&packet(17, (40_000, 90), 0)));
        assert!(passes(&packet(17, (90, 40_000), 0)), "an answer");
        assert!(!passes(&packet(17, (90, 53), 0)));
        assert!(!passes(&packet(17, (40_000, 40_001), 0)));
        assert!(passes(&packet(58, (0, 0), 0)));
        assert!(!passes(&packet(47, (80, 80), 0)), "another protocol has no ports to judge by");
        assert!(may_pass(&packet(47, (80, 80), 0), &(0..=u16::MAX)));
    }

    #[test]
    fn what_hides_the_ports_does_not_pass() {
        let passes = |packet: &[u8]| may_pass(packet, &(80..=90));
        let whole = packet(6, (80, 80), 2);
        for length in 40..54 {
            let mut cut = whole[..length].to_vec();
            cut[5] = (length - 40) as u8;
            assert!(!passes(&cut), "{length}");
        }
        // In fragments, the first has the ports, and the second must not replace them.
        let fragment = |offset: u8, more: u8| {
            let mut packet = [[0x60, 0, 0, 0, 0, 28, 44, 64].as_slice(), &[0xfd; 32]].concat();
            packet.extend([6, 0, 0, offset | more, 0, 0, 0, 1]);
            packet.extend(&whole[40..]);
            packet
        };
        assert!(passes(&fragment(0, 1)));
        assert!(!passes(&fragment(8, 0)));
        assert!(passes(&fragment(16, 0)));
        assert!(!passes(&[]));
        assert!(!passes(&[0x45; 19]));
    }
}
