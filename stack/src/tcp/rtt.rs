//! Round-trip times and the retransmission timeout: RFC 6298 with Linux's minimum.

use std::time::Duration;

use super::arithmetic::length;
use crate::host::clock::{Time, after_micros, micros_since};

/// Minimum margin of the timeout over a round trip, microseconds, as in Linux (RFC 6298 has 1 s in total).
const MIN_MARGIN: u64 = 200_000;

/// Timeout before the first sample, microseconds (RFC 6298 2.1).
const INITIAL: u64 = 1_000_000;

/// Longest timeout, microseconds (RFC 6298 2.5 demands at least 60 s).
const MAX_RTO_US: u64 = 60_000_000;

/// Lifetime of a minimum, microseconds.
const MIN_WINDOW: u64 = 300_000_000;

/// Estimator of round-trip times. It stores microseconds as `u32`, because each acknowledgement computes with
/// them; they saturate at about an hour.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rtt {
    /// Smoothed round-trip time. It is 0 before the first sample, and so is `min`.
    smoothed: u32,
    variation: u32,
    min: u32,
    /// Timeout computed from the fields above and `backoff`.
    timeout: u32,
    min_at: Time,
    /// Doublings of the timeout since new data was last acknowledged.
    backoff: u8,
}

impl Rtt {
    pub(crate) fn new() -> Self {
        Self { smoothed: 0, variation: 0, min: 0, timeout: INITIAL as u32, min_at: Time::ZERO, backoff: 0 }
    }

    /// Adds a sample (RFC 6298 2.2 and 2.3).
    pub(crate) fn sample(&mut self, now: Time, rtt: Duration) {
        let micros = length(rtt).clamp(1, u64::from(u32::MAX)) as u32;
        // RFC 6298 2.2: the first sample counts fully, and half of it is the variation.
        if self.smoothed == 0 {
            self.smoothed = micros;
            self.variation = micros / 2;
        } else {
            // The mean of two u32 numbers fits a u32.
            let mean = |old: u32, weight: u64, new: u32| {
                ((u64::from(old) * weight + u64::from(new)) / (weight + 1)) as u32
            };
            // RFC 6298 2.3: the variation first, because it needs the old mean.
            self.variation = mean(self.variation, 3, self.smoothed.abs_diff(micros));
            self.smoothed = mean(self.smoothed, 7, micros).max(1);
        }
        // An equal sample renews the minimum's age.
        if self.min == 0 || micros <= self.min || micros_since(now, self.min_at) > MIN_WINDOW {
            self.min = micros;
            self.min_at = now;
        }
        self.reckon();
    }

    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.smoothed_micros().map(Duration::from_micros)
    }

    pub(crate) fn variation(&self) -> Duration {
        Duration::from_micros(self.variation.into())
    }

    /// Returns the minimum of the last five minutes.
    pub(crate) fn min(&self) -> Option<Duration> {
        self.min_micros().map(Duration::from_micros)
    }

    pub(crate) fn min_micros(&self) -> Option<u64> {
        (self.min > 0).then_some(self.min.into())
    }

    pub(crate) fn smoothed_micros(&self) -> Option<u64> {
        (self.smoothed > 0).then_some(self.smoothed.into())
    }

    /// Returns the retransmission timeout with backoff.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_micros(self.timeout.into())
    }

    /// Returns the end of a timeout that starts now.
    pub(crate) fn timeout_from(&self, now: Time) -> Time {
        after_micros(now, self.timeout.into())
    }

    fn reckon(&mut self) {
        // The margin has a minimum, because a peer may delay an acknowledgement (RFC 9293 3.8.6.3), and a
        // steady round trip leaves almost no variation.
        let margin = (u64::from(self.variation) * 4).max(MIN_MARGIN);
        let base = self.smoothed_micros().map_or(INITIAL, |smoothed| smoothed + margin);
        // Ten doublings exceed the maximum in any case, and the shift cannot overflow.
        self.timeout = (base << self.backoff.min(10)).min(MAX_RTO_US) as u32;
    }

    /// Doubles the timeout after an expiry (RFC 6298 5.5).
    pub(crate) fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(10);
        self.reckon();
    }

    /// Ends the backoff, because new data was acknowledged.
    pub(crate) fn reset_backoff(&mut self) {
        if self.backoff > 0 {
            self.backoff = 0;
            self.reckon();
        }
    }

    pub(crate) fn backoff(&self) -> u32 {
        self.backoff.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_timeout_follows_the_samples_and_backs_off() {
        let mut rtt = Rtt::new();
        assert_eq!(rtt.timeout(), 1000 * MS);
        rtt.sample(Time::from_secs(1), 100 * MS);
        assert_eq!(rtt.timeout(), 300 * MS);
        for second in 2..50 {
            rtt.sample(Time::from_secs(second), 100 * MS);
        }
        assert_eq!((rtt.smoothed(), rtt.timeout()), (Some(100 * MS), 300 * MS));
        rtt.back_off();
        rtt.back_off();
        assert_eq!(rtt.timeout(), 1200 * MS);
        for _ in 0..100 {
            rtt.back_off();
        }
        assert_eq!(rtt.timeout(), 60_000 * MS);
        rtt.reset_backoff();
        rtt.sample(Time::from_secs(60), 500 * MS);
        assert!(rtt.timeout() > 500 * MS);
    }

    #[test]
    fn the_minimum_is_forgotten_after_some_minutes() {
        let mut rtt = Rtt::new();
        rtt.sample(Time::from_secs(1), 10 * MS);
        rtt.sample(Time::from_secs(200), 30 * MS);
        assert_eq!(rtt.min(), Some(10 * MS));
        rtt.sample(Time::from_secs(400), 30 * MS);
        assert_eq!(rtt.min(), Some(30 * MS));
    }
}
