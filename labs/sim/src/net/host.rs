use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::LanId;

/// Identifier of a host of a [`Net`](super::Net).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u32);

/// A network card of a host, plugged into a LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment {
    /// The LAN.
    pub lan: LanId,
    /// The card's IPv4 address, if it has one.
    pub ipv4: Option<Ipv4Addr>,
    /// The card's IPv6 address, if it has one.
    pub ipv6: Option<Ipv6Addr>,
}

impl Attachment {
    /// Returns the card's address of the same family as `remote`.
    pub fn address_for(&self, remote: &SocketAddr) -> Option<IpAddr> {
        match remote {
            SocketAddr::V4(_) => self.ipv4.map(IpAddr::V4),
            SocketAddr::V6(_) => self.ipv6.map(IpAddr::V6),
        }
    }

    /// Returns true if the card has this address.
    pub fn owns(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.ipv4 == Some(v4),
            IpAddr::V6(v6) => self.ipv6 == Some(v6),
        }
    }
}
