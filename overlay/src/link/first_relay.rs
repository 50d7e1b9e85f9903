//! Choice of the root that relays the first initiation to a node, and of the time when further roots follow.
//!
//! Several roots may know the node. A root's relay quota pays some 650 bytes for an initiation and its
//! answer, and while nothing has failed one answer is enough. The first root to find the node relays alone,
//! because its round trip is the shortest. The others follow when its answer is late. A root that drops
//! frames therefore costs no more than that wait, or one round trip to it if it says so. A root that relays
//! only the free quota may have used it up, so it holds back no root that relays more. A node that was
//! reached before is tried through all roots at once, because then something has failed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::timing::RETRY_MIN;
use super::{Context, Link};
use crate::reach::Place;
use crate::wire::Channel;

/// First root of an attempt, and the places that wait for its answer.
#[derive(Debug)]
pub(super) struct FirstRelay {
    place: Place,
    /// True if the root relays only the free quota.
    is_scarce: bool,
    /// Time until which it relays alone.
    until: Instant,
    /// Places behind other roots.
    others: Vec<Place>,
}

impl FirstRelay {
    fn new(place: Place, is_scarce: bool, rtt: Option<Duration>, now: Instant) -> Self {
        Self { place, is_scarce, until: now + wait(rtt), others: Vec::new() }
    }

    /// Takes `place` as the first relay if its root relays more than the present first one.
    fn outdo(&mut self, place: &Place, is_scarce: bool, rtt: Option<Duration>, now: Instant) {
        // Among roots that relay alike the first one stays, because its answer came first.
        if self.is_scarce && !is_scarce {
            let others = std::mem::take(&mut self.others);
            *self = Self { others, ..Self::new(*place, is_scarce, rtt, now) };
        }
    }

    /// Returns when further roots relay, if any waits.
    pub(super) fn due(&self) -> Option<Instant> {
        Some(self.until).filter(|_| !self.others.is_empty())
    }

    /// Returns true if `place` has to wait too, now that it is known.
    fn holds(&mut self, place: &Place, now: Instant) -> bool {
        if now >= self.until || place.key() == self.place.key() {
            return false;
        }
        // A root may report the same place again.
        if self.others.iter().all(|other| other.key() != place.key()) && self.others.len() < MAX_OTHERS {
            self.others.push(*place);
        }
        true
    }
}

/// Maximum number of waiting places, as many as a node has roots with guests; the second round goes
/// everywhere.
const MAX_OTHERS: usize = 8;

/// Time allowed for the answer besides two round trips to the root.
const ANSWER_MARGIN: Duration = Duration::from_millis(20);

/// Wait while the round-trip time to the root is unknown.
const UNKNOWN: Duration = Duration::from_millis(100);

/// Returns how long a root with this round-trip time relays alone: the time of the answer if the node is as
/// far from the root as this one, plus a margin.
fn wait(rtt: Option<Duration>) -> Duration {
    // The root's round trip and as much again for the way from the root to the peer.
    rtt.map_or(UNKNOWN, |rtt| rtt * 2 + ANSWER_MARGIN)
}

/// Returns when the next round may begin. The answer's path may be longer than the path to the root.
fn next_round(rtt: Option<Duration>) -> Duration {
    (wait(rtt) * 3 / 2).clamp(RETRY_MIN, MAX_ROUND)
}

/// Upper bound of the next round's delay, however long the round trip to the root is.
const MAX_ROUND: Duration = Duration::from_secs(1);

impl Link {
    /// Tries the peer at `place`, as reported by a root with this round-trip time: at once, or when the
    /// answer by the first root is late.
    pub(crate) fn try_relayed(&mut self, cx: &mut Context<'_>, place: &Place, rtt: Option<Duration>) {
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.is_first_round()) else {
            return self.try_at(cx, place);
        };
        // The node was reached before, so something has failed.
        if cx.reach.any_proven() {
            return self.try_at(cx, place);
        }
        let (now, is_scarce) = (cx.now, cx.core.scarce.contains(&place.remote()));
        if attempt.first_relay.is_none() {
            // The look-up has used up part of this round, and the answer may take longer than a round.
            attempt.next_round = attempt.next_round.max(now + next_round(rtt));
        }
        let first = attempt.first_relay.get_or_insert_with(|| FirstRelay::new(*place, is_scarce, rtt, now));
        first.outdo(place, is_scarce, rtt, now);
        // All at once would cost each root its quota and the peer a handshake for each.
        if first.holds(place, cx.now) { self.arm_attempt(cx) } else { self.try_at(cx, place) }
    }

    /// Sends initiations through the other roots once the first root's answer is late.
    pub(super) fn try_other_relays(&mut self, cx: &mut Context<'_>) {
        let first = self.attempt.as_mut().and_then(|attempt| attempt.first_relay.as_mut());
        let Some(first) = first.filter(|first| first.due().is_some_and(|at| cx.now >= at)) else { return };
        for place in std::mem::take(&mut first.others) {
            self.try_at(cx, &place);
        }
    }

    /// Handles the report of a root that it has not relayed frames for `channel`, or for any channel. If it
    /// was the first relay, the other roots are tried at once.
    pub(crate) fn relay_refused(&mut self, cx: &mut Context<'_>, root: SocketAddr, channel: Option<Channel>) {
        let first = self.attempt.as_mut().and_then(|attempt| attempt.first_relay.as_mut());
        let is_it = |first: &&mut FirstRelay| {
            let to = first.place.relay().map(|header| header.channel);
            first.place.remote() == root && (channel.is_none() || channel == to)
        };
        if let Some(first) = first.filter(is_it) {
            // There will be no answer, so the other roots need not wait for it.
            first.until = first.until.min(cx.now);
            self.try_other_relays(cx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::{Relay, SocketIndex};
    use crate::testing::instant;
    use crate::wire::RelayToken;

    #[test]
    fn one_root_relays_alone_for_two_round_trips_and_a_little() {
        let now = instant();
        let mut first = FirstRelay::new(behind(1), false, Some(Duration::from_millis(30)), now);
        assert!(!first.holds(&behind(1), now), "it is the first one itself");
        assert!(first.holds(&behind(2), now) && first.holds(&behind(2), now) && first.holds(&behind(3), now));
        assert_eq!(first.others, [behind(2), behind(3)]);
        // Two round trips of 30 ms, and 20 ms.
        assert_eq!(first.due(), Some(now + Duration::from_millis(80)));
        assert!(!first.holds(&behind(4), now + Duration::from_millis(80)));
    }

    #[test]
    fn nothing_is_due_where_no_other_root_waits_and_few_do() {
        let now = instant();
        let mut first = FirstRelay::new(behind(1), false, None, now);
        assert_eq!(first.due(), None);
        (2..100).for_each(|number| assert!(first.holds(&behind(number), now)));
        assert_eq!(first.others.len(), MAX_OTHERS);
    }

    #[test]
    fn a_root_that_relays_comes_before_one_that_relays_little_and_no_other_one_does() {
        let (now, rtt) = (instant(), Some(Duration::from_millis(30)));
        let mut first = FirstRelay::new(behind(1), true, rtt, now);
        first.outdo(&behind(2), true, rtt, now);
        assert!(first.holds(&behind(2), now), "it relays no more");
        first.outdo(&behind(3), false, rtt, now);
        assert!(!first.holds(&behind(3), now));
        assert_eq!(first.others, [behind(2)], "it still waits");
        first.outdo(&behind(4), false, rtt, now);
        assert!(first.holds(&behind(4), now), "the first one of those that relay stays");
    }

    fn behind(number: u8) -> Place {
        let root = ([198, 51, 100, number], 7420).into();
        let token = RelayToken::from_be_bytes([1, 2, 3]);
        Relay { socket: SocketIndex(0), root, token, is_scarce: false }.place(Channel(7))
    }
}
