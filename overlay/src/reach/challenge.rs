//! Path validation (RFC 9000, section 8.2): a question that only its receiver can answer.
//!
//! A challenge is 64 unpredictable bits, sent to one place in a session. A node that repeats them from there
//! receives there. At most one is outstanding per node, so a guessing peer has one chance in 2^64 per packet.
//! A path MTU probe does not serve as a challenge, because its sequential id is known to the peer and so
//! proves nothing about a place.
//!
//! A lost challenge is repeated unchanged, and its answer counts however late it arrives, so round trips of
//! seconds work. Such an answer gives no round-trip time (RFC 6298, section 3).

use std::time::{Duration, Instant};

use super::place::Place;

/// Wait for an answer; twice the longest round trip allowed for a handshake.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Minimum interval between repetitions of a challenge.
pub(super) const MIN_REPEAT_INTERVAL: Duration = Duration::from_millis(250);

/// Bounds of the time, two round trips, after which a challenge to one place gives way to one to another
/// place.
const PLACE_HOLD_BOUNDS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(2)];

/// Reason for challenging a place, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    /// Measurement of the place's quality.
    Compare,
    /// Check whether the path still works: nothing comes back, and there is another place.
    Doubt,
    /// Check whether the path still works after our own addresses have changed.
    Announce,
    /// Check of a place where the peer seems to be now.
    Move,
}

/// Challenge that is not answered yet.
#[derive(Debug, Clone, Copy)]
struct Outstanding {
    place: Place,
    data: [u8; 8],
    why: Why,
    first: Instant,
    last: Instant,
}

/// All challenges of one node.
#[derive(Debug, Default)]
pub(super) struct Challenges {
    outstanding: Option<Outstanding>,
    /// Last answered challenge, for recognising a copy of its answer.
    answered: Option<[u8; 8]>,
}

/// Verdict on an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The answer is right: its sender receives at that place.
    Right {
        /// Reason for the challenge.
        why: Why,
        /// Round-trip time, if the challenge was sent only once.
        rtt: Option<Duration>,
    },
    /// The answer is a copy of the last right answer.
    Copy,
    /// The answer matches no challenge sent there.
    Wrong,
}

impl Challenges {
    /// Returns the challenge to send to `place`, if any: `fresh` or the previous one. `rtt` is the round-trip
    /// time to the place of the outstanding challenge.
    pub(super) fn ask(
        &mut self,
        place: Place,
        why: Why,
        fresh: [u8; 8],
        rtt: Option<Duration>,
        now: Instant,
    ) -> Option<[u8; 8]> {
        let open = self.outstanding.as_mut().filter(|open| now < open.first + ANSWER_TIMEOUT);
        if let Some(open) = open {
            if open.place == place {
                // The stronger reason stays, or a comparison could undo a move.
                open.why = open.why.max(why);
                // Announcements have their own intervals.
                let wait = if why == Why::Announce { Duration::from_nanos(1) } else { MIN_REPEAT_INTERVAL };
                if now < open.last + wait {
                    return None;
                }
                open.last = now;
                return Some(open.data);
            }
            let hold = rtt.map_or(PLACE_HOLD_BOUNDS[0], |rtt| {
                (rtt * 2).clamp(PLACE_HOLD_BOUNDS[0], PLACE_HOLD_BOUNDS[1])
            });
            // Otherwise a source that alternates between two addresses would keep every answer from counting.
            if open.why >= why && now < open.last + hold {
                return None;
            }
        }
        self.outstanding = Some(Outstanding { place, data: fresh, why, first: now, last: now });
        Some(fresh)
    }

    /// Judges an answer that came from `place`.
    pub(super) fn answer(&mut self, place: Place, data: [u8; 8], now: Instant) -> Answer {
        let is_right = |open: &mut Outstanding| {
            // RFC 9000, 8.2.3 accepts an answer from anywhere. Here the place counts, because the answer also
            // proves the way back.
            open.place == place && open.data == data && now < open.first + ANSWER_TIMEOUT
        };
        match self.outstanding.take_if(is_right) {
            Some(open) => {
                self.answered = Some(data);
                // A repeated challenge does not show which copy was answered (Karn's algorithm, RFC 6298
                // section 3).
                let rtt = (open.first == open.last).then(|| now.saturating_duration_since(open.first));
                Answer::Right { why: open.why, rtt }
            }
            // Networks duplicate packets, and a copy must not count as a forgery.
            None if self.answered == Some(data) => Answer::Copy,
            None => Answer::Wrong,
        }
    }

    /// Gives up a comparison that has timed out, and returns its place.
    pub(super) fn take_unanswered(
        &mut self,
        timeout: impl Fn(Place) -> Duration,
        now: Instant,
    ) -> Option<Place> {
        let is_lost =
            |open: &mut Outstanding| open.why == Why::Compare && now >= open.last + timeout(open.place);
        self.outstanding.take_if(is_lost).map(|open| open.place)
    }

    /// Returns true while an answer is outstanding.
    pub(super) fn is_busy(&self, now: Instant) -> bool {
        self.outstanding.is_some_and(|open| now < open.first + ANSWER_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::place::SocketIndex;
    use crate::testing::instant;

    const ONE: [u8; 8] = [1; 8];
    const TWO: [u8; 8] = [2; 8];

    #[test]
    fn the_answer_must_be_the_one_and_come_from_the_place() {
        let now = instant();
        let mut challenges = Challenges::default();
        assert_eq!(challenges.answer(place(1), [0; 8], now), Answer::Wrong);
        assert_eq!(challenges.ask(place(1), Why::Move, ONE, None, now), Some(ONE));
        let later = now + Duration::from_millis(30);
        assert_eq!(challenges.answer(place(1), TWO, later), Answer::Wrong);
        assert_eq!(challenges.answer(place(2), ONE, later), Answer::Wrong);
        let rtt = Some(Duration::from_millis(30));
        assert_eq!(challenges.answer(place(1), ONE, later), Answer::Right { why: Why::Move, rtt });
        assert_eq!(challenges.answer(place(1), ONE, later), Answer::Copy);
    }

    #[test]
    fn a_repeated_challenge_is_the_same_and_its_answer_has_no_time() {
        let now = instant();
        let mut challenges = Challenges::default();
        assert_eq!(challenges.ask(place(1), Why::Move, ONE, None, now), Some(ONE));
        assert_eq!(challenges.ask(place(1), Why::Move, TWO, None, now + MIN_REPEAT_INTERVAL / 2), None);
        assert_eq!(challenges.ask(place(1), Why::Move, TWO, None, now + MIN_REPEAT_INTERVAL), Some(ONE));
        let late = now + Duration::from_secs(10);
        assert_eq!(challenges.answer(place(1), ONE, late), Answer::Right { why: Why::Move, rtt: None });
    }

    #[test]
    fn an_old_answer_is_worth_nothing() {
        let now = instant();
        let mut challenges = Challenges::default();
        challenges.ask(place(1), Why::Move, ONE, None, now);
        assert_eq!(challenges.answer(place(1), ONE, now + ANSWER_TIMEOUT), Answer::Wrong);
        assert_eq!(challenges.ask(place(1), Why::Move, TWO, None, now + ANSWER_TIMEOUT), Some(TWO));
    }

    #[test]
    fn a_stronger_reason_goes_first_and_equal_ones_take_turns() {
        let now = instant();
        let mut challenges = Challenges::default();
        let rtt = Some(Duration::from_millis(400));
        assert!(challenges.ask(place(1), Why::Compare, ONE, rtt, now).is_some());
        assert!(challenges.ask(place(2), Why::Compare, TWO, rtt, now).is_none());
        assert!(challenges.ask(place(2), Why::Move, TWO, rtt, now).is_some());
        assert_eq!(challenges.answer(place(1), ONE, now), Answer::Wrong, "one is outstanding");
        // A source that alternates must not keep every answer from counting.
        assert!(challenges.ask(place(1), Why::Move, ONE, rtt, now + Duration::from_millis(799)).is_none());
        assert!(challenges.ask(place(1), Why::Move, ONE, rtt, now + Duration::from_millis(800)).is_some());
    }

    fn place(port: u16) -> Place {
        Place::Direct { socket: SocketIndex(0), remote: ([192, 0, 2, 1], port).into() }
    }
}
