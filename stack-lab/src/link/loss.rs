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
            Loss::Bursts { share, mean } => {
                while self.change <= now {
                    self.bad = !self.bad;
                    let good = mean as f64 * (1.0 - share) / share.max(1e-9);
                    let mean = if self.bad { mean } else { good as Time };
                    self.change += self.random.exponential(mean).max(1);
                }
                self.bad
            }
        }
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
}
