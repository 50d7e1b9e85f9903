//! IPv4 addresses for members of networks that have none, so that programs which know IPv4 only can listen
//! there.
//!
//! Where a node has no IPv4 address, what listens on IPv4's wildcard takes IPv6 connections too. Their ends
//! are shown as addresses from the range for benchmarks (RFC 2544, 198.18.0.0/15), which no network of the
//! world has. An address's last bits decide on its alias, so that a member has the same one in every run
//! unless two collide.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use peersock_fd::Route;

/// Where the aliases are from.
pub(crate) const RANGE: Route = Route { address: IpAddr::V4(Ipv4Addr::new(198, 18, 0, 0)), prefix: 15 };

/// Bits of an alias that are free.
const MASK: u32 = (1 << 17) - 1;

/// Members that have an alias at the same time. Identities cost nothing: in an open network somebody could
/// have many.
const MOST: usize = 1 << 15;

/// The aliases that were given, for as long as the node lives.
#[derive(Debug, Default)]
pub(crate) struct Aliases {
    by_v4: HashMap<Ipv4Addr, Ipv6Addr>,
    by_v6: HashMap<Ipv6Addr, Ipv4Addr>,
}

impl Aliases {
    /// The alias of an address, given now if it has none. `None` if there are too many.
    pub(crate) fn of(&mut self, ip: Ipv6Addr) -> Option<Ipv4Addr> {
        if let Some(alias) = self.by_v6.get(&ip) {
            return Some(*alias);
        }
        if self.by_v6.len() >= MOST {
            return None;
        }
        let wanted = ip.to_bits() as u32;
        // At most a quarter of them are taken. The first and the last address are no hosts.
        let free = (0..=MASK).map(|step| wanted.wrapping_add(step) & MASK).filter(|low| *low % MASK != 0);
        let alias = free
            .map(|low| Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() | low))
            .find(|alias| !self.by_v4.contains_key(alias))?;
        self.by_v4.insert(alias, ip);
        self.by_v6.insert(ip, alias);
        Some(alias)
    }

    /// The address that is meant by one, which may be an alias.
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
            assert!(RANGE.contains(alias.into()) && alias != Ipv4Addr::new(198, 18, 0, 0), "{alias}");
        }
        assert_eq!(given[0], Ipv4Addr::new(198, 18, 0, 1));
        let other = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(aliases.meant(other), other);
    }
}
