//! IPv4 aliases for members of networks without IPv4, so that IPv4-only programs can listen there.
//!
//! A listener on IPv4's wildcard address takes IPv6 connections too if the node has no IPv4 address. Their
//! peers appear as addresses from the benchmark range (RFC 2544, 198.18.0.0/15), which no public network
//! uses. An address's last bits determine its alias, so that a member has the same alias in every run unless
//! two collide.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use peersock_fd::Route;

/// Range of the aliases.
pub(crate) const ALIAS_RANGE: Route = Route { address: IpAddr::V4(Ipv4Addr::new(198, 18, 0, 0)), prefix: 15 };

/// Mask of the free bits of an alias.
const FREE_BITS: u32 = (1 << 17) - 1;

/// Maximum number of aliases. Identities cost nothing, so one party could have many in an open network.
const MAX_ALIASES: usize = 1 << 15;

/// The aliases given out; they last as long as the node.
#[derive(Debug, Default)]
pub(crate) struct Aliases {
    by_v4: HashMap<Ipv4Addr, Ipv6Addr>,
    by_v6: HashMap<Ipv6Addr, Ipv4Addr>,
}

impl Aliases {
    /// Returns the alias of an address and assigns one if it has none. Returns `None` if there are too many.
    pub(crate) fn of(&mut self, ip: Ipv6Addr) -> Option<Ipv4Addr> {
        if let Some(alias) = self.by_v6.get(&ip) {
            return Some(*alias);
        }
        if self.by_v6.len() >= MAX_ALIASES {
            return None;
        }
        let wanted = ip.to_bits() as u32;
        // At most a quarter of the range is taken. The first and the last address are not valid host
        // addresses.
        let free = (0..=FREE_BITS)
            .map(|step| wanted.wrapping_add(step) & FREE_BITS)
            .filter(|low| *low % FREE_BITS != 0);
        let alias = free
            .map(|low| Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() | low))
            .find(|alias| !self.by_v4.contains_key(alias))?;
        self.by_v4.insert(alias, ip);
        self.by_v6.insert(ip, alias);
        Some(alias)
    }

    /// Returns true if an address has an alias.
    pub(crate) fn has(&self, ip: Ipv6Addr) -> bool {
        self.by_v6.contains_key(&ip)
    }

    /// Returns the address that `ip` refers to, which may be an alias.
    pub(crate) fn meant(&self, ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(alias) => self.by_v4.get(&alias).map_or(ip, |ip| IpAddr::V6(*ip)),
            IpAddr::V6(_) => ip,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_lead_back_and_do_not_collide() {
        let mut aliases = Aliases::default();
        let ips = ["fd00::1", "fd00::2:0:1", "fd00::4:0:1", "fd00::", "fd00::1:ffff", "fd00::ffff:ffff"];
        let ips = ips.map(|ip| ip.parse::<Ipv6Addr>().expect("an address"));
        let given = ips.map(|ip| aliases.of(ip).expect("there is room"));
        for (ip, alias) in ips.into_iter().zip(given) {
            assert_eq!(aliases.of(ip), Some(alias), "it stays");
            assert_eq!(aliases.meant(alias.into()), IpAddr::from(ip));
            assert!(ALIAS_RANGE.contains(alias.into()) && alias != Ipv4Addr::new(198, 18, 0, 0), "{alias}");
        }
        assert_eq!(given[0], Ipv4Addr::new(198, 18, 0, 1));
        let other = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(aliases.meant(other), other);
    }
}
