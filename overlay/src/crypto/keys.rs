use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::hash;

/// Source of fresh randomness, for example the operating system: fills 32 bytes, or reports that it cannot.
/// Then no key is made: the node begins and answers no handshakes until the source works again.
pub type EntropySource = Arc<dyn Fn(&mut [u8; 32]) -> Result<(), NoEntropy> + Send + Sync>;

/// Error of a missing source of randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the system gives no randomness")]
pub struct NoEntropy;

/// Source of keys from a seed by *fast key erasure*: each draw replaces the state by a hash of it. An
/// attacker who reads the memory of a running node, or a snapshot of it, therefore learns no earlier key.
///
/// With a source of entropy each draw mixes in fresh randomness, so that copies of the state (a forked
/// process, a restored machine snapshot) draw different keys, and a reader of the state does not know later
/// keys. Without one the seed determines every key, as the simulator requires.
///
/// ```
/// use peersock_overlay::KeySource;
///
/// let mut keys = KeySource::new(&[1; 32]);
/// assert_ne!(keys.draw()?, keys.draw()?);
/// # Ok::<(), peersock_overlay::NoEntropy>(())
/// ```
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct KeySource {
    state: [u8; 32],
    #[zeroize(skip)]
    entropy: Option<EntropySource>,
    /// Set while the source of entropy fails, so that the failure is logged once.
    #[zeroize(skip)]
    is_failing: bool,
}

impl KeySource {
    /// Creates a source without entropy; [`Self::with_entropy`] adds it.
    pub fn new(seed: &[u8; 32]) -> Self {
        Self { state: hash::keyed(seed, &[b"peersock key source v1"]), entropy: None, is_failing: false }
    }

    /// Makes each draw from now on mix in fresh randomness, if `entropy` is given.
    pub fn with_entropy(mut self, entropy: Option<EntropySource>) -> Self {
        self.entropy = entropy;
        self
    }

    /// Returns the next key.
    ///
    /// # Errors
    /// Returns an error if the source of entropy fails, because a copy of the state could draw the same key
    /// from the state alone.
    pub fn draw(&mut self) -> Result<Zeroizing<[u8; 32]>, NoEntropy> {
        let mut fresh = Zeroizing::new([0; 32]);
        let filled = self.entropy.as_ref().map_or(Ok(()), |entropy| entropy(&mut fresh));
        // Logged once per change, because every handshake would otherwise log it.
        if std::mem::replace(&mut self.is_failing, filled.is_err()) != filled.is_err() {
            match filled {
                Err(_) => tracing::error!("the system gives no randomness: no handshakes until it does"),
                Ok(()) => tracing::info!("the system gives randomness again"),
            }
        }
        // Without fresh randomness a copied virtual machine would draw the same keys as its original.
        filled?;
        Ok(self.draw_with(&fresh))
    }

    /// Returns the next key without fresh randomness, for use right after the seed was drawn.
    pub fn draw_from_seed(&mut self) -> Zeroizing<[u8; 32]> {
        self.draw_with(&[0; 32])
    }

    fn draw_with(&mut self, fresh: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        let key = Zeroizing::new(hash::keyed(&self.state, &[b"key", fresh]));
        // The key and the next state come from the old state by different labels, so neither reveals the
        // other.
        let mut next = hash::keyed(&self.state, &[b"next", fresh]);
        // The old state would give away the key that was just drawn.
        self.state.zeroize();
        self.state = next;
        next.zeroize();
        key
    }

    /// Returns random bytes for a nonce, which no copy of the state repeats.
    /// Returns an error as [`Self::draw`] does.
    pub fn nonce<const N: usize>(&mut self) -> Result<[u8; N], NoEntropy> {
        let drawn = self.draw()?;
        Ok(*drawn.first_chunk().expect("a nonce is shorter than a key"))
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
        KeySource { state: source.state, entropy: source.entropy.clone(), is_failing: false }
    }

    #[test]
    fn what_is_left_in_memory_gives_no_key_that_was_drawn_before() {
        let mut source = KeySource::new(&[7; 32]);
        let drawn: Vec<_> = (0..100).map(|_| *source.draw().unwrap()).collect();
        // All the state left in memory, and everything that can be made from it.
        let mut captured = copy(&source);
        assert_eq!(captured.draw(), source.draw());
        let mut as_a_seed = ChaCha20Rng::from_seed(captured.state);
        for _ in 0..1000 {
            let mut guess = [0; 32];
            as_a_seed.fill_bytes(&mut guess);
            assert!(!drawn.contains(&guess));
            assert!(!drawn.contains(&captured.draw().unwrap()));
            assert!(!drawn.contains(&captured.state));
        }
    }

    #[test]
    fn the_seed_alone_determines_the_keys_without_a_source() {
        let draw = |seed| {
            let mut source = KeySource::new(&[seed; 32]);
            [*source.draw().unwrap(), *source.draw_from_seed()]
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_ne!(draw(1)[0], draw(1)[1]);
    }

    #[test]
    fn copies_of_the_state_draw_different_keys_with_a_source() {
        let calls = Arc::new(AtomicU8::new(0));
        let count = calls.clone();
        let entropy: EntropySource = Arc::new(move |out| {
            out.fill(count.fetch_add(1, Ordering::Relaxed));
            Ok(())
        });
        let mut source = KeySource::new(&[7; 32]).with_entropy(Some(entropy));
        source.draw().unwrap();
        let mut snapshot = copy(&source);
        assert_ne!(source.draw(), snapshot.draw());
        assert_ne!(source.draw(), snapshot.draw());
        assert_eq!(calls.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn without_randomness_there_is_no_key() {
        let mut source = KeySource::new(&[7; 32]).with_entropy(Some(Arc::new(|_| Err(NoEntropy))));
        assert_eq!(source.draw(), Err(NoEntropy));
        assert_eq!(source.nonce::<8>(), Err(NoEntropy));
    }
}
