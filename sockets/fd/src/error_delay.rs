//! Delay of errors, to keep programs from spinning on a network that is gone.
//!
//! A listener or a datagram socket that was shut down is always ready: `poll` returns at once, and the next
//! call fails with ENETDOWN. A server in a loop of waiting and failing would take a whole processor and fill
//! its log. So this module delays such errors a little when there are many.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Number of errors per second that a process gets at once, enough for all its sockets when they end.
const UNDELAYED_PER_SECOND: u32 = 10;

/// Delay of each further error.
const ERROR_DELAY: Duration = Duration::from_millis(100);

/// The current second, and the number of errors in it. They are atomic because a process may fork while
/// another thread is here. A few errors counted wrongly do not matter.
static CURRENT_SECOND: AtomicI64 = AtomicI64::new(0);
static ERRORS_IN_SECOND: AtomicU32 = AtomicU32::new(0);

/// Call this before returning ENETDOWN for a socket that a program waits on.
pub(crate) fn before_error() {
    let second = clock_gettime(ClockId::Monotonic).tv_sec;
    if CURRENT_SECOND.swap(second, Ordering::Relaxed) != second {
        ERRORS_IN_SECOND.store(0, Ordering::Relaxed);
    }
    if ERRORS_IN_SECOND.fetch_add(1, Ordering::Relaxed) >= UNDELAYED_PER_SECOND {
        thread::sleep(ERROR_DELAY);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_first_errors_are_told_at_once_and_those_of_a_loop_are_not() {
        let begin = Instant::now();
        for _ in 0..30 {
            before_error();
        }
        // If a second ends in between, more errors come at once.
        assert!(begin.elapsed() >= 5 * ERROR_DELAY, "{:?}", begin.elapsed());
    }
}
