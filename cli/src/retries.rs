//! Time for further attempts at a transfer.

use std::time::{Duration, Instant};

/// Limit of the time in which a transfer is tried again and no data moves.
pub(crate) struct Retries {
    within: Duration,
    /// Bytes moved in all attempts, when a connection last broke.
    moved: u64,
    /// Time of the first break since data last moved.
    since: Option<Instant>,
}

impl Retries {
    pub(crate) fn new(within: Duration) -> Retries {
        Retries { within, moved: 0, since: None }
    }

    /// Notes that a connection broke. `moved` counts the bytes of all attempts. Returns true if data has
    /// moved since the break before.
    pub(crate) fn note_break(&mut self, moved: u64, now: Instant) -> bool {
        let has_moved = self.since.is_none() || moved != self.moved;
        if has_moved {
            (self.moved, self.since) = (moved, Some(now));
        }
        has_moved
    }

    /// Returns the time that is left; all of it before the first break.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.since
            .map_or(self.within, |since| self.within.saturating_sub(now.saturating_duration_since(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_that_move_nothing_gain_no_time() {
        let mut retries = Retries::new(Duration::from_secs(10));
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(retries.left(at(100)), Duration::from_secs(10));
        assert!(retries.note_break(5, at(100)));
        assert!(!retries.note_break(5, at(104)));
        assert_eq!(retries.left(at(104)), Duration::from_secs(6));
        assert!(retries.note_break(6, at(108)));
        assert_eq!(retries.left(at(108)), Duration::from_secs(10));
        assert_eq!(retries.left(at(120)), Duration::ZERO);
    }
}
