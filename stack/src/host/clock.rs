//! Time inside the stack: microseconds since it was made, in smoltcp's type.

use std::time::{Duration, Instant};

pub(crate) use smoltcp::time::Instant as Time;

/// The instant zero stands for "never yet", so the stack's time starts a little later.
const START: Duration = Duration::from_secs(1);

/// Converts between the caller's clock and the stack's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn new(now: Instant) -> Self {
        Self { origin: now }
    }

    /// The stack's time at `now`; a `now` before the stack was made counts as that moment.
    pub(crate) fn time(&self, now: Instant) -> Time {
        after(Time::ZERO, now.saturating_duration_since(self.origin) + START)
    }

    /// The caller's clock at `time`.
    pub(crate) fn instant(&self, time: Time) -> Instant {
        let micros = u64::try_from(time.total_micros()).unwrap_or(0);
        self.origin + Duration::from_micros(micros).saturating_sub(START)
    }
}

/// Microseconds of a duration, as far as they fit.
pub(crate) fn length(duration: Duration) -> u64 {
    // Everything in 64 bits, unlike `as_micros`.
    duration.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(duration.subsec_micros()))
}

/// `time` moved by a `std` duration; far futures saturate.
pub(crate) fn after(time: Time, delay: Duration) -> Time {
    after_micros(time, length(delay))
}

/// The same by microseconds.
pub(crate) fn after_micros(time: Time, delay: u64) -> Time {
    Time::from_micros(time.total_micros().saturating_add_unsigned(delay))
}

/// The earlier of two times that may not be set.
pub(crate) fn earlier(one: Option<Time>, other: Option<Time>) -> Option<Time> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// How long `later` is after `earlier`, zero if it is not.
pub(crate) fn since(later: Time, earlier: Time) -> Duration {
    Duration::from_micros(micros_since(later, earlier))
}

/// The same in microseconds.
pub(crate) fn micros_since(later: Time, earlier: Time) -> u64 {
    let micros = later.total_micros().saturating_sub(earlier.total_micros());
    u64::try_from(micros).unwrap_or(0)
}
