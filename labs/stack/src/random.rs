//! Pseudo-random numbers from a seed.

use crate::Time;

/// A small generator (SplitMix64): fast, and good enough for losing packets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Returns the generator of `seed`; adjacent seeds give independent sequences.
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed ^ 0x6a09_e667_f3bc_c908);
        random.number();
        random
    }

    /// Returns an independent generator for one part, so that its draws do not change other parts.
    pub fn fork(&mut self) -> Self {
        Self::new(self.number())
    }

    /// Returns any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 to 1, 1 excluded.
    pub fn unit(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Returns true with a probability from 0 to 1.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.unit() < probability
    }

    /// Returns a number below `bound`, or 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        (self.unit() * bound as f64) as u64
    }

    /// Returns an exponentially distributed duration with the mean `mean`.
    pub fn exponential(&mut self, mean: Time) -> Time {
        (-(1.0 - self.unit()).ln() * mean as f64) as Time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_as_likely_as_it_says() {
        let mut random = Random::new(1);
        let hits = (0..100_000).filter(|_| random.chance(0.03)).count();
        assert!((2800..3200).contains(&hits), "{hits}");
        let mean = (0..100_000).map(|_| random.exponential(1000)).sum::<u64>() / 100_000;
        assert!((980..1020).contains(&mean), "{mean}");
    }
}
