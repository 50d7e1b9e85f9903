//! Errors of socket operations, and the one table that gives each its `errno`.

use std::io;

/// Reason for the failure of a socket operation.
///
/// Each has exactly one [`io::ErrorKind`] and, on Unix, one `errno`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No socket listens there.
    #[error("connection refused")]
    ConnectionRefused,
    /// The peer reset the connection.
    #[error("connection reset by peer")]
    ConnectionReset,
    /// The connection was given up on this side.
    #[error("connection aborted")]
    ConnectionAborted,
    /// The peer did not answer in time.
    #[error("connection timed out")]
    TimedOut,
    /// No path to the peer.
    #[error("no route to host")]
    HostUnreachable,
    /// No interface leads to that address.
    #[error("network is unreachable")]
    NetworkUnreachable,
    /// The interface was removed.
    #[error("network is down")]
    NetworkDown,
    /// The local address and port are taken, or the connection exists already.
    #[error("address already in use")]
    AddrInUse,
    /// The local address is not one of this node's, or no ephemeral port is left.
    #[error("cannot assign requested address")]
    AddrNotAvailable,
    /// The two addresses are of different families.
    #[error("address family not supported")]
    AddressFamily,
    /// The socket has no peer.
    #[error("socket is not connected")]
    NotConnected,
    /// The socket has a peer already.
    #[error("socket is already connected")]
    AlreadyConnected,
    /// Sending was shut down.
    #[error("broken pipe")]
    BrokenPipe,
    /// The operation would have to wait.
    #[error("operation would block")]
    WouldBlock,
    /// An argument is out of its range.
    #[error("invalid argument")]
    InvalidInput,
    /// The datagram does not fit the path.
    #[error("message too long")]
    MessageSize,
    /// The network allows not that port, or its rules refuse the flow.
    #[error("not allowed in this network")]
    PermissionDenied,
    /// The peer does not take the protocol.
    #[error("protocol not available")]
    ProtocolUnreachable,
    /// The peer could not make sense of a packet's header.
    #[error("protocol error")]
    Protocol,
    /// A limit of the stack is reached.
    #[error("out of memory")]
    OutOfMemory,
    /// The socket was closed.
    #[error("socket is closed")]
    Closed,
}

impl Error {
    /// Returns the standard library's kind of the error.
    pub fn kind(self) -> io::ErrorKind {
        self.row().0
    }

    /// Returns the C library's number of the error.
    #[cfg(unix)]
    pub fn errno(self) -> i32 {
        self.row().1
    }

    /// Returns the [`io::ErrorKind`] and `errno` of each error.
    #[rustfmt::skip]
    fn row(self) -> (io::ErrorKind, i32) {
        use io::ErrorKind as Kind;
        match self {
            Self::ConnectionRefused  => (Kind::ConnectionRefused,  libc::ECONNREFUSED),
            Self::ConnectionReset    => (Kind::ConnectionReset,    libc::ECONNRESET),
            Self::ConnectionAborted  => (Kind::ConnectionAborted,  libc::ECONNABORTED),
            Self::TimedOut           => (Kind::TimedOut,           libc::ETIMEDOUT),
            Self::HostUnreachable    => (Kind::HostUnreachable,    libc::EHOSTUNREACH),
            Self::NetworkUnreachable => (Kind::NetworkUnreachable, libc::ENETUNREACH),
            Self::NetworkDown        => (Kind::NetworkDown,        libc::ENETDOWN),
            Self::AddrInUse          => (Kind::AddrInUse,          libc::EADDRINUSE),
            Self::AddrNotAvailable   => (Kind::AddrNotAvailable,   libc::EADDRNOTAVAIL),
            Self::AddressFamily      => (Kind::Unsupported,        libc::EAFNOSUPPORT),
            Self::NotConnected       => (Kind::NotConnected,       libc::ENOTCONN),
            Self::AlreadyConnected   => (Kind::Other,              libc::EISCONN),
            Self::BrokenPipe         => (Kind::BrokenPipe,         libc::EPIPE),
            Self::WouldBlock         => (Kind::WouldBlock,         libc::EAGAIN),
            Self::InvalidInput       => (Kind::InvalidInput,       libc::EINVAL),
            Self::MessageSize        => (Kind::Other,              libc::EMSGSIZE),
            Self::PermissionDenied   => (Kind::PermissionDenied,   libc::EACCES),
            Self::ProtocolUnreachable => (Kind::Other,             libc::ENOPROTOOPT),
            Self::Protocol           => (Kind::Other,              libc::EPROTO),
            Self::OutOfMemory        => (Kind::OutOfMemory,        libc::ENOMEM),
            Self::Closed             => (Kind::Other,              libc::EBADF),
        }
    }
}

impl From<Error> for io::Error {
    /// Returns the error that the system itself would return, with its `errno`. It allocates nothing, so that
    /// `WouldBlock` is cheap.
    fn from(error: Error) -> Self {
        #[cfg(unix)]
        return io::Error::from_raw_os_error(error.errno());
        #[cfg(not(unix))]
        return io::Error::from(error.kind());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_agree_with_what_the_standard_library_makes_of_the_errno() {
        let all = [
            Error::ConnectionRefused,
            Error::ConnectionReset,
            Error::ConnectionAborted,
            Error::TimedOut,
            Error::HostUnreachable,
            Error::NetworkUnreachable,
            Error::NetworkDown,
            Error::AddrInUse,
            Error::AddrNotAvailable,
            Error::NotConnected,
            Error::BrokenPipe,
            Error::WouldBlock,
            Error::InvalidInput,
            Error::PermissionDenied,
            Error::OutOfMemory,
        ];
        for error in all {
            assert_eq!(io::Error::from_raw_os_error(error.errno()).kind(), error.kind(), "{error:?}");
        }
    }
}
