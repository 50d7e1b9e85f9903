//! Keyed hashing: hash tables that a stranger cannot flood, and numbers that it cannot guess.

use std::fmt;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};

/// Secret for one purpose, usable as a hash table's [`BuildHasher`].
///
/// The standard library's hasher is SipHash-1-3 with a fixed key, so the secret is its first input block. A
/// hasher that has absorbed the secret is kept, and cloning it costs nothing per use.
#[derive(Clone)]
pub struct Key(DefaultHasher);

impl Key {
    /// Derives the secret for `purpose` from a seed, which must be random and secret.
    pub fn new(seed: &[u8; 32], purpose: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(seed);
        // Whole words, because the hasher joins later input to a partial word.
        let mut words = purpose.as_bytes().to_vec();
        words.resize(words.len().next_multiple_of(8), 0);
        hasher.write(&words);
        Self(hasher)
    }

    /// Returns a pseudo-random function of `input`.
    pub fn digest(&self, input: impl Hash) -> u64 {
        self.hash_one(input)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl BuildHasher for Key {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_and_purpose_both_matter() {
        let digest = |seed: u8, purpose| Key::new(&[seed; 32], purpose).digest(7u32);
        assert_eq!(digest(1, "a"), digest(1, "a"));
        assert_ne!(digest(1, "a"), digest(2, "a"));
        assert_ne!(digest(1, "a"), digest(1, "b"));
    }
}
