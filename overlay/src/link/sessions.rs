//! The life of a session after its handshake: confirmation, succession, roaming, rekey, end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::timing::{REJECT_AFTER, UNCONFIRMED_FOR};
use super::{Context, Effect, Event, Gone, Link, Live, Reason, Timer};
use crate::reach::{RecvMeta, Source, Why};
use crate::session::{Opened, Session};
use crate::wire::Control;

/// Reason why the control half is asked for attention; see
/// [`Endpoint::session_attention`](crate::Endpoint::session_attention).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// [`Session::note_sent`] asks for it.
    Sent,
    /// [`Session::note_received`] asks for it, because of a plaintext for
    /// [`Endpoint::handle_control`](crate::Endpoint::handle_control), which the driver calls next.
    Control(RecvMeta),
    /// [`Session::note_received`] asks for it, because of an IP packet in a datagram of this many bytes.
    Packet(RecvMeta, usize),
}

impl Attention {
    /// Returns the attention for [`Session::note_received`] after a datagram of `bytes` bytes in which
    /// [`Session::open`] has found `opened`.
    pub fn received(meta: RecvMeta, bytes: usize, opened: Opened) -> Self {
        match opened {
            Opened::Packet(_) | Opened::Unknown(_) => Self::Packet(meta, bytes),
            Opened::Control(_) => Self::Control(meta),
        }
    }
}

/// Maximum number of confirmed sessions per peer: the present one, the one before, and the other one of a
/// simultaneous handshake.
const MAX_CONFIRMED: usize = 3;

impl Live {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.session.established())
    }
}

impl Link {
    /// Handles a request for attention from the data path.
    pub(crate) fn on_attention(&mut self, cx: &mut Context<'_>, session: &Arc<Session>, why: Attention) {
        self.expire_sessions(cx);
        match why {
            Attention::Sent => {}
            Attention::Control(meta) => {
                self.heard_on(cx, session);
                // A control message from elsewhere says nothing about the path.
                if cx.reach.place() == Some(meta.place()) {
                    self.end_silence(cx);
                }
            }
            Attention::Packet(meta, bytes) => {
                self.heard_on(cx, session);
                self.heard_at(cx, session, &meta, bytes);
            }
        }
        self.rekey_if_due(cx);
        self.watch_path(cx);
        self.arm_activity(cx);
        self.watch_silence(cx);
    }

    /// Handles an authentic packet on a session.
    pub(super) fn heard_on(&mut self, cx: &mut Context<'_>, session: &Arc<Session>) {
        if self.live(session).is_none() {
            return;
        }
        self.used = cx.now;
        if !session.is_confirmed() {
            self.establish(cx, session);
        }
    }

    /// Handles `bytes` bytes of a session that the peer sent from its current place.
    pub(super) fn heard_at(
        &mut self,
        cx: &mut Context<'_>,
        session: &Session,
        meta: &RecvMeta,
        bytes: usize,
    ) {
        let place = meta.place();
        if meta.multicast {
            return;
        }
        // Replies to a multicast or broadcast source would go to many receivers.
        if !meta.is_from_node() {
            cx.core.counters.bad_source.increment();
            return;
        }
        if place.socket().is_peer_stream() {
            cx.core.tcp.claim(place.socket(), cx.node);
        }
        if cx.reach.place() != Some(place) {
            // Packets still go to the old place until the answer to the challenge confirms the new one.
            // A packet alone does not move the path: an attacker could hold one back and send it from any
            // address.
            cx.reach.heard(place, bytes, Source::Session, cx.now);
            if self.may_follow(cx, &place) {
                self.challenge(cx, place, Why::Move);
            }
            self.heard_off_path(cx, session);
            // The path may be gone, and this may be the other way, so let the handshake go on.
            self.attempt.iter_mut().for_each(|attempt| attempt.ends_when_heard = false);
        } else {
            self.end_silence(cx);
        }
    }

    /// Ends the silence of a peer that was heard at its path, so that waiting packets are sent at once.
    pub(super) fn end_silence(&mut self, cx: &mut Context<'_>) {
        if self.handle.activity().take_silence() {
            cx.core.emit(Event::PathConfirmed(self.handle.clone()));
        }
    }

    /// Makes a session usable once the peer has proved that it has the keys. Packets use the newest session.
    /// If the handshake has proved no place and there is no earlier path, the session waits for a path.
    pub(super) fn establish(&mut self, cx: &mut Context<'_>, session: &Arc<Session>) {
        // A packet on the session proves that the peer has its keys, which the handshake alone does not prove
        // to a responder.
        session.confirm();
        let before = self.current();
        // An older session that is confirmed late must not replace a newer one.
        if before.as_ref().is_some_and(|before| before.established() > session.established()) {
            return;
        }
        let Some(live) = self.live(session) else { return };
        let (instance, place) = (live.instance, live.place);
        let handle = self.handle.clone();
        handle.set_receive_buffer(live.receive_buffer);
        let succeeded = self.instance.replace(instance).filter(|old| *old != instance);
        let restarted = succeeded.is_some();
        // An instance that comes back after its successor shows that both are alive.
        let other = succeeded.filter(|old| self.former.succeed(*old, instance)).zip(handle.path());
        handle.set_session(Some(session.clone()));
        (self.departed, self.answer_unreadable) = (false, false);
        self.refusal = None;
        self.told = None;
        let obsolete = self.take_obsolete(session, instance);
        if let Some(ended) = before.as_ref().filter(|_| restarted) {
            self.probe_predecessor(cx, ended, place);
        }
        if let Some(place) = place {
            cx.reach.prove(place, Source::Handshake, cx.now);
        }
        let has_path = place.is_some() || cx.has_path();
        let was_waiting = std::mem::replace(&mut self.is_waiting_for_path, !has_path);
        // This handshake also completes an attempt that began before it.
        let begin =
            self.attempt.as_ref().map_or(session.established(), |a| a.started.min(session.established()));
        let satisfied = has_path && self.attempt.as_ref().is_some_and(|a| a.started <= session.established());

        self.discard(cx, obsolete);
        cx.effects.extend(place.map(Effect::Met));
        cx.effects.push(Effect::Established);
        if satisfied {
            self.end_attempt(cx);
        }
        self.announce(cx);
        cx.core.counters.sessions_established.increment();
        tracing::debug!(
            peer = %handle.logged(),
            suite = %session.suite(),
            initiator = session.is_initiator(),
            restarted,
            "session established"
        );
        if restarted {
            cx.core.emit(Event::PeerGone(handle.clone(), Gone::Restarted));
            cx.effects.push(Effect::Doubted);
        }
        if restarted && before.is_some() && !was_waiting {
            cx.core.emit(Event::SessionLost(handle.clone()));
        }
        if let Some(place) = place.or(cx.reach.place()) {
            // After a restart the old path may lead to nothing, so only the place of this handshake counts.
            let place = if restarted { place } else { self.path_or(cx, place, begin) };
            self.move_path(cx, place);
            handle.activity().take_silence();
            let ready = restarted || before.is_none() || was_waiting;
            if ready && cx.reach.relays(&place.key()) {
                self.seek_direct_in_turn(cx);
            }
            // Both sides have just heard each other.
            cx.core.emit(if ready { Event::SessionReady(handle) } else { Event::PathConfirmed(handle) });
        }
        if let Some((other, there)) = other {
            self.on_alternation(cx, instance, other, there.remote());
        }
        self.arm_expiry(cx);
        self.watch_path(cx);
        self.arm_activity(cx);
    }

    /// Replaces a session in use that has reached its age. Returns true if the replacement begins now.
    pub(super) fn rekey_if_due(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(session) = self.current() else { return false };
        let Some(live) = self.live(&session) else { return false };
        // A running handshake already leads to a new session.
        let is_due = (cx.now >= live.rekey_at || session.is_worn()) && !self.is_connecting();
        if is_due {
            cx.core.counters.rekeys.increment();
            self.attempt(cx, Reason::Age);
        }
        is_due
    }

    pub(crate) fn on_expire_timer(&mut self, cx: &mut Context<'_>) {
        self.expire_sessions(cx);
        self.forget_unconfirmed(cx);
        self.arm_expiry(cx);
    }

    /// Ends the sessions that have reached their age.
    pub(super) fn expire_sessions(&mut self, cx: &mut Context<'_>) {
        let expired = self.take(|live| live.age(cx.now) >= REJECT_AFTER || live.session.is_erased());
        if !expired.is_empty() {
            self.drop_sessions(cx, expired);
        }
    }

    /// Forgets our answers to initiations whose sessions the peer has not used in time.
    pub(super) fn forget_unconfirmed(&mut self, cx: &mut Context<'_>) {
        let unused = self.take(|live| !live.session.is_confirmed() && live.age(cx.now) >= UNCONFIRMED_FOR);
        self.discard(cx, unused);
    }

    /// Removes sessions, and reports if the last usable one was among them.
    pub(super) fn drop_sessions(&mut self, cx: &mut Context<'_>, dropped: Vec<Arc<Session>>) {
        let current = self.current();
        let lost =
            current.is_some_and(|current| dropped.iter().any(|session| Arc::ptr_eq(session, &current)));
        self.discard(cx, dropped);
        if !lost {
            return;
        }
        self.handle.set_session(None);
        let was_known = !std::mem::take(&mut self.is_waiting_for_path);
        self.arm_seeking(cx);
        cx.effects.push(Effect::SessionLost);
        // Without a session there is nothing to time. The data path asks again with the next one.
        self.handle.activity().disarm();
        tracing::debug!(peer = %self.handle.logged(), "session lost");
        if was_known {
            cx.core.emit(Event::SessionLost(self.handle.clone()));
        }
    }

    /// Adds the session of a handshake.
    pub(super) fn add_session(&mut self, session: Live) {
        // Most peers have one session, or briefly two, so spare capacity would only cost memory.
        self.sessions.reserve_exact(1);
        self.sessions.push(session);
    }

    /// Erases sessions that the link no longer holds.
    pub(super) fn discard(&mut self, cx: &mut Context<'_>, sessions: Vec<Arc<Session>>) {
        for session in &sessions {
            // The keys go at once, because a session is shared and may live on in a batch.
            cx.erase(session);
            self.past.add(&session.stats());
        }
        if !sessions.is_empty() {
            cx.effects.push(Effect::Refile);
        }
    }

    /// Tells the peer that this node leaves the network.
    pub(crate) fn say_goodbye(&self, cx: &mut Context<'_>) {
        self.send_on_current(cx, Control::Close { reason: CLOSE_REASON_LEAVING });
    }

    fn arm_expiry(&self, cx: &mut Context<'_>) {
        let end = self.sessions.iter().map(|live| {
            // A replayed initiation makes an unconfirmed session too, so such a session must not stay for
            // long.
            let lifetime = if live.session.is_confirmed() { REJECT_AFTER } else { UNCONFIRMED_FOR };
            live.session.established() + lifetime
        });
        cx.set_timer(Timer::Expire, end.min());
    }

    /// Returns the sessions that the peer has not used yet.
    pub(super) fn unconfirmed(&self) -> impl Iterator<Item = &Live> {
        self.sessions.iter().filter(|live| !live.session.is_confirmed())
    }

    /// Removes and returns the sessions that `newest`, just confirmed, makes obsolete: older ones of another
    /// instance of the peer, the oldest over the limit, and those that the peer did not choose when it chose
    /// `newest`.
    fn take_obsolete(&mut self, newest: &Session, instance: u64) -> Vec<Arc<Session>> {
        let confirmed = self.sessions.iter().filter(|live| live.session.is_confirmed()).count();
        let mut surplus = confirmed.saturating_sub(MAX_CONFIRMED);
        self.take(|live| {
            if live.session.index() == newest.index() || live.session.established() > newest.established() {
                return false;
            }
            if !live.session.is_confirmed() {
                // Answers to initiations of the same instance that crossed ours stay, because the peer may
                // still use one.
                return !newest.is_initiator() || live.instance != instance;
            }
            let over = surplus > 0;
            surplus -= usize::from(over);
            // An instance that loses its session this way but still runs asks for a new one, which reveals
            // the duplicate.
            over || live.instance != instance
        })
    }

    /// Removes and returns all sessions with one instance of the peer.
    pub(super) fn take_instance(&mut self, instance: u64) -> Vec<Arc<Session>> {
        self.take(|live| live.instance == instance)
    }

    /// Removes and returns all sessions.
    pub(super) fn take_all(&mut self) -> Vec<Arc<Session>> {
        self.take(|_| true)
    }

    fn take(&mut self, condition: impl FnMut(&mut Live) -> bool) -> Vec<Arc<Session>> {
        self.sessions.extract_if(.., condition).map(|live| live.session).collect()
    }
}

/// Reason code in a [`Control::Close`].
const CLOSE_REASON_LEAVING: u8 = 0;
