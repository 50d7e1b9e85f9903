//! Possible addresses of a node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Source of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CandidateKind {
    /// The address belongs to one of the node's own interfaces.
    Interface,
    /// Another node, or a STUN server, sees the node at the address.
    Mapped,
    /// A router forwards the address to the node: by UPnP, NAT-PMP, PCP, or a setting.
    Forwarded,
    /// A TURN server relays the address to the node (RFC 8656). The server admits senders that the node has
    /// named.
    Relayed,
}

/// Possible address of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Source of the address.
    pub kind: CandidateKind,
    /// IP address and UDP port. IPv6 scopes and flow labels are not told to others.
    pub address: SocketAddr,
}

impl Candidate {
    /// Returns true if the IP address may mean the same host everywhere, and so is not private, shared or
    /// loopback.
    pub fn is_global(&self) -> bool {
        is_global(&self.address.ip())
    }

    /// Returns true if a packet to the address can be meant for one node: the port is not 0, and the address
    /// is neither unspecified, multicast, broadcast, nor link-local.
    pub fn is_valid(&self) -> bool {
        let ip = self.address.ip().to_canonical();
        let is_link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        // A peer must not make this node send to many hosts at once, and a link-local address means another
        // host on each link.
        self.address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_link_local
    }
}

/// Returns true if an address may mean the same host everywhere.
pub(super) fn is_global(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            // RFC 6598: shared addresses of carrier-grade NATs.
            let is_shared = a == 100 && b & 0xc0 == 64;
            !ip.is_private() && !ip.is_loopback() && !is_shared
        }
        IpAddr::V6(ip) => {
            // RFC 3879: site-local addresses are deprecated, and must not be taken for global ones.
            let is_site_local = ip.segments()[0] & 0xffc0 == 0xfec0;
            // RFC 8215: a NAT64's prefix that each network may use for itself.
            let is_local_nat64 = ip.segments()[..3] == [0x64, 0xff9b, 1];
            let is_local = ip.is_unique_local() || ip.is_loopback() || is_site_local || is_local_nat64;
            // A private IPv4 address in a NAT64 or 6to4 address is as private as by itself.
            !is_local && embedded_ipv4(ip).is_none_or(|inside| is_global(&inside.into()))
        }
    }
}

/// Returns the IPv4 address to which packets to an IPv6 address are translated or tunnelled, if its prefix
/// says so: a NAT64's well-known one (RFC 6052, 2.1), 6to4 (RFC 3056, 2), or an IPv4-mapped one.
fn embedded_ipv4(ip: &Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0xffff, high, low] => of(high, low),
        [0x2002, high, low, ..] => of(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_leads_to_a_private_one_is_not_global() {
        for (text, expected) in [
            ("10.0.0.1", false),
            ("100.64.0.1", false),
            ("203.0.113.1", true),
            ("2001:db8::1", true),
            ("fd00::1", false),
            ("fec0::1", false),
            ("feff::1", false),
            ("::1", false),
            ("::ffff:192.168.0.1", false),
            ("::ffff:203.0.113.1", true),
            ("64:ff9b::10.0.0.1", false),
            ("64:ff9b::127.0.0.1", false),
            ("64:ff9b::203.0.113.1", true),
            ("64:ff9b:1::203.0.113.1", false),
            // 10.0.0.1, 192.168.1.1, 203.0.113.1.
            ("2002:a00:1::1", false),
            ("2002:c0a8:101:1::9", false),
            ("2002:cb00:7101::1", true),
        ] {
            assert_eq!(is_global(&text.parse().expect("an address")), expected, "{text}");
        }
    }
}
