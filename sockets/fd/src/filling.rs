//! Bytes that the library writes to a descriptor before the application: they make it unwritable while its
//! socket connects, and mark the beginning of an established connection.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// One piece of a filling: 16 random bytes. Another thread may write while the library fills the descriptor,
/// and the kernel takes its data too, so the node must be able to separate them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filling(u128);

impl Filling {
    /// Returns a new piece, which no other writer uses.
    ///
    /// # Errors
    /// EIO where the system has no random numbers.
    pub fn new() -> Result<Self, Errno> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|_| Errno::IO)?;
        Ok(Self(u128::from_ne_bytes(bytes)))
    }

    /// Length of a piece, bytes.
    pub const LENGTH: usize = size_of::<Self>();

    /// Returns the bytes of one piece. The kernel takes all of them at once or none.
    pub fn bytes(self) -> [u8; Self::LENGTH] {
        self.0.to_ne_bytes()
    }

    /// Returns the data of other writers before, between, and behind the pieces.
    ///
    /// ```
    /// use peersock_fd::Filling;
    ///
    /// let filling = Filling::new().expect("random numbers");
    /// let [piece, all] = [filling.bytes().to_vec(), [&b"a"[..], &filling.bytes(), b"bc"].concat()];
    /// assert_eq!(filling.without(&[piece, all].concat()), b"abc");
    /// ```
    pub fn without(self, mut data: &[u8]) -> Vec<u8> {
        let piece = self.bytes();
        let mut others = Vec::new();
        while let [first, rest @ ..] = data {
            data = match data.strip_prefix(&piece) {
                Some(behind) => behind,
                None => {
                    others.push(*first);
                    rest
                }
            };
        }
        others
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_others_write_is_left_in_its_order(
            writes in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..20),
        ) {
            let filling = Filling::new().expect("random numbers");
            let (mut data, mut others) = (Vec::new(), Vec::new());
            for (is_ours, written) in writes {
                if is_ours {
                    data.extend(filling.bytes());
                }
                data.extend(&written);
                others.extend(written);
            }
            prop_assert_eq!(filling.without(&data), others);
        }
    }
}
