use std::fmt;
use std::sync::Arc;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::hash;

/// A source of fresh randomness, for example the operating system: fills 32 bytes, or leaves them as they are if it
/// cannot.
pub type EntropySource = Arc<dyn Fn(&mut [u8; 32]) + Send + Sync>;

/// Makes keys from a seed by *fast key erasure*: each draw replaces the state by a hash of it, so whoever reads the
/// memory of a running node, or a snapshot of it, learns no key that was drawn before.
///
/// With a source of entropy each draw takes fresh randomness in, so that copies of the state (a forked process, a
/// restored snapshot of a machine) draw different keys, and whoever has read the state does not know those that follow.
/// Without one the seed determines every key, as the simulator needs it.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct KeySource {
    state: [u8; 32],
    #[zeroize(skip)]
    entropy: Option<EntropySource>,
}

impl KeySource {
    pub(crate) fn new(seed: &[u8; 32], entropy: Option<EntropySource>) -> Self {
        Self { state: hash::keyed(seed, &[b"peersock key source v1"]), entropy }
    }

    /// The next key.
    pub(crate) fn draw(&mut self) -> Zeroizing<[u8; 32]> {
        let mut fresh = Zeroizing::new([0; 32]);
        if let Some(entropy) = &self.entropy {
            entropy(&mut fresh);
        }
        let key = Zeroizing::new(hash::keyed(&self.state, &[b"key", &*fresh]));
        let mut next = hash::keyed(&self.state, &[b"next", &*fresh]);
        self.state.zeroize();
        self.state = next;
        next.zeroize();
        key
    }

    /// Random bytes that no copy of the state repeats, for a nonce.
    pub(crate) fn nonce<const N: usize>(&mut self) -> [u8; N] {
        let drawn = self.draw();
        *drawn.first_chunk().expect("a nonce is shorter than a key")
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySource([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use rand::rngs::ChaCha20Rng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn copy(source: &KeySource) -> KeySource {
        KeySource { state: source.state, entropy: source.entropy.clone() }
    }

    #[test]
    fn what_is_left_in_memory_gives_no_key_that_was_drawn_before() {
        let mut source = KeySource::new(&[7; 32], None);
        let drawn: Vec<_> = (0..100).map(|_| *source.draw()).collect();
        // All that is there afterwards, and what can be made from it.
        let mut captured = copy(&source);
        assert_eq!(*captured.draw(), *source.draw());
        let mut as_a_seed = ChaCha20Rng::from_seed(captured.state);
        for _ in 0..1000 {
            let mut guess = [0; 32];
            as_a_seed.fill_bytes(&mut guess);
            assert!(!drawn.contains(&guess));
            assert!(!drawn.contains(&captured.draw()));
            assert!(!drawn.contains(&captured.state));
        }
    }

    #[test]
    fn the_seed_alone_determines_the_keys_without_a_source() {
        let draw = |seed| {
            let mut source = KeySource::new(&[seed; 32], None);
            [*source.draw(), *source.draw()]
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_ne!(draw(1)[0], draw(1)[1]);
    }

    #[test]
    fn copies_of_the_state_draw_different_keys_with_a_source() {
        let calls = Arc::new(AtomicU8::new(0));
        let count = calls.clone();
        let entropy: EntropySource = Arc::new(move |out| out.fill(count.fetch_add(1, Ordering::Relaxed)));
        let mut source = KeySource::new(&[7; 32], Some(entropy));
        source.draw();
        let mut snapshot = copy(&source);
        assert_ne!(*source.draw(), *snapshot.draw());
        assert_ne!(*source.draw(), *snapshot.draw());
        assert_eq!(calls.load(Ordering::Relaxed), 5);
    }
}
