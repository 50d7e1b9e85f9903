//! The time limit of recvmmsg(2), which Linux checks only after each message.

use std::time::{Duration, Instant};

use libc::timespec;
use peersock_fd::Errno;

use crate::Result;

/// A time limit that has begun, and the time that was left after the last message.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimit {
    begun: Instant,
    limit: Duration,
    left: Duration,
}

impl TimeLimit {
    /// Returns a limit that begins now.
    /// Errors: EINVAL for a negative time, or a billion nanoseconds and more.
    pub fn of(time: &timespec) -> Result<Self> {
        let seconds = u64::try_from(time.tv_sec).map_err(|_| Errno::INVAL)?;
        let nanos = u32::try_from(time.tv_nsec).ok().filter(|nanos| *nanos < 1_000_000_000);
        let limit = Duration::new(seconds, nanos.ok_or(Errno::INVAL)?);
        Ok(Self { begun: Instant::now(), limit, left: limit })
    }

    /// Notes that a message has come.
    pub fn note_message(&mut self) {
        self.left = self.limit.saturating_sub(self.begun.elapsed());
    }

    /// Returns true if no time was left after the last message.
    pub fn is_over(&self) -> bool {
        self.left.is_zero()
    }

    /// Returns the time that was left after the last message, which the call writes into its argument.
    pub fn left(&self) -> timespec {
        let seconds = i64::try_from(self.left.as_secs()).unwrap_or(i64::MAX);
        timespec { tv_sec: seconds, tv_nsec: self.left.subsec_nanos().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_never_grows_and_is_nothing_at_the_end() {
        let mut limit = TimeLimit::of(&timespec { tv_sec: 1000, tv_nsec: 5 }).expect("a time");
        assert_eq!((limit.left().tv_sec, limit.left().tv_nsec), (1000, 5));
        limit.note_message();
        assert!(limit.left().tv_sec < 1000 && !limit.is_over());
        let mut none = TimeLimit::of(&timespec { tv_sec: 0, tv_nsec: 0 }).expect("a time");
        none.note_message();
        assert!(none.is_over() && none.left().tv_sec == 0 && none.left().tv_nsec == 0);
    }

    #[test]
    fn times_that_are_none_are_refused() {
        for (tv_sec, tv_nsec) in [(-1, 0), (0, -1), (0, 1_000_000_000)] {
            assert_eq!(TimeLimit::of(&timespec { tv_sec, tv_nsec }).map(|_| ()), Err(Errno::INVAL));
        }
        assert!(TimeLimit::of(&timespec { tv_sec: i64::MAX, tv_nsec: 999_999_999 }).is_ok());
    }
}
