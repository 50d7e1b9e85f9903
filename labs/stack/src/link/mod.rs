//! One direction of a path, and what it does to packets: loss, then a bottleneck, then delay.

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

/// What one direction of a path is like. Propagation is not here: pairs of hosts that share a path may be
/// differently far from each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// Bits per second on the wire.
    pub rate: f64,
    /// From when on it has which other rates.
    pub rate_steps: Vec<(Time, f64)>,
    /// What stands in front of the rate.
    pub queue: Queue,
    /// Instead of letting the queue grow, a router tells whoever understands it (RFC 3168): a packet that
    /// finds more bytes than this before it, and whose sender knows of such marks, is marked.
    pub mark_over: Option<u64>,
    /// What is lost before the queue.
    pub loss: Loss,
    /// The probability of a packet to be overtaken.
    pub reorder: f64,
    /// By how much such a packet is late, at most.
    pub reorder_by: Time,
    /// The probability of a packet to arrive as soon as it has left: it overtakes those before it.
    pub overtakes: f64,
    /// The probability of a packet to arrive twice.
    pub duplicate: f64,
    /// The probability of a packet to arrive with a wrong byte.
    pub corrupt: f64,
    /// A delay that changes and keeps the order.
    pub jitter: Option<Jitter>,
}

/// A delay that changes: at every step another one from 0 to a maximum is drawn. Packets never overtake one
/// another, so after a step down they arrive in a clump.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jitter {
    /// The longest additional delay.
    pub most: Time,
    /// How long one delay holds.
    pub step: Time,
}

impl Link {
    /// A link that does nothing but to be as fast as this, with a queue that holds everything.
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

    /// Payload bytes that it can carry between two moments, if all segments are full.
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

/// A [`Link`] as it goes on.
#[derive(Debug)]
pub(crate) struct Carrier {
    link: Link,
    losing: Losing,
    bottleneck: Bottleneck,
    random: Random,
    lost: u64,
    jitter: Time,
    jitter_until: Time,
    /// When the last packet arrives, by pair: none may be earlier that jitters.
    last: Vec<Time>,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    /// When it arrives, `None` if it is lost.
    pub(crate) arrival: Option<Time>,
    /// When it arrives a second time.
    pub(crate) again: Option<Time>,
    /// Whether something in it is changed.
    pub(crate) corrupt: bool,
    /// Whether it is to be marked (ECN).
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

    /// Carries `len` bytes of the wire between the hosts of `pair`, which are `delay` from each other.
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
        // Without such packets chance is as it was: figures of before can be compared.
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

    /// What its queue has seen.
    pub(crate) fn queue(&self) -> QueueStatistics {
        self.bottleneck.statistics()
    }

    /// Packets that were lost by chance.
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
