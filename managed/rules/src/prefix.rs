//! Blocks of addresses behind gateways.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// Block of addresses: all that begin with the same bits, as `10.1.0.0/16`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// Returns the block of the first `length` bits of an address; `None` for more than 32 of IPv4 or 128 of
    /// IPv6.
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(v4) => {
                // A shift by the full width gives `None`: a block of length 0 keeps no bit.
                let kept = u32::MAX.checked_shl(32_u32.checked_sub(length.into())?).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & kept))
            }
            IpAddr::V6(v6) => {
                let kept = u128::MAX.checked_shl(128_u32.checked_sub(length.into())?).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & kept))
            }
        };
        Some(Self { address, length })
    }

    /// Returns the first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Returns the number of bits that all addresses share.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Returns true if an address lies in the block.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && self.range().contains(&number(address))
    }

    /// Returns true if every address of another block lies in this one.
    pub fn covers(&self, other: &Prefix) -> bool {
        self.length <= other.length && self.contains(other.address)
    }

    /// Returns the addresses as numbers.
    pub(crate) fn range(&self) -> RangeInclusive<u128> {
        let first = number(self.address);
        let bits = if self.address.is_ipv4() { 32 } else { 128 } - u32::from(self.length);
        first..=first | u128::MAX.checked_shr(128 - bits).unwrap_or(0)
    }

    /// Returns true if hosts can have addresses of the block.
    pub(crate) fn has_hosts(&self) -> bool {
        let is_special = |address: IpAddr| match address {
            IpAddr::V4(v4) => {
                v4.is_loopback() || v4.is_multicast() || v4.is_link_local() || v4.is_broadcast()
            }
            IpAddr::V6(v6) => {
                v6.is_loopback()
                    || v6.is_multicast()
                    || v6.is_unicast_link_local()
                    // A second form of an IPv4 address, which flows do not have.
                    || v6.to_ipv4_mapped().is_some()
            }
        };
        let is_one = self.length == if self.address.is_ipv4() { 32 } else { 128 };
        // The blocks of special addresses have aligned bounds, so a block with hosts has a host at one end.
        let last = match self.address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(*self.range().end() as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(*self.range().end())),
        };
        let is_nowhere = is_one && self.address.is_unspecified();
        !is_nowhere && [self.address, last].into_iter().any(|end| !is_special(end))
    }
}

/// Returns an address as a number.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').expect("a block");
        Prefix::new(address.parse().expect("an address"), length.parse().expect("a length")).expect("bits")
    }

    #[test]
    fn blocks_contain_their_addresses_only() {
        for (block, inside, outside) in [
            ("10.1.2.3/16", "10.1.255.255", "10.2.0.0"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("10.0.0.1/32", "10.0.0.1", "10.0.0.0"),
            ("fd00::/8", "fdff::1", "fe00::"),
            ("::/0", "ffff::", "0.0.0.0"),
            ("fd00::1/128", "fd00::1", "fd00::2"),
        ] {
            let block = prefix(block);
            assert!(block.contains(inside.parse().expect("an address")), "{block} has {inside}");
            assert!(!block.contains(outside.parse().expect("an address")), "{block} lacks {outside}");
        }
        assert_eq!(prefix("10.1.2.3/16").to_string(), "10.1.0.0/16");
        assert_eq!(Prefix::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 33), None);
        assert!(prefix("10.0.0.0/8").covers(&prefix("10.1.0.0/16")));
        assert!(!prefix("10.1.0.0/16").covers(&prefix("10.0.0.0/8")));
        assert!(!prefix("0.0.0.0/0").covers(&prefix("::/0")));
    }

    #[test]
    fn blocks_without_hosts_are_known() {
        for block in [
            "127.0.0.0/8",
            "224.0.0.0/4",
            "239.1.2.3/32",
            "169.254.0.0/16",
            "255.255.255.255/32",
            "0.0.0.0/32",
        ] {
            assert!(!prefix(block).has_hosts(), "{block}");
        }
        for block in ["::1/128", "ff00::/8", "fe80::/10", "::ffff:0:0/96", "::/128"] {
            assert!(!prefix(block).has_hosts(), "{block}");
        }
        for block in ["0.0.0.0/0", "10.0.0.0/8", "126.0.0.0/7", "192.168.1.9/32", "::/0", "fd00::/8"] {
            assert!(prefix(block).has_hosts(), "{block}");
        }
    }
}
