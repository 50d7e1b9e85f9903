use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Where a datagram came from, and where answers go: an address as seen from one of the root's UDP sockets,
/// or a stream connection.
///
/// ```
/// use peersock_root::Source;
///
/// let source = Source::Udp { socket: 0, remote: "192.0.2.1:4000".parse()? };
/// assert_eq!(source.to_string(), "192.0.2.1:4000");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A UDP address.
    Udp {
        /// Which of the root's sockets, as the driver numbers them: an answer leaves from the address that
        /// was asked, or NAT boxes would not let it in.
        socket: u16,
        /// The other end.
        remote: SocketAddr,
    },
    /// A stream connection (TCP, TLS, WebSocket), which carries datagrams in both directions.
    Stream {
        /// Which connection; the driver never uses a number twice.
        number: u64,
        /// Its other end, by which budgets are shared out.
        remote: SocketAddr,
    },
}

impl Source {
    /// The address that budgets go by, with an IPv4-mapped one as IPv4.
    pub fn ip(&self) -> IpAddr {
        match self {
            Self::Udp { remote, .. } | Self::Stream { remote, .. } => remote.ip().to_canonical(),
        }
    }

    /// The address and port of the other end.
    pub fn remote(&self) -> SocketAddr {
        match self {
            Self::Udp { remote, .. } | Self::Stream { remote, .. } => {
                SocketAddr::new(self.ip(), remote.port())
            }
        }
    }

    /// Where others would send UDP datagrams for it: `[::]:0` if it is a stream, because what a NAT box has
    /// mapped for TCP says nothing about UDP.
    pub fn observed(&self) -> SocketAddr {
        match self {
            Self::Udp { .. } => self.remote(),
            Self::Stream { .. } => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        }
    }

    /// The other end of the TCP connection, if it is a stream: where the node is seen by TCP. Behind a proxy
    /// it is the proxy's.
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
