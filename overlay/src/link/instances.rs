//! Detection of one identity at two places: a state directory that was copied to, or restored on, another
//! machine.
//!
//! Both nodes have the same keys, so both are authentic, and peers reach sometimes one, sometimes the other.
//! The only remedy is to report it. Each start of a node draws a random *instance*, which reveals the copy:
//!
//! - A **peer** sees it in handshakes. A restart replaces an instance for good. If the old instance comes
//!   back with a newer handshake, both are alive. The peer tells the one it is talking to where the other is.
//! - The **nodes themselves** see it on a local network, as a hello with the own keys and another instance.
//!   The hello counts only if it repeats the nonce of a hello of ours, so that a replay from an earlier run
//!   is ignored.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::Rng as _;

use super::{Context, Link};
use crate::reach::Place;
use crate::session::Session;
use crate::wire::{Control, DATA_OVERHEAD, ProbeSize};

/// Minimum interval between two identical warnings in the log.
const WARN_INTERVAL: Duration = Duration::from_secs(300);

/// Time in which one instance has to come back after the other one for a turn.
const BOTH_WITHIN: Duration = Duration::from_secs(180);

/// Number of turns that show that both run. A machine that is set back to an earlier state of its memory, or
/// an answer of an instance that has ended and that somebody has held back, brings about two at most: the
/// second one is the true instance's.
const TURNS_OF_BOTH: u32 = 3;

/// Maximum number of remembered instances of a peer.
const MAX_FORMER: usize = 4;

/// Sighting of another node with the same identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Elsewhere {
    /// Its address, as a peer or this node saw it.
    pub remote: SocketAddr,
    /// Time of the last sighting.
    pub seen: Instant,
    /// True if the two have come back after each other three times in a row, each within three minutes, so
    /// that both run. Only a peer of the two sees that, in their handshakes.
    pub proven: bool,
}

/// Knowledge about one identity at two places.
#[derive(Debug, Default)]
pub(crate) struct Duplicate {
    /// Apart, because hardly any peer has one.
    sighted: Option<Box<Sighted>>,
    /// True if this node itself has seen the other.
    pub(crate) seen: bool,
}

/// Sightings of the other node.
#[derive(Debug)]
struct Sighted {
    last: Elsewhere,
    warned: Instant,
    /// Instance that has come back last, and when.
    returned: Option<(u64, Instant)>,
    /// Number of returns in a row, each of the instance that the one before has replaced.
    turns: u32,
}

impl Duplicate {
    pub(crate) fn last(&self) -> Option<Elsewhere> {
        self.sighted.as_ref().map(|sighted| sighted.last)
    }

    /// Records where the other node was seen. Returns true if a warning is due.
    pub(crate) fn note(&mut self, remote: SocketAddr, now: Instant) -> bool {
        let last = Elsewhere { remote, seen: now, proven: false };
        let Some(sighted) = &mut self.sighted else {
            self.sighted = Some(Box::new(Sighted { last, warned: now, returned: None, turns: 0 }));
            return true;
        };
        sighted.last = last;
        // Two such nodes take turns all the time, and each turn would be a line in the log.
        let is_due = now.saturating_duration_since(sighted.warned) >= WARN_INTERVAL;
        if is_due {
            sighted.warned = now;
        }
        is_due
    }

    /// Records that an instance of the peer has come back in place of `other`, which was at `remote`. Returns
    /// true if a warning is due.
    fn note_return(&mut self, instance: u64, other: u64, remote: SocketAddr, now: Instant) -> bool {
        let warns = self.note(remote, now);
        let Some(sighted) = &mut self.sighted else { return warns };
        let has_turned = |(returned, at): (u64, Instant)| {
            returned == other && now.saturating_duration_since(at) < BOTH_WITHIN
        };
        let is_turn = sighted.returned.is_some_and(has_turned);
        sighted.turns = if is_turn { sighted.turns.saturating_add(1) } else { 1 };
        sighted.returned = Some((instance, now));
        sighted.last.proven = sighted.turns >= TURNS_OF_BOTH;
        warns
    }

    /// Returns true if it was shown not long ago that both run.
    fn is_proven(&self, now: Instant) -> bool {
        let last = self.last();
        last.is_some_and(|last| last.proven && now.saturating_duration_since(last.seen) < WARN_INTERVAL)
    }
}

/// The instances of a peer before the present one, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Former(Vec<u64>);

impl Former {
    /// Records that `new` has replaced `old`. Returns true if `new` was there before, so that both are alive.
    pub(crate) fn succeed(&mut self, old: u64, new: u64) -> bool {
        let again = self.0.contains(&new);
        self.0.retain(|known| ![old, new].contains(known));
        // Bounded, because a peer may restart any number of times.
        if self.0.len() == MAX_FORMER {
            self.0.remove(0);
        }
        self.0.push(old);
        again
    }
}

impl Link {
    /// Asks the instance that another one replaces for a sign of life, in its session that ends now, unless
    /// the other one is at the same place.
    ///
    /// An instance that has ended does not answer. One that runs learns that its session has ended, and comes
    /// back by a handshake. Without that, an idle one would notice only when it has something to say.
    pub(super) fn probe_predecessor(
        &self,
        cx: &mut Context<'_>,
        session: &Session,
        successor: Option<Place>,
    ) {
        let there = cx.reach.place().filter(|there| successor != Some(*there));
        let Some(there) = there.filter(|_| !self.duplicate.is_proven(cx.now)) else { return };
        let mut message = Vec::new();
        let id = cx.core.rng.next_u32();
        Control::Probe { id, len: ProbeSize::MIN }.emit(&mut message);
        let mut datagram = vec![0; message.len() + DATA_OVERHEAD];
        if session.seal(&message, &mut datagram).is_ok() {
            // The peer's activity is that of its new instance, which owes no answer to this.
            cx.core.transmit(&there, datagram);
        }
    }

    /// Handles the return of an earlier instance in place of `other`, which was last reached at `remote`.
    pub(super) fn on_alternation(
        &mut self,
        cx: &mut Context<'_>,
        instance: u64,
        other: u64,
        remote: SocketAddr,
    ) {
        cx.core.counters.peers_at_two_places.increment();
        if self.duplicate.note_return(instance, other, remote, cx.now) {
            tracing::warn!(
                peer = %self.handle.logged(),
                "two nodes run with the identity of this peer, and connections reach the one or the other: \
                 is one's state directory a copy of the other's?"
            );
        }
        tracing::debug!(
            peer = %self.handle.logged(), %remote, "the other node with the peer's identity"
        );
        // The peer cannot see its double, so its user learns of it only by this message.
        self.send_on_current(cx, Control::Elsewhere { instance: other, remote });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::instant;

    #[test]
    fn restarts_are_not_two_places() {
        let mut former = Former::default();
        assert!((1..100).all(|run| !former.succeed(run, run + 1)));
        assert_eq!(former.0.len(), MAX_FORMER);
    }

    #[test]
    fn an_instance_that_comes_back_is_another_place() {
        let mut former = Former::default();
        assert!(!former.succeed(1, 2));
        assert!(former.succeed(2, 1));
        assert!(former.succeed(1, 2));
        assert!(!former.succeed(2, 3));
        assert!(former.succeed(3, 1));
    }

    #[test]
    fn both_run_once_each_has_come_back_after_the_other_one() {
        let (now, remote) = (instant(), SocketAddr::from(([192, 0, 2, 1], 7)));
        let proven = |returns: &[(u64, u64, u64)]| {
            let mut duplicate = Duplicate::default();
            let mut note = |&(second, instance, other): &(u64, u64, u64)| {
                duplicate.note_return(instance, other, remote, now + Duration::from_secs(second));
                duplicate.last().expect("noted").proven
            };
            returns.iter().map(&mut note).collect::<Vec<_>>()
        };
        assert_eq!(proven(&[(0, 1, 2), (60, 2, 1), (120, 1, 2), (180, 2, 1)]), [false, false, true, true]);
        // Machines that are set back to a state of their memory, after restarts.
        assert_eq!(proven(&[(0, 1, 2), (60, 1, 3), (120, 1, 4)]), [false; 3]);
        assert_eq!(proven(&[(0, 1, 2), (60, 2, 1), (240, 1, 2), (300, 2, 1)]), [false; 4], "too late");
        // One that has ended, whose answer was held back, and the true one after it; the same after a
        // restart.
        assert_eq!(proven(&[(0, 1, 2), (1, 2, 1), (60, 2, 3), (61, 3, 2)]), [false; 4]);
    }

    #[test]
    fn it_is_said_once_in_some_minutes() {
        let (mut duplicate, now) = (Duplicate::default(), instant());
        let remote = SocketAddr::from(([192, 0, 2, 1], 7));
        let said = (0..600).filter(|second| duplicate.note(remote, now + Duration::from_secs(*second)));
        // Warnings are at least five minutes apart.
        assert_eq!(said.count(), 2);
        assert_eq!(
            duplicate.last(),
            Some(Elsewhere { remote, seen: now + Duration::from_secs(599), proven: false })
        );
    }
}
