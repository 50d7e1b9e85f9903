//! Silence: keepalives for the peer, and suspicion when it says nothing itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handshake::Reason;
use super::peers::PeerKey;
use super::timing::{DEAD_AFTER, KEEPALIVE_AFTER, RETRY_MAX};
use super::{Endpoint, Timer};
use crate::reach::Place;
use crate::session::{DATA_OVERHEAD, Peer, Session};
use crate::wire::Control;

impl Endpoint {
    /// A hint from above that the peer does not answer, for example from TCP's retransmissions: confirms that the path
    /// still carries its datagram size, and tries a handshake unless the peer was heard from in the last second.
    pub fn peer_unresponsive(&mut self, now: Instant, peer: &Arc<Peer>) {
        let Some(key) = self.key_of(peer) else { return };
        self.suspect_path(now, key);
        let heard = peer.activity().last_received();
        if heard.is_none_or(|at| now.saturating_duration_since(at) >= RECENTLY) {
            self.attempt(now, key, Reason::Traffic);
        }
    }

    /// Starts the activity timer of a peer if something waits for it and it does not run.
    pub(super) fn arm_activity(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get(key) else { return };
        if peer.current().is_some() && !self.timers.is_armed(Timer::Activity(key)) {
            self.on_activity_timer(now, key);
        }
    }

    /// Looks at what is owed and what is unanswered, does what is due, and comes back when the next thing is.
    pub(super) fn on_activity_timer(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(session) = peer.current() else { return };
        let (handle, node) = (peer.handle.clone(), peer.node);
        let activity = handle.activity();
        if activity.owed_since().is_some_and(|since| now >= since + KEEPALIVE_AFTER) {
            self.send_keepalive(now, key, &session);
        }
        let unanswered = activity.unanswered_since();
        let dead = unanswered.is_some_and(|since| now >= since + DEAD_AFTER);
        let in_use = activity.last_sent().is_some_and(|at| now <= at + DEAD_AFTER);
        if dead && in_use {
            self.counters.silences.increment();
            tracing::debug!(peer = %handle.id(), "the peer says nothing: a handshake shows whether it is there");
            self.attempt(now, key, Reason::Traffic);
        }
        if unanswered.is_some()
            && let Some(mtud) = self.nodes[node].reach.mtud()
        {
            mtud.confirm_if_due(now);
            self.probe_mtu(now, node);
        }

        let keepalive_at = || activity.owed_since().map(|since| since + KEEPALIVE_AFTER);
        let dead_at = || {
            let at = activity.unanswered_since()? + DEAD_AFTER;
            // While the peer stays silent and is sent to, the attempt goes on.
            Some(if at <= now { now + RETRY_MAX } else { at })
        };
        let next = || keepalive_at().into_iter().chain(dead_at()).min();
        activity.arm();
        let at = next().or_else(|| {
            // The data path asks for attention again from here on; what came up just before is seen now.
            activity.disarm();
            next().inspect(|_| activity.arm())
        });
        if let Some(at) = at {
            self.timers.set(Timer::Activity(key), at);
        }
    }

    /// Sends a packet that says no more than that we are here.
    pub(super) fn send_keepalive(&mut self, now: Instant, key: PeerKey, session: &Arc<Session>) {
        let Some(path) = self.peers.get(key).and_then(|peer| peer.handle.path()) else { return };
        self.counters.keepalives_sent.increment();
        self.send_sealed(now, session, &path.place, &KEEPALIVE);
    }

    /// Sends a control message to the peer's path, if there is one.
    pub(super) fn send_on_current(&mut self, now: Instant, key: PeerKey, message: Control) {
        let Some(sender) = self.peers.get(key).and_then(|peer| peer.handle.sender()) else { return };
        self.send_control(now, &sender.session, &sender.path.place, message);
    }

    /// Seals a short plaintext and sends it.
    pub(super) fn send_sealed(
        &mut self,
        now: Instant,
        session: &Arc<Session>,
        place: &Place,
        plaintext: &[u8],
    ) {
        let mut datagram = vec![0; plaintext.len() + DATA_OVERHEAD];
        if session.seal(plaintext, &mut datagram).is_err() {
            return;
        }
        self.transmit(place, datagram);
        if session.note_sent(now)
            && let Some(key) = self.key_of(session.peer())
        {
            // Not at once: the caller may be in the middle of a change.
            self.timers.set_earlier(Timer::Activity(key), now);
            self.timers.set_earlier(Timer::Expire(key), now);
        }
    }
}

/// The plaintext of a keepalive: any that begins with zero, or none. This one makes the packet as long as a challenge, so
/// that the receiver may send one to where it came from.
const KEEPALIVE: [u8; Control::CHALLENGE_LEN] = [0; Control::CHALLENGE_LEN];

/// A peer that was heard from within this time is there.
const RECENTLY: Duration = Duration::from_secs(1);
