use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::wire::{WireError, printable};

/// Why a receipt did not come to its end at the receiver. What has come is kept, but for what is wrong.
///
/// ```
/// use peersock_files::ReceiveError;
///
/// let error = ReceiveError::Conflicts { named: vec!["notes.txt".into()], more: 0 };
/// assert!(!error.is_worth_another_try());
/// assert_eq!(error.to_string(), "notes.txt is there already and different");
/// ```
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The connection broke, or the other end has sent what makes no sense.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// The sender has given up, and said why.
    #[error("the sender has given up: {reason}")]
    Sender {
        /// The sender's text; control characters are replaced.
        reason: String,
        /// Whether it is worth trying again soon.
        again: bool,
    },
    /// The sender is there, and has said or taken nothing for [`SILENT`](crate::limits::SILENT), or longer
    /// where it was to read large files.
    #[error("the sender has said nothing for {} minutes", .0.as_secs() / 60)]
    Silent(Duration),
    /// Other files have the names of what comes.
    #[error("{}", conflicts(.named, *.more))]
    Conflicts {
        /// What is in the way: the first ones.
        named: Vec<String>,
        /// How many there are besides.
        more: usize,
    },
    /// The disk has too little room.
    #[error("the disk has room for {free} bytes, and {needed} are to come")]
    Room {
        /// Bytes to come.
        needed: u64,
        /// Bytes that the file system has for this user.
        free: u64,
    },
    /// Something in the folder cannot be read or written.
    #[error("{path}: {source}")]
    Local {
        /// What.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// What came has another hash than the sender says.
    #[error("{path} has not arrived as it was sent: its hash is another one")]
    Hash {
        /// The file; what has come of it was removed.
        path: String,
    },
}

impl ReceiveError {
    /// Whether the same can succeed if the receiver connects anew: the connection broke, or the sender is
    /// busy.
    pub fn is_worth_another_try(&self) -> bool {
        match self {
            ReceiveError::Wire(WireError::Stream(_)) => true,
            ReceiveError::Sender { again, .. } => *again,
            _ => false,
        }
    }

    /// The reason as the sender is told it. What is in the folder, and how the disk is, is the receiver's.
    pub(crate) fn for_sender(&self) -> String {
        match self {
            ReceiveError::Conflicts { .. } => "other files are in the way".to_owned(),
            ReceiveError::Room { .. } => "its disk has too little room".to_owned(),
            ReceiveError::Local { .. } => "it cannot read or write its files".to_owned(),
            other => printable(&other.to_string()),
        }
    }

    pub(crate) fn local(path: impl ToString, source: impl Into<io::Error>) -> ReceiveError {
        ReceiveError::Local { path: path.to_string(), source: source.into() }
    }

    pub(crate) fn sender(reason: &str, again: bool) -> ReceiveError {
        ReceiveError::Sender { reason: printable(reason), again }
    }
}

impl From<io::Error> for ReceiveError {
    fn from(error: io::Error) -> ReceiveError {
        WireError::from(error).into()
    }
}

fn conflicts(named: &[String], more: usize) -> String {
    let names = named.join(", ");
    match (named.len(), more) {
        (1, 0) => format!("{names} is there already and different"),
        (_, 0) => format!("{names} are there already and different"),
        _ => format!("{names} and {more} more are there already and different"),
    }
}

/// Why a receipt did not come to its end at the sender.
///
/// ```
/// use peersock_files::SendError;
///
/// let error = SendError::Changed { path: "log".into() };
/// assert_eq!(error.to_string(), "log has changed while it was sent");
/// ```
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SendError {
    /// The connection broke, or the other end has sent what makes no sense.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// The receiver has given up, and said why.
    #[error("the receiver has given up: {reason}")]
    Receiver {
        /// The receiver's text; control characters are replaced.
        reason: String,
    },
    /// A file is not as it was when the manifest was made.
    #[error("{path} has changed while it was sent")]
    Changed {
        /// Its path as it is sent.
        path: String,
    },
    /// A file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Local {
        /// Its path as it is sent.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The receiver has taken nothing for [`STALLED`](crate::limits::STALLED). It can go on where it stopped.
    #[error("the receiver has taken nothing for 5 minutes")]
    Stalled,
    /// The system gives no further thread. The receiver is told to come back.
    #[error("the system gives no thread for this receiver: {source}")]
    Thread {
        /// Why.
        source: io::Error,
    },
}

impl From<io::Error> for SendError {
    fn from(error: io::Error) -> SendError {
        match error.kind() {
            io::ErrorKind::WouldBlock => SendError::Stalled,
            _ => WireError::from(error).into(),
        }
    }
}
