//! Messages as bytes.

use serde::{Deserialize, Serialize};

/// Writes a request or a reply.
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(message).expect("nothing in it is of unknown length")
}

/// Bytes up to which a message takes no memory from the heap: what asks may be called by a signal handler
/// that has interrupted malloc(3).
pub(crate) const SHORT: usize = 512;

/// A message as bytes.
pub(crate) struct Encoded {
    short: [u8; SHORT],
    length: usize,
    /// It, if it is longer than that.
    long: Option<Vec<u8>>,
}

impl Encoded {
    pub(crate) fn new(message: &impl Serialize) -> Self {
        let mut short = [0; SHORT];
        let length = postcard::to_slice(message, &mut short).map(|bytes| bytes.len()).ok();
        let long = length.is_none().then(|| encode(message));
        Self { short, length: length.unwrap_or(0), long }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.long.as_deref().unwrap_or(&self.short[..self.length])
    }
}

/// Reads a request or a reply; `None` if it is none.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_any_length_are_the_same_bytes() {
        for length in [0, 1, SHORT - 3, SHORT - 2, SHORT - 1, SHORT, 5000] {
            let message = vec![7_u8; length];
            let encoded = Encoded::new(&message);
            assert_eq!(encoded.bytes(), encode(&message));
            assert_eq!(encoded.long.is_some(), encode(&message).len() > SHORT);
        }
    }
}
