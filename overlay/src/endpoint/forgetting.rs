//! Forgetting of absent peers of ad-hoc networks, so that passing nodes do not accumulate.
//!
//! A peer is kept while it has a session, while a program asks for it, and while its beacons are heard. After
//! that it stays for [`Limits::forget_after`](super::Limits::forget_after), or a tenth of it after its
//! goodbye. One timer for all peers finds those that are due; it runs only while there are peers that may be
//! forgotten.

use std::time::{Duration, Instant};

use super::Endpoint;
use super::peers::PeerState;
use crate::link::{PeerKey, Timer};

impl Endpoint {
    pub(super) fn on_forget_timer(&mut self, now: Instant) {
        let forget_after = self.forget_after();
        let due: Vec<PeerKey> = self
            .peers
            .iter()
            .filter(|(_, peer)| forget_at(peer, forget_after).is_some_and(|at| at <= now))
            .map(|(key, _)| key)
            .collect();
        for key in due {
            self.core.counters.peers_forgotten.increment();
            self.remove_peer(now, key);
        }
        self.arm_forgetting(now);
    }

    /// Sets the timer to the next possible due time, but never so soon that the checks cost much.
    pub(super) fn arm_forgetting(&mut self, now: Instant) {
        let forget_after = self.forget_after();
        let next = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.listed)
            // A peer with a session, or with a running handshake, is checked again later.
            .map(|(_, peer)| forget_at(peer, forget_after).unwrap_or(now + forget_after))
            .min();
        match next {
            // Each run looks at all peers, so runs are bounded however the ends of peers are spread.
            Some(at) => self.core.timers.set(Timer::Forget, at.max(now + forget_after / MAX_TIMER_RUNS)),
            None => self.core.timers.clear(Timer::Forget),
        }
    }

    /// Schedules the check for a new peer that may be forgotten.
    pub(super) fn expect_to_forget(&mut self, now: Instant) {
        self.core.timers.set_earlier(Timer::Forget, now + self.forget_after());
    }

    /// Schedules an early check for a peer that has said goodbye.
    pub(super) fn forget_departed(&mut self, now: Instant) {
        self.core.timers.set_earlier(Timer::Forget, now + self.forget_after() / MAX_TIMER_RUNS);
    }

    /// Returns the setting within bounds that keep the timer from running all the time and times from
    /// overflowing.
    fn forget_after(&self) -> Duration {
        self.limits.forget_after.clamp(Duration::from_secs(1), MAX_FORGET_AFTER)
    }
}

/// Returns when to forget the peer in its present state; `None` while it is listed, connected or being tried.
fn forget_at(peer: &PeerState, forget_after: Duration) -> Option<Instant> {
    if peer.listed || peer.link.has_confirmed_session() || peer.link.is_connecting() {
        return None;
    }
    let last = peer.link.last_seen().map_or(peer.link.used, |seen| seen.max(peer.link.used));
    // A peer that said goodbye is not expected back, but its last packets may still be on their way.
    Some(last + if peer.link.departed { forget_after / MAX_TIMER_RUNS } else { forget_after })
}

/// Maximum number of timer runs within the time after which a peer is forgotten.
const MAX_TIMER_RUNS: u32 = 10;

/// Ten years.
const MAX_FORGET_AFTER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
