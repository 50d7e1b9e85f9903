//! Knowledge about the NAT in front of a node.

/// Choice of a socket's external port by a NAT (RFC 4787, 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mapping {
    /// The mapping is not known.
    #[default]
    Unknown,
    /// There is no NAT.
    NoNat,
    /// The port is the same for every destination.
    EndpointIndependent,
    /// The port differs for each destination address.
    AddressDependent,
    /// The port differs for each destination address and port.
    AddressAndPortDependent,
}

impl Mapping {
    /// Returns the number on the wire.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::NoNat => 1,
            Self::EndpointIndependent => 2,
            Self::AddressDependent => 3,
            Self::AddressAndPortDependent => 4,
        }
    }

    /// Returns the mapping of a number on the wire; `Unknown` for numbers of later versions.
    pub(super) fn of_number(number: u8) -> Self {
        match number {
            1 => Self::NoNat,
            2 => Self::EndpointIndependent,
            3 => Self::AddressDependent,
            4 => Self::AddressAndPortDependent,
            _ => Self::Unknown,
        }
    }

    /// Returns true if the external port depends on the destination.
    pub(super) fn varies(self) -> bool {
        matches!(self, Self::AddressDependent | Self::AddressAndPortDependent)
    }

    /// Returns true if the external port is known to be one for all destinations.
    pub(super) fn is_fixed(self) -> bool {
        matches!(self, Self::EndpointIndependent | Self::NoNat)
    }
}

/// Senders whose packets a NAT or firewall admits (RFC 4787, 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Filtering {
    /// The filtering is not known.
    #[default]
    Unknown,
    /// All senders.
    EndpointIndependent,
    /// Addresses to which something was sent.
    AddressDependent,
    /// Addresses and ports to which something was sent.
    AddressAndPortDependent,
}

/// Knowledge about the NAT in front of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Nat {
    /// Mapping of IPv4; if that is unknown, the mapping of IPv6.
    pub mapping: Mapping,
    /// Mapping of IPv6: IPv6 firewalls do not map at all, NAT66 boxes do.
    pub mapping_ipv6: Mapping,
    /// Filtering of incoming packets.
    pub filtering: Filtering,
    /// Difference between the external ports of the next mapping and the last; 0 if unknown.
    pub port_delta: i16,
}
