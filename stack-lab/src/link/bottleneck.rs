//! The slowest part of a path: it sends at a rate what waits in a queue that drops what does not fit.

use crate::Time;

/// What stands in front of a rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Queue {
    /// Bytes that may wait; more are dropped.
    DropTail(u64),
    /// A policer: nothing waits, and what exceeds the rate by this many bytes is dropped.
    Policer(u64),
}

/// A rate and what stands in front of it.
///
/// The queue is first in, first out, so the moment at which it is empty again tells all of it: a packet costs two sums.
#[derive(Debug)]
pub(super) struct Bottleneck {
    nanos_per_byte: f64,
    queue: Queue,
    /// When what has come until now will have left.
    busy_until: f64,
    pub(super) statistics: QueueStatistics,
}

/// What a queue has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct QueueStatistics {
    /// Packets that got through.
    pub passed: u64,
    /// Packets that were dropped.
    pub dropped: u64,
    /// How long all that got through had to wait, together, nanoseconds.
    pub waited: f64,
}

impl Bottleneck {
    /// `rate` in bit/s.
    pub(super) fn new(rate: f64, queue: Queue) -> Self {
        Self { nanos_per_byte: 8e9 / rate, queue, busy_until: 0.0, statistics: QueueStatistics::default() }
    }

    /// When a packet of `len` bytes that comes now has left, `None` if it is dropped.
    pub(super) fn pass(&mut self, now: Time, len: usize) -> Option<Time> {
        let arrived = now as f64;
        let start = self.busy_until.max(arrived);
        let wait = start - arrived;
        let sending = len as f64 * self.nanos_per_byte;
        let (room, waits) = match self.queue {
            Queue::DropTail(bytes) => (bytes, true),
            Queue::Policer(bytes) => (bytes, false),
        };
        // Half a byte for what the sums round.
        if wait + sending > (room as f64 + 0.5) * self.nanos_per_byte && wait > 0.0 {
            self.statistics.dropped += 1;
            return None;
        }
        self.busy_until = start + sending;
        self.statistics.passed += 1;
        if !waits {
            return Some(now);
        }
        self.statistics.waited += wait;
        Some((start + sending) as Time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::us;

    #[test]
    fn packets_leave_one_after_another_and_a_full_queue_drops() {
        // 8 Mbit/s: a microsecond per byte.
        let mut bottleneck = Bottleneck::new(8e6, Queue::DropTail(3000));
        let leave: Vec<_> = (0..4).map(|_| bottleneck.pass(us(10), 1000)).collect();
        assert_eq!(leave, [Some(us(1010)), Some(us(2010)), Some(us(3010)), None]);
        assert_eq!(bottleneck.pass(us(1010), 1000), Some(us(4010)));
        let statistics = bottleneck.statistics;
        assert_eq!((statistics.passed, statistics.dropped), (4, 1));
        assert_eq!(statistics.waited as Time, us(1000 + 2000 + 2000));
    }

    #[test]
    fn a_policer_delays_nothing_and_drops_what_exceeds_its_rate() {
        let mut policer = Bottleneck::new(8e6, Queue::Policer(2000));
        let leave: Vec<_> = [0, 0, 0, 1000, 1500].iter().map(|at| policer.pass(us(*at), 1000)).collect();
        assert_eq!(leave, [Some(0), Some(0), None, Some(us(1000)), None]);
    }
}
