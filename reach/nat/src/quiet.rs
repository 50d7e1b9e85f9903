//! The STUN library without its log.
//!
//! The library's spans contain the signing key, and it warns of each malformed message. A log on stderr would
//! reveal a password's hash, and an attacker who forges a server's address could fill it.

use stun_types::message::Message;
use tracing::dispatcher::{self, Dispatch};

/// Runs `call` without logging in this thread.
pub(crate) fn quietly<T>(call: impl FnOnce() -> T) -> T {
    dispatcher::with_default(&Dispatch::none(), call)
}

/// Parses a message, if the datagram is one.
pub(crate) fn message(datagram: &[u8]) -> Option<Message<'_>> {
    quietly(|| Message::from_bytes(datagram)).ok()
}
