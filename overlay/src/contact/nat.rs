//! What is known of the NAT in front of a node.

/// How a NAT chooses the external port of a socket (RFC 4787, 4.1).
///
/// ```
/// assert_eq!(peersock_overlay::Mapping::default(), peersock_overlay::Mapping::Unknown);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mapping {
    /// Not known.
    #[default]
    Unknown,
    /// There is no NAT.
    NoNat,
    /// The same one whatever the destination.
    EndpointIndependent,
    /// Another one for each destination address.
    AddressDependent,
    /// Another one for each destination address and port.
    AddressAndPortDependent,
}

impl Mapping {
    /// Its number on the wire.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::NoNat => 1,
            Self::EndpointIndependent => 2,
            Self::AddressDependent => 3,
            Self::AddressAndPortDependent => 4,
        }
    }

    /// That of a number on the wire; of one that a later version has nothing is known.
    pub(super) fn of_number(number: u8) -> Self {
        match number {
            1 => Self::NoNat,
            2 => Self::EndpointIndependent,
            3 => Self::AddressDependent,
            4 => Self::AddressAndPortDependent,
            _ => Self::Unknown,
        }
    }

    /// Whether the outer port depends on the destination.
    pub(super) fn varies(self) -> bool {
        matches!(self, Self::AddressDependent | Self::AddressAndPortDependent)
    }

    /// Whether it is known to be one for all destinations.
    pub(super) fn is_fixed(self) -> bool {
        matches!(self, Self::EndpointIndependent | Self::NoNat)
    }
}

/// Whose packets a NAT or firewall lets in (RFC 4787, 5).
///
/// ```
/// assert_eq!(peersock_overlay::Filtering::default(), peersock_overlay::Filtering::Unknown);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Filtering {
    /// Not known.
    #[default]
    Unknown,
    /// Everybody's.
    EndpointIndependent,
    /// Those from addresses to which something was sent.
    AddressDependent,
    /// Those from addresses and ports to which something was sent.
    AddressAndPortDependent,
}

/// What is known of the NAT in front of a node.
///
/// ```
/// use peersock_overlay::{Filtering, Mapping, Nat};
///
/// let (mapping, filtering) = (Mapping::EndpointIndependent, Filtering::AddressDependent);
/// let nat = Nat { mapping, filtering, ..Nat::default() };
/// assert_ne!(nat, Nat::default());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Nat {
    /// How it maps IPv4; if nothing is known of that, how it maps IPv6.
    pub mapping: Mapping,
    /// How it maps IPv6: firewalls of IPv6 do not map at all, NAT66 boxes do.
    pub mapping_ipv6: Mapping,
    /// How it filters.
    pub filtering: Filtering,
    /// By how much the external port of the next mapping differs from the last one's; 0 if that is not known.
    pub port_delta: i16,
}
