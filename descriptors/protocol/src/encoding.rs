//! Messages as bytes.

use serde::{Deserialize, Serialize};

/// Writes a request or a reply.
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(message).expect("nothing in it is of unknown length")
}

/// Bytes up to which a message takes no memory from the heap: what asks may be called by a signal handler that
/// has interrupted malloc(3).
pub(crate) const SHORT: usize = 512;

/// A message as bytes.
pub(crate) enum Encoded {
    Short([u8; SHORT], usize),
    Long(Vec<u8>),
}

impl Encoded {
    pub(crate) fn new(message: &impl Serialize) -> Self {
        let mut room = [0; SHORT];
        match postcard::to_slice(message, &mut room).map(|bytes| bytes.len()) {
            Ok(length) => Self::Short(room, length),
            Err(_) => Self::Long(encode(message)),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(room, length) => &room[..*length],
            Self::Long(bytes) => bytes,
        }
    }
}

/// Reads a request or a reply; `None` if it is none.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}
