use std::net::SocketAddr;

/// Which of the driver's UDP sockets. The driver numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketIndex(pub u16);

/// Where a peer is: from which of our sockets, to which of its addresses, and how much fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// The socket to send from.
    pub socket: SocketIndex,
    /// The address to send to.
    pub remote: SocketAddr,
    /// The largest UDP payload that is thought to pass, in bytes (RFC 8899). 1200 at first and mostly more;
    /// 198 at least, on paths that carry less than the Internet must.
    pub datagram_size: usize,
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
