//! A hash for tables whose keys strangers choose: fast, and keyed, so that nobody can aim at one bucket.

use std::hash::{BuildHasher, Hasher};

/// Makes hashers of one secret key. Unlike the standard library's it takes the key from the root's seed, and
/// asks the system for nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keyed(pub(crate) u64);

/// Folds 128-bit products of what it is given and the key, as wyhash does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Folding {
    state: u64,
    key: u64,
}

impl BuildHasher for Keyed {
    type Hasher = Folding;

    fn build_hasher(&self) -> Folding {
        // A key of few bits would not mix.
        Folding { state: self.0.rotate_left(32), key: (self.0 ^ 0xa076_1d64_78bd_642f) | 1 }
    }
}

impl Hasher for Folding {
    fn finish(&self) -> u64 {
        fold(self.state ^ 0x9e37_79b9_7f4a_7c15, self.key)
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.write_u64(u64::from_le_bytes(chunk.try_into().expect("chunks of 8")));
        }
        let mut last = [0; 8];
        last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
        self.write_u64(u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56);
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.state = fold(self.state ^ value, self.key).wrapping_add(0xbf58_476d_1ce4_e5b9);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn neighbours_fall_into_different_buckets_and_keys_matter() {
        for key in [1, 0x1234_5678_9abc_def0, u64::MAX] {
            let hashes: Vec<_> = (0u64..4096).map(|n| Keyed(key).hash_one(n)).collect();
            let buckets: BTreeSet<_> = hashes.iter().map(|hash| hash % 4096).collect();
            // Of 4096 balls in 4096 buckets, 63 % of these are hit.
            assert!(buckets.len() > 2400, "{key}: {}", buckets.len());
        }
        assert_ne!(Keyed(1).hash_one([0u8; 3]), Keyed(3).hash_one([0u8; 3]));
        assert_ne!(Keyed(7).hash_one([0u8; 3]), Keyed(7).hash_one([0u8; 4]));
    }
}
