//! ICMP errors of routers behind a gateway or an exit. Such a router has an address that no member of the
//! network has, but its errors are needed: above all, that a packet is too large for a link on the way.
//!
//! Such an error passes because of the packet it quotes, which was on its way from one end of the session to
//! a block behind the other. The error's source may be any address that no member of the network has.

use std::net::IpAddr;

use peersock_overlay::Peer;

use crate::Datapath;
use crate::addresses::{destination_address, source_address};
use crate::networks::Known;

impl Datapath {
    /// Returns true if a peer's packet is an error about a packet that this node sent to a block behind that
    /// peer.
    pub(super) fn is_error_from_behind(&self, network: &Known, peer: &Peer, packet: &[u8]) -> bool {
        network.device.is_some()
            && quoted(packet).is_some_and(|quoted| {
                self.is_nobody_s(network, quoted.router)
                    && self.is_own(network, quoted.sender)
                    && self.is_of(peer, quoted.target)
                    // For its own addresses the peer is the sender of errors, so a foreign source is not
                    // needed.
                    && !peer.has_address(quoted.target)
            })
    }

    /// Returns true if a packet of the host behind a device is an error about a packet to a block behind this
    /// node.
    pub(super) fn is_error_of_gateway(&self, network: &Known, packet: &[u8]) -> bool {
        quoted(packet).is_some_and(|quoted| {
            self.is_nobody_s(network, quoted.router)
                && !self.is_own(network, quoted.sender)
                && self.is_own(network, quoted.target)
        })
    }

    fn is_nobody_s(&self, network: &Known, address: IpAddr) -> bool {
        let is_host = !(address.is_multicast() || address.is_loopback() || address.is_unspecified());
        is_host && self.routes.get(network.index, address).is_none()
    }
}

/// Ends of the packet that an ICMP error quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quoted {
    /// Router that reports the error.
    pub(crate) router: IpAddr,
    /// Sender of the packet, which receives the error.
    pub(crate) sender: IpAddr,
    /// Destination of the packet.
    pub(crate) target: IpAddr,
}

/// Parses an ICMP error to the sender of the packet it quotes; returns `None` for anything else.
pub(crate) fn quoted(packet: &[u8]) -> Option<Quoted> {
    let (router, to) = (source_address(packet)?, destination_address(packet)?);
    let (message, least) = match packet.first()? >> 4 {
        // RFC 791: the header's length, the fragment's offset, the protocol. RFC 792: the first fragment has
        // the error.
        4 if packet.get(9) == Some(&1) && packet.get(6..8)? == [packet[6] & 0x60, 0] => {
            (packet.get(usize::from(packet[0] & 15) * 4..)?, 20)
        }
        // Routers do not send errors with extension headers.
        6 if packet.get(6) == Some(&58) => (packet.get(40..)?, 40),
        _ => return None,
    };
    let is_error = match (message.first()?, to) {
        // Unreachable, which includes "too big"; time exceeded; parameter problem (RFC 792).
        (3 | 11 | 12, IpAddr::V4(_)) => true,
        // RFC 4443 (2.1): those below 128; unreachable, too big, time exceeded, parameter problem.
        (1..=4, IpAddr::V6(_)) => true,
        _ => false,
    };
    let inner = message.get(8..).filter(|inner| is_error && inner.len() >= least)?;
    let is_same_family = inner[0] >> 4 == packet[0] >> 4;
    let (sender, target) = (source_address(inner)?, destination_address(inner)?);
    (is_same_family && sender == to).then_some(Quoted { router, sender, target })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Builds an IP packet without a header checksum.
    fn ip(from: &str, to: &str, protocol: u8, rest: &[u8]) -> Vec<u8> {
        match (from.parse().unwrap(), to.parse().unwrap()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut packet = vec![0x45, 0, 0, (20 + rest.len()) as u8, 0, 0, 0x40, 0, 64, protocol, 0, 0];
                packet.extend([from.octets(), to.octets()].concat());
                [packet, rest.to_vec()].concat()
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut packet = vec![0x60, 0, 0, 0, 0, rest.len() as u8, protocol, 64];
                packet.extend([from.octets(), to.octets()].concat());
                [packet, rest.to_vec()].concat()
            }
            _ => panic!("one family"),
        }
    }

    fn error(protocol: u8, kind: u8, router: &str, to: &str, inner: &[u8]) -> Vec<u8> {
        ip(router, to, protocol, &[&[kind, 0, 0, 0, 0, 0, 5, 0], inner].concat())
    }

    #[test]
    fn an_error_tells_the_sender_of_the_packet_that_it_quotes() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let inner = ip("10.97.0.1", "198.51.100.9", 6, &[0; 8]);
        for kind in [3, 11, 12] {
            let read = quoted(&error(1, kind, "10.98.8.254", "10.97.0.1", &inner)).unwrap();
            assert_eq!(read.router, address("10.98.8.254"));
            assert_eq!((read.sender, read.target), (address("10.97.0.1"), address("198.51.100.9")));
        }
        let inner6 = ip("fd00::1", "2001:db8::9", 17, &[]);
        for kind in 1..=4 {
            let read = quoted(&error(58, kind, "fd77::1", "fd00::1", &inner6)).unwrap();
            assert_eq!((read.sender, read.target), (address("fd00::1"), address("2001:db8::9")));
        }
    }

    #[test]
    fn nothing_else_passes_for_an_error() {
        let inner = ip("10.97.0.1", "198.51.100.9", 6, &[0; 8]);
        let good = error(1, 3, "10.98.8.254", "10.97.0.1", &inner);
        assert!(quoted(&good).is_some());
        // Not accepted: echoes and redirects, another protocol, another receiver than the sender, a later
        // fragment.
        for kind in [0, 5, 8] {
            assert_eq!(quoted(&error(1, kind, "10.98.8.254", "10.97.0.1", &inner)), None);
        }
        assert_eq!(quoted(&error(17, 3, "10.98.8.254", "10.97.0.1", &inner)), None);
        assert_eq!(quoted(&error(1, 3, "10.98.8.254", "10.97.0.7", &inner)), None);
        let mut fragment = good.clone();
        fragment[7] = 1;
        assert_eq!(quoted(&fragment), None);
        for length in 0..48 {
            assert_eq!(quoted(&good[..length]), None, "{length}");
        }
        let inner6 = ip("fd00::1", "2001:db8::9", 17, &[]);
        assert_eq!(quoted(&error(58, 128, "fd77::1", "fd00::1", &inner6)), None);
        assert_eq!(quoted(&error(58, 1, "fd77::1", "fd00::1", &inner)), None, "of the other family");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(packet in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = quoted(&packet);
        }
    }
}
