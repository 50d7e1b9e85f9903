//! The life of a session after its handshake: confirmation, succession, roaming, rekey, end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::timing::{REJECT_AFTER, UNCONFIRMED_FOR};
use super::{Context, Effect, Event, Gone, Link, Live, Reason, Timer};
use crate::reach::{RecvMeta, Source, Why};
use crate::session::{Opened, Session};
use crate::wire::Control;

/// Why the control half is asked for attention; see
/// [`Endpoint::session_attention`](crate::Endpoint::session_attention).
///
/// ```
/// use peersock_overlay::{Attention, Opened, RecvMeta, SocketIndex};
///
/// let remote = "192.0.2.1:4000".parse()?;
/// let meta = RecvMeta { remote, socket: SocketIndex(0), multicast: false, relay: None };
/// assert_eq!(Attention::received(meta, 100, Opened::Packet(72)), Attention::Packet(meta, 100));
/// assert_eq!(Attention::received(meta, 28, Opened::Control(0)), Attention::Control(meta));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// [`Session::note_sent`] wants it.
    Sent,
    /// [`Session::note_received`] wants it, because of a plaintext for
    /// [`Endpoint::handle_control`](crate::Endpoint::handle_control), which is called next.
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

/// At most this many sessions per peer can be received on: the present one, the one before, and the other one
/// of a simultaneous handshake.
const MAX_CONFIRMED: usize = 3;

impl Live {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.session.established())
    }
}

impl Link {
    /// The data path wants control to look.
    pub(crate) fn on_attention(&mut self, cx: &mut Context<'_>, session: &Arc<Session>, why: Attention) {
        self.expire_sessions(cx);
        match why {
            Attention::Sent => {}
            Attention::Control(meta) => {
                self.heard_on(cx, session);
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

    /// An authentic packet came in on a session.
    pub(super) fn heard_on(&mut self, cx: &mut Context<'_>, session: &Arc<Session>) {
        if self.live(session).is_none() {
            return;
        }
        self.used = cx.now;
        if !session.is_confirmed() {
            self.establish(cx, session);
        }
    }

    /// Bytes of a session came in that are sent from where the peer is.
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
        // What is sent there would go to many.
        if !meta.is_from_node() {
            cx.core.counters.bad_source.increment();
            return;
        }
        if place.socket().is_peer_stream() {
            cx.core.tcp.claim(place.socket(), cx.node);
        }
        if cx.reach.place() != Some(place) {
            // What is sent now would go to the old place. The answer to the challenge confirms the new one.
            cx.reach.heard(place, bytes, Source::Session, cx.now);
            if self.may_follow(cx, &place) {
                self.challenge(cx, place, Why::Move);
            }
            self.heard_off_path(cx, session);
            // It may be that the path is gone, and this is the other way.
            self.attempt.iter_mut().for_each(|attempt| attempt.ends_when_heard = false);
        } else {
            self.end_silence(cx);
        }
    }

    /// The peer was heard at its path: if it was silent before, what waits there need not wait longer.
    pub(super) fn end_silence(&mut self, cx: &mut Context<'_>) {
        if self.handle.activity().take_silence() {
            cx.core.emit(Event::PathConfirmed(self.handle.clone()));
        }
    }

    /// The peer has proved that it has the session's keys: it is usable, and the newest one is sent on. If
    /// the handshake has proved no place and there is none from before, that waits for one.
    pub(super) fn establish(&mut self, cx: &mut Context<'_>, session: &Arc<Session>) {
        session.confirm();
        let before = self.current();
        if before.as_ref().is_some_and(|before| before.established() > session.established()) {
            return;
        }
        let Some(live) = self.live(session) else { return };
        let (instance, place) = (live.instance, live.place);
        let handle = self.handle.clone();
        handle.set_receive_buffer(live.receive_buffer);
        let succeeded = self.instance.replace(instance).filter(|old| *old != instance);
        let restarted = succeeded.is_some();
        // An instance that comes back after its successor: both are alive.
        let other = succeeded.filter(|old| self.former.succeed(*old, instance)).zip(handle.path());
        handle.set_session(Some(session.clone()));
        (self.departed, self.answer_unreadable) = (false, false);
        self.refusal = None;
        self.told = None;
        let obsolete = self.take_obsolete(session, instance);
        if let Some(place) = place {
            cx.reach.prove(place, Source::Handshake, cx.now);
        }
        let has_path = place.is_some() || cx.has_path();
        let was_waiting = std::mem::replace(&mut self.is_waiting_for_path, !has_path);
        // A handshake that began before this one did has reached its end by it.
        let begin =
            self.attempt.as_ref().map_or(session.established(), |a| a.started.min(session.established()));
        let satisfied = has_path && self.attempt.as_ref().is_some_and(|a| a.started <= session.established());

        self.discard(cx, obsolete);
        cx.effects.extend(place.map(Effect::Met));
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
            let place = if restarted { place } else { self.path_or(cx, place, begin) };
            self.move_path(cx, place);
            handle.activity().take_silence();
            let ready = restarted || before.is_none() || was_waiting;
            if ready && cx.reach.relays(&place.key()) {
                self.seek_direct_in_turn(cx);
            }
            // Both sides have heard each other just now.
            cx.core.emit(if ready { Event::SessionReady(handle) } else { Event::PathConfirmed(handle) });
        }
        if let Some((other, there)) = other {
            self.on_alternation(cx, other, there.remote());
        }
        self.arm_expiry(cx);
        self.watch_path(cx);
        self.arm_activity(cx);
    }

    /// Replaces a session in use that has reached its age. True if that begins now.
    pub(super) fn rekey_if_due(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(session) = self.current() else { return false };
        let Some(live) = self.live(&session) else { return false };
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

    /// Forgets our answers to initiations that were not followed by a packet.
    pub(super) fn forget_unconfirmed(&mut self, cx: &mut Context<'_>) {
        let unused = self.take(|live| !live.session.is_confirmed() && live.age(cx.now) >= UNCONFIRMED_FOR);
        self.discard(cx, unused);
    }

    /// Removes sessions; tells if that was the last usable one.
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
        self.handle.activity().disarm();
        tracing::debug!(peer = %self.handle.logged(), "session lost");
        if was_known {
            cx.core.emit(Event::SessionLost(self.handle.clone()));
        }
    }

    /// A handshake has led to a session. Mostly it is the only one, or the second for a while.
    pub(super) fn add_session(&mut self, session: Live) {
        self.sessions.reserve_exact(1);
        self.sessions.push(session);
    }

    /// Erases sessions that the link does not have any more.
    pub(super) fn discard(&mut self, cx: &mut Context<'_>, sessions: Vec<Arc<Session>>) {
        for session in &sessions {
            cx.erase(session);
            self.past.add(&session.stats());
        }
        if !sessions.is_empty() {
            cx.effects.push(Effect::Refile);
        }
    }

    /// Tells the peer that this node leaves the network.
    pub(crate) fn say_goodbye(&self, cx: &mut Context<'_>) {
        self.send_on_current(cx, Control::Close { reason: LEAVING });
    }

    fn arm_expiry(&self, cx: &mut Context<'_>) {
        let end = self.sessions.iter().map(|live| {
            let lifetime = if live.session.is_confirmed() { REJECT_AFTER } else { UNCONFIRMED_FOR };
            live.session.established() + lifetime
        });
        cx.set_timer(Timer::Expire, end.min());
    }

    /// Sessions that the peer has not used yet.
    pub(super) fn unconfirmed(&self) -> impl Iterator<Item = &Live> {
        self.sessions.iter().filter(|live| !live.session.is_confirmed())
    }

    /// Takes out the sessions that `newest`, just confirmed, makes obsolete: older ones of another instance
    /// of the peer, the oldest over the limit, and those that the peer did not choose when it chose `newest`.
    /// Answers to initiations of the same instance that crossed ours are not among these: it may yet use one.
    /// An instance that is still there after it has lost its session by this asks for a new one, which shows
    /// that there are two.
    fn take_obsolete(&mut self, newest: &Session, instance: u64) -> Vec<Arc<Session>> {
        let confirmed = self.sessions.iter().filter(|live| live.session.is_confirmed()).count();
        let mut surplus = confirmed.saturating_sub(MAX_CONFIRMED);
        self.take(|live| {
            if live.session.index() == newest.index() || live.session.established() > newest.established() {
                return false;
            }
            if !live.session.is_confirmed() {
                return !newest.is_initiator() || live.instance != instance;
            }
            let over = surplus > 0;
            surplus -= usize::from(over);
            over || live.instance != instance
        })
    }

    /// Takes out all sessions with one instance of the peer.
    pub(super) fn take_instance(&mut self, instance: u64) -> Vec<Arc<Session>> {
        self.take(|live| live.instance == instance)
    }

    /// Takes out all sessions.
    pub(super) fn take_all(&mut self) -> Vec<Arc<Session>> {
        self.take(|_| true)
    }

    fn take(&mut self, condition: impl FnMut(&mut Live) -> bool) -> Vec<Arc<Session>> {
        self.sessions.extract_if(.., condition).map(|live| live.session).collect()
    }
}

/// The reason in a [`Control::Close`].
const LEAVING: u8 = 0;
