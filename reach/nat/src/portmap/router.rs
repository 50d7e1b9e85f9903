//! The router that opens ports, and the protocols for asking it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

/// The way to a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// The interface that leads there; `None` uses the system's routes.
    pub interface: Option<String>,
    /// The local address on that network, to which the port is mapped.
    pub local: IpAddr,
    /// The router's address, with the scope if it is link-local; the port is not used.
    pub router: SocketAddr,
}

/// The protocol by which a router is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Port Control Protocol, RFC 6887. Also opens the firewall for IPv6.
    Pcp,
    /// NAT Port Mapping Protocol, RFC 6886; IPv4 only.
    NatPmp,
    /// Universal Plug and Play, Internet Gateway Device 1 and 2. Also opens the firewall for IPv6.
    Upnp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Pcp => "PCP",
            Protocol::NatPmp => "NAT-PMP",
            Protocol::Upnp => "UPnP",
        })
    }
}

/// A protocol that the router has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The protocol.
    pub protocol: Protocol,
    /// The router's external address, if the protocol reports it without a mapping. If it is not public,
    /// there is another NAT behind the router.
    pub external: Option<IpAddr>,
}
