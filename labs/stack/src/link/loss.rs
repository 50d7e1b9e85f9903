//! Random loss of packets.

use crate::{Random, Time};

/// Loss model of a link.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Loss {
    /// No loss.
    #[default]
    None,
    /// Independent loss of each packet with this probability.
    Random(f64),
    /// Gilbert model in time: everything is lost while the link is bad, however much is sent. A model that
    /// changes its state per packet would outlive the silence after a burst.
    Bursts {
        /// Share of time in which the link is bad.
        share: f64,
        /// Mean duration of a bad spell.
        mean: Time,
    },
    /// Gilbert-Elliott model, also in time: good and bad spells, each with its loss probability.
    GilbertElliott {
        /// Probability in a good spell.
        good: f64,
        /// Probability in a bad spell.
        bad: f64,
        /// Share of time in which the link is bad.
        share: f64,
        /// Mean duration of a bad spell.
        mean: Time,
    },
}

impl Loss {
    /// Returns a [`Loss::GilbertElliott`] that loses this share of evenly sent packets, with the
    /// probabilities `good` and `bad`.
    pub fn gilbert_elliott(loss: f64, good: f64, bad: f64, mean: Time) -> Self {
        Self::GilbertElliott { good, bad, share: (loss - good) / (bad - good), mean }
    }
}

/// State of a link's [`Loss`].
#[derive(Debug)]
pub(super) struct Losing {
    loss: Loss,
    random: Random,
    bad: bool,
    /// Time of the next change between good and bad.
    change: Time,
}

impl Losing {
    pub(super) fn new(loss: Loss, random: Random) -> Self {
        Self { loss, random, bad: true, change: 0 }
    }

    /// Returns true if a packet sent now is lost.
    pub(super) fn strikes(&mut self, now: Time) -> bool {
        match self.loss {
            Loss::None => false,
            Loss::Random(probability) => self.random.chance(probability),
            Loss::Bursts { share, mean } => self.is_bad(now, share, mean),
            Loss::GilbertElliott { good, bad, share, mean } => {
                let probability = if self.is_bad(now, share, mean) { bad } else { good };
                self.random.chance(probability)
            }
        }
    }

    fn is_bad(&mut self, now: Time, share: f64, mean: Time) -> bool {
        while self.change <= now {
            self.bad = !self.bad;
            let good = mean as f64 * (1.0 - share) / share.max(1e-9);
            let mean = if self.bad { mean } else { good as Time };
            // At least one nanosecond, so that the loop ends.
            self.change += self.random.exponential(mean).max(1);
        }
        self.bad
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::us;

    #[test]
    fn bursts_take_their_share_of_time_in_runs() {
        let mut losing = Losing::new(Loss::Bursts { share: 0.03, mean: us(1200) }, Random::new(3));
        let lost: Vec<bool> = (0..1_000_000).map(|packet| losing.strikes(packet * us(120))).collect();
        let count = lost.iter().filter(|lost| **lost).count();
        let runs = lost.windows(2).filter(|pair| pair[1] && !pair[0]).count();
        assert!((27_000..33_000).contains(&count), "{count}");
        assert!((9.0..11.5).contains(&(count as f64 / runs as f64)), "{count} in {runs}");
    }

    #[test]
    fn gilbert_and_elliott_lose_their_mean_mostly_in_bad_spells() {
        let loss = Loss::gilbert_elliott(0.01, 0.001, 0.5, us(2000));
        let mut losing = Losing::new(loss, Random::new(4));
        let mut lost = Vec::new();
        let mut bad = 0;
        for packet in 0..4_000_000 {
            lost.push(losing.strikes(packet * us(12)));
            bad += u64::from(losing.bad);
        }
        let share = |count: usize, of: u64| count as f64 / of as f64;
        let count = lost.iter().filter(|lost| **lost).count();
        assert!((0.009..0.011).contains(&share(count, 4_000_000)), "{count}");
        // Expected share of bad time: (0.01 - 0.001) / (0.5 - 0.001).
        assert!((0.016..0.020).contains(&share(bad as usize, 4_000_000)), "{bad}");
        // The packet after a lost one is lost nearly half of the time, compared with one in a hundred by
        // chance.
        let pairs = lost.windows(2).filter(|pair| pair[0] && pair[1]).count();
        assert!((0.42..0.50).contains(&share(pairs, count as u64)), "{pairs} of {count}");
    }
}
