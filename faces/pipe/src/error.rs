//! What goes wrong with pipes.

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
    /// The other end has closed it.
    #[error("the other end has closed the pipe")]
    Ended,
    /// Its socket has failed.
    #[error("the pipe has failed: {0}")]
    Failed(SocketError),
    /// The socket could not be opened, or the system does not take the message.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Messages are not queued for [`Pipe::recv`](crate::Pipe::recv).
    #[error("the pipe queues nothing itself, since it has callbacks or a relay or was told so: subscribe")]
    NotSubscribed,
    /// Nothing says where the message is to go.
    #[error("the pipe has no destination: say one with send_to")]
    NoDestination,
    /// A connection has one destination, and so has a UDP socket that is connected.
    #[error("the connection leads to {dest}, not to {asked}")]
    Elsewhere {
        /// Where it leads.
        dest: SocketAddr,
        /// What was asked for.
        asked: SocketAddr,
    },
    /// The server has no such client, or it has none any more.
    #[error("the server has no client {0}")]
    NoClient(SocketAddr),
    /// The route and the destination are not of the same network.
    #[error("the route and the destination are not of the same network: one is of the overlay")]
    OtherNetwork,
    /// The name took longer than [`Options::dns_timeout`](crate::Options::dns_timeout).
    #[error("{0} was not resolved in time")]
    Unresolved(String),
    /// What was to be a regular expression is none, or is too large.
    #[error("'{pattern}' is no regular expression: {reason}")]
    Pattern {
        /// The text.
        pattern: String,
        /// What is wrong with it.
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
    /// The nickname is not this node's, or leads nowhere.
    #[error(transparent)]
    Nickname(#[from] NicknameError),
}

impl PipeError {
    /// What the standard library calls it.
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

    /// Whether the pipe is closed, by whomever.
    pub fn is_closed(&self) -> bool {
        matches!(self, PipeError::Closed | PipeError::Ended | PipeError::Failed(_))
    }
}

impl From<PipeError> for io::Error {
    fn from(error: PipeError) -> io::Error {
        io::Error::new(error.kind(), error)
    }
}

/// An error of the system, of a stream that is none of our sockets.
pub(crate) fn of_system(operation: &str, error: &io::Error) -> SocketError {
    SocketError::System {
        operation: operation.to_owned(),
        reason: error.to_string(),
        kind: error.kind(),
        errno: error.raw_os_error(),
        written: 0,
    }
}
