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
        let elapsed = now.saturating_duration_since(self.origin) + START;
        Time::from_micros(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX / 2))
    }

    /// The caller's clock at `time`.
    pub(crate) fn instant(&self, time: Time) -> Instant {
        let micros = u64::try_from(time.total_micros()).unwrap_or(0);
        self.origin + Duration::from_micros(micros).saturating_sub(START)
    }
}

/// `time` moved by a `std` duration; far futures saturate.
pub(crate) fn after(time: Time, delay: Duration) -> Time {
    let delay = i64::try_from(delay.as_micros()).unwrap_or(i64::MAX);
    Time::from_micros(time.total_micros().saturating_add(delay))
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
