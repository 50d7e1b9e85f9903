//! Stack time and overlay time.
//!
//! The stack's time stops while the machine is suspended, like that of a kernel's TCP. A connection must not
//! take a night for an outage of its path and give up. The overlay's time goes on (as CLOCK_BOOTTIME),
//! because session keys made yesterday must not be used today, and timestamps of handshakes follow the wall
//! clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Translator between both times. All calls of the data path use the stack's time.
#[derive(Debug, Default)]
pub(super) struct OverlayClock {
    /// Lead of the overlay's time in nanoseconds.
    ahead: AtomicU64,
}

impl OverlayClock {
    /// Sets the total time that the machine was suspended. A smaller value than before changes nothing.
    pub(super) fn note_suspended(&self, total: Duration) {
        let total = u64::try_from(total.as_nanos()).unwrap_or(u64::MAX);
        // Nearly every call repeats the known value, so a load avoids the more expensive read-modify-write.
        if total > self.ahead.load(Ordering::Relaxed) {
            self.ahead.fetch_max(total, Ordering::Relaxed);
        }
    }

    /// Converts a time of the stack to the overlay's time.
    pub(super) fn overlay(&self, now: Instant) -> Instant {
        now + self.ahead()
    }

    /// Converts a time of the overlay to the stack's time, if the machine is not suspended until then.
    pub(super) fn stack(&self, at: Instant) -> Instant {
        // An `Instant` may not reach back that far.
        at.checked_sub(self.ahead()).unwrap_or(at)
    }

    fn ahead(&self) -> Duration {
        Duration::from_nanos(self.ahead.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::instant;

    #[test]
    fn the_overlays_time_is_ahead_by_what_the_machine_was_suspended_and_never_goes_back() {
        let (clock, now) = (OverlayClock::default(), instant());
        assert_eq!((clock.overlay(now), clock.stack(now)), (now, now));
        let night = Duration::from_secs(8 * 3600);
        clock.note_suspended(night);
        clock.note_suspended(night / 2);
        assert_eq!(clock.overlay(now), now + night);
        assert_eq!(clock.stack(now + night), now);
    }
}
