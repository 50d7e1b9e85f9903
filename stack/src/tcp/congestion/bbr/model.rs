//! BBR's model of the path: round trips, bandwidth, round-trip time, and aggregation of acknowledgements.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::host::clock::{Time, after, since};
use crate::tcp::arithmetic::{length, scaled};
use crate::tcp::congestion::filter::Largest;
use crate::tcp::rate::RateSample;

/// Lifetime of a minimum round-trip time.
const MIN_RTT_SPAN: Duration = Duration::from_secs(10);

/// Time without a round trip as short as the minimum after which the queue is drained to measure one.
const PROBE_RTT_INTERVAL: Duration = Duration::from_secs(5);

/// Half the number of round trips for which aggregation is remembered.
const AGGREGATION_SPAN: u64 = 5;

/// Returns the stack's time in microseconds.
pub(super) fn micros(time: Time) -> u64 {
    u64::try_from(time.total_micros()).unwrap_or(0)
}

pub(super) fn percent(value: u64, share: u64) -> u64 {
    scaled(value, share, 100)
}

/// Round trips counted in packets. A round trip ends when data is delivered that was sent after the last one
/// ended.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    pub(super) count: u64,
    /// True if the present acknowledgement begins a round trip.
    pub(super) begins: bool,
    end: u64,
}

impl Rounds {
    /// Starts a new round trip now.
    pub(super) fn restart(&mut self, delivered: u64) {
        self.end = delivered;
    }

    pub(super) fn on_ack(&mut self, delivered: u64, sample: &RateSample) {
        self.begins = sample.valid && sample.prior_delivered >= self.end;
        if self.begins {
            self.count += 1;
            self.end = delivered;
        }
    }
}

/// Largest delivery rate of this bandwidth probing cycle and the one before, bytes per second.
#[derive(Debug)]
pub(super) struct Bandwidth(Largest);

impl Bandwidth {
    pub(super) fn new() -> Self {
        Self(Largest::new())
    }

    pub(super) fn on_ack(&mut self, rate: u64, app_limited: bool) {
        // An application-limited sample can only raise the estimate, because it says little about the path.
        if rate >= self.max() || !app_limited {
            // Probing cycles advance the buckets, not time.
            self.0.insert(0, u64::MAX, rate);
        }
    }

    pub(super) fn end_cycle(&mut self) {
        self.0.advance();
    }

    /// Returns the maximum; 0 before the first sample.
    pub(super) fn max(&self) -> u64 {
        self.0.get()
    }
}

/// Minimum round-trip time, and the schedule of its measurement.
#[derive(Debug)]
pub(super) struct RoundTrip {
    /// Minimum, microseconds.
    min: Option<NonZeroU64>,
    min_at: Time,
    /// Minimum of the present interval between measurements.
    recent: Option<NonZeroU64>,
    recent_at: Time,
    /// True if the queue should be drained for a measurement.
    pub(super) expired: bool,
}

impl RoundTrip {
    pub(super) fn new(now: Time) -> Self {
        Self { min: None, min_at: now, recent: None, recent_at: now, expired: false }
    }

    pub(super) fn on_ack(&mut self, now: Time, rtt: Option<Duration>) {
        // Judged before the sample, which replaces an expired minimum.
        self.expired = self.recent.is_some() && now > after(self.recent_at, PROBE_RTT_INTERVAL);
        if let Some(rtt) = rtt {
            // A round trip within one step of the clock counts as 1 µs.
            let rtt = NonZeroU64::new(length(rtt)).unwrap_or(NonZeroU64::MIN);
            if self.expired || self.recent.is_none_or(|recent| rtt <= recent) {
                self.recent = Some(rtt);
                self.recent_at = now;
            }
        }
        // The path may have become longer, and an old minimum would keep the window too small for it.
        let outdated = now > after(self.min_at, MIN_RTT_SPAN);
        if let Some(recent) = self.recent
            && (outdated || self.min.is_none_or(|min| recent <= min))
        {
            self.min = Some(recent);
            self.min_at = self.recent_at;
        }
    }

    /// Restarts the interval after a measurement.
    pub(super) fn renew(&mut self, now: Time) {
        self.recent_at = now;
        self.expired = false;
    }

    /// Returns the minimum in microseconds.
    pub(super) fn min(&self) -> Option<u64> {
        self.min.map(NonZeroU64::get)
    }
}

/// Surplus of acknowledgements over the bandwidth, because something on the path bunches them. This surplus
/// must also be in flight, so that sending continues until the next bunch.
#[derive(Debug)]
pub(super) struct Aggregation {
    begun: Time,
    delivered: u64,
    extra: Largest,
}

impl Aggregation {
    pub(super) fn new(now: Time) -> Self {
        Self { begun: now, delivered: 0, extra: Largest::new() }
    }

    pub(super) fn restart(&mut self, now: Time) {
        self.begun = now;
        self.delivered = 0;
    }

    /// Updates the surplus. `bandwidth` is in bytes per second; `full` is set once the bandwidth is known.
    pub(super) fn on_ack(
        &mut self,
        now: Time,
        round: u64,
        delivered: u64,
        bandwidth: u64,
        window: u64,
        full: bool,
    ) {
        let expected = |begun| scaled(bandwidth, length(since(now, begun)), 1_000_000);
        let mut surplus = expected(self.begun);
        // The deliveries since then were no faster than the bandwidth, so the next interval begins.
        if self.delivered <= surplus {
            self.restart(now);
            surplus = 0;
        }
        self.delivered = self.delivered.saturating_add(delivered);
        // More than the window cannot have been in flight.
        let extra = self.delivered.saturating_sub(surplus).min(window);
        self.extra.insert(round, if full { AGGREGATION_SPAN } else { 1 }, extra);
    }

    pub(super) fn extra(&self) -> u64 {
        self.extra.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Time {
        Time::from_millis(millis)
    }

    fn ms(millis: u64) -> Option<Duration> {
        Some(Duration::from_millis(millis))
    }

    fn sample(prior_delivered: u64) -> RateSample {
        RateSample { prior_delivered, valid: true, ..RateSample::default() }
    }

    #[test]
    fn large_values_are_scaled_without_overflow() {
        assert_eq!(percent(u64::MAX, 50), u64::MAX / 2);
        assert_eq!(percent(u64::MAX, 200), u64::MAX);
    }

    #[test]
    fn a_round_trip_ends_with_what_was_sent_after_the_last_one() {
        let mut rounds = Rounds::default();
        rounds.on_ack(1000, &sample(0));
        assert!(rounds.begins);
        rounds.on_ack(2000, &sample(500));
        assert!(!rounds.begins);
        rounds.on_ack(3000, &sample(1000));
        assert!(rounds.begins);
        rounds.on_ack(4000, &RateSample::default());
        assert_eq!((rounds.begins, rounds.count), (false, 2));
    }

    #[test]
    fn a_longer_round_trip_time_is_believed_after_ten_seconds_and_measured_after_five() {
        let mut round_trip = RoundTrip::new(at(0));
        round_trip.on_ack(at(0), ms(40));
        round_trip.on_ack(at(4999), ms(60));
        assert!(!round_trip.expired);
        round_trip.on_ack(at(5001), ms(60));
        assert!(round_trip.expired);
        assert_eq!(round_trip.min(), Some(40_000));
        round_trip.renew(at(5001));
        round_trip.on_ack(at(9000), ms(60));
        assert!(!round_trip.expired);
        round_trip.on_ack(at(10_001), ms(60));
        assert_eq!(round_trip.min(), Some(60_000));
    }

    #[test]
    fn less_bandwidth_is_believed_after_two_cycles_and_not_of_a_slow_application() {
        let mut bandwidth = Bandwidth::new();
        bandwidth.on_ack(1000, true);
        assert_eq!(bandwidth.max(), 1000);
        bandwidth.end_cycle();
        bandwidth.on_ack(500, true);
        bandwidth.end_cycle();
        assert_eq!(bandwidth.max(), 1000);
        bandwidth.on_ack(500, false);
        bandwidth.end_cycle();
        assert_eq!(bandwidth.max(), 500);
    }

    #[test]
    fn bunched_acknowledgements_show_how_much_more_has_to_be_in_flight() {
        let mut aggregation = Aggregation::new(at(0));
        // 1 MB/s, delivered in bunches of 10 ms.
        for round in 1..20 {
            aggregation.on_ack(at(10 * round), round as u64, 10_000, 1_000_000, 100_000, true);
        }
        assert_eq!(aggregation.extra(), 10_000);
    }
}
