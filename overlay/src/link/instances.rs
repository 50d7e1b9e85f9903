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

use super::{Context, Link};
use crate::wire::Control;

/// Minimum interval between two identical warnings in the log.
const WARN_INTERVAL: Duration = Duration::from_secs(300);

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
}

/// Knowledge about one identity at two places.
#[derive(Debug, Default)]
pub(crate) struct Duplicate {
    last: Option<Elsewhere>,
    warned: Option<Instant>,
    /// True if this node itself has seen the other.
    pub(crate) seen: bool,
}

impl Duplicate {
    pub(crate) fn last(&self) -> Option<Elsewhere> {
        self.last
    }

    /// Records where the other node was seen. Returns true if a warning is due.
    pub(crate) fn note(&mut self, remote: SocketAddr, now: Instant) -> bool {
        self.last = Some(Elsewhere { remote, seen: now });
        let quiet = self.warned.is_some_and(|at| now.saturating_duration_since(at) < WARN_INTERVAL);
        // Two such nodes take turns all the time, and each turn would be a line in the log.
        if !quiet {
            self.warned = Some(now);
        }
        !quiet
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
    /// Handles the return of an earlier instance in place of `other`, which was last reached at `remote`.
    pub(super) fn on_alternation(&mut self, cx: &mut Context<'_>, other: u64, remote: SocketAddr) {
        cx.core.counters.peers_at_two_places.increment();
        if self.duplicate.note(remote, cx.now) {
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
    fn it_is_said_once_in_some_minutes() {
        let (mut duplicate, now) = (Duplicate::default(), instant());
        let remote = SocketAddr::from(([192, 0, 2, 1], 7));
        let said = (0..600).filter(|second| duplicate.note(remote, now + Duration::from_secs(*second)));
        // Warnings are at least five minutes apart.
        assert_eq!(said.count(), 2);
        assert_eq!(duplicate.last(), Some(Elsewhere { remote, seen: now + Duration::from_secs(599) }));
    }
}
