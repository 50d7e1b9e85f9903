//! Scopes of addresses, and the addresses that outsiders may name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The scope in which an address denotes the same host. Narrower scopes compare less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// One machine.
    Machine,
    /// One network: private, shared and link-local addresses.
    Network,
    /// The whole Internet.
    World,
}

impl Scope {
    pub(crate) fn of(ip: IpAddr) -> Self {
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
}

/// Returns true if an outsider may name an endpoint to which this node, or its peers, then send. It must be a
/// possible host address of the outsider's address family, with a scope at least as wide as the outsider's.
/// Otherwise a distant outsider could aim datagrams at hosts of networks that it cannot reach.
pub fn may_name(outsider: SocketAddr, named: SocketAddr) -> bool {
    let (by, ip) = (outsider.ip().to_canonical(), named.ip().to_canonical());
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    named.port() != 0
        && ip.is_ipv4() == by.is_ipv4()
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && !is_link_local
        && ip != Ipv4Addr::BROADCAST
        && Scope::of(ip) >= Scope::of(by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outsiders_name_what_reaches_as_far_as_they_do() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an endpoint");
        let cases = [
            (
                "192.0.2.1:3478",
                ["203.0.113.9:7420", "8.8.8.8:53"].as_slice(),
                [
                    "10.0.0.1:22",
                    "172.16.3.1:80",
                    "192.168.1.1:80",
                    "100.64.0.1:1",
                    "127.0.0.1:22",
                    "0.0.0.0:1",
                    "169.254.169.254:80",
                    "224.0.0.251:5353",
                    "255.255.255.255:9",
                    "203.0.113.9:0",
                    "[2001:db8::9]:7420",
                    "[::ffff:10.0.0.1]:22",
                ]
                .as_slice(),
            ),
            (
                "192.168.1.1:3478",
                &["192.168.1.7:1", "10.0.0.1:1", "203.0.113.9:1"],
                &["127.0.0.1:1", "169.254.1.1:1"],
            ),
            ("127.0.0.1:3478", &["127.0.0.1:1", "192.168.1.7:1"], &["224.0.0.1:1"]),
            (
                "[2001:db8::1]:3478",
                &["[2001:db8::9]:1"],
                &["[fd00::1]:1", "[fe80::1]:1", "[::1]:1", "[::]:1", "[ff02::1]:1"],
            ),
        ];
        for (outsider, good, bad) in cases {
            for named in good {
                assert!(may_name(at(outsider), at(named)), "{outsider} names {named}");
            }
            for named in bad {
                assert!(!may_name(at(outsider), at(named)), "{outsider} names {named}");
            }
        }
    }
}
