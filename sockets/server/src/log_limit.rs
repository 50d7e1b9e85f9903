//! Rate limit of log lines about events that peers can cause at will.

use std::time::{Duration, Instant};

/// Minimum time between two lines of one kind.
const MIN_LINE_INTERVAL: Duration = Duration::from_secs(10);

/// A kind of event that is logged now and then.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    /// Number of events since the last line.
    count: u64,
    /// Time from which another line is allowed.
    next: Option<Instant>,
}

impl LogLimit {
    /// Counts an event. If a line is due, returns the number of events since the last one, this one included.
    pub(crate) fn count(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        self.next = Some(now + MIN_LINE_INTERVAL);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_has_a_line_and_what_comes_soon_after_it_has_one_together() {
        let begin = Instant::now();
        let mut seldom = LogLimit::default();
        assert_eq!(seldom.count(begin), Some(1));
        for at in 0..1000 {
            assert_eq!(seldom.count(begin + Duration::from_millis(9 * at)), None);
        }
        assert_eq!(seldom.count(begin + MIN_LINE_INTERVAL), Some(1001));
        assert_eq!(seldom.count(begin + MIN_LINE_INTERVAL), None);
        assert_eq!(seldom.count(begin + 5 * MIN_LINE_INTERVAL), Some(2));
    }
}
