//! Silence: keepalives for the peer, and suspicion when the peer itself is silent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::timing::{DEAD_AFTER, KEEPALIVE_AFTER, RETRY_MAX};
use super::{Context, Effect, Link, Reason, Timer};
use crate::reach::{Place, Why};
use crate::session::Session;
use crate::wire::{Control, DATA_OVERHEAD};

impl Link {
    /// Handles doubt from an upper layer that waits too long for an answer. Confirms that the path still
    /// carries its datagram size, and schedules a handshake for the moment when the silence is long enough.
    pub(crate) fn doubt(&mut self, cx: &mut Context<'_>) {
        self.suspect_path(cx);
        self.doubted = true;
        // Waiting longer would let the timers of the upper layer back off.
        if let Some(at) = self.doubtful_at(cx) {
            cx.core.timers.set_earlier(Timer::Activity(cx.key), at);
        }
    }

    /// Returns when the silence of a peer with a doubted path calls for a handshake.
    fn doubtful_at(&self, cx: &Context<'_>) -> Option<Instant> {
        let since = self.silent_since(cx).filter(|_| self.doubted)?;
        // Silence is normal on a long path.
        Some(since + PRESENT_SILENCE.max(cx.reach.rtt().unwrap_or_default() * 2))
    }

    /// Handles an upper layer without an answer from the peer. Confirms that the path still carries its
    /// datagram size, and tries a handshake unless the peer was heard in the last second.
    pub(crate) fn unresponsive(&mut self, cx: &mut Context<'_>) {
        self.suspect_path(cx);
        let heard = self.handle.activity().last_received().max(cx.core.awake_since());
        // A peer that was just heard has lost packets, not its session.
        if heard.is_none_or(|at| cx.now.saturating_duration_since(at) >= PRESENT_SILENCE) {
            self.attempt(cx, Reason::Silence);
        }
    }

    /// Returns the time since which data is unanswered.
    fn silent_since(&self, cx: &Context<'_>) -> Option<Instant> {
        self.handle.activity().unanswered_since().map(|since| cx.core.awake_from(since))
    }

    /// Starts the activity timer if something waits for it and it is not running, or runs only for checks of
    /// an idle session.
    pub(super) fn arm_activity(&mut self, cx: &mut Context<'_>) {
        let runs = cx.core.timers.is_armed(Timer::Activity(cx.key)) && self.handle.activity().is_armed();
        if self.current().is_some() && !runs {
            self.on_activity_timer(cx);
        }
    }

    /// Sends overdue keepalives, handles overdue answers, and schedules the next check.
    pub(crate) fn on_activity_timer(&mut self, cx: &mut Context<'_>) {
        if self.current().is_none() {
            return self.seek(cx);
        }
        // The timer of a machine that was suspended may be late.
        self.expire_sessions(cx);
        let Some(session) = self.current() else { return };
        let (handle, now) = (self.handle.clone(), cx.now);
        let activity = handle.activity();
        if activity.owed_since().is_some_and(|since| now >= since + KEEPALIVE_AFTER) {
            self.send_keepalive(cx, &session);
        }
        let unanswered = self.silent_since(cx);
        let dead = unanswered.is_some_and(|since| now >= since + DEAD_AFTER);
        // The silence of a peer that this node sends nothing to any more needs no handshake.
        let in_use = activity.last_sent().is_some_and(|at| now <= at + DEAD_AFTER);
        if dead && in_use {
            cx.core.counters.silences.increment();
            tracing::debug!(
                peer = %handle.logged(),
                "the peer says nothing: a handshake shows whether it is there"
            );
            self.attempt(cx, Reason::Silence);
        }
        if self.doubtful_at(cx).is_some_and(|at| now >= at) {
            self.doubted = false;
            self.attempt(cx, Reason::Silence);
        }
        self.doubted &= unanswered.is_some();
        self.watch_silence(cx);
        if unanswered.is_some()
            && let Some(mtud) = cx.reach.mtud()
        {
            mtud.confirm_if_due(now);
            self.probe_mtu(cx);
        }
        self.check_liveness(cx, &session);

        // Overdue work that stays overdue is retried later: a keepalive without a path yet, or a peer that
        // stays silent while the attempt goes on.
        let later = |at: Instant| if at <= now { now + RETRY_MAX } else { at };
        let keepalive_at = || activity.owed_since().map(|since| later(since + KEEPALIVE_AFTER));
        let dead_at = || self.silent_since(cx).map(|since| later(since + DEAD_AFTER));
        let silence_at = || self.silence_at(cx).map(later);
        let next = || {
            let silent = [dead_at(), self.doubtful_at(cx), silence_at()];
            silent.into_iter().chain([keepalive_at()]).flatten().min()
        };
        // Before the moments are read, so that the data path does not ask for attention for what this call
        // sees anyway.
        activity.arm();
        let at = next().or_else(|| {
            // From here on the data path asks for attention again, so recheck what came up just before.
            activity.disarm();
            next().inspect(|_| activity.arm())
        });
        let at = at.into_iter().chain(self.liveness_at(cx)).min();
        if at.is_some() {
            cx.set_timer(Timer::Activity, at);
        }
    }

    /// Handles a path on which nothing has come back for a while: asks whether it still works, and without an
    /// answer begins a handshake.
    pub(super) fn watch_silence(&mut self, cx: &mut Context<'_>) {
        let Some(due) = self.silence_at(cx).filter(|due| *due <= cx.now) else { return };
        let Some(since) = self.silent_since(cx) else { return };
        // The node may now be reached elsewhere, perhaps through a root. One-way traffic pays a small packet
        // per second for this question.
        if self.questioned.is_none_or(|at| at < since) {
            self.questioned = Some(cx.now);
            // Roots that have lost this node must know it, and the peer's place, before the handshake that
            // may need them. Traffic without connections does not pay for this look-up.
            if self.handle.is_watched() {
                cx.effects.push(Effect::Silent(since));
                cx.effects.push(Effect::LookUp);
            }
            return self.ask_path(cx, Why::Doubt);
        }
        self.questioned = None;
        tracing::debug!(
            peer = %self.handle.logged(), late_ms = (cx.now - due).as_millis(),
            "the path is silent: the peer is looked for elsewhere"
        );
        cx.effects.push(Effect::Silent(since));
        cx.effects.push(Effect::LookUp);
        self.attempt(cx, Reason::Silence);
    }

    /// Returns when to ask the path, or when it has been silent too long, if that matters.
    fn silence_at(&self, cx: &Context<'_>) -> Option<Instant> {
        let since = self.silent_since(cx)?;
        // Without another way to the peer the question would gain nothing.
        if self.is_connecting() || !(cx.core.has_roots || cx.reach.has_choice()) {
            return None;
        }
        let rtt = cx.reach.rtt().unwrap_or_default();
        Some(match self.questioned.filter(|at| *at >= since) {
            None => since + QUESTION_SILENCE.max(rtt * 2),
            Some(at) => at + answers_within(rtt),
        })
    }

    /// Asks the peer at its path for a sign of life, and replaces an old session.
    pub(crate) fn ask_path(&mut self, cx: &mut Context<'_>, why: Why) {
        self.rekey_if_due(cx);
        self.challenge_path(cx, why);
    }

    /// Like [`Self::ask_path`], but an old session is only replaced: the handshake, and the first packet of
    /// the new session, prove as much.
    pub(crate) fn renew_or_ask_path(&mut self, cx: &mut Context<'_>, why: Why) {
        if !self.rekey_if_due(cx) {
            self.challenge_path(cx, why);
        }
    }

    fn challenge_path(&mut self, cx: &mut Context<'_>, why: Why) {
        if let Some(place) = cx.reach.place() {
            self.challenge(cx, place, why);
        }
    }

    /// Sends a message to the peer's path, if there is a path and a session.
    pub(crate) fn send_message(&self, cx: &mut Context<'_>, plaintext: &[u8]) {
        if let Some((session, place)) = self.current().zip(cx.reach.place()) {
            self.send_sealed(cx, &session, &place, plaintext);
        }
    }

    /// Seals a short plaintext and sends it to a place other than the path.
    pub(crate) fn send_beside_path(&self, cx: &mut Context<'_>, place: &Place, plaintext: &[u8]) {
        let Some(session) = self.current() else { return };
        let mut datagram = vec![0; plaintext.len() + DATA_OVERHEAD];
        // Not recorded as sent, because the peer may not receive there and so owes no answer.
        if session.seal(plaintext, &mut datagram).is_ok() {
            cx.core.transmit(place, datagram);
        }
    }

    /// Sends a packet whose only purpose is to show that we are here.
    pub(super) fn send_keepalive(&self, cx: &mut Context<'_>, session: &Arc<Session>) {
        let Some(place) = cx.reach.place() else { return };
        cx.core.counters.keepalives_sent.increment();
        self.send_sealed(cx, session, &place, &KEEPALIVE);
    }

    /// Sends a control message to the peer's path, if there is a path and a session.
    pub(crate) fn send_on_current(&self, cx: &mut Context<'_>, message: Control) {
        if let Some((session, place)) = self.current().zip(cx.reach.place()) {
            self.send_control(cx, &session, &place, message);
        }
    }

    /// Seals a control message and sends it to a place.
    pub(super) fn send_control(
        &self,
        cx: &mut Context<'_>,
        session: &Arc<Session>,
        place: &Place,
        message: Control,
    ) {
        let mut plaintext = Vec::new();
        message.emit(&mut plaintext);
        self.send_sealed(cx, session, place, &plaintext);
    }

    /// Seals a short plaintext and sends it.
    fn send_sealed(&self, cx: &mut Context<'_>, session: &Arc<Session>, place: &Place, plaintext: &[u8]) {
        let mut datagram = vec![0; plaintext.len() + DATA_OVERHEAD];
        if session.seal(plaintext, &mut datagram).is_err() {
            return;
        }
        cx.core.transmit(place, datagram);
        // Only for what was really sent, or the timers would wait for an answer to nothing.
        if session.note_sent(cx.now) {
            // Deferred to the timer, because the caller may be in the middle of a change.
            cx.core.timers.set_earlier(Timer::Activity(cx.key), cx.now);
            cx.core.timers.set_earlier(Timer::Expire(cx.key), cx.now);
        }
    }
}

/// Plaintext of a keepalive, which may be empty or begin with zero.
// As long as a challenge, so that the receiver may send a challenge to the source.
const KEEPALIVE: [u8; Control::CHALLENGE_LEN] = [0; Control::CHALLENGE_LEN];

/// Time without an answer to data after which the path is asked whether it still works.
const QUESTION_SILENCE: Duration = Duration::from_millis(400);

/// Returns the time limit for an answer to a question about silence: two round trips, but at least 300 ms.
/// After it the peer is looked for elsewhere, or a stream to a root is opened. The stream is closed again if
/// UDP was only slow.
pub(crate) fn answers_within(rtt: Duration) -> Duration {
    (rtt * 2).max(Duration::from_millis(300))
}

/// Time since the last packet within which a peer counts as present.
const PRESENT_SILENCE: Duration = Duration::from_secs(1);
