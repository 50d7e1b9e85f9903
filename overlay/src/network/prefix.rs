//! Prefixes of IP addresses.

use std::fmt;
use std::net::IpAddr;

use crate::id::NetworkId;

/// Set of the addresses that begin with the same bits.
///
/// ```
/// use peersock_overlay::Prefix;
///
/// let prefix = Prefix::new("10.7.200.1".parse()?, 16).expect("at most 32");
/// assert_eq!(prefix.to_string(), "10.7.0.0/16");
/// assert!(prefix.contains("10.7.0.9".parse()?) && !prefix.contains("10.8.0.9".parse()?));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl NetworkId {
    /// Returns the prefix in which every address follows from a node ID ([`NetworkId::address_of`]), 48 bits
    /// long.
    pub fn certified_prefix(&self) -> Prefix {
        let mut address = [0; 16];
        let prefix = self.prefix();
        address[..prefix.len()].copy_from_slice(&prefix);
        Prefix { address: IpAddr::from(address), length: 8 * prefix.len() as u8 }
    }
}

impl Prefix {
    /// Returns the prefix of the first `length` bits of an address; `None` for more than 32 of IPv4 or 128 of
    /// IPv6.
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(v4) => {
                // A shift by the full width gives `None`: a prefix of length 0 keeps no bit.
                let kept = u32::MAX.checked_shl(32u32.checked_sub(length.into())?).unwrap_or(0);
                IpAddr::V4((v4.to_bits() & kept).into())
            }
            IpAddr::V6(v6) => {
                let kept = u128::MAX.checked_shl(128u32.checked_sub(length.into())?).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & kept).into())
            }
        };
        Some(Self { address, length })
    }

    /// Returns the first address, whose other bits are zero.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Returns the number of bits that all its addresses share.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Returns true if an address begins with these bits.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.shared_with(address).is_some_and(|bits| bits >= self.length)
    }

    /// Returns the longest prefix that also contains `address`; unchanged for one of the other family.
    pub(super) fn widened_to(self, address: IpAddr) -> Self {
        let length = self.shared_with(address).map_or(self.length, |bits| bits.min(self.length));
        Self::new(self.address, length).unwrap_or(self)
    }

    /// Returns the number of leading bits that the first address shares with another one of its family.
    fn shared_with(&self, address: IpAddr) -> Option<u8> {
        let bits = match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            _ => return None,
        };
        u8::try_from(bits).ok()
    }
}

impl From<IpAddr> for Prefix {
    /// Returns the prefix of one address.
    fn from(address: IpAddr) -> Self {
        Self { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn lengths_end_where_addresses_do() {
        for (address, length, shown) in [
            ("10.7.1.2", 0, "0.0.0.0/0"),
            ("10.7.1.2", 31, "10.7.1.2/31"),
            ("10.7.1.3", 32, "10.7.1.3/32"),
            ("fd12:3456::1", 0, "::/0"),
            ("fd12:3456::1", 20, "fd12:3000::/20"),
            ("fd12:3456::1", 128, "fd12:3456::1/128"),
        ] {
            assert_eq!(Prefix::new(ip(address), length).expect(address).to_string(), shown);
        }
        assert!(Prefix::new(ip("10.7.1.2"), 33).is_none() && Prefix::new(ip("::1"), 129).is_none());
    }

    #[test]
    fn a_prefix_widens_only_as_far_as_needed() {
        let one = Prefix::from(ip("10.7.0.1"));
        let two = one.widened_to(ip("10.7.0.2"));
        assert_eq!(two.to_string(), "10.7.0.0/30");
        assert_eq!(two.widened_to(ip("10.7.0.3")), two);
        assert_eq!(two.widened_to(ip("10.200.0.1")).to_string(), "10.0.0.0/8");
        assert_eq!(two.widened_to(ip("fd00::1")), two, "another family");
        assert_eq!(two.widened_to(ip("192.0.2.1")).to_string(), "0.0.0.0/0");
    }
}
