//! How much of its time a node spends in looking for its applications' descriptors in `/proc`: peers decide how
//! often there is a reason, and the programs of a node wait meanwhile.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use peersock_primitives::sync;

/// Searches take one part in so many of the time.
const PARTS: u32 = 10;

/// Searches that take so long altogether may follow each other.
const BURST: Duration = Duration::from_millis(100);

/// The searches of a process.
pub(crate) struct Searches(Mutex<State>);

struct State {
    /// When the searches so far have taken their part of the time; `None` at first.
    paid_at: Option<Instant>,
    /// When the one under way began.
    began: Option<Instant>,
}

impl Searches {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(State { paid_at: None, began: None }))
    }

    /// Whether there may be one now, which then begins.
    pub(crate) fn allow(&self, now: Instant) -> bool {
        let mut state = sync::lock(&self.0);
        let debt = state.paid_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let is_allowed = debt <= PARTS * BURST;
        state.began = is_allowed.then_some(now);
        is_allowed
    }

    /// It has ended, if one was allowed.
    pub(crate) fn note_end(&self, now: Instant) {
        let mut state = sync::lock(&self.0);
        if let Some(began) = state.began.take() {
            let cost = PARTS * now.saturating_duration_since(began);
            state.paid_at = Some(state.paid_at.map_or(now, |at| at.max(now)) + cost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes searches that take `each`, one after another, for `time`; says how many there were.
    fn searches(each: Duration, time: Duration) -> u32 {
        let (searches, begin) = (Searches::new(), Instant::now());
        let (mut now, mut made) = (begin, 0);
        while now < begin + time {
            let is_allowed = searches.allow(now);
            now += if is_allowed { each } else { Duration::from_millis(1) };
            made += u32::from(is_allowed);
            searches.note_end(now);
        }
        made
    }

    #[test]
    fn searches_take_a_tenth_of_the_time_but_for_a_burst() {
        let minute = Duration::from_secs(60);
        let tenth = minute / 10 + BURST;
        for millis in [1, 10, 85] {
            let each = Duration::from_millis(millis);
            let spent = each * searches(each, minute);
            assert!(spent >= minute / 12 && spent <= tenth + 2 * each, "{spent:?} of searches of {each:?}");
        }
        let single = Duration::from_millis(1);
        assert_eq!(searches(single, Duration::from_millis(50)), 50, "a burst is not held up");
    }
}
