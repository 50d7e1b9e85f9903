//! The time by which a node's deadlines are late: a node that does not get to them does not hear its peers
//! either.

use std::time::{Duration, Instant};

/// A lateness of so much within a short time shows that this node stood still, or has too much to do.
const MUCH: Duration = Duration::from_millis(300);

/// More than that is not kept, so that it is forgotten within a second.
const MOST: Duration = Duration::from_millis(600);

/// A busy loop may be so late at any time: it reads its sockets meanwhile.
const USUAL: Duration = Duration::from_millis(20);

/// A node that is behind for longer than that has to judge its peers by what it hears all the same.
const LONGEST: Duration = Duration::from_secs(30);

/// A node that was behind has read what has come when it was not for so long.
pub(super) const RECOVERED_AFTER: Duration = Duration::from_secs(1);

/// Lateness, summed up. It is forgotten half as fast as time passes, so that a node is behind if it is late
/// for more than half of the time.
#[derive(Debug, Default)]
pub(crate) struct Lateness {
    sum: Duration,
    looked: Option<Instant>,
    /// The begin of the time for which the node is behind, and the last look at which it was.
    behind: Option<(Instant, Instant)>,
}

impl Lateness {
    /// Takes in the next deadline at the time at which it is looked at. Returns true if the node is behind,
    /// and is not for long.
    pub(super) fn note(&mut self, due: Option<Instant>, now: Instant) -> bool {
        let last = self.looked.map_or(now, |last| last.min(now));
        self.looked = Some(now);
        // What was late at the last look is counted.
        let from = due.map(|due| (due + USUAL).max(last));
        let late = from.map_or(Duration::ZERO, |from| now.saturating_duration_since(from));
        self.sum = (self.sum.saturating_sub((now - last) / 2) + late).min(MOST);
        self.sum >= MUCH && self.note_behind(now)
    }

    /// Something else shows that the node is behind. Returns true if it is not for long.
    pub(super) fn note_behind(&mut self, now: Instant) -> bool {
        let begun =
            self.behind.filter(|(_, last)| now < *last + RECOVERED_AFTER).map_or(now, |(begun, _)| begun);
        self.behind = Some((begun, now));
        now < begun + LONGEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::instant;

    /// Looks every `step` milliseconds for `time`, each time at a deadline that was due `late` before.
    fn behind_after(step: u64, late: u64, time: u64) -> Option<u64> {
        let (start, ms) = (instant(), Duration::from_millis);
        let mut lateness = Lateness::default();
        lateness.note(None, start);
        let mut looks = (step..=time).step_by(step as usize);
        looks.find(|at| lateness.note(Some(start + ms(at - late)), start + ms(*at)))
    }

    #[test]
    fn one_standstill_or_slices_that_are_too_small_show_that_a_node_is_behind() {
        assert_eq!(behind_after(320, 320, 320), Some(320));
        assert_eq!(behind_after(319, 319, 319), None);
        // It runs for 3 ms of 60.
        assert!(behind_after(60, 57, 5000).is_some_and(|after| after < 3000));
        // It is late, and has time left.
        assert_eq!(behind_after(60, 49, 100_000), None);
        assert_eq!(behind_after(20, 20, 100_000), None);
        assert_eq!(behind_after(1000, 100, 100_000), None);
    }

    #[test]
    fn a_second_later_it_is_forgotten() {
        let (start, ms) = (instant(), Duration::from_millis);
        let mut lateness = Lateness::default();
        lateness.note(None, start);
        assert!(lateness.note(Some(start), start + ms(5000)));
        assert!(lateness.note(None, start + ms(5500)));
        assert!(!lateness.note(None, start + ms(5700)));
    }

    #[test]
    fn a_node_that_is_behind_for_ever_is_excused_for_half_a_minute_once() {
        let (start, second) = (instant(), Duration::from_secs(1));
        let mut lateness = Lateness::default();
        let excused = (1..1000).filter(|n| lateness.note(Some(start), start + second / 2 * *n)).count();
        assert!((58..=60).contains(&excused), "{excused}");
        assert!(lateness.note_behind(start + 502 * second));
    }

    #[test]
    fn what_is_late_is_counted_once() {
        let (start, ms) = (instant(), Duration::from_millis);
        let mut lateness = Lateness::default();
        let mut looks = (0..310).map(|at| lateness.note(Some(start), start + ms(at)));
        assert!(looks.all(|is_behind| !is_behind));
    }
}
