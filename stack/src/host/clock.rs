//! Time inside the stack: microseconds since its creation, in smoltcp's type.

use std::time::{Duration, Instant};

pub(crate) use smoltcp::time::Instant as Time;

/// Start of the stack's time. It is not 0, because 0 means "never yet".
const START: Duration = Duration::from_secs(1);

/// Conversion between the caller's clock and the stack's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn new(now: Instant) -> Self {
        Self { origin: now }
    }

    /// Returns the stack's time at `now`; a `now` before the stack's creation counts as that moment.
    pub(crate) fn time(&self, now: Instant) -> Time {
        after(Time::ZERO, now.saturating_duration_since(self.origin) + START)
    }

    /// Returns the caller's clock at `time`.
    pub(crate) fn instant(&self, time: Time) -> Instant {
        let micros = u64::try_from(time.total_micros()).unwrap_or(0);
        self.origin + Duration::from_micros(micros).saturating_sub(START)
    }
}

/// Returns the microseconds of a duration, saturating.
pub(crate) fn length(duration: Duration) -> u64 {
    // 64-bit arithmetic is faster than `as_micros`, which uses 128 bits.
    duration.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(duration.subsec_micros()))
}

/// Returns `time` moved by a `std` duration; far futures saturate.
pub(crate) fn after(time: Time, delay: Duration) -> Time {
    after_micros(time, length(delay))
}

/// Returns `time` moved by microseconds.
pub(crate) fn after_micros(time: Time, delay: u64) -> Time {
    Time::from_micros(time.total_micros().saturating_add_unsigned(delay))
}

/// Returns the earlier of two optional times.
pub(crate) fn earlier(one: Option<Time>, other: Option<Time>) -> Option<Time> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Returns the time from `earlier` to `later`, zero if `later` is not later.
pub(crate) fn since(later: Time, earlier: Time) -> Duration {
    Duration::from_micros(micros_since(later, earlier))
}

/// Returns the same in microseconds.
pub(crate) fn micros_since(later: Time, earlier: Time) -> u64 {
    let micros = later.total_micros().saturating_sub(earlier.total_micros());
    u64::try_from(micros).unwrap_or(0)
}
