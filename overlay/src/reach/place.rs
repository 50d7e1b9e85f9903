//! Places: ways on which datagrams reach a node, and how they came from one.

use std::fmt;
use std::net::SocketAddr;

/// Which of the driver's UDP sockets. The driver numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketIndex(pub u16);

/// A way on which datagrams reach a node, with everything that a driver needs to send one there.
///
/// ```
/// use peersock_overlay::{Place, SocketIndex};
///
/// let place = Place::Direct { socket: SocketIndex(0), remote: "192.0.2.1:4000".parse()? };
/// assert_eq!(place.to_string(), "192.0.2.1:4000");
/// assert_eq!((place.overhead(), place.largest_datagram()), (0, 65_507));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Place {
    /// UDP from one of our sockets straight to an address.
    Direct {
        /// The socket to send from.
        socket: SocketIndex,
        /// The address to send to.
        remote: SocketAddr,
    },
}

impl Place {
    /// The socket to send from.
    pub fn socket(&self) -> SocketIndex {
        match *self {
            Self::Direct { socket, .. } => socket,
        }
    }

    /// The address that datagrams are sent to.
    pub fn remote(&self) -> SocketAddr {
        match *self {
            Self::Direct { remote, .. } => remote,
        }
    }

    /// Bytes that this way adds to each datagram, between the UDP header and the message.
    pub fn overhead(&self) -> usize {
        match self {
            Self::Direct { .. } => 0,
        }
    }

    /// Bytes of the IP and UDP headers in front of each datagram.
    pub fn headers(&self) -> usize {
        match self {
            Self::Direct { remote, .. } if remote.is_ipv4() => 28,
            Self::Direct { .. } => 48,
        }
    }

    /// The largest datagram that this way could carry over any link, in bytes.
    pub fn largest_datagram(&self) -> usize {
        match self {
            // RFC 791: an IPv4 packet of 65,535 bytes. IPv6 could carry 20 more, which nobody misses.
            Self::Direct { .. } => 65_535 - 28,
        }
    }

    /// Whether it stays on this machine.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Direct { remote, .. } => remote.ip().is_loopback(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct { remote, .. } => remote.fmt(f),
        }
    }
}

/// Where packets for a peer are sent, and how much fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Where they go.
    pub place: Place,
    /// The largest UDP payload that is thought to pass, in bytes (RFC 8899). 1200 at first and mostly more;
    /// 198 at least, on paths that carry less than the Internet must.
    pub datagram_size: usize,
}

impl Path {
    /// The socket to send from.
    pub fn socket(&self) -> SocketIndex {
        self.place.socket()
    }

    /// The address to send to.
    pub fn remote(&self) -> SocketAddr {
        self.place.remote()
    }
}

/// How a datagram came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecvMeta {
    /// Its source, which nobody has verified.
    pub remote: SocketAddr,
    /// The socket it came in on.
    pub socket: SocketIndex,
    /// Whether that was the discovery socket, where multicast and broadcast arrive.
    pub multicast: bool,
}

impl RecvMeta {
    /// Where an answer would go.
    pub fn place(&self) -> Place {
        Place::Direct { socket: self.socket, remote: self.remote }
    }
}
