//! Classification of losses as congestion, and their number per round trip.
//!
//! A full queue drops packets, and the packets next to them have long round trips, because they waited in it.
//! A bad link drops packets whatever the queue. So a loss counts as congestion only in two cases: the queue
//! was recently about as long as it ever gets, or a large part of a flight is lost.

use crate::host::clock::Time;
use crate::tcp::congestion::filter::{Largest, Smallest};
use crate::tcp::congestion::{Lost, View};
use crate::tcp::rate::RateSample;

use super::model::{micros, percent};

/// Half the time for which the longest queue is remembered, microseconds.
const LONGEST_QUEUE_SPAN: u64 = 10_000_000;

/// Percentage of the longest queue from which a queue counts as full.
const FULL_QUEUE: u64 = 30;

/// Percentage of the minimum round-trip time that a full queue must also exceed.
const NOTABLE_QUEUE: u64 = 5;

/// Percentage and number of segments of a flight whose loss is congestion whatever the queue. This covers
/// policers and tiny buffers.
const BROKEN_FLIGHT: u64 = 30;
const BROKEN_FLIGHT_SEGMENTS: u64 = 6;

/// Queue of the bottleneck, estimated from round-trip times, in microseconds of waiting. It uses the minimum
/// of an eighth to a quarter of a round trip, because single round trips may be long for other reasons.
#[derive(Debug)]
pub(super) struct Queue {
    recent: Smallest,
    longest: Largest,
    now: u64,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { recent: Smallest::new(), longest: Largest::new(), now: 0 }
    }

    /// Adds a round trip of `rtt` microseconds; `usual` is the smoothed value.
    pub(super) fn on_round_trip(&mut self, at: Time, rtt: u64, min_rtt: u64, usual: u64) {
        let at = micros(at);
        self.recent.insert(at, (usual / 8).max(1), rtt);
        // The minimum of several round trips: a single late acknowledgement is no queue.
        self.now = self.recent.get().saturating_sub(min_rtt);
        self.longest.insert(at, LONGEST_QUEUE_SPAN, self.now);
    }

    fn is_full(&self, min_rtt: u64) -> bool {
        self.now > percent(self.longest.get(), FULL_QUEUE) && self.now > percent(min_rtt, NOTABLE_QUEUE)
    }
}

/// Returns true if a loss shows that more was in flight than the path holds.
pub(super) fn is_congestion(queue: &Queue, min_rtt: Option<u64>, view: &View, lost: &Lost) -> bool {
    let gone = view.lost.saturating_sub(lost.snapshot.lost);
    let broken = gone > percent(lost.snapshot.in_flight, BROKEN_FLIGHT)
        && gone > BROKEN_FLIGHT_SEGMENTS.saturating_mul(view.mss);
    // Without a round-trip time the queue is unknown, so every loss counts.
    broken || min_rtt.is_none_or(|min_rtt| queue.is_full(min_rtt))
}

/// Congestion in the present round trip and the one before. A round trip starts at the first loss here, so
/// that one round contains a whole overflow.
#[derive(Debug, Default)]
pub(super) struct LossRound {
    /// True if the present acknowledgement ends a round.
    pub(super) ends: bool,
    /// Bytes lost to congestion in this round and in the one before.
    lost: u64,
    lost_before: u64,
    /// Number of acknowledgements that revealed such losses.
    pub(super) events: u32,
    eventful: bool,
    /// True if a router has marked a packet.
    pub(super) marked: bool,
    /// Bytes delivered at which the round ends, and at which it began.
    end: u64,
    begin: u64,
    /// Largest delivery rate and most bytes delivered in a sample of this round.
    pub(super) rate: u64,
    pub(super) delivered: u64,
}

impl LossRound {
    /// Forgets the congestion seen so far.
    pub(super) fn reset(&mut self) {
        self.lost = 0;
        self.events = 0;
        self.marked = false;
        self.rate = 0;
        self.delivered = 0;
    }

    pub(super) fn on_lost(&mut self, view: &View, bytes: u64) {
        self.notice(view.delivered);
        self.lost = self.lost.saturating_add(bytes);
        self.eventful = true;
    }

    pub(super) fn on_mark(&mut self, view: &View) {
        self.notice(view.delivered);
        self.marked = true;
    }

    fn notice(&mut self, delivered: u64) {
        // A round trip begins with the first sign, so that one overflow is not divided between two rounds.
        if self.lost == 0 && !self.marked {
            self.begin = delivered;
            self.end = delivered;
        }
    }

    /// Updates the round before the model reads it.
    pub(super) fn on_ack(&mut self, delivered: u64, sample: &RateSample) {
        // One event per acknowledgement, however many losses it reveals.
        self.events = self.events.saturating_add(u32::from(self.eventful));
        self.eventful = false;
        self.rate = self.rate.max(sample.rate.unwrap_or(0));
        self.delivered = self.delivered.max(sample.delivered);
        self.ends = sample.valid && sample.prior_delivered >= self.end;
        if self.ends {
            self.end = delivered;
        }
    }

    /// Ends the round after the model has read it.
    pub(super) fn advance(&mut self, delivered: u64, sample: &RateSample) {
        if self.ends {
            self.lost_before = self.lost;
            self.reset();
            self.begin = delivered;
            self.rate = sample.rate.unwrap_or(0);
            self.delivered = sample.delivered;
        }
    }

    pub(super) fn is_lossy(&self) -> bool {
        self.lost > 0
    }

    /// Returns true if the round began when at least `delivered` bytes had been delivered.
    pub(super) fn begins_at(&self, delivered: u64) -> bool {
        self.begin >= delivered
    }

    /// Returns true if more than `threshold` percent of the round was lost.
    pub(super) fn exceeds(&self, threshold: u64, delivered: u64) -> bool {
        let total = delivered.saturating_sub(self.begin).saturating_add(self.lost);
        self.lost > percent(total, threshold)
    }

    /// Returns the bytes lost to congestion within about one round trip.
    pub(super) fn recently_lost(&self) -> u64 {
        self.lost.saturating_add(self.lost_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1000;

    /// Adds a round trip of 40 ms plus the queue, every millisecond.
    fn wait(queue: &mut Queue, from: i64, waits: impl IntoIterator<Item = u64>) {
        for (at, wait) in (from..).zip(waits) {
            queue.on_round_trip(Time::from_millis(at), 40 * MS + wait, 40 * MS, 40 * MS);
        }
    }

    #[test]
    fn a_queue_is_full_when_it_is_about_as_long_as_it_gets() {
        let mut queue = Queue::new();
        wait(&mut queue, 0, [20 * MS; 40]);
        assert!(queue.is_full(40 * MS));
        wait(&mut queue, 40, [5 * MS; 40]);
        assert!(!queue.is_full(40 * MS), "a quarter of the longest");
        wait(&mut queue, 80, [8 * MS; 40]);
        assert!(queue.is_full(40 * MS));
    }

    #[test]
    fn a_queue_that_is_always_short_is_never_full() {
        let mut queue = Queue::new();
        wait(&mut queue, 0, [2 * MS; 40]);
        assert!(!queue.is_full(40 * MS));
    }

    #[test]
    fn single_long_round_trips_are_no_queue() {
        let mut queue = Queue::new();
        wait(&mut queue, 0, (0..40).map(|i| if i % 5 == 0 { 0 } else { 30 * MS }));
        assert!(!queue.is_full(40 * MS));
    }

    #[test]
    fn a_round_knows_what_part_of_it_was_lost() {
        let view = |delivered| View {
            now: Time::ZERO,
            mss: 1000,
            in_flight: 0,
            delivered,
            lost: 0,
            una: 0,
            nxt: 0,
            srtt: None,
            window_limited: false,
        };
        let sample = |prior_delivered| RateSample { prior_delivered, valid: true, ..RateSample::default() };
        let mut round = LossRound::default();
        round.on_lost(&view(100_000), 3000);
        round.on_ack(101_000, &sample(50_000));
        round.on_lost(&view(150_000), 3000);
        round.on_ack(151_000, &sample(80_000));
        assert!(!round.ends && round.is_lossy());
        round.on_ack(200_000, &sample(100_000));
        assert_eq!((round.ends, round.events), (true, 2));
        // 6 of 106 KB.
        assert!(round.exceeds(5, 200_000) && !round.exceeds(6, 200_000));
        round.advance(200_000, &sample(100_000));
        assert!(!round.is_lossy());
        assert_eq!(round.recently_lost(), 6000);
    }
}
