//! Deadlines of one endpoint in one ordered structure.
//!
//! A key has at most one deadline. Setting, clearing and taking the next due deadline cost O(log n) in the
//! number of *armed* timers, so peers that wait for nothing cost nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Deadlines ordered by time, then by key (so that equal times fire in one fixed order).
#[derive(Debug)]
pub(crate) struct Timers<K> {
    order: BTreeSet<(Instant, K)>,
    armed: BTreeMap<K, Instant>,
}

impl<K: Ord + Copy> Timers<K> {
    pub(crate) fn new() -> Self {
        Self { order: BTreeSet::new(), armed: BTreeMap::new() }
    }

    /// Arms `key` for `at`, replacing its earlier deadline.
    pub(crate) fn set(&mut self, key: K, at: Instant) {
        // The old entry goes, so that the queue has at most one per key and stays as small as the table of
        // peers.
        if let Some(old) = self.armed.insert(key, at) {
            self.order.remove(&(old, key));
        }
        self.order.insert((at, key));
    }

    /// Arms `key` for `at` unless it is due earlier anyway.
    pub(crate) fn set_earlier(&mut self, key: K, at: Instant) {
        if self.armed.get(&key).is_none_or(|&old| at < old) {
            self.set(key, at);
        }
    }

    pub(crate) fn clear(&mut self, key: K) {
        if let Some(old) = self.armed.remove(&key) {
            self.order.remove(&(old, key));
        }
    }

    pub(crate) fn is_armed(&self, key: K) -> bool {
        self.armed.contains_key(&key)
    }

    /// Returns when the next timer is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.order.first().map(|&(at, _)| at)
    }

    /// Removes and returns the earliest timer that is due at `now`; it is no longer armed.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let &(at, key) = self.order.first()?;
        if at > now {
            return None;
        }
        self.order.pop_first();
        self.armed.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::instant;

    #[test]
    fn due_timers_come_in_order_of_time_then_key() {
        let start = instant();
        let ms = |n| start + Duration::from_millis(n);
        let mut timers = Timers::new();
        timers.set(3, ms(10));
        timers.set(1, ms(10));
        timers.set(2, ms(5));
        assert_eq!(timers.next(), Some(ms(5)));
        assert_eq!(timers.pop_due(ms(4)), None);
        let due: Vec<_> = std::iter::from_fn(|| timers.pop_due(ms(10))).collect();
        assert_eq!(due, [2, 1, 3]);
        assert_eq!(timers.order.len(), 0);
    }

    #[test]
    fn a_key_has_one_deadline() {
        let start = instant();
        let ms = |n| start + Duration::from_millis(n);
        let mut timers = Timers::new();
        timers.set(1, ms(10));
        timers.set(1, ms(20));
        assert_eq!((timers.next(), timers.order.len()), (Some(ms(20)), 1));
        timers.set_earlier(1, ms(30));
        assert_eq!(timers.next(), Some(ms(20)));
        timers.set_earlier(1, ms(15));
        assert_eq!(timers.next(), Some(ms(15)));
        timers.clear(1);
        assert!(!timers.is_armed(1));
        assert_eq!(timers.next(), None);
    }
}
