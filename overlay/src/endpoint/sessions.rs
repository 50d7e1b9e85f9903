//! The life of a session after its handshake: confirmation, succession, roaming, rekey, end.

use std::sync::Arc;
use std::time::Instant;

use super::handshake::Reason;
use super::peers::PeerKey;
use super::timing::{REJECT_AFTER, UNCONFIRMED_FOR};
use super::{Endpoint, Event, Gone, Timer};
use crate::reach::{RecvMeta, Source, Why};
use crate::session::{Opened, Session};

/// Why the control half is asked for attention; see [`Endpoint::session_attention`].
///
/// ```
/// use peersock_overlay::{Attention, Opened, RecvMeta, SocketIndex};
///
/// let meta = RecvMeta { remote: "192.0.2.1:4000".parse()?, socket: SocketIndex(0), multicast: false };
/// assert_eq!(Attention::received(meta, 100, Opened::Packet(72)), Attention::Packet(meta, 100));
/// assert_eq!(Attention::received(meta, 28, Opened::Control(0)), Attention::Control(meta));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// [`Session::note_sent`] wants it.
    Sent,
    /// [`Session::note_received`] wants it, because of a plaintext for [`Endpoint::handle_control`], which is called next.
    Control(RecvMeta),
    /// [`Session::note_received`] wants it, because of an IP packet in a datagram of so many bytes.
    Packet(RecvMeta, usize),
}

impl Attention {
    /// For [`Session::note_received`]: what came in was a datagram of `bytes` bytes, and [`Session::open`]
    /// has found this in it.
    pub fn received(meta: RecvMeta, bytes: usize, opened: Opened) -> Self {
        match opened {
            Opened::Packet(_) | Opened::Unknown(_) => Self::Packet(meta, bytes),
            Opened::Control(_) => Self::Control(meta),
        }
    }
}

impl Endpoint {
    /// To be called when [`Session::note_received`] or [`Session::note_sent`] said that control wants to know. An
    /// authentic packet confirms a session; from another source than the path it is answered by a challenge, and the
    /// path moves there when that is answered.
    pub fn session_attention(&mut self, now: Instant, session: &Arc<Session>, why: Attention) {
        let Some(key) = self.key_of(session.peer()) else { return };
        self.expire_sessions(now, key);
        match why {
            Attention::Sent => {}
            Attention::Control(_) => self.heard_on(now, key, session),
            Attention::Packet(meta, bytes) => {
                self.heard_on(now, key, session);
                self.heard_at(now, key, &meta, bytes);
            }
        }
        self.rekey_if_due(now, key);
        self.watch_path(now, key);
        self.arm_activity(now, key);
    }

    /// An authentic packet came in on a session.
    pub(super) fn heard_on(&mut self, now: Instant, key: PeerKey, session: &Arc<Session>) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.live(session).is_none() {
            return;
        }
        peer.used = now;
        if !session.is_confirmed() {
            self.establish(now, key, session);
        }
    }

    /// Bytes of a session came in that are sent from where the peer is.
    pub(super) fn heard_at(&mut self, now: Instant, key: PeerKey, meta: &RecvMeta, bytes: usize) {
        let Some(peer) = self.peers.get(key) else { return };
        let (handle, place) = (peer.handle.clone(), meta.place());
        if meta.multicast {
            return;
        }
        if handle.path().is_none_or(|path| path.place != place) {
            // What is sent now would go to the old place. The answer to the challenge confirms the new one.
            self.nodes[peer.node].reach.heard(place, bytes, Source::Session, now);
            self.challenge(now, key, place, Why::Move);
        } else if handle.activity().take_silence() {
            self.emit(Event::PathConfirmed(handle));
        }
    }

    /// The peer has proved that it has the session's keys: it is usable, and the newest one is sent on. If the handshake
    /// has proved no place and there is none from before, that waits for one.
    pub(super) fn establish(&mut self, now: Instant, key: PeerKey, session: &Arc<Session>) {
        session.confirm();
        let Some(peer) = self.peers.get_mut(key) else { return };
        let before = peer.current();
        if before.as_ref().is_some_and(|before| before.established() > session.established()) {
            return;
        }
        let Some(live) = peer.live(session) else { return };
        let (instance, place, node) = (live.instance, live.place, peer.node);
        peer.handle.set_receive_buffer(live.receive_buffer);
        let succeeded = peer.instance.replace(instance).filter(|old| *old != instance);
        let restarted = succeeded.is_some();
        // An instance that comes back after its successor: both are alive.
        let other = succeeded.filter(|old| peer.former.succeed(*old, instance)).zip(peer.handle.path());
        peer.handle.set_session(Some(session.clone()));
        peer.departed = false;
        peer.refusal = None;
        peer.told = None;
        let obsolete = peer.take_obsolete(session, instance);
        let (handle, network) = (peer.handle.clone(), peer.handle.network());
        let was_waiting = peer.is_waiting_for_path;
        let reach = &mut self.nodes[node].reach;
        if let Some(place) = place {
            reach.prove(place, Source::Handshake, now);
        }
        let has_path = place.is_some() || reach.place().is_some();
        peer.is_waiting_for_path = !has_path;
        // A handshake that began before this one did has reached its end by it.
        let satisfied = has_path && peer.attempt.as_ref().is_some_and(|a| a.started <= session.established());

        self.discard(obsolete);
        if let Some(place) = place {
            self.discovery.acknowledged(&place.remote(), network, key);
        }
        if satisfied {
            self.end_attempt(key);
        }
        self.announce(key);
        self.counters.sessions_established.increment();
        tracing::debug!(
            peer = %handle.id(),
            suite = %session.suite(),
            initiator = session.is_initiator(),
            restarted,
            "session established"
        );
        if restarted {
            self.emit(Event::PeerGone(handle.clone(), Gone::Restarted));
        }
        if restarted && before.is_some() && !was_waiting {
            self.emit(Event::SessionLost(handle.clone()));
        }
        if let Some(place) = place.or(self.nodes[node].reach.place()) {
            self.move_path(now, node, place);
            handle.activity().take_silence();
            let ready = restarted || before.is_none() || was_waiting;
            // Both sides have heard each other just now.
            self.emit(if ready { Event::SessionReady(handle) } else { Event::PathConfirmed(handle) });
        }
        if let Some((other, there)) = other {
            self.on_alternation(now, key, other, there.remote());
        }
        self.arm_expiry(key);
        self.watch_path(now, key);
        self.arm_activity(now, key);
    }

    fn rekey_if_due(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get(key) else { return };
        let Some(session) = peer.current() else { return };
        let Some(live) = peer.live(&session) else { return };
        if (now >= live.rekey_at || session.is_worn()) && peer.attempt.is_none() {
            self.counters.rekeys.increment();
            self.attempt(now, key, Reason::Traffic);
        }
    }

    pub(super) fn on_expire_timer(&mut self, now: Instant, key: PeerKey) {
        self.expire_sessions(now, key);
        self.forget_unconfirmed(now, key);
        self.arm_expiry(key);
    }

    /// Ends the sessions that have reached their age.
    pub(super) fn expire_sessions(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let expired = peer.take_expired(REJECT_AFTER, now);
        if !expired.is_empty() {
            self.drop_sessions(key, expired);
        }
    }

    /// Forgets our answers to initiations that were not followed by a packet.
    pub(super) fn forget_unconfirmed(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let unused = peer.take_unconfirmed(UNCONFIRMED_FOR, now);
        self.discard(unused);
    }

    /// Removes sessions of a peer; tells if that was the last usable one.
    pub(super) fn drop_sessions(&mut self, key: PeerKey, dropped: Vec<Arc<Session>>) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let current = peer.current();
        let lost =
            current.is_some_and(|current| dropped.iter().any(|session| Arc::ptr_eq(session, &current)));
        self.discard(dropped);
        if !lost {
            return;
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.handle.set_session(None);
        let (handle, node) = (peer.handle.clone(), peer.node);
        let was_known = !std::mem::take(&mut peer.is_waiting_for_path);
        self.timers.clear(Timer::Activity(key));
        if self.carrier(node).is_none() {
            self.timers.clear(Timer::Mtu(node));
        }
        handle.activity().disarm();
        tracing::debug!(peer = %handle.id(), "session lost");
        if was_known {
            self.emit(Event::SessionLost(handle));
        }
    }

    /// Erases sessions that no peer has any more.
    pub(super) fn discard(&mut self, sessions: Vec<Arc<Session>>) {
        for session in sessions {
            session.erase();
            self.sessions.remove(session.index());
            let Some(key) = self.key_of(session.peer()) else { continue };
            if let Some(peer) = self.peers.get_mut(key) {
                peer.past.add(&session.stats());
            }
            self.refile(key);
        }
    }

    fn arm_expiry(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get(key) else { return };
        let end = peer.sessions.iter().map(|live| {
            let lifetime = if live.session.is_confirmed() { REJECT_AFTER } else { UNCONFIRMED_FOR };
            live.session.established() + lifetime
        });
        match end.min() {
            Some(at) => self.timers.set(Timer::Expire(key), at),
            None => self.timers.clear(Timer::Expire(key)),
        }
    }
}
