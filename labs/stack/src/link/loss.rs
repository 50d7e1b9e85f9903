//! Which packets are lost by chance.

use crate::{Random, Time};

/// How a link loses packets.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Loss {
    /// It does not.
    #[default]
    None,
    /// Each by itself, with this probability.
    Random(f64),
    /// A Gilbert model in time: everything is lost while the link is bad, whether there is much or little to
    /// lose. A model that changes its state per packet would outlive the silence after a burst.
    Bursts {
        /// The share of time that the link is bad.
        share: f64,
        /// How long it is bad, on average.
        mean: Time,
    },
    /// A Gilbert-Elliott model, also in time: good and bad spells, each with a probability of its own to lose
    /// a packet.
    GilbertElliott {
        /// The probability in a good spell.
        good: f64,
        /// The probability in a bad spell.
        bad: f64,
        /// The share of time that the link is bad.
        share: f64,
        /// How long it is bad, on average.
        mean: Time,
    },
}

impl Loss {
    /// A [`Loss::GilbertElliott`] that loses this share of all packets, if they come evenly: from `good` to
    /// `bad`.
    pub fn gilbert_elliott(loss: f64, good: f64, bad: f64, mean: Time) -> Self {
        Self::GilbertElliott { good, bad, share: (loss - good) / (bad - good), mean }
    }
}

/// A link's [`Loss`] as it goes on.
#[derive(Debug)]
pub(super) struct Losing {
    loss: Loss,
    random: Random,
    bad: bool,
    /// When it changes between good and bad.
    change: Time,
}

impl Losing {
    pub(super) fn new(loss: Loss, random: Random) -> Self {
        Self { loss, random, bad: true, change: 0 }
    }

    /// Whether a packet is lost that is sent now.
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
        // (0.01 - 0.001) / (0.5 - 0.001) of the time.
        assert!((0.016..0.020).contains(&share(bad as usize, 4_000_000)), "{bad}");
        // After a lost packet the next is lost nearly half of the time, which chance alone does for one in a
        // hundred.
        let pairs = lost.windows(2).filter(|pair| pair[0] && pair[1]).count();
        assert!((0.42..0.50).contains(&share(pairs, count as u64)), "{pairs} of {count}");
    }
}
