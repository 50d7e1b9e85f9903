use std::fmt;

use crate::net::Behaviour;

/// The way one side of a cell is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A public IPv4 address, and no filter.
    Open,
    /// One NAT box.
    Nat {
        /// The part of a destination on which the outer port depends.
        mapping: Behaviour,
        /// The senders that the box accepts.
        filtering: Behaviour,
        /// True if a new mapping gets the outer port that follows the previous one.
        ///
        /// All other port rules look alike to one socket whose mapping depends on the destination. Its first
        /// mapping may have the inner port, and each further one has any port. So the seed draws one of those
        /// rules. If the mapping does not depend on the destination, it draws any rule.
        predictable: bool,
    },
    /// The usual home router (endpoint-independent mapping, address-and-port-dependent filtering), with a
    /// mapping timeout of 20 s.
    ShortLived,
    /// A usual home router behind another home router.
    Double,
    /// A usual home router behind a carrier's box as RFC 6888 requires it: both endpoint-independent, with
    /// hairpinning.
    Cgn,
    /// A usual home router behind a carrier's box that maps each destination to any port.
    CgnDependent,
    /// A usual home router that lets no UDP out. The node reaches roots by streams.
    UdpBlocked,
    /// The same, and TCP passes only to port 443.
    Only443,
    /// A public IPv6 address, no filter, no IPv4.
    Ipv6,
    /// A public IPv6 address behind a firewall, no IPv4.
    Ipv6Firewall,
    /// A public IPv6 address behind a firewall, and IPv4 behind a box that maps each destination to any port.
    DualStack,
    /// A public IPv6 address behind a firewall, and the IPv4 Internet through a NAT64 as RFC 6146 requires
    /// it.
    Nat64,
    /// The same with a NAT64 that maps each destination to any port.
    Nat64Dependent,
    /// A private IPv6 address behind a NAT66 that behaves like the usual home router, no IPv4.
    Nat66,
    /// The same with a NAT66 that maps each destination to any port.
    Nat66Dependent,
}

impl Kind {
    /// The kinds that most nodes are behind. The table measures the relayed bytes for these.
    pub const USUAL: [Self; 4] = [Self::ShortLived, Self::Double, Self::Cgn, Self::Nat64];

    /// Returns all kinds, in the order of the table.
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::Open];
        for mapping in Behaviour::ALL {
            for filtering in Behaviour::ALL {
                let nat = |predictable| Self::Nat { mapping, filtering, predictable };
                all.push(nat(false));
                if mapping != Behaviour::EndpointIndependent {
                    all.push(nat(true));
                }
            }
        }
        all.extend([
            Self::ShortLived,
            Self::Double,
            Self::Cgn,
            Self::CgnDependent,
            Self::UdpBlocked,
            Self::Only443,
        ]);
        all.extend([Self::Ipv6, Self::Ipv6Firewall, Self::DualStack, Self::Nat64, Self::Nat64Dependent]);
        all.extend([Self::Nat66, Self::Nat66Dependent]);
        all
    }

    /// Returns the description in the table's legend. The legend has one for all kinds [`Self::Nat`], whose
    /// names say what they are.
    pub fn description(self) -> &'static str {
        match self {
            Self::Open => "public IPv4 address, no filter",
            Self::Nat { .. } => {
                "mapping and filtering, each endpoint-independent (`ei`), address-dependent (`ad`) or \
                 address-and-port-dependent (`apd`); `+`: the next port follows the last one, else it is anything"
            }
            Self::ShortLived => "as `ei-apd`, but mappings live for 20 s",
            Self::Double => "`ei-apd` behind `ei-apd`",
            Self::Cgn => "`ei-apd` behind a carrier's `ei-ei` that hairpins (RFC 6888)",
            Self::CgnDependent => "`ei-apd` behind a carrier's `apd-apd`",
            Self::UdpBlocked => "no UDP leaves, but any TCP: roots are reached by streams",
            Self::Only443 => "nothing leaves but TCP to port 443, by which roots take streams, too",
            Self::Ipv6 => "public IPv6 address, no filter, no IPv4",
            Self::Ipv6Firewall => "public IPv6 address, address-and-port-dependent firewall, no IPv4",
            Self::DualStack => "`ip6-fw`, and IPv4 by `apd-apd`",
            Self::Nat64 => "`ip6-fw`, and a NAT64 that is as `ei-ad` (RFC 6146)",
            Self::Nat64Dependent => "`ip6-fw`, and a NAT64 that is as `apd-apd`",
            Self::Nat66 => "private IPv6 address behind a NAT66 that is as `ei-apd`, no IPv4",
            Self::Nat66Dependent => "private IPv6 address behind a NAT66 that is as `apd-apd`, no IPv4",
        }
    }

    /// Returns whether the node has an IPv4 address, and whether it has an IPv6 address, that leads outside.
    pub(super) fn families(self) -> [bool; 2] {
        match self {
            Self::Ipv6 | Self::Ipv6Firewall | Self::Nat64 | Self::Nat64Dependent => [false, true],
            Self::Nat66 | Self::Nat66Dependent => [false, true],
            Self::DualStack => [true; 2],
            _ => [true, false],
        }
    }
}

/// A short name: mapping and filtering as `ei`, `ad` and `apd`, with `+` if the next port is predictable.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |behaviour| match behaviour {
            Behaviour::EndpointIndependent => "ei",
            Behaviour::AddressDependent => "ad",
            Behaviour::AddressAndPortDependent => "apd",
        };
        let name = match *self {
            Self::Open => "open",
            Self::Nat { mapping, filtering, predictable } => {
                let plus = if predictable { "+" } else { "" };
                return write!(f, "{}-{}{plus}", short(mapping), short(filtering));
            }
            Self::ShortLived => "20s",
            Self::Double => "double",
            Self::Cgn => "cgn",
            Self::CgnDependent => "cgn-apd",
            Self::UdpBlocked => "no-udp",
            Self::Only443 => "only-443",
            Self::Ipv6 => "ip6",
            Self::Ipv6Firewall => "ip6-fw",
            Self::DualStack => "dual",
            Self::Nat64 => "nat64",
            Self::Nat64Dependent => "nat64-apd",
            Self::Nat66 => "nat66",
            Self::Nat66Dependent => "nat66-apd",
        };
        f.write_str(name)
    }
}
