//! Replayable randomness: one seed, from which every component gets a separate generator.

use rand::rngs::ChaCha8Rng;
use rand::{Rng, RngExt, SeedableRng};
use std::ops::RangeInclusive;
use std::time::Duration;

/// A component's generator. Its draws do not disturb any other component.
#[derive(Debug)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// Makes the generator at the root of a scenario.
    pub fn from_seed(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Makes a generator for one component.
    pub fn fork(&mut self) -> Self {
        Self(ChaCha8Rng::from_seed(self.bytes()))
    }

    /// Draws random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// Overwrites `bytes` with random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// Draws a random number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Draws a number from 0 to `bound` - 1.
    ///
    /// # Panics
    /// `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0.random_range(0..bound)
    }

    /// Draws a number in the range, both ends included.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        self.0.random_range(range)
    }

    /// Draws a duration in the range, both ends included.
    pub fn duration(&mut self, range: RangeInclusive<Duration>) -> Duration {
        let nanos = |duration: &Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.within(nanos(range.start())..=nanos(range.end())))
    }

    /// Draws a size in the range with a uniform logarithm, so small sizes are as likely as large ones.
    pub fn size(&mut self, range: RangeInclusive<u64>) -> u64 {
        let bits = |n: u64| u64::from(n.max(1).ilog2());
        let exponent = self.within(bits(*range.start())..=bits(*range.end()));
        let octave = (1u64 << exponent)..=((1u64 << exponent) - 1 + (1 << exponent));
        self.within(octave).clamp(*range.start(), *range.end())
    }

    /// Returns true with this probability, from 0 to 1.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.0.random_bool(probability.min(1.0))
    }

    /// Draws one of the items.
    ///
    /// # Panics
    /// There are no items.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_are_independent_of_what_their_siblings_draw() {
        let (mut a, mut b) = (Random::from_seed(1), Random::from_seed(1));
        let (mut first_a, mut first_b) = (a.fork(), b.fork());
        first_a.number();
        assert_eq!(a.fork().number(), b.fork().number());
        assert_ne!(first_a.number(), first_b.number());
    }

    #[test]
    fn sizes_stay_in_their_range() {
        let mut random = Random::from_seed(2);
        let sizes: Vec<u64> = (0..10_000).map(|_| random.size(3..=1_000_000)).collect();
        assert!(sizes.iter().all(|size| (3..=1_000_000).contains(size)));
        assert!(sizes.iter().filter(|&&size| size < 1000).count() > 3000);
    }
}
