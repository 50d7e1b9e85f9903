//! Addresses of endpoints.

mod ip;
mod port;
mod unix;

use std::fmt;
use std::net::SocketAddr;

use socket2::SockAddr;

pub use ip::IpAddr;
pub use port::{TcpAddr, UdpAddr};
pub use unix::UnixAddr;

use crate::network::{Family, Kind};
use crate::{AddressError, Network};

/// The address of an endpoint. [`dial`](crate::dial()) and [`listen`](crate::listen()) accept its text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Addr {
    /// A TCP address.
    Tcp(TcpAddr),
    /// A UDP address.
    Udp(UdpAddr),
    /// An IP address without a port.
    Ip(IpAddr),
    /// A Unix domain socket's address.
    Unix(UnixAddr),
}

/// An address in the form that system sockets use.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Ip(SocketAddr),
    Unix(SockAddr),
}

impl Addr {
    /// Returns the network of the address: `tcp`, `udp`, `ip`, `unix` or `unixgram`.
    pub fn network(&self) -> Network {
        match self {
            Addr::Tcp(_) => Network::Tcp,
            Addr::Udp(_) => Network::Udp,
            Addr::Ip(_) => Network::Ip,
            Addr::Unix(addr) => addr.network(),
        }
    }

    /// Returns the IP address; `None` for a Unix domain socket.
    pub fn ip_addr(&self) -> Option<&IpAddr> {
        match self {
            Addr::Tcp(addr) => Some(addr.ip_addr()),
            Addr::Udp(addr) => Some(addr.ip_addr()),
            Addr::Ip(addr) => Some(addr),
            Addr::Unix(_) => None,
        }
    }

    /// Converts a socket's address to one of a network of this kind.
    pub(crate) fn of_socket(kind: Kind, address: SocketAddr) -> Addr {
        if kind == Kind::Tcp { Addr::Tcp(address.into()) } else { Addr::Udp(address.into()) }
    }

    /// Returns the address for system sockets; an unspecified IP address becomes `[::]`.
    pub(crate) fn place(&self) -> Result<Place, AddressError> {
        match self {
            Addr::Tcp(addr) => addr.to_socket_addr().map(Place::Ip),
            Addr::Udp(addr) => addr.to_socket_addr().map(Place::Ip),
            Addr::Ip(addr) => addr.to_socket_addr(0).map(Place::Ip),
            Addr::Unix(addr) => addr.place().map(Place::Unix),
        }
    }

    /// Fails if the address does not belong to the network.
    pub(crate) fn check(&self, network: Network) -> Result<(), AddressError> {
        if self.network().kind() != network.kind() {
            return Err(AddressError::new(format!("it is no address of the network {network}"), self));
        }
        let Some((addr, family)) = self.ip_addr().zip(network.family()) else { return Ok(()) };
        if addr.ip().is_some() && addr.is_ipv6() != (family == Family::V6) {
            return Err(AddressError::new(format!("no address of the network {network}"), self));
        }
        Ok(())
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addr::Tcp(addr) => addr.fmt(f),
            Addr::Udp(addr) => addr.fmt(f),
            Addr::Ip(addr) => addr.fmt(f),
            Addr::Unix(addr) => addr.fmt(f),
        }
    }
}

impl From<TcpAddr> for Addr {
    fn from(addr: TcpAddr) -> Addr {
        Addr::Tcp(addr)
    }
}

impl From<UdpAddr> for Addr {
    fn from(addr: UdpAddr) -> Addr {
        Addr::Udp(addr)
    }
}

impl From<IpAddr> for Addr {
    fn from(addr: IpAddr) -> Addr {
        Addr::Ip(addr)
    }
}

impl From<UnixAddr> for Addr {
    fn from(addr: UnixAddr) -> Addr {
        Addr::Unix(addr)
    }
}
