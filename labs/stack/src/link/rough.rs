//! Faults of long paths, for virtual time and for real time beside the kernel.

use super::{Jitter, Link, Loss, Queue, Trace};
use crate::{Time, ms, us};

/// Fault of a path. See [`Rough::lay_on`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rough {
    /// Bursts of loss (Gilbert-Elliott): one percent of all packets. In a bad spell, of 2 ms on average, half
    /// of them are lost, otherwise one in a thousand.
    Bursts,
    /// A policer without a queue, whose bucket holds a quarter of the bandwidth-delay product.
    Policed,
    /// Delay of up to 5 ms for each packet independently, so that packets overtake each other.
    Jitter,
    /// A return path with a fiftieth of the rate, and a queue of one bandwidth-delay product of that rate.
    ThinAcks,
    /// A rate that changes by a factor of four every second.
    Swings,
    /// The same with fading, and packets in clumps of up to 4 ms.
    Wifi,
    /// A rate that goes up or down by a factor of four every second, to a sixteenth, with fading, and packets
    /// in clumps of up to 8 ms, the time of an LTE retransmission.
    Lte,
}

impl Rough {
    /// All faults.
    pub const ALL: [Self; 7] =
        [Self::Bursts, Self::Policed, Self::Jitter, Self::ThinAcks, Self::Swings, Self::Wifi, Self::Lte];
    /// Length of its traces. Afterwards the last rate stays.
    const TRACE: Time = ms(600_000);

    /// Returns the name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bursts => "bursts1",
            Self::Policed => "policed25ms",
            Self::Jitter => "jitter5ms_reorders",
            Self::ThinAcks => "acks50th",
            Self::Swings => "swings4",
            Self::Wifi => "wifi4",
            Self::Lte => "lte4",
        }
    }

    /// Applies the fault to a path whose bandwidth-delay product is `bdp` bytes.
    pub fn lay_on(self, forward: &mut Link, backward: &mut Link, bdp: u64) {
        let top = forward.rate;
        let trace = |trace: Trace| trace.steps(1, Self::TRACE);
        let clumps = |most| Some(Jitter { most, step: most });
        match self {
            Self::Bursts => forward.loss = Loss::gilbert_elliott(0.01, 0.001, 0.5, us(2000)),
            Self::Policed => forward.queue = Queue::Policer(bdp / 4),
            Self::Jitter => (forward.reorder, forward.reorder_by) = (1.0, ms(5)),
            Self::ThinAcks => {
                backward.rate = top / 50.0;
                backward.queue = Queue::DropTail(bdp / 50);
            }
            Self::Swings => forward.rate_steps = trace(Trace::swings(top)),
            Self::Wifi => {
                forward.rate_steps = trace(Trace::wifi(top));
                forward.jitter = clumps(ms(4));
            }
            Self::Lte => {
                forward.rate_steps = trace(Trace::lte(top));
                forward.jitter = clumps(ms(8));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;
    use crate::link::Carrier;

    #[test]
    fn jitter_reorders_within_its_bound() {
        let (mut forward, mut backward) = (Link::new(1e9), Link::new(1e9));
        Rough::Jitter.lay_on(&mut forward, &mut backward, 12_500_000);
        let mut carrier = Carrier::new(&forward, 1, &mut Random::new(5));
        let sent: Vec<Time> = (0..10_000).map(|packet| us(12) * packet).collect();
        let arrived: Vec<Time> =
            sent.iter().filter_map(|at| carrier.carry(*at, 0, ms(50), 1500).arrival).collect();
        assert_eq!(arrived.len(), sent.len());
        let late = |(sent, arrived): (&Time, &Time)| arrived - sent - us(12) - ms(50);
        let late: Vec<Time> = sent.iter().zip(&arrived).map(late).collect();
        assert!(late.iter().all(|late| *late < ms(5)), "within 5 ms");
        let mean = late.iter().sum::<Time>() / late.len() as Time;
        assert!((us(2400)..us(2600)).contains(&mean), "{mean}");
        let overtaken = arrived.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!((4500..5500).contains(&overtaken), "{overtaken}");
    }
}
