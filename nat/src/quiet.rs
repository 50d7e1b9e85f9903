//! The STUN library without its log.
//!
//! Its spans have the key that it signs with among their fields, and it warns of each malformed message:
//! a log on stderr would show a password's hash, and whoever forges a server's address could fill it.

use stun_types::message::Message;
use tracing::dispatcher::{self, Dispatch};

/// Calls `call`, in which nothing is logged by this thread.
pub(crate) fn quietly<T>(call: impl FnOnce() -> T) -> T {
    dispatcher::with_default(&Dispatch::none(), call)
}

/// Reads a message, if the datagram is one.
pub(crate) fn message(datagram: &[u8]) -> Option<Message<'_>> {
    quietly(|| Message::from_bytes(datagram)).ok()
}
