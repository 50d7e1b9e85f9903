//! Slowest part of a path: it sends from a queue at a rate, and drops packets that do not fit the queue.

use super::Link;
use super::standing::Standing;
use crate::Time;

/// Queue before a rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Queue {
    /// Capacity in bytes; more is dropped.
    DropTail(u64),
    /// Policer: no packet waits, and traffic that exceeds the rate by this number of bytes is dropped.
    Policer(u64),
}

/// A rate and its queue.
///
/// The queue is first in, first out, so the time at which it will be empty describes all of it. A packet
/// costs two additions.
#[derive(Debug)]
pub(super) struct Bottleneck {
    nanos_per_byte: f64,
    /// Later rates, the last one first.
    steps: Vec<(Time, f64)>,
    queue: Queue,
    mark_over: Option<u64>,
    /// Time at which everything so far will have left.
    busy_until: f64,
    /// Departure of the last packet. No packet overtakes it when the rate grows.
    last: f64,
    statistics: QueueStatistics,
    standing: Standing,
}

/// Statistics of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct QueueStatistics {
    /// Packets that passed.
    pub passed: u64,
    /// Packets that were dropped.
    pub dropped: u64,
    /// Packets that passed above the marking threshold.
    pub over_mark: u64,
    /// Total wait of all packets that passed, nanoseconds.
    pub waited: f64,
    /// Median of the queue's length over time, sampled every millisecond from the first packet on. For a link
    /// with a variable rate it says more than the mean over packets, because few packets pass while the link
    /// is slow.
    pub median_wait: Time,
}

/// A packet that passes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Passed {
    /// Time of its departure.
    pub(super) leaves: Time,
    /// True if it must be marked.
    pub(super) mark: bool,
}

impl Bottleneck {
    pub(super) fn new(link: &Link) -> Self {
        let mut steps = link.rate_steps.clone();
        // `pop_if` takes from the end, so the earliest step is last.
        steps.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        Self {
            nanos_per_byte: nanos_per_byte(link.rate),
            steps,
            queue: link.queue,
            mark_over: link.mark_over,
            busy_until: 0.0,
            last: 0.0,
            statistics: QueueStatistics::default(),
            standing: Standing::default(),
        }
    }

    /// Returns the statistics of its queue.
    pub(super) fn statistics(&self) -> QueueStatistics {
        QueueStatistics { median_wait: self.standing.median(), ..self.statistics }
    }

    /// Returns the fate of a packet of `len` bytes that comes now, `None` if it is dropped.
    pub(super) fn pass(&mut self, now: Time, len: usize) -> Option<Passed> {
        while let Some((at, rate)) = self.steps.pop_if(|(at, _)| *at <= now) {
            self.standing.look(at, self.busy_until);
            self.change_rate(at as f64, nanos_per_byte(rate));
        }
        let arrived = now as f64;
        let (room, waits) = match self.queue {
            Queue::DropTail(bytes) => (bytes, true),
            Queue::Policer(bytes) => (bytes, false),
        };
        // A policer has no queue whose length could be sampled.
        if waits {
            self.standing.look(now, self.busy_until);
        }
        let start = self.busy_until.max(arrived);
        let wait = start - arrived;
        let sending = len as f64 * self.nanos_per_byte;
        // Half a byte absorbs rounding errors of the sums.
        if wait + sending > (room as f64 + 0.5) * self.nanos_per_byte && wait > 0.0 {
            self.statistics.dropped += 1;
            return None;
        }
        self.busy_until = start + sending;
        self.statistics.passed += 1;
        if !waits {
            return Some(Passed { leaves: now, mark: false });
        }
        self.statistics.waited += wait;
        let mark = self.mark_over.is_some_and(|bytes| wait > bytes as f64 * self.nanos_per_byte);
        self.statistics.over_mark += u64::from(mark);
        // A rate that grows must not let later packets leave before earlier ones.
        self.last = self.last.max(self.busy_until);
        Some(Passed { leaves: self.last as Time, mark })
    }

    /// Adapts the waiting time at `at` to the new rate.
    fn change_rate(&mut self, at: f64, nanos_per_byte: f64) {
        if self.busy_until > at {
            self.busy_until = at + (self.busy_until - at) * nanos_per_byte / self.nanos_per_byte;
        }
        self.nanos_per_byte = nanos_per_byte;
    }
}

fn nanos_per_byte(rate: f64) -> f64 {
    8e9 / rate
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::us;

    /// Returns a link of 8 Mbit/s: a microsecond per byte.
    fn link(queue: Queue) -> Link {
        Link { queue, ..Link::new(8e6) }
    }

    fn leaves(bottleneck: &mut Bottleneck, at: Time) -> Option<Time> {
        bottleneck.pass(at, 1000).map(|passed| passed.leaves)
    }

    #[test]
    fn packets_leave_one_after_another_and_a_full_queue_drops() {
        let mut bottleneck = Bottleneck::new(&link(Queue::DropTail(3000)));
        let leave: Vec<_> = (0..4).map(|_| leaves(&mut bottleneck, us(10))).collect();
        assert_eq!(leave, [Some(us(1010)), Some(us(2010)), Some(us(3010)), None]);
        assert_eq!(leaves(&mut bottleneck, us(1010)), Some(us(4010)));
        let statistics = bottleneck.statistics();
        assert_eq!((statistics.passed, statistics.dropped), (4, 1));
        assert_eq!(statistics.waited as Time, us(1000 + 2000 + 2000));
    }

    #[test]
    fn a_policer_delays_nothing_and_drops_what_exceeds_its_rate() {
        let mut policer = Bottleneck::new(&link(Queue::Policer(2000)));
        let leave: Vec<_> = [0, 0, 0, 1000, 1500].iter().map(|at| leaves(&mut policer, us(*at))).collect();
        assert_eq!(leave, [Some(0), Some(0), None, Some(us(1000)), None]);
    }

    #[test]
    fn a_policer_passes_its_burst_and_its_rate() {
        // Three times its rate of 1 byte per microsecond, for a second.
        let mut policer = Bottleneck::new(&link(Queue::Policer(50_000)));
        let passed: Vec<bool> = (0..3000).map(|at| leaves(&mut policer, us(at * 333)).is_some()).collect();
        let first = passed.iter().position(|passed| !passed).expect("it drops");
        // Two thirds of the traffic use up the burst.
        assert!((74..=76).contains(&first), "{first}");
        let bytes = 1000 * passed.iter().filter(|passed| **passed).count();
        assert!(bytes.abs_diff(50_000 + 999_000) <= 1000, "{bytes}");
    }

    #[test]
    fn a_longer_queue_than_wanted_marks() {
        let mut bottleneck =
            Bottleneck::new(&Link { mark_over: Some(1500), ..link(Queue::DropTail(10_000)) });
        let marks: Vec<_> = (0..4).map(|_| bottleneck.pass(0, 1000).map(|passed| passed.mark)).collect();
        assert_eq!(marks, [Some(false), Some(false), Some(true), Some(true)]);
        assert_eq!(bottleneck.statistics().over_mark, 2);
    }

    #[test]
    fn a_new_rate_holds_for_what_waits_and_keeps_the_order() {
        let steps = vec![(us(1000), 4e6), (us(5000), 80e6)];
        let mut bottleneck = Bottleneck::new(&Link { rate_steps: steps, ..link(Queue::DropTail(10_000)) });
        assert_eq!(leaves(&mut bottleneck, 0), Some(us(1000)));
        assert_eq!(leaves(&mut bottleneck, 0), Some(us(2000)));
        // The second packet has half of the rate from 1 ms on: the third waits for it until 3 ms and takes 2
        // ms.
        assert_eq!(leaves(&mut bottleneck, us(1000)), Some(us(5000)));
        assert_eq!(leaves(&mut bottleneck, us(4000)), Some(us(7000)));
        // That packet has its departure at 7 ms already.
        assert_eq!(leaves(&mut bottleneck, us(5000)), Some(us(7000)));
        assert_eq!(leaves(&mut bottleneck, us(8000)), Some(us(8100)));
    }
}
