//! Says whom a client wants to speak to.

use crate::target::Transport;

/// Names whom a client expects at the other end of TLS.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    /// A root, whose key is known or not.
    Root {
        key: Option<[u8; 32]>,
        transport: Transport,
    },
    Proxy,
    /// A TURN server, with this certificate if its SHA-256 is known.
    TurnServer(Option<[u8; 32]>),
}
