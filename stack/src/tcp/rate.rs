//! Delivery rate samples (draft-ietf-ccwg-bbr section 4.1): how fast the path took data, measured with each
//! acknowledgement.
//!
//! Every transmission keeps a [`Snapshot`] of the connection's progress. When data is delivered, the progress
//! since the snapshot of the newest transmission it came with, over the longer of the time it took to send
//! and the time it took to be acknowledged, is the rate.

use crate::host::clock::{Time, micros_since};
use crate::tcp::arithmetic::scaled;

/// The connection's progress when something was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// When it was sent.
    pub(crate) sent: Time,
    /// When the transmission was sent that the interval of sending starts with.
    pub(crate) first_sent: Time,
    /// Bytes delivered until then, and when the last of them was.
    pub(crate) delivered: u64,
    pub(crate) delivered_at: Time,
    /// Bytes in flight, this transmission included.
    pub(crate) in_flight: u64,
    /// Bytes marked lost until then.
    pub(crate) lost: u64,
    /// Whether there was too little to send to measure the path.
    pub(crate) app_limited: bool,
}

/// What one acknowledgement tells of the path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RateSample {
    /// Bytes per second; `None` if the interval was too short to tell.
    pub(crate) rate: Option<u64>,
    /// Bytes delivered in the interval.
    pub(crate) delivered: u64,
    /// [`Snapshot::delivered`] of the newest transmission that was delivered: ends a round trip.
    pub(crate) prior_delivered: u64,
    /// [`Snapshot::in_flight`] of it.
    pub(crate) tx_in_flight: u64,
    /// Bytes marked lost since it was sent.
    pub(crate) lost: u64,
    /// Whether there was too little to send when it was sent.
    pub(crate) app_limited: bool,
    /// Whether anything was delivered at all.
    pub(crate) valid: bool,
}

/// The connection's side of the samples.
#[derive(Debug)]
pub(crate) struct Sampler {
    delivered: u64,
    delivered_at: Time,
    first_sent: Time,
    lost: u64,
    /// Until this much is delivered, samples are of an application that has too little to send.
    app_limited_until: u64,
}

/// The newest transmission that one acknowledgement delivers, and its end.
#[derive(Debug, Default)]
pub(crate) struct NewestDelivered(Option<(Snapshot, u64)>);

impl Sampler {
    pub(crate) fn new(now: Time) -> Self {
        Self { delivered: 0, delivered_at: now, first_sent: now, lost: 0, app_limited_until: 0 }
    }

    /// Bytes that were acknowledged or SACKed so far.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Bytes that were marked lost so far.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// The snapshot for `bytes` that leave now, with `in_flight` bytes before them.
    pub(crate) fn on_sent(&mut self, now: Time, in_flight: u64, bytes: u64) -> Snapshot {
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

    /// `bytes` of a transmission that ends at stream offset `end` have been delivered.
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
        if newest.0.is_none_or(|(before, its_end)| (snapshot.sent, end) > (before.sent, its_end)) {
            newest.0 = Some((*snapshot, end));
            self.first_sent = snapshot.sent;
        }
    }

    pub(crate) fn on_lost(&mut self, bytes: u64) {
        self.lost += bytes;
    }

    /// Bytes that were marked lost have turned out to be delivered, or on their way.
    pub(crate) fn on_found(&mut self, bytes: u64) {
        self.lost = self.lost.saturating_sub(bytes);
    }

    /// There is nothing to send although the window would let it, with `in_flight` bytes on their way.
    pub(crate) fn limit(&mut self, in_flight: u64) {
        self.app_limited_until = (self.delivered + in_flight).max(1);
    }

    /// The sample of the acknowledgement that has delivered this. The shortest round trip is in microseconds.
    pub(crate) fn finish(&mut self, newest: &NewestDelivered, min_rtt: Option<u64>) -> RateSample {
        if self.app_limited_until > 0 && self.delivered > self.app_limited_until {
            self.app_limited_until = 0;
        }
        let Some((snapshot, _)) = newest.0 else { return RateSample::default() };
        let sending = micros_since(snapshot.sent, snapshot.first_sent);
        let acking = micros_since(self.delivered_at, snapshot.delivered_at);
        let interval = match sending.max(acking) {
            // Both ends are one node: all happens in the clock's same step, which is at most that long.
            0 if min_rtt.is_some_and(|min| min <= 1) => 1,
            interval => interval,
        };
        let delivered = self.delivered - snapshot.delivered;
        // Shorter than a round trip: acknowledgements that were compressed, or of a retransmission that was
        // not needed.
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
        // Both bytes' worth since the second was sent: in the 11 ms since the connection was idle.
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

    /// An acknowledgement of 1000 bytes.
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
