//! Keeps programs from spinning on a network that is gone.
//!
//! A listener, or a socket for datagrams, that was shut down is ready for ever: `poll` says so at once, and
//! the call that follows fails with ENETDOWN. A server that waits, fails and waits again would take a whole
//! processor, and write its log full. So such errors are held back a little when there are many of them.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Errors of a process that are told at once within a second: those of all its sockets, when they end.
const AT_ONCE: u32 = 10;

/// How long each of the others is held back.
const PAUSE: Duration = Duration::from_millis(100);

/// The second that is counted in, and how many there were in it. They are atomic, as a process may fork while
/// another thread is here; that a few errors are counted wrongly then does not matter.
static SECOND: AtomicI64 = AtomicI64::new(0);
static COUNT: AtomicU32 = AtomicU32::new(0);

/// To be called before ENETDOWN is told of a socket that is waited on.
pub(crate) fn before_error() {
    let second = clock_gettime(ClockId::Monotonic).tv_sec;
    if SECOND.swap(second, Ordering::Relaxed) != second {
        COUNT.store(0, Ordering::Relaxed);
    }
    if COUNT.fetch_add(1, Ordering::Relaxed) >= AT_ONCE {
        thread::sleep(PAUSE);
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
        // Where a second ends between two of them, more are told at once.
        assert!(begin.elapsed() >= 5 * PAUSE, "{:?}", begin.elapsed());
    }
}
