//! Errors of pipes.

use std::io;
use std::net::SocketAddr;

use peersock::NicknameError;
use peersock_net::SocketError;

/// An operation on a pipe has failed.
///
/// As an [`io::Error`] it has the same text and a fitting kind; the `PipeError` is inside.
///
/// ```
/// use std::io;
///
/// use peersock_pipe::PipeError;
///
/// let error = io::Error::from(PipeError::Closed);
/// assert_eq!(error.kind(), io::ErrorKind::NotConnected);
/// assert_eq!(error.to_string(), "the pipe is closed");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PipeError {
    /// This program has closed the pipe.
    #[error("the pipe is closed")]
    Closed,
    /// The other end has closed the pipe.
    #[error("the other end has closed the pipe")]
    Ended,
    /// The pipe's socket has failed.
    #[error("the pipe has failed: {0}")]
    Failed(SocketError),
    /// The socket could not be opened, or the system does not accept the message.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Messages are not queued for [`Pipe::recv`](crate::Pipe::recv).
    #[error("the pipe has no queue, because of callbacks, a relay or its options: subscribe")]
    NotSubscribed,
    /// The message has no destination.
    #[error("the pipe has no destination: name one with send_to")]
    NoDestination,
    /// A connection or a connected UDP socket has a fixed destination.
    #[error("the connection leads to {dest}, not to {asked}")]
    Elsewhere {
        /// The fixed destination.
        dest: SocketAddr,
        /// The requested destination.
        asked: SocketAddr,
    },
    /// The server has no such client, or the client is gone.
    #[error("the server has no client {0}")]
    NoClient(SocketAddr),
    /// The route and the destination belong to different networks.
    #[error("the route and the destination are not of the same network: one is of the overlay")]
    OtherNetwork,
    /// The name took longer than [`Options::dns_timeout`](crate::Options::dns_timeout).
    #[error("{0} was not resolved in time")]
    Unresolved(String),
    /// A pattern is not a regular expression, or is too large.
    #[error("'{pattern}' is no regular expression: {reason}")]
    Pattern {
        /// The text.
        pattern: String,
        /// The fault in the pattern.
        reason: String,
    },
    /// There is no address to listen at.
    #[error("there is no address to listen at")]
    NoAddress,
    /// This node is in none of the networks of the other one.
    #[error("the nodes have no network in common")]
    NoCommonNetwork,
    /// The node was not found in time.
    #[error("the node was not found in time")]
    NotFound,
    /// The nickname belongs to another node, or leads nowhere.
    #[error(transparent)]
    Nickname(#[from] NicknameError),
}

impl PipeError {
    /// Returns the corresponding kind of the standard library.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            PipeError::Closed => io::ErrorKind::NotConnected,
            PipeError::Ended => io::ErrorKind::UnexpectedEof,
            PipeError::Failed(error) | PipeError::Socket(error) => error.kind(),
            PipeError::Unresolved(_) | PipeError::NotFound => io::ErrorKind::TimedOut,
            PipeError::NoClient(_) => io::ErrorKind::NotFound,
            PipeError::NoAddress | PipeError::NoCommonNetwork => io::ErrorKind::AddrNotAvailable,
            PipeError::Nickname(error) => io::Error::from(error.clone()).kind(),
            _ => io::ErrorKind::InvalidInput,
        }
    }

    /// Returns true if the pipe is closed, by either end or by a failure.
    pub fn is_closed(&self) -> bool {
        matches!(self, PipeError::Closed | PipeError::Ended | PipeError::Failed(_))
    }
}

impl From<PipeError> for io::Error {
    fn from(error: PipeError) -> io::Error {
        io::Error::new(error.kind(), error)
    }
}

/// Makes an error of the system, for a stream that is not a peersock socket.
pub(crate) fn of_system(operation: &str, error: &io::Error) -> SocketError {
    SocketError::System {
        operation: operation.to_owned(),
        reason: error.to_string(),
        kind: error.kind(),
        errno: error.raw_os_error(),
        written: 0,
    }
}
