//! Messages as bytes.

use serde::{Deserialize, Serialize};

/// Encodes a request or a reply.
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(message).expect("nothing in it is of unknown length")
}

/// Length up to which a message takes no heap memory, bytes. A request may come from a signal handler that
/// has interrupted malloc(3).
pub(crate) const INLINE_BYTES: usize = 512;

/// An encoded message.
pub(crate) struct Encoded {
    short: [u8; INLINE_BYTES],
    length: usize,
    /// The message, if it is longer than `INLINE_BYTES`.
    long: Option<Vec<u8>>,
}

impl Encoded {
    pub(crate) fn new(message: &impl Serialize) -> Self {
        let mut short = [0; INLINE_BYTES];
        let length = postcard::to_slice(message, &mut short).map(|bytes| bytes.len()).ok();
        let long = length.is_none().then(|| encode(message));
        Self { short, length: length.unwrap_or(0), long }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.long.as_deref().unwrap_or(&self.short[..self.length])
    }
}

/// Decodes a request or a reply. Returns `None` for other bytes.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_any_length_are_the_same_bytes() {
        for length in [0, 1, INLINE_BYTES - 3, INLINE_BYTES - 2, INLINE_BYTES - 1, INLINE_BYTES, 5000] {
            let message = vec![7_u8; length];
            let encoded = Encoded::new(&message);
            assert_eq!(encoded.bytes(), encode(&message));
            assert_eq!(encoded.long.is_some(), encode(&message).len() > INLINE_BYTES);
        }
    }
}
