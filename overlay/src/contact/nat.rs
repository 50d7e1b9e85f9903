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
/// let nat = Nat { mapping, filtering, port_delta: 0 };
/// assert_ne!(nat, Nat::default());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Nat {
    /// How it maps.
    pub mapping: Mapping,
    /// How it filters.
    pub filtering: Filtering,
    /// By how much the external port of the next mapping differs from the last one's; 0 if that is not known.
    pub port_delta: i16,
}
