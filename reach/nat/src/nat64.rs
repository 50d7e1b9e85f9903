//! The IPv4 Internet from an IPv6-only network: the encoding of IPv4 addresses for a NAT64 (RFC 6052), and
//! the discovery of its prefix (RFC 7050).
//!
//! An IPv6-only network, such as a phone network, may have a NAT64: a router that translates packets for
//! `PREFIX + IPv4 address` to IPv4. The prefix differs between networks. The network's DNS reveals it in its
//! answer for `ipv4only.arpa`, a well-known name that has only IPv4 addresses.
//!
//! An attacker who forges that answer redirects the node's IPv4 datagrams, as with forged addresses of any
//! other name. To give the attacker nothing more, [`Nat64Prefix::new`] refuses prefixes whose addresses have
//! a meaning on this machine or link. And neither direction translates IPv4 addresses that are meaningful
//! only in one network.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};

use serde::{Serialize, Serializer};

/// The prefix under which a NAT64 maps the IPv4 Internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nat64Prefix {
    network: Ipv6Addr,
    len: u8,
}

impl Nat64Prefix {
    /// The allowed lengths in bits (RFC 6052, 2.2).
    pub const LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

    /// Makes a prefix of that length. Returns `None` if the length is not allowed, host bits are set, or bits
    /// 64 to 71 are not 0 (RFC 6052, 2.2). It also refuses multicast, link-local, discard-only (100::/64, RFC
    /// 6666), and ::/16, which contains loopback and IPv4-mapped addresses.
    pub fn new(network: Ipv6Addr, len: u8) -> Option<Self> {
        let bits = network.to_bits();
        let is_network = Self::LENGTHS.contains(&len) && bits & (u128::MAX >> len) == 0;
        let segments = network.segments();
        let is_special = network.is_multicast()
            || network.is_unicast_link_local()
            || segments[0] == 0
            || segments[..4] == [0x100, 0, 0, 0];
        (is_network && network.octets()[RESERVED] == 0 && !is_special).then_some(Self { network, len })
    }

    /// Returns the prefixes that an answer for `ipv4only.arpa` shows (RFC 7050, 3), in order.
    pub fn shown_by(answer: &[Ipv6Addr]) -> Vec<Self> {
        let mut shown: Vec<Self> = answer.iter().filter_map(|address| Self::shown_by_one(*address)).collect();
        shown.sort_unstable();
        shown.dedup();
        shown
    }

    fn shown_by_one(address: Ipv6Addr) -> Option<Self> {
        let network = |len: u8| Ipv6Addr::from_bits(address.to_bits() & !(u128::MAX >> len));
        // All bits after the IPv4 address are 0, so it matches in one place at most.
        Self::LENGTHS.into_iter().find_map(|len| {
            let prefix = Self::new(network(len), len)?;
            WELL_KNOWN.iter().any(|known| prefix.embed(*known) == address).then_some(prefix)
        })
    }

    /// Returns the endpoint to send to instead of `endpoint`. A public IPv4 address becomes the IPv6 address
    /// that the NAT64 translates back; other addresses are unchanged.
    pub fn synthesize(&self, endpoint: SocketAddr) -> SocketAddr {
        match endpoint.ip() {
            IpAddr::V4(ip) if is_translated(ip) => SocketAddr::new(self.embed(ip).into(), endpoint.port()),
            _ => endpoint,
        }
    }

    /// Returns the original source of a datagram from an endpoint: the inverse of [`Self::synthesize`].
    pub fn restore(&self, endpoint: SocketAddr) -> SocketAddr {
        match self.embedded(endpoint.ip()) {
            Some(ip) if is_translated(ip) => SocketAddr::new(ip.into(), endpoint.port()),
            _ => endpoint,
        }
    }

    /// Returns true if the prefix contains the address, but for an IPv4 address that [`Self::synthesize`]
    /// does not translate. Nothing may be sent there, because the NAT64 may lead into its operator's internal
    /// networks.
    pub fn is_refused(&self, ip: IpAddr) -> bool {
        let IpAddr::V6(v6) = ip else { return false };
        let is_inside = (v6.to_bits() ^ self.network.to_bits()) >> (128 - self.len) == 0;
        is_inside && self.embedded(ip).is_none_or(|ip| !is_translated(ip))
    }

    /// Returns the network's address.
    pub fn network(&self) -> Ipv6Addr {
        self.network
    }

    /// Returns the IPv6 address that represents an IPv4 address (RFC 6052, 2.2).
    fn embed(&self, ip: Ipv4Addr) -> Ipv6Addr {
        let mut octets = self.network.octets();
        for (at, octet) in self.places().zip(ip.octets()) {
            octets[at] = octet;
        }
        octets.into()
    }

    /// Returns the IPv4 address that an IPv6 address of this prefix represents. Only the result of
    /// [`Self::embed`] is accepted, so each IPv4 address has one form.
    fn embedded(&self, ip: IpAddr) -> Option<Ipv4Addr> {
        let IpAddr::V6(ip) = ip else { return None };
        let octets = ip.octets();
        let mut found = [0; 4];
        for (octet, at) in found.iter_mut().zip(self.places()) {
            *octet = octets[at];
        }
        let found = Ipv4Addr::from(found);
        (self.embed(found) == ip).then_some(found)
    }

    /// Returns the positions of the IPv4 address's octets in the IPv6 address.
    fn places(&self) -> impl Iterator<Item = usize> + use<> {
        let is_long = usize::from(self.len / 8) > RESERVED;
        (usize::from(self.len / 8)..16).filter(move |at| is_long || *at != RESERVED)
    }
}

impl fmt::Display for Nat64Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.len)
    }
}

/// Serialized as text.
impl Serialize for Nat64Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Asks the system's resolver for the prefixes of this network's NAT64. The list is empty if the network has
/// no NAT64, or its DNS does not know one. Blocks for as long as the resolver does.
/// Fails if the resolver has no answer, which says nothing about the network.
pub fn discover() -> io::Result<Vec<Nat64Prefix>> {
    let found = (NAME, 0).to_socket_addrs()?;
    let v6 = |address: SocketAddr| match address.ip() {
        IpAddr::V6(ip) => Some(ip),
        IpAddr::V4(_) => None,
    };
    Ok(Nat64Prefix::shown_by(&found.filter_map(v6).collect::<Vec<_>>()))
}

/// The name, with a final dot so that the resolver appends no search domain (RFC 7050, 3).
const NAME: &str = "ipv4only.arpa.";

/// The IPv4 addresses of the name (RFC 7050, 2.2).
const WELL_KNOWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];

/// The octet with bits 64 to 71, which is always 0 and holds no part of the IPv4 address.
const RESERVED: usize = 8;

/// Returns true if an IPv4 address is reached through a NAT64. Addresses that are meaningful only in one
/// network, or never denote a host, are excluded (RFC 6052, 3.1), because they would denote other hosts
/// behind the NAT64.
fn is_translated(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let is_shared = a == 100 && b & 0xc0 == 64;
    let is_assigned_by_protocols = [a, b, c] == [192, 0, 0];
    let is_for_benchmarks = a == 198 && b & 0xfe == 18;
    let is_reserved = a == 0 || a >= 224;
    let is_near = ip.is_private() || ip.is_loopback() || ip.is_link_local() || is_shared;
    !(is_near || is_assigned_by_protocols || is_for_benchmarks || is_reserved)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> Nat64Prefix {
        parse(text).unwrap_or_else(|| panic!("{text} is a prefix"))
    }

    fn parse(text: &str) -> Option<Nat64Prefix> {
        let (network, len) = text.split_once('/').expect("a length");
        Nat64Prefix::new(network.parse().expect("an address"), len.parse().expect("a number"))
    }

    /// RFC 6052, 2.4, tables 1 and 2.
    const OF_THE_RFC: [(&str, &str); 7] = [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
        ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
    ];

    #[test]
    fn addresses_are_written_as_rfc_6052_has_them() {
        for (text, address) in OF_THE_RFC {
            let address: Ipv6Addr = address.parse().expect("an address");
            let (v4, v6): (SocketAddr, _) = (([192, 0, 2, 33], 9).into(), SocketAddr::new(address.into(), 9));
            assert_eq!(prefix(text).synthesize(v4), v6, "{text}");
            assert_eq!(prefix(text).restore(v6), v4, "{text}");
            assert_eq!(prefix(text).to_string(), text);
        }
    }

    #[test]
    fn the_prefix_is_found_whatever_its_length() {
        for (text, _) in OF_THE_RFC {
            let prefix = prefix(text);
            for known in WELL_KNOWN {
                assert_eq!(Nat64Prefix::shown_by(&[prefix.embed(known)]), [prefix], "{text}");
            }
            let other = prefix.embed([192, 0, 0, 172].into());
            assert_eq!(Nat64Prefix::shown_by(&[other]), [], "{text}");
        }
        // A network that claims the name for itself returns an address that shows nothing.
        assert_eq!(Nat64Prefix::shown_by(&["2001:db8::1".parse().expect("an address")]), []);
        let both = Nat64Prefix::shown_by(&WELL_KNOWN.map(|known| prefix("64:ff9b::/96").embed(known)));
        assert_eq!(both, [prefix("64:ff9b::/96")]);
    }

    #[test]
    fn the_ipv4_address_stands_in_one_place() {
        let shown = |text: &str| Nat64Prefix::shown_by(&[text.parse().expect("an address")]);
        assert_eq!(shown("2001:db8:c000:aa::c000:aa"), [prefix("2001:db8:c000:aa::/96")]);
        assert_eq!(shown("2001:db8:c000:aa::1"), [], "there is nothing behind an address of 32 bits");
    }

    #[test]
    fn no_prefix_stands_for_this_machine_or_its_link() {
        for text in [
            "::/96",
            "::ffff:0:0/96",
            "::ffff:0:0:0/96",
            "fe80::/64",
            "fe80::/96",
            "ff02::/96",
            "100::/96",
            "2001:db8:0:0:ff00::/96",
            "2001:db8::/33",
            "2001:db8::1/96",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        // RFC 8215, and a network-specific prefix.
        for text in ["64:ff9b:1::/48", "fd00:64::/96"] {
            assert!(parse(text).is_some(), "{text}");
        }
    }

    #[test]
    fn addresses_of_one_network_are_not_translated() {
        let prefix = prefix("64:ff9b::/96");
        for ip in [
            "10.0.0.1",
            "127.0.0.1",
            "169.254.1.1",
            "192.168.0.1",
            "172.16.0.1",
            "100.64.0.1",
            "192.0.0.170",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "0.0.0.0",
        ] {
            let ip: Ipv4Addr = ip.parse().expect("an address");
            let (plain, embedded) = (SocketAddr::new(ip.into(), 9), prefix.embed(ip));
            assert_eq!(prefix.synthesize(plain), plain);
            let forged = SocketAddr::new(embedded.into(), 9);
            assert_eq!(prefix.restore(forged), forged);
            assert!(prefix.is_refused(embedded.into()), "{ip}");
        }
        let good = prefix.synthesize(([203, 0, 113, 5], 9).into());
        assert!(good.is_ipv6() && !prefix.is_refused(good.ip()));
        assert!(!prefix.is_refused("2001:db8::1".parse().expect("an address")));
        assert!(!prefix.is_refused(Ipv4Addr::LOCALHOST.into()));
    }

    proptest! {
        #[test]
        fn each_place_has_one_name(network: u128, len in 0..6usize, ip: u32, other: u128) {
            let len = Nat64Prefix::LENGTHS[len];
            let network = network & !(u128::MAX >> len) & !(0xff << 56);
            let Some(prefix) = Nat64Prefix::new(network.into(), len) else { return Ok(()) };
            let v4 = SocketAddr::new(Ipv4Addr::from(ip).into(), 7);
            prop_assert_eq!(prefix.restore(prefix.synthesize(v4)), v4);
            // For any source inside the prefix, an answer goes back to that source.
            let inside = network | other & (u128::MAX >> len);
            let from = SocketAddr::new(Ipv6Addr::from(inside).into(), 7);
            prop_assert_eq!(prefix.synthesize(prefix.restore(from)), from);
            let _ = Nat64Prefix::shown_by(&[inside.into()]);
        }
    }
}
