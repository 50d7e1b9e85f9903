//! Addresses and blocks of them.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Family;

/// One address, or a block of them: P2PD's `IPRange`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpBlock {
    ip: IpAddr,
    prefix: u8,
}

/// The form of a block in dictionaries.
#[derive(Serialize, Deserialize)]
struct Dict {
    ip: IpAddr,
    cidr: u8,
    af: i32,
}

impl IpBlock {
    /// Makes the block that contains an address; `None` if the prefix is longer than the family's addresses.
    pub fn new(ip: IpAddr, prefix: u8) -> Option<Self> {
        let width = Family::of(ip).width();
        (prefix <= width).then(|| Self { ip: from_bits(ip, bits(ip) & !host_mask(width, prefix)), prefix })
    }

    /// Makes a block of one address.
    pub fn single(ip: IpAddr) -> Self {
        Self { ip, prefix: Family::of(ip).width() }
    }

    /// Returns the block of an interface's address. It is a whole block if all bits after the prefix are
    /// zero, which is how a machine with a whole block has it. Otherwise it is the single address.
    pub fn of_interface(ip: IpAddr, prefix: u8) -> Self {
        match Self::new(ip, prefix) {
            Some(block) if block.ip == ip => block,
            _ => Self::single(ip),
        }
    }

    /// Returns the first address; of a block, the network address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Returns the length of the network prefix in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Returns true if the block is a single address.
    pub fn is_single(&self) -> bool {
        self.prefix == self.family().width()
    }

    /// Returns the family of the block.
    pub fn family(&self) -> Family {
        Family::of(self.ip)
    }

    /// Returns the number of addresses that hosts can have. The network address does not count, nor the last
    /// address in IPv4, unless the block has two or fewer addresses.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u128 {
        let (first, last) = self.hosts();
        (last - first).saturating_add(1)
    }

    /// Returns the host address of that number, counted from 0.
    pub fn nth(&self, index: u128) -> Option<IpAddr> {
        let (first, last) = self.hosts();
        let at = first.checked_add(index)?;
        (at <= last).then(|| from_bits(self.ip, at))
    }

    /// Returns true if the address is in the block.
    pub fn contains(&self, ip: IpAddr) -> bool {
        Self::new(ip, self.prefix).is_some_and(|block| block == *self)
    }

    /// Returns true if the block's range is reachable from the whole Internet.
    pub fn is_public(&self) -> bool {
        crate::netcheck::is_public(self.ip)
    }

    /// Returns true if the block is link-local.
    pub fn is_link_local(&self) -> bool {
        match self.ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        }
    }

    fn hosts(&self) -> (u128, u128) {
        let width = self.family().width();
        let first = bits(self.ip);
        let last = first | host_mask(width, self.prefix);
        match width - self.prefix {
            0 | 1 => (first, last),
            _ if self.ip.is_ipv4() => (first + 1, last - 1),
            _ => (first + 1, last),
        }
    }
}

impl fmt::Display for IpBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

impl Serialize for IpBlock {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Dict { ip: self.ip, cidr: self.prefix, af: self.family().number() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for IpBlock {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let dict = Dict::deserialize(deserializer)?;
        let block = Self::new(dict.ip, dict.cidr);
        block.ok_or_else(|| serde::de::Error::custom(format!("{}/{} has too many bits", dict.ip, dict.cidr)))
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// Returns the address with these bits, in the same family as `family`.
fn from_bits(family: IpAddr, bits: u128) -> IpAddr {
    match family {
        IpAddr::V4(_) => IpAddr::V4(u32::try_from(bits).expect("it stays inside the family").into()),
        IpAddr::V6(_) => IpAddr::V6(bits.into()),
    }
}

fn host_mask(width: u8, prefix: u8) -> u128 {
    1u128.checked_shl((width - prefix).into()).map_or(u128::MAX, |end| end - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_largest_and_smallest_blocks_have_their_numbers() {
        let block =
            |text: &str, prefix| IpBlock::new(text.parse().expect("an address"), prefix).expect("few bits");
        for (text, prefix, len) in
            [("0.0.0.0", 0, (1u128 << 32) - 2), ("::", 0, u128::MAX), ("2001:db8::", 64, u64::MAX.into())]
        {
            assert_eq!(block(text, prefix).len(), len, "{text}/{prefix}");
        }
        for (prefix, len) in [(32, 1), (31, 2), (30, 2), (29, 6)] {
            assert_eq!(block("192.0.2.0", prefix).len(), len);
        }
        assert_eq!(IpBlock::new([192, 0, 2, 0].into(), 33), None);
    }

    #[test]
    fn an_interface_s_address_is_a_block_only_without_host_bits() {
        assert!(IpBlock::of_interface([192, 168, 0, 20].into(), 24).is_single());
        assert_eq!(IpBlock::of_interface([8, 8, 0, 0].into(), 16).prefix(), 16);
    }

    proptest! {
        #[test]
        fn all_addresses_of_a_block_are_in_it(ip: [u8; 16], v4: bool, prefix in 0..=128u8, index: u128) {
            let ip: IpAddr = if v4 { [ip[0], ip[1], ip[2], ip[3]].into() } else { ip.into() };
            let Some(block) = IpBlock::new(ip, prefix) else { return Ok(()) };
            prop_assert!(block.contains(ip));
            let index = index % block.len();
            prop_assert!(block.contains(block.nth(index).expect("it is below the length")));
            prop_assert_eq!(block.nth(block.len()), None);
            let text = serde_json::to_string(&block).expect("it can be written");
            prop_assert_eq!(serde_json::from_str::<IpBlock>(&text).expect("it can be read"), block);
        }
    }
}
