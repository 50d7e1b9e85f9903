//! Content of the demonstration's transfer: cheap to generate, and any misdelivery changes its hash.

use sha2::{Digest as _, Sha256};

/// Size of a piece in bytes.
const CHUNK: usize = 1 << 20;

/// Interval of position stamps in bytes; they make all parts of the content different.
const STAMPED: usize = 64 * 1024;

/// Pseudo-random content of a given size: one generated chunk, repeated, with its position in each 64 KiB.
pub(super) struct Content {
    chunk: Vec<u8>,
    size: u64,
}

impl Content {
    pub(super) fn new(seed: u64, size: u64) -> Content {
        let mut state = seed;
        let chunk = std::iter::repeat_with(|| split_mix(&mut state).to_le_bytes()).flatten();
        Content { chunk: chunk.take(CHUNK).collect(), size }
    }

    /// Passes the content to `sink` in order, in pieces of at most 1 MiB.
    pub(super) fn pieces<E>(&mut self, mut sink: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut position = 0;
        while position < self.size {
            for (index, part) in self.chunk.chunks_mut(STAMPED).enumerate() {
                part[..8].copy_from_slice(&(position + (index * STAMPED) as u64).to_le_bytes());
            }
            let length = (self.size - position).min(CHUNK as u64);
            sink(&self.chunk[..length as usize])?;
            position += length;
        }
        Ok(())
    }

    pub(super) fn sha256(&mut self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let Ok(()) = self.pieces(|piece| {
            hash.update(piece);
            Ok::<(), std::convert::Infallible>(())
        });
        hash.finalize().into()
    }
}

/// Returns the next number of Steele, Lea and Flood's SplitMix64: fast and even; not for secrets.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(seed: u64, size: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let taken = Content::new(seed, size).pieces(|piece| {
            bytes.extend_from_slice(piece);
            Ok::<(), ()>(())
        });
        taken.unwrap();
        bytes
    }

    #[test]
    fn the_size_is_exact_and_the_hash_is_of_the_content() {
        for size in [0, 1, 100, CHUNK as u64 - 1, CHUNK as u64, 3 * CHUNK as u64 + 5] {
            let content = bytes(7, size);
            assert_eq!(content.len() as u64, size);
            assert_eq!(Content::new(7, size).sha256(), <[u8; 32]>::from(Sha256::digest(&content)));
        }
    }

    #[test]
    fn no_two_parts_are_equal() {
        let content = bytes(7, 3 * CHUNK as u64);
        let mut parts: Vec<_> = content.chunks(STAMPED).collect();
        parts.sort();
        parts.dedup();
        assert_eq!(parts.len(), 3 * CHUNK / STAMPED);
        assert_ne!(bytes(8, 100), bytes(7, 100));
    }
}
