//! Which root relays the first initiation to a node, and when further roots do.
//!
//! Several roots may know the node. A root pays 298 bytes for an initiation and the answer, and where
//! nothing has failed one answer is enough. So the root that was first to say where the node is relays
//! alone: its round trip is the shortest. The others follow when its answer is late, so that a root which
//! drops frames costs no more than that wait. A node that was reached before is looked for through all
//! roots at once, since then something has failed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Context, Link};
use crate::reach::Place;

/// The first root of an attempt, and what waits for its answer.
#[derive(Debug)]
pub(super) struct FirstRelay {
    place: Place,
    /// It relays alone until then.
    until: Instant,
    /// Places behind other roots.
    others: Vec<Place>,
}

impl FirstRelay {
    fn new(place: Place, rtt: Option<Duration>, now: Instant) -> Self {
        Self { place, until: now + wait(rtt), others: Vec::new() }
    }

    /// When further roots are to relay, if any waits for that.
    pub(super) fn due(&self) -> Option<Instant> {
        Some(self.until).filter(|_| !self.others.is_empty())
    }

    /// Whether `place` waits, too, now that it is known.
    fn holds(&mut self, place: &Place, now: Instant) -> bool {
        if now >= self.until || place.key() == self.place.key() {
            return false;
        }
        // A root may say the same again.
        if self.others.iter().all(|other| other.key() != place.key()) && self.others.len() < MAX_OTHERS {
            self.others.push(*place);
        }
        true
    }
}

/// More roots than a node has with their guests are not kept; the second round goes everywhere.
const MAX_OTHERS: usize = 8;

/// What the answer may take besides two round trips to the root.
const MARGIN: Duration = Duration::from_millis(20);

/// While nothing is known of the way to the root.
const UNKNOWN: Duration = Duration::from_millis(100);

/// How long a root with that round trip relays alone: as long as the answer takes if the node is as far
/// from the root as this one, and a little.
fn wait(rtt: Option<Duration>) -> Duration {
    rtt.map_or(UNKNOWN, |rtt| rtt * 2 + MARGIN)
}

impl Link {
    /// A root with that round trip says that the peer is at `place`: an attempt that runs tries it there,
    /// at once or when the answer by another root is late.
    pub(crate) fn try_relayed(&mut self, cx: &mut Context<'_>, place: &Place, rtt: Option<Duration>) {
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.is_first_round()) else {
            return self.try_at(cx, place);
        };
        if cx.reach.any_proven() {
            return self.try_at(cx, place);
        }
        let first = attempt.first_relay.get_or_insert_with(|| FirstRelay::new(*place, rtt, cx.now));
        if first.holds(place, cx.now) { self.arm_attempt(cx) } else { self.try_at(cx, place) }
    }

    /// The answer by the first root is late: the others relay, too.
    pub(super) fn try_other_relays(&mut self, cx: &mut Context<'_>) {
        let first = self.attempt.as_mut().and_then(|attempt| attempt.first_relay.as_mut());
        let Some(first) = first.filter(|first| first.due().is_some_and(|at| cx.now >= at)) else { return };
        for place in std::mem::take(&mut first.others) {
            self.try_at(cx, &place);
        }
    }

    /// The root at this address passes nothing on to the peer: if it was the first one, the others are tried
    /// at once.
    pub(crate) fn relay_refused(&mut self, cx: &mut Context<'_>, root: SocketAddr) {
        let first = self.attempt.as_mut().and_then(|attempt| attempt.first_relay.as_mut());
        if let Some(first) = first.filter(|first| first.place.remote() == root) {
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
    use crate::wire::{Channel, RelayToken};

    #[test]
    fn one_root_relays_alone_for_two_round_trips_and_a_little() {
        let now = instant();
        let mut first = FirstRelay::new(behind(1), Some(Duration::from_millis(30)), now);
        assert!(!first.holds(&behind(1), now), "it is the first one itself");
        assert!(first.holds(&behind(2), now) && first.holds(&behind(2), now) && first.holds(&behind(3), now));
        assert_eq!(first.others, [behind(2), behind(3)]);
        assert_eq!(first.due(), Some(now + Duration::from_millis(80)));
        assert!(!first.holds(&behind(4), now + Duration::from_millis(80)));
    }

    #[test]
    fn nothing_is_due_where_no_other_root_waits_and_few_do() {
        let now = instant();
        let mut first = FirstRelay::new(behind(1), None, now);
        assert_eq!(first.due(), None);
        (2..100).for_each(|number| assert!(first.holds(&behind(number), now)));
        assert_eq!(first.others.len(), MAX_OTHERS);
    }

    fn behind(number: u8) -> Place {
        let root = ([198, 51, 100, number], 7420).into();
        let token = RelayToken::from_be_bytes([1, 2, 3]);
        Relay { socket: SocketIndex(0), root, token, is_scarce: false }.place(Channel(7))
    }
}
