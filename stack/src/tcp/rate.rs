//! Delivery rate samples (draft-ietf-ccwg-bbr section 4.1), measured with each acknowledgement.
//!
//! Every transmission keeps a [`Snapshot`] of the connection's progress. An acknowledgement takes the
//! snapshot of the newest transmission it delivers. The rate is the progress since then, divided by the
//! longer of the sending interval and the acknowledgement interval.

use crate::host::clock::{Time, micros_since};
use crate::tcp::arithmetic::scaled;

/// Progress of the connection at the time of a transmission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// Time of the transmission.
    pub(crate) sent: Time,
    /// Time of the transmission that starts the sending interval.
    pub(crate) first_sent: Time,
    /// Bytes delivered before, and the time of the last delivery.
    pub(crate) delivered: u64,
    pub(crate) delivered_at: Time,
    /// Bytes in flight, this transmission included.
    pub(crate) in_flight: u64,
    /// Bytes marked lost before.
    pub(crate) lost: u64,
    /// True if the application had too little data to measure the path.
    pub(crate) app_limited: bool,
}

/// Measurement of the path by one acknowledgement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RateSample {
    /// Bytes per second; `None` if the interval was too short to measure.
    pub(crate) rate: Option<u64>,
    /// Bytes delivered in the interval.
    pub(crate) delivered: u64,
    /// [`Snapshot::delivered`] of the newest delivered transmission; it marks the end of a round trip.
    pub(crate) prior_delivered: u64,
    /// [`Snapshot::in_flight`] of the same transmission.
    pub(crate) tx_in_flight: u64,
    /// Bytes marked lost since that transmission.
    pub(crate) lost: u64,
    /// True if that transmission was limited by the application.
    pub(crate) app_limited: bool,
    /// True if anything was delivered.
    pub(crate) valid: bool,
}

/// State of the connection for the samples.
#[derive(Debug)]
pub(crate) struct Sampler {
    delivered: u64,
    delivered_at: Time,
    first_sent: Time,
    lost: u64,
    /// Value of `delivered` up to which samples are limited by the application; 0 for none.
    app_limited_until: u64,
}

/// Snapshot and end offset of the newest transmission that one acknowledgement delivers.
#[derive(Debug, Default)]
pub(crate) struct NewestDelivered(Option<(Snapshot, u64)>);

impl Sampler {
    pub(crate) fn new(now: Time) -> Self {
        Self { delivered: 0, delivered_at: now, first_sent: now, lost: 0, app_limited_until: 0 }
    }

    /// Returns the number of bytes acknowledged or SACKed.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Returns the number of bytes marked lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Returns the snapshot for a transmission of `bytes`, with `in_flight` bytes before it.
    pub(crate) fn on_sent(&mut self, now: Time, in_flight: u64, bytes: u64) -> Snapshot {
        // After an idle period, the intervals start anew, so that the idle time does not count as slowness.
        if in_flight == 0 {
            self.first_sent = now;
            self.delivered_at = now;
        }
        Snapshot {
            sent: now,
            first_sent: self.first_sent,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            in_flight: in_flight + bytes,
            lost: self.lost,
            app_limited: self.app_limited_until > 0,
        }
    }

    /// Counts `bytes` delivered from a transmission that ends at stream offset `end`.
    pub(crate) fn on_delivered(
        &mut self,
        now: Time,
        newest: &mut NewestDelivered,
        snapshot: &Snapshot,
        end: u64,
        bytes: u64,
    ) {
        self.delivered += bytes;
        self.delivered_at = now;
        // Of transmissions at one time, the higher end is the newer.
        if newest.0.is_none_or(|(before, its_end)| (snapshot.sent, end) > (before.sent, its_end)) {
            newest.0 = Some((*snapshot, end));
            self.first_sent = snapshot.sent;
        }
    }

    pub(crate) fn on_lost(&mut self, bytes: u64) {
        self.lost += bytes;
    }

    /// Subtracts bytes that were marked lost but were delivered or are still in flight.
    pub(crate) fn on_found(&mut self, bytes: u64) {
        self.lost = self.lost.saturating_sub(bytes);
    }

    /// Marks the connection as limited by the application: the window is open, but there is no data.
    /// `in_flight` bytes are outstanding.
    pub(crate) fn limit(&mut self, in_flight: u64) {
        // 0 means that no limit is in force.
        self.app_limited_until = (self.delivered + in_flight).max(1);
    }

    /// Returns the sample of the acknowledgement that delivered `newest`. `min_rtt` is in microseconds.
    pub(crate) fn finish(&mut self, newest: &NewestDelivered, min_rtt: Option<u64>) -> RateSample {
        // Everything sent before the pause is delivered, so the application limits no further sample.
        if self.app_limited_until > 0 && self.delivered > self.app_limited_until {
            self.app_limited_until = 0;
        }
        let Some((snapshot, _)) = newest.0 else { return RateSample::default() };
        let sending = micros_since(snapshot.sent, snapshot.first_sent);
        let acking = micros_since(self.delivered_at, snapshot.delivered_at);
        // Bursts on the way can compress either interval, and the shorter one would exaggerate the rate.
        let interval = match sending.max(acking) {
            // Both ends are on one node: delivery takes less than a clock step of 1 µs.
            0 if min_rtt.is_some_and(|min| min <= 1) => 1,
            interval => interval,
        };
        let delivered = self.delivered - snapshot.delivered;
        // An interval below the minimum round trip comes from compressed acknowledgements or from a spurious
        // retransmission, so it gives no rate.
        let plausible = interval > 0 && min_rtt.is_none_or(|min| interval >= min);
        let rate = plausible.then(|| scaled(delivered, 1_000_000, interval));
        RateSample {
            rate,
            delivered,
            prior_delivered: snapshot.delivered,
            tx_in_flight: snapshot.in_flight,
            lost: self.lost.saturating_sub(snapshot.lost),
            app_limited: snapshot.app_limited,
            valid: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Time {
        Time::from_micros(micros)
    }

    #[test]
    fn the_rate_is_what_was_delivered_over_the_longer_of_both_intervals() {
        let mut sampler = Sampler::new(at(0));
        let first = sampler.on_sent(at(1000), 0, 1000);
        let second = sampler.on_sent(at(2000), 1000, 1000);
        let sample = deliver(&mut sampler, 11_000, &first, 1000, None);
        assert_eq!((sample.delivered, sample.rate), (1000, Some(100_000)));
        let sample = deliver(&mut sampler, 12_000, &second, 2000, None);
        // 2,000 bytes since the second packet was sent, in the 11 ms since the connection was idle.
        assert_eq!((sample.delivered, sample.rate, sample.tx_in_flight), (2000, Some(181_818), 2000));
        assert!(!sampler.finish(&NewestDelivered::default(), None).valid);
    }

    #[test]
    fn an_interval_under_the_shortest_round_trip_tells_nothing() {
        let mut sampler = Sampler::new(at(0));
        let snapshot = sampler.on_sent(at(0), 0, 1000);
        let sample = deliver(&mut sampler, 500, &snapshot, 1000, Some(501));
        assert!(sample.valid && sample.rate.is_none());
    }

    #[test]
    fn what_is_delivered_within_a_step_of_the_clock_is_fast() {
        let mut sampler = Sampler::new(at(0));
        let snapshot = sampler.on_sent(at(0), 0, 1000);
        let sample = deliver(&mut sampler, 0, &snapshot, 1000, Some(1));
        assert_eq!(sample.rate, Some(1_000_000_000));
        let snapshot = sampler.on_sent(at(0), 0, 1000);
        assert_eq!(deliver(&mut sampler, 0, &snapshot, 1000, None).rate, None);
    }

    #[test]
    fn what_is_sent_while_the_application_has_nothing_is_marked() {
        let mut sampler = Sampler::new(at(0));
        sampler.limit(0);
        let limited = sampler.on_sent(at(0), 0, 1000);
        let also = sampler.on_sent(at(1), 1000, 1000);
        assert!(limited.app_limited && also.app_limited);
        deliver(&mut sampler, 10, &limited, 1000, None);
        assert!(!sampler.on_sent(at(11), 1000, 1000).app_limited);
    }

    #[test]
    fn losses_since_the_transmission_are_in_the_sample() {
        let mut sampler = Sampler::new(at(0));
        sampler.on_lost(300);
        let snapshot = sampler.on_sent(at(0), 0, 1000);
        sampler.on_lost(500);
        sampler.on_found(200);
        let sample = deliver(&mut sampler, 10, &snapshot, 1000, None);
        assert_eq!((sample.lost, sampler.lost()), (300, 600));
    }

    /// Delivers 1000 bytes.
    fn deliver(
        sampler: &mut Sampler,
        micros: i64,
        sent: &Snapshot,
        end: u64,
        min_rtt: Option<u64>,
    ) -> RateSample {
        let mut newest = NewestDelivered::default();
        sampler.on_delivered(at(micros), &mut newest, sent, end, 1000);
        sampler.finish(&newest, min_rtt)
    }
}
