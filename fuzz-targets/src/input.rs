//! From the fuzzer's bytes to operations and to damaged messages.

use std::time::Instant;

use arbitrary::{Arbitrary, Unstructured};

/// Reads values off the front of the input until it ends, at most `most`. So a fuzzer that appends, cuts or
/// swaps bytes appends, cuts or swaps operations.
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

/// One value from the whole input; `None` if it does not make one.
pub(crate) fn one<'a, T: Arbitrary<'a>>(data: &'a [u8]) -> Option<T> {
    T::arbitrary_take_rest(Unstructured::new(data)).ok()
}

/// The element that a byte names, wherever it points.
pub(crate) fn pick<T>(list: &[T], which: u8) -> Option<&T> {
    list.get(usize::from(which) % list.len().max(1))
}

/// What happens to a message on its way.
#[derive(Debug, Clone, Arbitrary)]
pub(crate) enum Damage {
    /// Turns bits of one byte over.
    Flip { at: u16, bits: u8 },
    /// Writes a 16-bit field, big-endian.
    Field { at: u16, value: u16 },
    /// Cuts the end off.
    Truncate { to: u16 },
    /// Puts something behind the end.
    Extend { by: [u8; 4] },
    /// Repeats bytes from elsewhere in the message.
    Copy { from: u16, to: u16, len: u8 },
}

impl Damage {
    /// Does it. Offsets count modulo the message's length.
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

/// The message after all of that.
pub(crate) fn damaged(message: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut message = message.to_vec();
    damages.iter().for_each(|damage| damage.apply(&mut message));
    message
}

/// Some point in time. Nothing but differences matters, so an input replays whenever it runs.
pub(crate) fn instant() -> Instant {
    Instant::now()
}
