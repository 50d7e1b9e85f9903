//! Addresses at which a node may be.

use std::net::{IpAddr, SocketAddr};

/// Where an address is known from.
///
/// ```
/// assert_ne!(peersock_overlay::CandidateKind::Interface, peersock_overlay::CandidateKind::Mapped);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CandidateKind {
    /// It is of one of the node's own interfaces.
    Interface,
    /// Another node, or a STUN server, sees the node there.
    Mapped,
    /// A router forwards it to the node: by UPnP, NAT-PMP, PCP, or a setting.
    Forwarded,
    /// A TURN server relays it to the node (RFC 8656). The server lets in whom the node has named.
    Relayed,
}

/// An address at which a node may be.
///
/// ```
/// use peersock_overlay::{Candidate, CandidateKind};
///
/// let there = Candidate { kind: CandidateKind::Mapped, address: "198.51.100.7:4000".parse()? };
/// assert!(there.is_valid());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Where it is known from.
    pub kind: CandidateKind,
    /// The address and UDP port. IPv6 scopes and flow labels are not told to others.
    pub address: SocketAddr,
}

impl Candidate {
    /// Whether its IP address may mean the same host everywhere: no private, shared or loopback address.
    pub fn is_global(&self) -> bool {
        is_global(&self.address.ip())
    }

    /// Whether a packet to it can be meant for one node: the port is not 0, the address neither unspecified,
    /// multicast, broadcast, nor link-local.
    pub fn is_valid(&self) -> bool {
        let ip = self.address.ip().to_canonical();
        let is_link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        self.address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_link_local
    }
}

/// Whether an address may mean the same host everywhere.
pub(super) fn is_global(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_shared = a == 100 && b & 0xc0 == 64;
            !ip.is_private() && !ip.is_loopback() && !is_shared
        }
        IpAddr::V6(ip) => !ip.is_unique_local() && !ip.is_loopback(),
    }
}
