//! Members that lead to the Internet.
//!
//! An exit is never part of a network's addresses ([`Policy::prefixes`](super::Policy::prefixes)), because
//! overlay sockets would then take every address for a member's. It counts only if a node has chosen it
//! ([`StaticNetwork::exit`](super::StaticNetwork::exit)). Then it is like a member with blocks behind it: the
//! Internet's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Prefix;

/// Address families in which a member leads to the Internet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exit {
    /// True if it leads to public IPv4 addresses.
    pub ipv4: bool,
    /// True if it leads to global IPv6 addresses.
    pub ipv6: bool,
}

impl Exit {
    /// Returns the exit that a default route (0.0.0.0/0 or ::/0) makes of a member; `None` for any other
    /// block.
    pub fn of(route: &Prefix) -> Option<Exit> {
        let ipv4 = route.address().is_ipv4();
        (route.length() == 0).then_some(Exit { ipv4, ipv6: !ipv4 })
    }

    /// Returns true if it leads anywhere.
    pub fn is_any(self) -> bool {
        self.ipv4 || self.ipv6
    }

    /// Returns the union of both.
    #[must_use]
    pub fn and(self, other: Exit) -> Exit {
        Exit { ipv4: self.ipv4 || other.ipv4, ipv6: self.ipv6 || other.ipv6 }
    }

    /// Returns the default routes, as a network's file has them.
    pub fn default_routes(self) -> impl Iterator<Item = Prefix> {
        let any = |address: IpAddr| Prefix::new(address, 0);
        let ipv4 = self.ipv4.then(|| any(Ipv4Addr::UNSPECIFIED.into())).flatten();
        ipv4.into_iter().chain(self.ipv6.then(|| any(Ipv6Addr::UNSPECIFIED.into())).flatten())
    }

    /// Returns the Internet's blocks of addresses. Excludes private, shared, link-local, loopback and
    /// multicast addresses, and public ones that mean another host in each place. So members reach the exit's
    /// own site and its provider's services (169.254.169.254, 168.63.129.16) only by an explicit route. And
    /// the exit cannot send in the name of a machine on a user's local network.
    pub fn blocks(self) -> Vec<Prefix> {
        let mut blocks = Vec::new();
        for all in self.default_routes() {
            // RFC 4291 (2.4) and IANA's allocations: the global unicast addresses.
            let all = if all.length() == 0 && all.address().is_ipv6() { prefix(GLOBAL) } else { all };
            add_without(all, &NOT_PUBLIC.map(prefix), &mut blocks);
        }
        blocks
    }
}

/// Allocated block of IPv6 addresses.
const GLOBAL: (IpAddr, u8) = (IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0)), 3);

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> (IpAddr, u8) {
    (IpAddr::V4(Ipv4Addr::new(a, b, c, d)), length)
}

const fn v6(first: u16, length: u8) -> (IpAddr, u8) {
    (IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0)), length)
}

/// Blocks that mean another host in each place, or none (RFC 6890, 2.2.2 and 2.2.3): this network, private,
/// shared by a provider's customers, loopback, an address of Azure for the agent of each of its hosts,
/// link-local, private, protocols (DS-Lite, the discovery of NAT64, and a cloud's services), private,
/// measurements, multicast and reserved. In IPv6, Teredo and 6to4 lead to any address of IPv4.
const NOT_PUBLIC: [(IpAddr, u8); 13] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(168, 63, 129, 16, 32),
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(224, 0, 0, 0, 3),
    v6(0x2001, 32),
    v6(0x2002, 16),
];

fn prefix((address, length): (IpAddr, u8)) -> Prefix {
    Prefix::new(address, length).expect("no more bits than an address has")
}

/// Adds the fewest blocks that cover the addresses of `block` that are not in `without`.
fn add_without(block: Prefix, without: &[Prefix], to: &mut Vec<Prefix>) {
    let is_within =
        |outer: &Prefix, inner: &Prefix| outer.length() <= inner.length() && outer.contains(inner.address());
    if without.iter().any(|other| is_within(other, &block)) {
        return;
    }
    // Only a block that contains an excluded one is split, so the list stays short.
    if !without.iter().any(|other| is_within(&block, other)) {
        return to.push(block);
    }
    let length = block.length() + 1;
    // A block that is a whole address contains no other, so here a bit is left to split.
    let upper = match block.address() {
        IpAddr::V4(half) => Ipv4Addr::from_bits(half.to_bits() | 1 << (32 - length)).into(),
        IpAddr::V6(half) => Ipv6Addr::from_bits(half.to_bits() | 1 << (128 - length)).into(),
    };
    for half in [block.address(), upper] {
        add_without(prefix((half, length)), without, to);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOTH: Exit = Exit { ipv4: true, ipv6: true };

    fn leads_to(exit: Exit, address: impl Into<IpAddr>) -> bool {
        let address = address.into();
        exit.blocks().iter().filter(|block| block.contains(address)).count() == 1
    }

    #[test]
    fn only_whole_families_make_an_exit() {
        let of = |address: &str, length| Exit::of(&Prefix::new(address.parse().unwrap(), length).unwrap());
        assert_eq!(of("0.0.0.0", 0), Some(Exit { ipv4: true, ipv6: false }));
        assert_eq!(of("::", 0), Some(Exit { ipv4: false, ipv6: true }));
        assert_eq!((of("0.0.0.0", 1), of("::", 1), of("0.0.0.0", 32)), (None, None, None));
        assert!(!Exit::default().is_any() && Exit::default().blocks().is_empty());
        let shown: Vec<_> = BOTH.default_routes().map(|route| route.to_string()).collect();
        assert_eq!(shown, ["0.0.0.0/0", "::/0"]);
        assert_eq!(Exit::default().and(of("::", 0).unwrap()).and(of("0.0.0.0", 0).unwrap()), BOTH);
    }

    #[test]
    fn it_leads_to_the_internet_and_to_nobody_s_own_network() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "100.63.0.1",
            "168.63.129.15",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "198.51.100.9",
            "2001:1::1",
            "2001:db8::1",
            "2003::1",
        ] {
            assert!(leads_to(BOTH, address.parse::<IpAddr>().unwrap()), "{address}");
        }
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.31.255.255",
            "168.63.129.16",
            "192.0.0.192",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "2001::1",
            "2002:a00:1::1",
            "224.0.0.251",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "64:ff9b::a00:1",
        ] {
            assert!(!leads_to(BOTH, address.parse::<IpAddr>().unwrap()), "{address}");
        }
        assert!(!leads_to(Exit { ipv4: true, ipv6: false }, "2001:db8::1".parse::<IpAddr>().unwrap()));
    }

    fn is_public(address: IpAddr) -> bool {
        !NOT_PUBLIC.map(prefix).iter().any(|block| block.contains(address))
    }

    proptest! {
        #[test]
        fn every_ipv4_address_is_in_one_block_unless_it_is_not_public(bits: u32) {
            let address = IpAddr::from(Ipv4Addr::from_bits(bits));
            prop_assert_eq!(leads_to(BOTH, address), is_public(address));
        }

        #[test]
        fn every_global_ipv6_address_is_in_one_block_unless_it_is_not_public(
            first in 0x2000u16..0x4000,
            near in prop::sample::select(vec![0x2001u16, 0x2002]),
            is_near: bool,
            rest: [u16; 7],
        ) {
            let [b, c, d, e, f, g, h] = rest;
            let first = if is_near { near } else { first };
            let address = IpAddr::from(Ipv6Addr::new(first, b & 1, c, d, e, f, g, h));
            prop_assert_eq!(leads_to(BOTH, address), is_public(address));
        }
    }
}
