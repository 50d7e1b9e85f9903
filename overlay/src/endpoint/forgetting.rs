//! Forgetting peers of ad-hoc networks that are gone, so that those who come and go do not pile up.
//!
//! A peer is kept while it has a session, while somebody asks for it, and while its beacons are heard. After
//! that it stays for [`Limits::forget_after`](super::Limits::forget_after), or for a tenth of it if it has
//! said goodbye. One timer for all peers looks who is due; it runs only while there are peers that may be
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

    /// Sets the timer to when the next peer may be due, and never so soon that looking would cost much.
    pub(super) fn arm_forgetting(&mut self, now: Instant) {
        let forget_after = self.forget_after();
        let next = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.listed)
            // A peer with a session, or one that is being tried, is looked at again later.
            .map(|(_, peer)| forget_at(peer, forget_after).unwrap_or(now + forget_after))
            .min();
        match next {
            Some(at) => self.core.timers.set(Timer::Forget, at.max(now + forget_after / STEPS)),
            None => self.core.timers.clear(Timer::Forget),
        }
    }

    /// A peer was learned of that may be forgotten one day.
    pub(super) fn expect_to_forget(&mut self, now: Instant) {
        self.core.timers.set_earlier(Timer::Forget, now + self.forget_after());
    }

    /// A peer has said goodbye, and may be forgotten sooner than others.
    pub(super) fn forget_departed(&mut self, now: Instant) {
        self.core.timers.set_earlier(Timer::Forget, now + self.forget_after() / STEPS);
    }

    /// The setting within bounds that keep the timer from running all the time, and times from overflowing.
    fn forget_after(&self) -> Duration {
        self.limits.forget_after.clamp(Duration::from_secs(1), MAX_FORGET_AFTER)
    }
}

/// When the peer is to be forgotten as things stand; never while it is listed, connected or being tried.
fn forget_at(peer: &PeerState, forget_after: Duration) -> Option<Instant> {
    if peer.listed || peer.link.has_confirmed_session() || peer.link.is_connecting() {
        return None;
    }
    let last = peer.link.last_seen().map_or(peer.link.used, |seen| seen.max(peer.link.used));
    Some(last + if peer.link.departed { forget_after / STEPS } else { forget_after })
}

/// The timer runs at most so many times in the time after which a peer is forgotten.
const STEPS: u32 = 10;

/// Ten years.
const MAX_FORGET_AFTER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
