use std::fmt;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use thiserror::Error;

use super::NodeId;
use crate::crypto::hash;

const PREFIX_LABEL: &[u8] = b"peersock network prefix v1";

/// 64-bit name of a network, written as exactly 16 hex digits.
///
/// The first byte determines the kind: `ff` ad-hoc, `fe` static, anything else managed.
///
/// ```
/// use peersock_overlay::{NetworkId, NetworkKind};
///
/// // Anyone may join, and ports 0x1f90 to 0x1f99 (8080 to 8089) are allowed.
/// let id: NetworkId = "ff1f901f99000000".parse()?;
/// assert_eq!(id.kind(), NetworkKind::AdHoc { ports: 8080..=8089 });
/// # Ok::<(), peersock_overlay::ParseNetworkIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkId(u64);

impl NetworkId {
    /// ID for sessions with roots: no network, and not joinable.
    pub const ROOTS: Self = Self(1);

    /// Creates a network ID from 64 bits, after checking them.
    ///
    /// # Errors
    /// Returns an error for zero, and for an ad-hoc ID (first byte `ff`) that does not end in 24 zero bits or
    /// whose first port is above its last.
    pub fn new(id: u64) -> Result<Self, ParseNetworkIdError> {
        let id = Self(id);
        match id.0.to_be_bytes() {
            [0, 0, 0, 0, 0, 0, 0, 0] => Err(ParseNetworkIdError::Zero),
            [0xff, s0, s1, e0, e1, reserved @ ..] => {
                let (first, last) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([e0, e1]));
                if reserved != [0; 3] {
                    Err(ParseNetworkIdError::AdHocReserved)
                } else if first > last {
                    Err(ParseNetworkIdError::AdHocPorts { first, last })
                } else {
                    Ok(id)
                }
            }
            _ => Ok(id),
        }
    }

    /// Returns the ID of the ad-hoc network on which the TCP and UDP ports in `ports` are allowed.
    /// Returns [`ParseNetworkIdError::AdHocPorts`] for a range that is empty.
    pub fn ad_hoc(ports: RangeInclusive<u16>) -> Result<Self, ParseNetworkIdError> {
        Self::new(0xff << 56 | u64::from(*ports.start()) << 40 | u64::from(*ports.end()) << 24)
    }

    /// Returns the ID as a number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Returns the kind of this network, by its first byte.
    pub fn kind(&self) -> NetworkKind {
        match self.0.to_be_bytes() {
            [0xff, s0, s1, e0, e1, ..] => {
                NetworkKind::AdHoc { ports: u16::from_be_bytes([s0, s1])..=u16::from_be_bytes([e0, e1]) }
            }
            [0xfe, ..] => NetworkKind::Static,
            _ => NetworkKind::Managed,
        }
    }

    /// Returns true if programs of a member may have their own nodes, beside the member's: in static and
    /// managed networks.
    pub fn admits_programs(&self) -> bool {
        *self != Self::ROOTS && !matches!(self.kind(), NetworkKind::AdHoc { .. })
    }

    /// Returns true if controllers admit the members of this network.
    pub fn is_managed(&self) -> bool {
        *self != Self::ROOTS && self.kind() == NetworkKind::Managed
    }

    /// Returns the 48-bit IPv6 prefix of the network: `fd` (RFC 4193) and 40 bits of the ID's hash.
    pub fn prefix(&self) -> [u8; 6] {
        let hash = hash::hash(&[PREFIX_LABEL, &self.0.to_be_bytes()]);
        // RFC 4193 3.1: `fd` and 40 bits that look random, so that networks do not collide.
        [0xfd, hash[0], hash[1], hash[2], hash[3], hash[4]]
    }

    /// Returns a node's self-certifying address: the prefix and the first 80 bits of the node ID.
    ///
    /// Only the holder of the matching keys can complete a handshake for it, so no other node can take it
    /// over.
    pub fn address_of(&self, id: &NodeId) -> Ipv6Addr {
        let mut address = [0; 16];
        address[..6].copy_from_slice(&self.prefix());
        // 80 bits of the ID, which a node cannot choose at will: the address proves its owner.
        address[6..].copy_from_slice(&id.as_bytes()[..10]);
        Ipv6Addr::from(address)
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:016x}", self.0))
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkId({self})")
    }
}

impl FromStr for NetworkId {
    type Err = ParseNetworkIdError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.len() != 16 {
            return Err(ParseNetworkIdError::Length(s.chars().count()));
        }
        // `from_str_radix` alone would accept a sign.
        if let Some(position) = s.bytes().position(|c| !c.is_ascii_hexdigit()) {
            return Err(ParseNetworkIdError::Digit(position));
        }
        Self::new(u64::from_str_radix(s, 16).expect("16 hex digits fit 64 bits"))
    }
}

/// Kind of a network, by its ID; see [`NetworkId::kind`]. The network's [`Policy`](crate::Policy) implements
/// it, and no other code asks for the kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkKind {
    /// Anyone (who knows the passphrase, if there is one) takes part; the ID is no secret. IPv6 only.
    AdHoc {
        /// TCP and UDP ports that may be used on either side.
        ports: RangeInclusive<u16>,
    },
    /// A file lists the members.
    Static,
    /// Controllers admit the members.
    Managed,
}

/// Reason why a string or number is not a network ID.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseNetworkIdError {
    /// The string has this many characters instead of 16.
    #[error("a network ID has exactly 16 hex digits, this has {0} characters")]
    Length(usize),
    /// The byte at this offset is not a hex digit.
    #[error("a network ID has only hex digits, the character at offset {0} is none")]
    Digit(usize),
    /// All bits are zero.
    #[error("zero is not a network ID")]
    Zero,
    /// The last six digits of an ad-hoc ID are not zero.
    #[error("an ad-hoc network ID is ffSSSSEEEE000000, but the last six digits are not zero")]
    AdHocReserved,
    /// The port range of an ad-hoc ID is empty.
    #[error("the ad-hoc network ID allows ports {first} to {last}, which is no port at all")]
    AdHocPorts {
        /// First port allowed.
        first: u16,
        /// Last port allowed.
        last: u16,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sixteen_hex_digits_parse() {
        let id = NetworkId(0xff00_16ff_ff00_0000);
        for good in ["ff0016ffff000000", "FF0016FFFF000000"] {
            assert_eq!(good.parse(), Ok(id));
        }
        assert_eq!(id.to_string(), "ff0016ffff000000");
        for (bad, error) in [
            ("", ParseNetworkIdError::Length(0)),
            ("ff0016ffff00000", ParseNetworkIdError::Length(15)),
            ("0xff0016ffff000000", ParseNetworkIdError::Length(18)),
            ("+f0016ffff000000", ParseNetworkIdError::Digit(0)),
            ("ff0016ffff00000g", ParseNetworkIdError::Digit(15)),
            ("0000000000000000", ParseNetworkIdError::Zero),
            ("ff0016ffff000001", ParseNetworkIdError::AdHocReserved),
            ("ff00170016000000", ParseNetworkIdError::AdHocPorts { first: 23, last: 22 }),
        ] {
            assert_eq!(bad.parse::<NetworkId>(), Err(error), "{bad}");
        }
    }

    #[test]
    fn first_byte_is_the_kind() {
        assert_eq!(
            NetworkId::ad_hoc(22..=22).map(|id| (id.to_string(), id.kind())),
            Ok(("ff00160016000000".into(), NetworkKind::AdHoc { ports: 22..=22 }))
        );
        assert_eq!("fe00000000000001".parse().map(|id: NetworkId| id.kind()), Ok(NetworkKind::Static));
        assert_eq!("8056c2e21c000001".parse().map(|id: NetworkId| id.kind()), Ok(NetworkKind::Managed));
    }

    #[test]
    fn address_is_prefix_and_node_id() {
        let id = NetworkId(0xfe00_0000_0000_0001);
        let node = NodeId::from_bytes(std::array::from_fn(|i| i as u8));
        let address = id.address_of(&node).octets();
        assert_eq!(address[0], 0xfd);
        assert_eq!(address[..6], id.prefix());
        assert_eq!(address[6..], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_ne!(NetworkId(0xfe00_0000_0000_0002).prefix(), id.prefix());
    }
}
