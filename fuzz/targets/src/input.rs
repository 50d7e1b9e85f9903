//! Conversion of the fuzzer's bytes to operations and to damaged messages.

use std::time::Instant;

use arbitrary::{Arbitrary, Unstructured};

/// Reads up to `most` values from the front of the input. So a fuzzer that appends, cuts or swaps bytes does
/// the same to operations.
pub(crate) fn sequence<'a, T: Arbitrary<'a>>(data: &'a [u8], most: usize) -> Vec<T> {
    let mut input = Unstructured::new(data);
    let mut values = Vec::new();
    while !input.is_empty() && values.len() < most {
        match input.arbitrary() {
            Ok(value) => values.push(value),
            Err(_) => break,
        }
    }
    values
}

/// Reads one value from the whole input; `None` if the input does not suffice.
pub(crate) fn one<'a, T: Arbitrary<'a>>(data: &'a [u8]) -> Option<T> {
    T::arbitrary_take_rest(Unstructured::new(data)).ok()
}

/// Returns the element at `which` modulo the length.
pub(crate) fn pick<T>(list: &[T], which: u8) -> Option<&T> {
    list.get(usize::from(which) % list.len().max(1))
}

/// Damage to a message under way.
#[derive(Debug, Clone, Arbitrary)]
pub(crate) enum Damage {
    /// Flips bits of one byte.
    Flip { at: u16, bits: u8 },
    /// Writes a 16-bit field, big-endian.
    Field { at: u16, value: u16 },
    /// Cuts the end off.
    Truncate { to: u16 },
    /// Appends bytes.
    Extend { by: [u8; 4] },
    /// Repeats bytes from elsewhere in the message.
    Copy { from: u16, to: u16, len: u8 },
}

impl Damage {
    /// Applies the damage. Offsets count modulo the message's length.
    pub(crate) fn apply(&self, message: &mut Vec<u8>) {
        let len = message.len().max(1);
        match *self {
            Self::Flip { at, bits } => {
                if let Some(byte) = message.get_mut(usize::from(at) % len) {
                    *byte ^= bits;
                }
            }
            Self::Field { at, value } => {
                let at = usize::from(at) % len;
                if let Some(field) = message.get_mut(at..at + 2) {
                    field.copy_from_slice(&value.to_be_bytes());
                }
            }
            Self::Truncate { to } => message.truncate(usize::from(to) % len),
            Self::Extend { by } => message.extend_from_slice(&by),
            Self::Copy { from, to, len: count } => {
                let (from, to, count) = (usize::from(from) % len, usize::from(to) % len, usize::from(count));
                let end = message.len().min(from + count).min(from + (len - to));
                if end <= message.len() && from < end {
                    message.copy_within(from..end, to);
                }
            }
        }
    }
}

/// Returns the message with all damages applied.
pub(crate) fn damaged(message: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut message = message.to_vec();
    damages.iter().for_each(|damage| damage.apply(&mut message));
    message
}

/// Returns some point in time. Only differences matter, so an input replays at any time.
pub(crate) fn instant() -> Instant {
    Instant::now()
}
