//! Events for the program that serves clients.

use std::fmt;
use std::sync::Arc;

/// A problem of a client or of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A client's target was not reached.
    Failed {
        /// The client's address.
        client: String,
        /// The target.
        target: String,
        /// The reason.
        reason: String,
    },
    /// A client was refused, or its datagrams dropped, because too many clients are served.
    Full {
        /// The client's address.
        client: String,
    },
    /// The listener cannot accept clients for the moment.
    NotAccepted {
        /// The listener's place.
        place: String,
        /// The system's error.
        reason: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Failed { client, target, reason } => {
                write!(f, "{client} cannot be connected to {target}: {reason}")
            }
            Event::Full { client } => write!(f, "{client} is refused: too many connections are open"),
            Event::NotAccepted { place, reason } => {
                write!(f, "no client can connect to {place} for the moment: {reason}")
            }
        }
    }
}

/// A callback for events, called on threads of the runtime, so it must not block.
pub type Tell = Arc<dyn Fn(Event) + Send + Sync>;
