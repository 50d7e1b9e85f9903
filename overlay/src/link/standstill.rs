//! Times in which this node did not run: the silence of others in them was its own.

use std::time::{Duration, Instant};

use crate::bucket::{Bucket, Rate};

/// Lateness of a deadline that shows that this node stood still, or has too much to do.
const STANDSTILL_LATENESS: Duration = Duration::from_millis(300);

/// Time after which a standstill that goes on counts again.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(1);

/// Number of standstills in a row that excuse silence, and interval of further ones. A node that stutters for
/// ever must notice dead peers, too.
const MAX_EXCUSED_IN_A_ROW: u32 = 32;
const ONE_MORE_AFTER: Duration = Duration::from_secs(30);

/// The node's standstills.
#[derive(Debug)]
pub(crate) struct Standstills {
    last_end: Option<Instant>,
    excused: Bucket,
}

impl Standstills {
    pub(crate) fn new(now: Instant) -> Self {
        Self { last_end: None, excused: Bucket::new(Rate::every(ONE_MORE_AFTER, MAX_EXCUSED_IN_A_ROW), now) }
    }

    /// Takes in the next deadline, and the present time.
    pub(super) fn note(&mut self, due: Option<Instant>, now: Instant) {
        // A driver calls within milliseconds of a deadline, so a late call means that nothing was received
        // meanwhile either.
        let is_late = due.is_some_and(|due| now >= due + STANDSTILL_LATENESS);
        let is_new = self.last_end.is_none_or(|end| now >= end + RECOUNT_INTERVAL);
        // Several late deadlines in a row are one standstill, which must not use up the budget.
        if is_late && is_new && self.excused.take(now) {
            self.last_end = Some(now);
        }
    }

    /// Returns the end of the last one that excuses silence.
    pub(super) fn last_end(&self) -> Option<Instant> {
        self.last_end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::instant;

    #[test]
    fn a_late_deadline_shows_a_standstill_and_excuses_the_silence_before() {
        let start = instant();
        let mut standstills = Standstills::new(start);
        standstills.note(Some(start), start + STANDSTILL_LATENESS - Duration::from_millis(1));
        assert_eq!(standstills.last_end(), None);
        let end = start + Duration::from_secs(3600);
        standstills.note(Some(start), end);
        assert_eq!(standstills.last_end(), Some(end));
        // What came meanwhile is read, and each datagram looks at the deadlines.
        for _ in 0..1000 {
            standstills.note(Some(start), end);
        }
        standstills.note(Some(end + STANDSTILL_LATENESS), end + RECOUNT_INTERVAL);
        assert_eq!(standstills.last_end(), Some(end + RECOUNT_INTERVAL));
    }

    #[test]
    fn a_node_that_stutters_for_ever_is_excused_for_a_minute_and_then_rarely() {
        let (start, second) = (instant(), Duration::from_secs(1));
        let mut standstills = Standstills::new(start);
        let mut ends = Vec::new();
        for at in (1..=600).map(|n| start + second * n) {
            standstills.note(Some(at - STANDSTILL_LATENESS), at);
            ends.extend(standstills.last_end().filter(|end| *end == at));
        }
        assert_eq!(ends[MAX_EXCUSED_IN_A_ROW as usize - 1], start + MAX_EXCUSED_IN_A_ROW * second);
        // The silence of a peer that is gone lasts 15 s until it counts.
        let later = ends.iter().position(|end| *end > start + 60 * second).expect("one more");
        assert!(ends[later..].windows(2).all(|pair| pair[1] >= pair[0] + 29 * second), "{ends:?}");
    }
}
