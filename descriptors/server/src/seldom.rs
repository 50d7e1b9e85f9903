//! Lines of the log about what peers can have happen as often as they like.

use std::time::{Duration, Instant};

/// The least time between two lines of one kind.
const PAUSE: Duration = Duration::from_secs(10);

/// What happens, of which the log has a line now and then.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    /// How often since the last line.
    count: u64,
    /// When there may be another line.
    next: Option<Instant>,
}

impl Seldom {
    /// It has happened. If it is time for a line, how often since the last one, this time included.
    pub(crate) fn count(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        self.next = Some(now + PAUSE);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_has_a_line_and_what_comes_soon_after_it_has_one_together() {
        let begin = Instant::now();
        let mut seldom = Seldom::default();
        assert_eq!(seldom.count(begin), Some(1));
        for at in 0..1000 {
            assert_eq!(seldom.count(begin + Duration::from_millis(9 * at)), None);
        }
        assert_eq!(seldom.count(begin + PAUSE), Some(1001));
        assert_eq!(seldom.count(begin + PAUSE), None);
        assert_eq!(seldom.count(begin + 5 * PAUSE), Some(2));
    }
}
