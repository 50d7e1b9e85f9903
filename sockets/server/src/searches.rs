//! Limit on the time that a node spends searching `/proc` for its applications' descriptors. Peers decide how
//! often there is a reason, and the node's programs wait meanwhile.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use peersock_primitives::sync;

/// Searches take at most one part in `TIME_DIVISOR` of the time.
const TIME_DIVISOR: u32 = 10;

/// Total duration of searches that may follow each other without a pause.
const BURST_TIME: Duration = Duration::from_millis(100);

/// Time at which the searches so far have used up their share; `None` at first.
pub(crate) struct Searches(Mutex<Option<Instant>>);

/// A running search, with its start time.
pub(crate) struct Search(Instant);

impl Searches {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Begins a search, if one is allowed now.
    pub(crate) fn begin(&self, now: Instant) -> Option<Search> {
        let paid_at = *sync::lock(&self.0);
        let debt = paid_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        (debt <= TIME_DIVISOR * BURST_TIME).then_some(Search(now))
    }

    /// Ends a search.
    pub(crate) fn end(&self, search: Search, now: Instant) {
        let mut paid_at = sync::lock(&self.0);
        let cost = TIME_DIVISOR * now.saturating_duration_since(search.0);
        *paid_at = Some(paid_at.map_or(now, |at| at.max(now)) + cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes searches that take `each`, one after another, for `time`. Returns their number.
    fn searches(each: Duration, time: Duration) -> u32 {
        let (searches, begin) = (Searches::new(), Instant::now());
        let (mut now, mut made) = (begin, 0);
        while now < begin + time {
            let Some(search) = searches.begin(now) else {
                now += Duration::from_millis(1);
                continue;
            };
            now += each;
            made += 1;
            searches.end(search, now);
        }
        made
    }

    #[test]
    fn searches_take_a_tenth_of_the_time_but_for_a_burst() {
        let minute = Duration::from_secs(60);
        let tenth = minute / 10 + BURST_TIME;
        for millis in [1, 10, 85] {
            let each = Duration::from_millis(millis);
            let spent = each * searches(each, minute);
            assert!(spent >= minute / 12 && spent <= tenth + 2 * each, "{spent:?} of searches of {each:?}");
        }
        let single = Duration::from_millis(1);
        assert_eq!(searches(single, Duration::from_millis(50)), 50, "a burst is not held up");
    }
}
