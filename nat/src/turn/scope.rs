//! How far addresses reach.

use std::net::IpAddr;

use super::TurnServer;

/// Where an address means the same host. Those of a narrower scope are less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// On one machine.
    Machine,
    /// In one network: private, shared and link-local addresses.
    Network,
    /// Everywhere.
    World,
}

impl Scope {
    pub(super) fn of(ip: IpAddr) -> Self {
        let (is_machine, is_network) = match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                let is_shared = a == 100 && b & 0xc0 == 64;
                (ip.is_loopback() || a == 0, ip.is_private() || ip.is_link_local() || is_shared)
            }
            IpAddr::V6(ip) => {
                (ip.is_loopback() || ip.is_unspecified(), ip.is_unique_local() || ip.is_unicast_link_local())
            }
        };
        match (is_machine, is_network) {
            (true, _) => Self::Machine,
            (_, true) => Self::Network,
            _ => Self::World,
        }
    }

    /// As far as the text shows it: a name may be that of a private address.
    pub(super) fn of_text(server: &TurnServer) -> Self {
        match server.target().host.as_str() {
            "localhost" => Self::Machine,
            host => host.parse().map_or(Self::Network, Self::of),
        }
    }
}
