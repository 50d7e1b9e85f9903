//! Rate limits: token buckets of a fixed size.

use std::time::{Duration, Instant};

/// Rate of an event, and its burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    interval: Duration,
    burst: u32,
}

impl Rate {
    /// Creates a rate of `times` per second, at least one, with a burst of `burst`.
    pub fn per_second(times: u32, burst: u32) -> Self {
        Self::every(Duration::from_secs(1) / times.max(1), burst)
    }

    pub(crate) fn every(interval: Duration, burst: u32) -> Self {
        Self { interval, burst }
    }

    /// Takes one token, if available, from the bucket that will be full at `full_at`.
    pub(crate) fn take(&self, full_at: &mut Instant, now: Instant) -> bool {
        let has_one = self.has(1, *full_at, now);
        if has_one {
            // A bucket full since long ago counts as full now, so idle time adds no tokens beyond the burst.
            *full_at = now.max(*full_at) + self.interval;
        }
        has_one
    }

    pub(crate) fn has(&self, tokens: u32, full_at: Instant, now: Instant) -> bool {
        let missing = full_at.saturating_duration_since(now);
        // One point in time holds the whole state, so a table of buckets is small (the generic cell rate
        // algorithm).
        self.burst.checked_sub(tokens).is_some_and(|rest| missing <= self.interval * rest)
    }
}

/// Token bucket by the generic cell rate algorithm: its only state is when it will be full again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    full_at: Instant,
    rate: Rate,
}

impl Bucket {
    /// Creates a full bucket.
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        Self { full_at: now, rate }
    }

    /// Takes one token if available.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.rate.take(&mut self.full_at, now)
    }

    /// Returns true if at least `tokens` tokens are available.
    pub(crate) fn has(&self, tokens: u32, now: Instant) -> bool {
        self.rate.has(tokens, self.full_at, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::instant;

    #[test]
    fn bucket_refills_at_its_rate_and_never_beyond_its_burst() {
        let start = instant();
        let mut bucket = Bucket::new(Rate::per_second(10, 3), start);
        assert_eq!((0..5).filter(|_| bucket.take(start)).count(), 3);
        assert!(!bucket.take(start + Duration::from_millis(99)));
        assert!(bucket.take(start + Duration::from_millis(100)));
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..5).filter(|_| bucket.take(later)).count(), 3);
    }
}
