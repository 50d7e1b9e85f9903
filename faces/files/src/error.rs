use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::wire::{WireError, printable};

/// Reason why a receipt failed at the receiver. Received data is kept, except data that is wrong.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The connection broke, or the sender's data is not understood.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// The sender gave up, and sent its reason.
    #[error("the sender has given up: {reason}")]
    Sender {
        /// The sender's text; control characters are replaced.
        reason: String,
        /// True if another attempt soon is worthwhile.
        again: bool,
    },
    /// The sender is connected but sent or accepted nothing for [`SILENT`](crate::limits::SILENT), or longer
    /// if it had to read large files.
    #[error("the sender has been silent for {} minutes", .0.as_secs() / 60)]
    Silent(Duration),
    /// Other files have the names of incoming entries.
    #[error("{}", conflicts(.named, *.more))]
    Conflicts {
        /// Paths of the first conflicts.
        named: Vec<String>,
        /// Number of further conflicts.
        more: usize,
    },
    /// The disk has too little room.
    #[error("the disk has room for {free} bytes, and {needed} are needed")]
    Room {
        /// Bytes to receive.
        needed: u64,
        /// Bytes available to this user in the file system.
        free: u64,
    },
    /// An entry in the folder cannot be read or written.
    #[error("{path}: {source}")]
    Local {
        /// Path of the entry.
        path: String,
        /// Cause.
        source: io::Error,
    },
    /// The received content does not match the sender's hash.
    #[error("{path} has changed on the way: its hash is wrong")]
    Hash {
        /// The file; its received content was removed.
        path: String,
    },
}

impl ReceiveError {
    /// Returns true if a new connection may succeed, because the connection broke or the sender is busy.
    pub fn is_worth_another_try(&self) -> bool {
        match self {
            ReceiveError::Wire(WireError::Stream(_)) => true,
            ReceiveError::Sender { again, .. } => *again,
            _ => false,
        }
    }

    /// Returns the reason for the sender, without details of the receiver's folder and disk.
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

/// Reason why a receipt failed at the sender.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SendError {
    /// The connection broke, or the receiver's data is not understood.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// The receiver gave up, and sent its reason.
    #[error("the receiver has given up: {reason}")]
    Receiver {
        /// The receiver's text; control characters are replaced.
        reason: String,
    },
    /// The receiver is occupied by another sender. Another attempt soon is worthwhile.
    #[error("the receiver is occupied by another sender")]
    Busy,
    /// A file differs from its manifest entry.
    #[error("{path} has changed while it was sent")]
    Changed {
        /// Path in the manifest.
        path: String,
    },
    /// A file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Local {
        /// Path in the manifest.
        path: String,
        /// Cause.
        source: io::Error,
    },
    /// The receiver accepted nothing for [`STALLED`](crate::limits::STALLED). It can resume where it stopped.
    #[error("the receiver has accepted no data for 5 minutes")]
    Stalled,
    /// The system refuses another thread. The receiver is told to come back.
    #[error("the system cannot start a thread for this receiver: {source}")]
    Thread {
        /// Cause.
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
