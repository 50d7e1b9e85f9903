use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Origin of a datagram, and destination of answers: an address as seen from one of the root's UDP sockets,
/// or a stream connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// UDP address.
    Udp {
        /// Number of the root's socket, as the driver counts. An answer leaves from the address that was
        /// asked, because NAT boxes would block it otherwise.
        socket: u16,
        /// Remote address.
        remote: SocketAddr,
    },
    /// Stream connection (TCP, TLS, WebSocket), which carries datagrams in both directions.
    Stream {
        /// Number of the connection; the driver never uses a number twice.
        number: u64,
        /// Remote address, which selects the budgets.
        remote: SocketAddr,
    },
}

impl Source {
    /// Returns the address that selects the budgets, with an IPv4-mapped one as IPv4.
    pub fn ip(&self) -> IpAddr {
        match self {
            Self::Udp { remote, .. } | Self::Stream { remote, .. } => remote.ip().to_canonical(),
        }
    }

    /// Returns the remote address and port.
    pub fn remote(&self) -> SocketAddr {
        match self {
            Self::Udp { remote, .. } | Self::Stream { remote, .. } => {
                SocketAddr::new(self.ip(), remote.port())
            }
        }
    }

    /// Returns the destination of UDP datagrams from others: `[::]:0` for a stream, because a NAT mapping for
    /// TCP says nothing about UDP.
    pub fn observed(&self) -> SocketAddr {
        match self {
            Self::Udp { .. } => self.remote(),
            Self::Stream { .. } => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        }
    }

    /// Returns the remote address of the TCP connection, if it is a stream: the node's address as seen by
    /// TCP. Behind a proxy it is the proxy's.
    pub fn connection(&self) -> Option<SocketAddr> {
        match self {
            Self::Udp { .. } => None,
            Self::Stream { .. } => Some(self.remote()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp { .. } => self.remote().fmt(f),
            Self::Stream { number, .. } => write!(f, "{} (connection {number})", self.remote()),
        }
    }
}
