//! The peer that a client expects.

use crate::target::Transport;

/// The peer that a client expects at the other end of TLS.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    /// A root, with its key if known.
    Root {
        key: Option<[u8; 32]>,
        transport: Transport,
    },
    Proxy,
    /// A TURN server, with the SHA-256 of its certificate if known.
    TurnServer(Option<[u8; 32]>),
}
