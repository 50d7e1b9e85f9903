//! What operations on networks fail with.

use std::convert::Infallible;
use std::fmt;
use std::io;

use crate::Network;

/// An operation on a network has failed: what Go's `OpError` is.
///
/// As an [`io::Error`] it has the same [`kind`](Self::kind) and text; the `SocketError` is inside.
///
/// ```
/// use std::io;
///
/// use peersock_net::{SocketError, split_host_port};
///
/// let error = SocketError::from(split_host_port("localhost").expect_err("there is no port"));
/// assert_eq!(error.to_string(), "address localhost: missing port in address");
/// let error = io::Error::from(error);
/// assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
/// assert!(error.get_ref().is_some_and(|inner| inner.is::<SocketError>()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// A text is no address, or an address does not fit.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// There is no such network, or the function does not serve it.
    #[error(transparent)]
    UnknownNetwork(#[from] UnknownNetworkError),
    /// The connection or listener was closed, before the call or during it: Go's `ErrClosed`.
    #[error("{operation}: use of closed network connection")]
    Closed {
        /// What was to be done.
        operation: String,
        /// The bytes that a write had written by then.
        written: usize,
    },
    /// The deadline or timeout was over: Go's `ErrDeadlineExceeded`. With a new deadline the connection goes
    /// on.
    #[error("{operation}: deadline exceeded")]
    Deadline {
        /// What was to be done.
        operation: String,
        /// The bytes that a write had written by then.
        written: usize,
    },
    /// The system, or the overlay, refuses it or has failed.
    #[error("{operation}: {reason}")]
    System {
        /// What was to be done.
        operation: String,
        /// Why it failed. Where several addresses were tried, it names each.
        reason: String,
        /// What the standard library calls it. Of several addresses it is the first failure's.
        kind: io::ErrorKind,
        /// What the C library calls it.
        errno: Option<i32>,
        /// The bytes that a write had written by then.
        written: usize,
    },
}

impl SocketError {
    /// What the standard library calls it.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            SocketError::Address(_) | SocketError::UnknownNetwork(_) => io::ErrorKind::InvalidInput,
            SocketError::Closed { .. } => io::ErrorKind::Other,
            SocketError::Deadline { .. } => io::ErrorKind::TimedOut,
            SocketError::System { kind, .. } => *kind,
        }
    }

    /// The `errno`; `None` where the system has none for it, such as for a text that is no address.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            SocketError::Address(_) | SocketError::UnknownNetwork(_) => None,
            SocketError::Closed { .. } => Some(libc::EBADF),
            SocketError::Deadline { .. } => Some(libc::ETIMEDOUT),
            SocketError::System { errno, .. } => *errno,
        }
    }

    /// The bytes that a write had written before it failed.
    pub fn written(&self) -> usize {
        match self {
            SocketError::Address(_) | SocketError::UnknownNetwork(_) => 0,
            SocketError::Closed { written, .. }
            | SocketError::Deadline { written, .. }
            | SocketError::System { written, .. } => *written,
        }
    }

    /// Whether the connection or listener was closed.
    pub fn is_closed(&self) -> bool {
        matches!(self, SocketError::Closed { .. })
    }

    /// Whether the deadline or timeout was over.
    pub fn is_deadline(&self) -> bool {
        matches!(self, SocketError::Deadline { .. })
    }

    /// The system's error about an operation. One of our own that was passed through it is given back.
    pub(crate) fn of_system(operation: impl fmt::Display, error: io::Error) -> SocketError {
        if let Some(own) = error.get_ref().and_then(|inner| inner.downcast_ref::<SocketError>()) {
            return own.clone();
        }
        SocketError::System {
            operation: operation.to_string(),
            reason: error.to_string(),
            kind: error.kind(),
            errno: error.raw_os_error(),
            written: 0,
        }
    }

    pub(crate) fn errno(operation: impl fmt::Display, errno: i32) -> SocketError {
        SocketError::of_system(operation, io::Error::from_raw_os_error(errno))
    }

    pub(crate) fn closed(operation: impl fmt::Display) -> SocketError {
        SocketError::Closed { operation: operation.to_string(), written: 0 }
    }

    pub(crate) fn deadline(operation: impl fmt::Display) -> SocketError {
        SocketError::Deadline { operation: operation.to_string(), written: 0 }
    }

    /// The same, after so many bytes.
    pub(crate) fn after(mut self, bytes: usize) -> SocketError {
        if let SocketError::Closed { written, .. }
        | SocketError::Deadline { written, .. }
        | SocketError::System { written, .. } = &mut self
        {
            *written = bytes;
        }
        self
    }
}

impl From<SocketError> for io::Error {
    fn from(error: SocketError) -> io::Error {
        io::Error::new(error.kind(), error)
    }
}

impl From<Infallible> for SocketError {
    fn from(never: Infallible) -> SocketError {
        match never {}
    }
}

/// A text is no address, an address does not fit its network, or a name or a service is not known.
///
/// ```
/// let error = peersock_net::split_host_port("::1:80").expect_err("an IPv6 address has brackets");
/// assert_eq!(error.address(), "::1:80");
/// assert_eq!(error.reason(), "too many colons in address");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressError {
    reason: String,
    address: String,
}

impl AddressError {
    pub(crate) fn new(reason: impl Into<String>, address: impl fmt::Display) -> AddressError {
        AddressError { reason: reason.into(), address: address.to_string() }
    }

    /// What is wrong.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The address, as it was given.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.address.is_empty() {
            return f.write_str(&self.reason);
        }
        write!(f, "address {}: {}", self.address, self.reason)
    }
}

impl std::error::Error for AddressError {}

/// There is no such network, or the function does not serve it.
///
/// ```
/// let error = "tcp5".parse::<peersock_net::Network>().expect_err("there is none");
/// assert_eq!(error.network(), "tcp5");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown network {network}")]
pub struct UnknownNetworkError {
    network: String,
}

impl UnknownNetworkError {
    pub(crate) fn new(network: impl Into<String>) -> UnknownNetworkError {
        UnknownNetworkError { network: network.into() }
    }

    /// The network, as it was given.
    pub fn network(&self) -> &str {
        &self.network
    }
}

impl From<Network> for UnknownNetworkError {
    /// For a function that does not serve it.
    fn from(network: Network) -> UnknownNetworkError {
        UnknownNetworkError::new(network.name())
    }
}
