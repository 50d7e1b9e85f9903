//! Errors of network operations.

use std::convert::Infallible;
use std::fmt;
use std::io;

use crate::Network;

/// Error of a failed network operation, like Go's `OpError`.
///
/// Converted to an [`io::Error`], it keeps its [`kind`](Self::kind) and text, with the `SocketError` inside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// A text is not an address, or an address does not fit.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The network does not exist, or the function does not support it.
    #[error(transparent)]
    UnknownNetwork(#[from] UnknownNetworkError),
    /// The connection or listener was closed before or during the call, like Go's `ErrClosed`.
    #[error("{operation}: use of closed network connection")]
    Closed {
        /// Operation that failed.
        operation: String,
        /// Number of bytes written before the failure.
        written: usize,
    },
    /// The deadline or timeout expired, like Go's `ErrDeadlineExceeded`. A new deadline revives the
    /// connection.
    #[error("{operation}: deadline exceeded")]
    Deadline {
        /// Operation that failed.
        operation: String,
        /// Number of bytes written before the failure.
        written: usize,
    },
    /// The system or the overlay refused the operation or failed.
    #[error("{operation}: {reason}")]
    System {
        /// Operation that failed.
        operation: String,
        /// Reason of the failure. If several addresses were tried, it names each.
        reason: String,
        /// The standard library's kind of the error; the first failure's if several addresses were tried.
        kind: io::ErrorKind,
        /// The C library's `errno`.
        errno: Option<i32>,
        /// Number of bytes written before the failure.
        written: usize,
    },
}

impl SocketError {
    /// Returns the standard library's kind of the error.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            SocketError::Address(_) | SocketError::UnknownNetwork(_) => io::ErrorKind::InvalidInput,
            SocketError::Closed { .. } => io::ErrorKind::Other,
            SocketError::Deadline { .. } => io::ErrorKind::TimedOut,
            SocketError::System { kind, .. } => *kind,
        }
    }

    /// Returns the `errno`; `None` if the system has none for the error, such as for a malformed address.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            SocketError::Address(_) | SocketError::UnknownNetwork(_) => None,
            SocketError::Closed { .. } => Some(libc::EBADF),
            SocketError::Deadline { .. } => Some(libc::ETIMEDOUT),
            SocketError::System { errno, .. } => *errno,
        }
    }

    /// Returns the number of bytes that a write had written before it failed.
    pub fn written(&self) -> usize {
        match self {
            SocketError::Address(_) | SocketError::UnknownNetwork(_) => 0,
            SocketError::Closed { written, .. }
            | SocketError::Deadline { written, .. }
            | SocketError::System { written, .. } => *written,
        }
    }

    /// Returns true if the connection or listener was closed.
    pub fn is_closed(&self) -> bool {
        matches!(self, SocketError::Closed { .. })
    }

    /// Returns true if the deadline or timeout expired.
    pub fn is_deadline(&self) -> bool {
        matches!(self, SocketError::Deadline { .. })
    }

    /// Converts a system error of an operation. A `SocketError` wrapped in the I/O error is unwrapped.
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

    /// Returns the same error with the number of bytes written.
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

/// Error of a malformed address, one that does not fit its network, or an unknown name or service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressError {
    reason: String,
    address: String,
}

impl AddressError {
    pub(crate) fn new(reason: impl Into<String>, address: impl fmt::Display) -> AddressError {
        AddressError { reason: reason.into(), address: address.to_string() }
    }

    /// Returns the reason.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Returns the address as it was given.
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

/// Error of a network that does not exist, or that a function does not support.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown network {network}")]
pub struct UnknownNetworkError {
    network: String,
}

impl UnknownNetworkError {
    pub(crate) fn new(network: impl Into<String>) -> UnknownNetworkError {
        UnknownNetworkError { network: network.into() }
    }

    /// Returns the network as it was given.
    pub fn network(&self) -> &str {
        &self.network
    }
}

impl From<Network> for UnknownNetworkError {
    /// Creates the error of a function that does not support this network.
    fn from(network: Network) -> UnknownNetworkError {
        UnknownNetworkError::new(network.name())
    }
}
