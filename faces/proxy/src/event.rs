//! What is worth telling somebody while clients are served.

use std::fmt;
use std::sync::Arc;

/// Something that went wrong for a client, or with a listener.
///
/// ```
/// use peersock_proxy::Event;
///
/// let event = Event::Full { client: "127.0.0.1:1234".into() };
/// assert_eq!(event.to_string(), "127.0.0.1:1234 is refused: too many connections are open");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// What a client wants was not reached.
    Failed {
        /// The client's address.
        client: String,
        /// What it wants.
        target: String,
        /// Why it was not reached.
        reason: String,
    },
    /// A client was refused, or its datagrams dropped: too many are served.
    Full {
        /// The client's address.
        client: String,
    },
    /// Nobody can be accepted for the moment.
    NotAccepted {
        /// Where clients connect.
        place: String,
        /// What the system says.
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
                write!(f, "nobody can connect to {place} for the moment: {reason}")
            }
        }
    }
}

/// Is called with each event, on threads of the runtime: it must not block.
pub type Tell = Arc<dyn Fn(Event) + Send + Sync>;
