//! BBR's model of the path: round trips, bandwidth, round trip time, and how acknowledgements are bunched.

use std::time::Duration;

use crate::clock::{Time, after, since};
use crate::tcp::congestion::filter::Extreme;
use crate::tcp::rate::RateSample;

/// How long a smallest round trip time is believed.
const MIN_RTT_SPAN: Duration = Duration::from_secs(10);

/// How long without a round trip as short as the shortest until the queue is drained to measure it.
const PROBE_RTT_INTERVAL: Duration = Duration::from_secs(5);

/// Half the round trips over which acknowledgements' bunching is remembered.
const AGGREGATION_SPAN: u64 = 5;

/// Microseconds of the stack's time.
pub(super) fn micros(time: Time) -> u64 {
    u64::try_from(time.total_micros()).unwrap_or(0)
}

/// Microseconds of a duration.
pub(super) fn length(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// `value * factor / divisor`, as far as that fits.
pub(super) fn scaled(value: u64, factor: u64, divisor: u64) -> u64 {
    let product = u128::from(value) * u128::from(factor) / u128::from(divisor.max(1));
    u64::try_from(product).unwrap_or(u64::MAX)
}

pub(super) fn percent(value: u64, share: u64) -> u64 {
    scaled(value, share, 100)
}

/// Round trips, counted in packets: one ends when something is delivered that was sent after the last one had ended.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    pub(super) count: u64,
    /// The present acknowledgement begins one.
    pub(super) begins: bool,
    end: u64,
}

impl Rounds {
    /// Counts anew from now.
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

/// The largest delivery rate of this bandwidth probing cycle and the one before, bytes per second.
#[derive(Debug)]
pub(super) struct Bandwidth(Extreme);

impl Bandwidth {
    pub(super) fn new() -> Self {
        Self(Extreme::largest())
    }

    pub(super) fn on_ack(&mut self, rate: u64, app_limited: bool) {
        if rate >= self.max() || !app_limited {
            self.0.insert(0, u64::MAX, rate);
        }
    }

    pub(super) fn end_cycle(&mut self) {
        self.0.advance();
    }

    /// 0 before the first sample.
    pub(super) fn max(&self) -> u64 {
        self.0.get()
    }
}

/// The shortest round trip time, and when to measure it again.
#[derive(Debug)]
pub(super) struct RoundTrip {
    /// Microseconds.
    min: Option<u64>,
    min_at: Time,
    /// The shortest of the present interval between measurements.
    recent: Option<u64>,
    recent_at: Time,
    /// The queue should be drained to measure it.
    pub(super) expired: bool,
}

impl RoundTrip {
    pub(super) fn new(now: Time) -> Self {
        Self { min: None, min_at: now, recent: None, recent_at: now, expired: false }
    }

    pub(super) fn on_ack(&mut self, now: Time, rtt: Option<Duration>) {
        self.expired = self.recent.is_some() && now > after(self.recent_at, PROBE_RTT_INTERVAL);
        if let Some(rtt) = rtt {
            let rtt = length(rtt).max(1);
            if self.expired || self.recent.is_none_or(|recent| rtt <= recent) {
                self.recent = Some(rtt);
                self.recent_at = now;
            }
        }
        let outdated = now > after(self.min_at, MIN_RTT_SPAN);
        if let Some(recent) = self.recent
            && (outdated || self.min.is_none_or(|min| recent <= min))
        {
            self.min = Some(recent);
            self.min_at = self.recent_at;
        }
    }

    /// It has just been measured.
    pub(super) fn renew(&mut self, now: Time) {
        self.recent_at = now;
        self.expired = false;
    }

    /// Microseconds.
    pub(super) fn min(&self) -> Option<u64> {
        self.min
    }
}

/// How much more than the bandwidth acknowledgements deliver at times, because something on the path bunches them:
/// that much more has to be in flight to keep sending until the next bunch.
#[derive(Debug)]
pub(super) struct Aggregation {
    begun: Time,
    delivered: u64,
    extra: Extreme,
}

impl Aggregation {
    pub(super) fn new(now: Time) -> Self {
        Self { begun: now, delivered: 0, extra: Extreme::largest() }
    }

    pub(super) fn restart(&mut self, now: Time) {
        self.begun = now;
        self.delivered = 0;
    }

    /// `span` is how many round trips half of the memory takes.
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
        if self.delivered <= surplus {
            self.restart(now);
            surplus = 0;
        }
        self.delivered = self.delivered.saturating_add(delivered);
        let extra = self.delivered.saturating_sub(surplus).min(window);
        self.extra.insert(round, if full { AGGREGATION_SPAN } else { 1 }, extra);
    }

    pub(super) fn extra(&self) -> u64 {
        self.extra.get()
    }
}
