//! One direction of a path, and its effects on packets: loss, then a bottleneck, then delay.

mod bottleneck;
mod loss;
mod rough;
mod standing;
mod trace;

pub use bottleneck::{Queue, QueueStatistics};
pub use loss::Loss;
pub use rough::Rough;
pub use trace::Trace;

use crate::{Random, Time, payload_share};

use bottleneck::Bottleneck;
use loss::Losing;

/// Properties of one direction of a path. Propagation is separate, because pairs of hosts on one path may
/// have different distances.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// Bandwidth, bits per second on the wire.
    pub rate: f64,
    /// Later rates with their times.
    pub rate_steps: Vec<(Time, f64)>,
    /// Queue before the bottleneck.
    pub queue: Queue,
    /// Bytes in the queue above which a router marks an arriving packet instead of waiting for drops (RFC
    /// 3168), if its sender supports ECN.
    pub mark_over: Option<u64>,
    /// Loss before the queue.
    pub loss: Loss,
    /// Probability that a packet is overtaken.
    pub reorder: f64,
    /// Maximum lateness of such a packet.
    pub reorder_by: Time,
    /// Probability that a packet arrives as soon as it has left, and so overtakes earlier ones.
    pub overtakes: f64,
    /// Probability that a packet arrives twice.
    pub duplicate: f64,
    /// Probability that a packet arrives with a wrong bit.
    pub corrupt: f64,
    /// Variable delay that keeps the order.
    pub jitter: Option<Jitter>,
}

/// A variable delay: at every step a new one from 0 to a maximum is drawn. Packets never overtake one
/// another, so after a step down they arrive in a clump.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jitter {
    /// Maximum additional delay.
    pub most: Time,
    /// Duration of one delay.
    pub step: Time,
}

impl Link {
    /// Returns a link with only this rate, and a queue that holds everything.
    pub fn new(rate: f64) -> Self {
        Self {
            rate,
            rate_steps: Vec::new(),
            queue: Queue::DropTail(u64::MAX),
            mark_over: None,
            loss: Loss::None,
            reorder: 0.0,
            reorder_by: 0,
            overtakes: 0.0,
            duplicate: 0.0,
            corrupt: 0.0,
            jitter: None,
        }
    }

    /// Returns the payload bytes that the link can carry between two moments, if all segments are full.
    pub fn capacity(&self, from: Time, to: Time) -> f64 {
        let mut steps = vec![(0, self.rate)];
        steps.extend(&self.rate_steps);
        let ends = steps.iter().skip(1).map(|(at, _)| *at).chain([Time::MAX]);
        let bits = |((start, rate), end): (&(Time, f64), Time)| {
            let time = end.min(to).saturating_sub(from.max(*start));
            rate * time as f64 / 1e9
        };
        steps.iter().zip(ends).map(bits).sum::<f64>() / 8.0 * payload_share()
    }
}

/// State of a [`Link`] in use.
#[derive(Debug)]
pub(crate) struct Carrier {
    link: Link,
    losing: Losing,
    bottleneck: Bottleneck,
    random: Random,
    lost: u64,
    jitter: Time,
    jitter_until: Time,
    /// Arrival of the last packet by pair; a packet with jitter must not arrive earlier.
    last: Vec<Time>,
}

/// Fate of a packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    /// Time of its arrival, `None` if it is lost.
    pub(crate) arrival: Option<Time>,
    /// Time of its second arrival.
    pub(crate) again: Option<Time>,
    /// True if a bit is changed.
    pub(crate) corrupt: bool,
    /// True if it must be marked (ECN).
    pub(crate) mark: bool,
}

impl Carrier {
    pub(crate) fn new(link: &Link, pairs: usize, random: &mut Random) -> Self {
        Self {
            losing: Losing::new(link.loss, random.fork()),
            bottleneck: Bottleneck::new(link),
            random: random.fork(),
            lost: 0,
            jitter: 0,
            jitter_until: 0,
            last: vec![0; pairs],
            link: link.clone(),
        }
    }

    /// Carries `len` bytes of the wire between the hosts of `pair`, at a distance of `delay`.
    pub(crate) fn carry(&mut self, now: Time, pair: usize, delay: Time, len: usize) -> Fate {
        if self.losing.strikes(now) {
            self.lost += 1;
            return Fate::default();
        }
        let Some(passed) = self.bottleneck.pass(now, len) else { return Fate::default() };
        let mut arrival = passed.leaves + delay;
        if let Some(Jitter { most, step }) = self.link.jitter {
            if self.jitter_until <= now {
                self.jitter = self.random.below(most);
                self.jitter_until = now - now % step.max(1) + step;
            }
            arrival = self.last[pair].max(arrival + self.jitter);
            self.last[pair] = arrival;
        }
        if self.random.chance(self.link.reorder) {
            arrival += self.random.below(self.link.reorder_by);
        }
        // No draw without such packets, so that the random sequence and earlier figures stay comparable.
        if self.link.overtakes > 0.0 && self.random.chance(self.link.overtakes) {
            arrival = passed.leaves;
        }
        let again = self.random.chance(self.link.duplicate).then(|| arrival + self.random.below(delay / 4));
        Fate {
            arrival: Some(arrival),
            again,
            corrupt: self.random.chance(self.link.corrupt),
            mark: passed.mark,
        }
    }

    /// Returns the statistics of its queue.
    pub(crate) fn queue(&self) -> QueueStatistics {
        self.bottleneck.statistics()
    }

    /// Returns the number of packets lost by chance.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ms;

    fn arrivals(link: &Link, packets: u64) -> Vec<Time> {
        let mut carrier = Carrier::new(link, 1, &mut Random::new(5));
        let fates = (0..packets).map(|packet| carrier.carry(packet * 120_000, 0, ms(20), 1500));
        fates.filter_map(|fate| fate.arrival).collect()
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let jitter = Jitter { most: ms(40), step: ms(10) };
        let jittery = arrivals(&Link { jitter: Some(jitter), ..Link::new(100e6) }, 10_000);
        assert!(jittery.is_sorted());
        assert!(jittery.windows(2).any(|pair| pair[1] - pair[0] > ms(5)));
        let late = arrivals(&Link { reorder: 0.1, reorder_by: ms(10), ..Link::new(100e6) }, 10_000);
        let overtaken = late.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!((800..1100).contains(&overtaken), "{overtaken}");
    }

    #[test]
    fn a_packet_arrives_after_its_transmission_and_propagation() {
        assert_eq!(arrivals(&Link::new(100e6), 2), [ms(20) + 120_000, ms(20) + 240_000]);
    }
}
