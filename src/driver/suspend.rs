//! How long the machine was suspended.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Measures that from the start on: CLOCK_BOOTTIME counts it, CLOCK_MONOTONIC, which [`Instant`](std::time::Instant)
/// shows, does not.
#[derive(Debug)]
pub(super) struct Suspension {
    /// By how much the one was ahead of the other at the start, nanoseconds.
    at_start: i128,
}

/// What is less is no suspension, but time that passed between two readings.
const LEAST: Duration = Duration::from_millis(100);

impl Suspension {
    pub(super) fn new() -> Suspension {
        Suspension { at_start: ahead(now) }
    }

    /// In all since the start.
    pub(super) fn total(&self) -> Duration {
        self.measure(now)
    }

    fn measure(&self, read: impl Fn(ClockId) -> Duration) -> Duration {
        let nanos = ahead(read) - self.at_start;
        let total = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
        if total < LEAST { Duration::ZERO } else { total }
    }
}

fn ahead(read: impl Fn(ClockId) -> Duration) -> i128 {
    let nanos = |clock| i128::try_from(read(clock).as_nanos()).unwrap_or(i128::MAX);
    // This order: a thread that is interrupted in between finds less than there was, and more the next time.
    let boottime = nanos(ClockId::CLOCK_BOOTTIME);
    boottime - nanos(ClockId::CLOCK_MONOTONIC)
}

/// By the C library: rustix asks the vDSO itself, which is not there in Valgrind. A clock that the system does not have
/// stands still.
fn now(clock: ClockId) -> Duration {
    clock_gettime(clock).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_was_not_suspended_while_this_ran() {
        let suspension = Suspension::new();
        assert_eq!(suspension.total(), Duration::ZERO);
    }

    #[test]
    fn what_only_one_clock_counts_is_suspension() {
        let clocks = |boottime: u64, monotonic: u64| {
            move |clock| match clock {
                ClockId::CLOCK_BOOTTIME => Duration::from_millis(boottime),
                _ => Duration::from_millis(monotonic),
            }
        };
        let suspension = Suspension { at_start: ahead(clocks(900_000, 500_000)) };
        let measure = |boottime, monotonic| suspension.measure(clocks(boottime, monotonic)).as_millis();
        assert_eq!(measure(1_900_000, 1_500_000), 0);
        assert_eq!(measure(1_900_099, 1_500_000), 0);
        assert_eq!(measure(1_900_000, 1_500_050), 0);
        assert_eq!(measure(1_907_250, 1_500_000), 7250);
    }
}
