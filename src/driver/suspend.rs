//! How long the machine was suspended.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// Measures that from the start on: CLOCK_BOOTTIME counts it, CLOCK_MONOTONIC, which [`Instant`] shows, does
/// not.
#[derive(Debug)]
pub(super) struct Suspension {
    /// The start by both clocks.
    start: (Duration, Instant),
}

/// What is less is no suspension, but time that passed between two readings.
const LEAST: Duration = Duration::from_millis(100);

impl Suspension {
    pub(super) fn new() -> Suspension {
        Suspension { start: read() }
    }

    /// The time now, and how long the machine was suspended in all since the start.
    pub(super) fn now(&self) -> (Instant, Duration) {
        let (boottime, now) = read();
        (now, self.total(boottime, now))
    }

    fn total(&self, boottime: Duration, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.start.1);
        let total = boottime.saturating_sub(self.start.0).saturating_sub(elapsed);
        if total < LEAST { Duration::ZERO } else { total }
    }
}

/// Both clocks. In this order: a thread that is interrupted in between finds less than there was, and more
/// the next time.
///
/// By the C library, because rustix asks the vDSO itself, which is not there in Valgrind. If the system has
/// no such clock, the machine is never suspended.
fn read() -> (Duration, Instant) {
    let boottime = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    (boottime, Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_was_not_suspended_while_this_ran() {
        let suspension = Suspension::new();
        assert_eq!(suspension.now().1, Duration::ZERO);
    }

    #[test]
    fn what_only_one_clock_counts_is_suspension() {
        let (millis, instant) = (Duration::from_millis, Instant::now());
        let suspension = Suspension { start: (millis(900_000), instant) };
        let measure = |boottime, monotonic: u64| {
            suspension.total(millis(boottime), instant + millis(monotonic - 500_000)).as_millis()
        };
        assert_eq!(measure(1_900_000, 1_500_000), 0);
        assert_eq!(measure(1_900_099, 1_500_000), 0);
        assert_eq!(measure(1_900_000, 1_500_050), 0);
        assert_eq!(measure(1_907_250, 1_500_000), 7250);
    }
}
