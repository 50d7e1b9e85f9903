//! Networks and their names.

use std::fmt;
use std::str::FromStr;

use crate::UnknownNetworkError;

/// A network for dialing, listening or resolving.
///
/// Functions that take a network also accept its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// `tcp`: TCP over IPv4 and IPv6.
    Tcp,
    /// `tcp4`
    Tcp4,
    /// `tcp6`
    Tcp6,
    /// `udp`: UDP over IPv4 and IPv6.
    Udp,
    /// `udp4`
    Udp4,
    /// `udp6`
    Udp6,
    /// `unix`: Unix domain stream sockets.
    Unix,
    /// `unixgram`: Unix domain datagram sockets.
    Unixgram,
    /// `ip`: addresses without ports, only for resolving.
    Ip,
    /// `ip4`, only for resolving.
    Ip4,
    /// `ip6`, only for resolving.
    Ip6,
}

/// The kind of a network's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Udp,
    Unix,
    Ip,
}

/// A family of IP addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Network {
    /// All networks.
    pub const ALL: [Network; 11] = [
        Network::Tcp,
        Network::Tcp4,
        Network::Tcp6,
        Network::Udp,
        Network::Udp4,
        Network::Udp6,
        Network::Unix,
        Network::Unixgram,
        Network::Ip,
        Network::Ip4,
        Network::Ip6,
    ];

    /// Returns the name of the network.
    pub fn name(self) -> &'static str {
        match self {
            Network::Tcp => "tcp",
            Network::Tcp4 => "tcp4",
            Network::Tcp6 => "tcp6",
            Network::Udp => "udp",
            Network::Udp4 => "udp4",
            Network::Udp6 => "udp6",
            Network::Unix => "unix",
            Network::Unixgram => "unixgram",
            Network::Ip => "ip",
            Network::Ip4 => "ip4",
            Network::Ip6 => "ip6",
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Network::Tcp | Network::Tcp4 | Network::Tcp6 => Kind::Tcp,
            Network::Udp | Network::Udp4 | Network::Udp6 => Kind::Udp,
            Network::Unix | Network::Unixgram => Kind::Unix,
            Network::Ip | Network::Ip4 | Network::Ip6 => Kind::Ip,
        }
    }

    /// Returns the family that the network's addresses must have; `None` if both are allowed.
    pub(crate) fn family(self) -> Option<Family> {
        match self {
            Network::Tcp4 | Network::Udp4 | Network::Ip4 => Some(Family::V4),
            Network::Tcp6 | Network::Udp6 | Network::Ip6 => Some(Family::V6),
            _ => None,
        }
    }

    /// Returns true if the network's connections are byte streams.
    pub(crate) fn is_stream(self) -> bool {
        self.kind() == Kind::Tcp || self == Network::Unix
    }

    /// Returns the network if its kind is one of these.
    pub(crate) fn among(self, kinds: &[Kind]) -> Result<Network, UnknownNetworkError> {
        if kinds.contains(&self.kind()) { Ok(self) } else { Err(self.into()) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Network {
    type Err = UnknownNetworkError;

    fn from_str(name: &str) -> Result<Network, UnknownNetworkError> {
        let found = Network::ALL.into_iter().find(|network| network.name() == name);
        found.ok_or_else(|| UnknownNetworkError::new(name))
    }
}

/// A type that names a network: a [`Network`] or its name.
pub trait IntoNetwork {
    /// Returns the network.
    ///
    /// # Errors
    /// [`UnknownNetworkError`] if no network has the name.
    fn into_network(self) -> Result<Network, UnknownNetworkError>;
}

impl IntoNetwork for Network {
    fn into_network(self) -> Result<Network, UnknownNetworkError> {
        Ok(self)
    }
}

impl IntoNetwork for &str {
    fn into_network(self) -> Result<Network, UnknownNetworkError> {
        self.parse()
    }
}

impl IntoNetwork for &String {
    fn into_network(self) -> Result<Network, UnknownNetworkError> {
        self.parse()
    }
}
