//! Messages as bytes.

use serde::{Deserialize, Serialize};

/// Writes a request or a reply.
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(message).expect("nothing in it is of unknown length")
}

/// Reads a request or a reply; `None` if it is none.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}
