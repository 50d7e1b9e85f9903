//! Keyed hashing: hash tables that a peer cannot flood, initial sequence numbers and ports that it
//! cannot guess.

use std::hash::{BuildHasher, Hash, Hasher};

/// A secret for one purpose, usable as a hash table's [`BuildHasher`].
///
/// The hasher's key is fixed, so the secret is its first input. A hasher that has absorbed it is kept, and
/// cloning that costs nothing per use.
#[derive(Clone)]
pub(crate) struct Key(KeyedHasher);

impl Key {
    /// Derives the secret for `purpose` from the stack's seed.
    pub(crate) fn new(seed: &[u8; 32], purpose: &str) -> Self {
        let mut hasher = KeyedHasher::new();
        hasher.write(seed);
        purpose.hash(&mut hasher);
        Self(hasher)
    }

    /// A pseudo-random function of `input`.
    pub(crate) fn digest(&self, input: impl Hash) -> u64 {
        self.hash_one(input)
    }
}

impl BuildHasher for Key {
    type Hasher = KeyedHasher;

    #[inline]
    fn build_hasher(&self) -> KeyedHasher {
        self.0.clone()
    }
}

/// SipHash-1-3 of 64-bit words, the hash of the standard library's tables.
///
/// The standard library's own joins what is written in bytes, which costs more than the hashing of a short
/// input. Here every piece starts a new word, and the last word of a piece is filled with zeros. No two
/// values of one type give the same words, because an implementation of [`Hash`] says how long a piece is
/// wherever that varies.
#[derive(Clone)]
pub(crate) struct KeyedHasher {
    state: [u64; 4],
    words: u64,
}

impl KeyedHasher {
    /// The state for a key of zeros.
    fn new() -> Self {
        let state =
            [0x736f_6d65_7073_6575, 0x646f_7261_6e64_6f6d, 0x6c79_6765_6e65_7261, 0x7465_6462_7974_6573];
        Self { state, words: 0 }
    }

    #[inline]
    fn absorb(&mut self, word: u64) {
        self.state[3] ^= word;
        round(&mut self.state);
        self.state[0] ^= word;
        self.words += 1;
    }
}

impl Hasher for KeyedHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.absorb(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.absorb(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u8(&mut self, value: u8) {
        self.absorb(value.into());
    }

    #[inline]
    fn write_u16(&mut self, value: u16) {
        self.absorb(value.into());
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.absorb(value.into());
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.absorb(value);
    }

    #[inline]
    fn write_usize(&mut self, value: usize) {
        self.absorb(value as u64);
    }

    /// The length in bytes, then three rounds.
    #[inline]
    fn finish(&self) -> u64 {
        let mut state = self.state;
        let length = (self.words * 8) << 56;
        state[3] ^= length;
        round(&mut state);
        state[0] ^= length;
        state[2] ^= 0xff;
        for _ in 0..3 {
            round(&mut state);
        }
        state[0] ^ state[1] ^ state[2] ^ state[3]
    }
}

/// SipRound.
#[inline]
fn round([a, b, c, d]: &mut [u64; 4]) {
    *a = a.wrapping_add(*b);
    *b = b.rotate_left(13) ^ *a;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*d);
    *d = d.rotate_left(16) ^ *c;
    *a = a.wrapping_add(*d);
    *d = d.rotate_left(21) ^ *a;
    *c = c.wrapping_add(*b);
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use super::*;

    /// The standard library's hasher is SipHash-1-3 with a key of zeros.
    #[test]
    fn whole_words_hash_as_in_the_standard_library() {
        let bytes: Vec<u8> = (0..40_u8).map(|i| i.wrapping_mul(37)).collect();
        let (mut ours, mut known) = (KeyedHasher::new(), DefaultHasher::new());
        for words in 0..=5 {
            assert_eq!(ours.finish(), known.finish(), "{words} words");
            let piece = &bytes[..words * 8];
            ours.write(piece);
            known.write(piece);
        }
    }

    #[test]
    fn every_piece_is_hashed_as_words_of_its_own() {
        let of = |write: &dyn Fn(&mut KeyedHasher)| {
            let mut hasher = KeyedHasher::new();
            write(&mut hasher);
            hasher.finish()
        };
        let words = of(&|hasher| [0x0201_u64, 7, 0x1_0003].iter().for_each(|word| hasher.write_u64(*word)));
        assert_eq!(
            words,
            of(&|hasher| (hasher.write(&[1, 2]), hasher.write_u8(7), hasher.write_u32(0x1_0003)).2)
        );
        assert_eq!(words, of(&|hasher| (0x0201_u16, 7_usize, 0x1_0003_u64).hash(hasher)));
        assert_ne!(words, of(&|hasher| (0x0201_u16, 7_usize).hash(hasher)));
    }

    #[test]
    fn seed_and_purpose_both_matter() {
        let digest = |seed: u8, purpose| Key::new(&[seed; 32], purpose).digest(7u32);
        assert_eq!(digest(1, "a"), digest(1, "a"));
        assert_ne!(digest(1, "a"), digest(2, "a"));
        assert_ne!(digest(1, "a"), digest(1, "b"));
    }
}
