//! The peer's handshakes: answers to initiations that prove to come from it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::timing::{REJECT_AFTER, REKEY_AFTER_RESPONDER, UNCONFIRMED_FOR, closest_to_neighbours, rekey_age};
use super::{Context, Effect, Link, Live, Question, Timer};
use crate::noise::{MacWriter, Received, ResponsePayload, Timestamp};
use crate::reach::{Place, RecvMeta, Source};
use crate::session::Session;
use crate::wire::StaleReply;

/// Maximum number of answered handshakes of a peer kept while the peer has used none of their sessions.
const MAX_UNCONFIRMED: usize = 4;

/// Age limit of an answer by another root. An older initiation relayed by a different root within this time
/// was overtaken.
const OVERTAKEN: Duration = Duration::from_secs(2);

/// Minimum interval between answers once [`MAX_UNCONFIRMED`] sessions are unused.
const ANSWER_INTERVAL: Duration = Duration::from_millis(200);

impl Link {
    /// Handles an initiation of the peer that came in a datagram of `len` bytes.
    /// Fails with the reason of a refusal, as text for people.
    pub(crate) fn on_initiation(
        &mut self,
        cx: &mut Context<'_>,
        meta: &RecvMeta,
        received: Received,
        len: usize,
    ) -> Result<(), &'static str> {
        self.used = cx.now;
        // The initiation's bytes pay for the answer, because its source may be forged (RFC 9000, section 8).
        cx.reach.heard(meta.place(), len, Source::Handshake, cx.now);
        let timestamp = received.payload().timestamp;
        if let Some(newest) = self.newest.filter(|newest| timestamp <= *newest) {
            self.on_stale_initiation(cx, meta, &received, newest);
            return Ok(());
        }
        // Before the answer, so that a copy of the initiation is refused even if this node cannot answer now.
        self.newest = Some(timestamp);
        self.forget_unconfirmed(cx);
        // A peer that leaves sessions unused may not receive our responses, and this node may not receive
        // what the peer sends through roots. The endpoint then checks the roots.
        let unused_since = self.unconfirmed().map(|live| live.session.established()).min();
        cx.effects.extend(unused_since.map(Effect::Silent));
        self.respond(cx, meta, received)
    }

    /// Handles an authentic initiation that is not new: a replay, or one from a sender whose clock went back.
    /// Sends no response, but a stale reply with the newest timestamp, which only the sender can read. A live
    /// peer then begins again with a newer timestamp. Now and then also begins a handshake of ours, which a
    /// live peer answers whatever its clock says.
    fn on_stale_initiation(
        &mut self,
        cx: &mut Context<'_>,
        meta: &RecvMeta,
        received: &Received,
        newest: Timestamp,
    ) {
        let place = meta.place();
        cx.core.counters.initiations_stale.increment();
        tracing::debug!(
            peer = %self.handle.logged(),
            from = %place,
            "an initiation is not new: a replay, or its sender's clock went back"
        );
        // Limited, because anyone who recorded an old initiation can replay it.
        if self.stale_replies.take(cx.now)
            && let Some(nonce) = cx.core.nonce()
            && cx.reach.spend(&place, StaleReply::LEN)
        {
            let mut reply = Vec::with_capacity(StaleReply::LEN);
            received.stale_reply(newest, nonce).emit(&mut reply);
            cx.core.counters.stale_replies_sent.increment();
            cx.core.transmit(&place, reply);
        }
        // With two relaying roots a newer initiation may have come first, and its answer is on its way.
        let is_overtaken = place.relay().is_some() && self.has_answered_by_another_root(cx.now, &place);
        if self.is_connecting() {
            self.try_at(cx, &place);
        } else if !is_overtaken {
            self.heed_hint(cx);
        }
    }

    /// Returns true if an initiation by another root was answered just now.
    fn has_answered_by_another_root(&self, now: Instant, place: &Place) -> bool {
        let is_recent =
            |live: &&Live| !live.session.is_initiator() && now < live.session.established() + OVERTAKEN;
        let mut answered = self.sessions.iter().filter(is_recent).filter_map(|live| live.place);
        // Answers to direct initiations do not count, because a direct way may work in one direction only.
        answered.any(|other| other.relay().is_some() && other.key() != place.key())
    }

    fn respond(
        &mut self,
        cx: &mut Context<'_>,
        meta: &RecvMeta,
        received: Received,
    ) -> Result<(), &'static str> {
        if let Some(unlikely) = self.take_unlikely(cx.now) {
            self.discard(cx, vec![unlikely]);
        }
        let (now, place) = (cx.now, meta.place());
        let payload = received.payload();
        let (suites, room) = (payload.suites, payload.room_in_response());
        let (their_instance, their_buffer) = (payload.instance, payload.receive_buffer);
        let question = self.question_in_response(cx, &place, room);
        let core = &mut *cx.core;
        // Each costs a place in the session table, which peers share.
        if self.unconfirmed().count() >= MAX_UNCONFIRMED {
            core.counters.handshakes_refused.increment();
            return Err("earlier answers to this peer were not used");
        }
        let Some(suite) = core.provider.suites().choose(suites) else {
            core.counters.suites_unsupported.increment();
            return Err("its sender has no cipher that this node has");
        };
        let Some(ephemeral) = core.ephemeral() else { return Err("the system gives no randomness") };
        let Some(index) = core.sessions.reserve(|| core.rng.random()) else {
            core.counters.sessions_refused.increment();
            return Err("there is no room for more sessions");
        };
        let id = question.as_ref().map(|question| question.id);
        let (instance, receive_buffer) = (core.instance, core.receive_buffer);
        let answer = ResponsePayload { instance, receive_buffer, question };
        let mut response = Vec::new();
        core.counters.handshake_x25519.add(3);
        let keys = received.respond(cx.psk, *ephemeral, index, suite, &answer, &mut response);
        let (handle, counters) = (self.handle.clone(), core.counters.clone());
        let session = keys
            .ok()
            .and_then(|keys| Session::new(&keys, &*core.provider, handle, counters, REJECT_AFTER, now));
        let Some(session) = session.map(Arc::new) else {
            // The reserved index must be free again, because nothing else would free it.
            core.sessions.remove(index);
            core.counters.handshake_unauthentic.increment();
            return Err("no session can be made of it");
        };
        self.add_session(Live {
            session: session.clone(),
            instance: their_instance,
            receive_buffer: their_buffer,
            // The response goes only to `place`, so a peer that uses the session receives there.
            place: Some(place),
            rekey_at: now + rekey_age(REKEY_AFTER_RESPONDER, &mut core.rng),
            question: id.map(Question::Ours),
        });
        core.sessions.insert(session);
        // A new writer has no cookie, so MAC2 is zero: only initiations need one.
        MacWriter::new(self.handle.id()).append(now, &mut response);
        core.timers.set_earlier(Timer::Expire(cx.key), now + UNCONFIRMED_FOR);
        // The initiation paid for the response; the rest of the budget may pay for a hint.
        if cx.reach.spend(&place, response.len()) {
            core.counters.handshakes_answered.increment();
            tracing::debug!(peer = %self.handle.logged(), to = %place, "initiation answered");
            core.transmit(&place, response);
        }
        Ok(())
    }

    /// Removes one session that the peer has not used, if there is no room for another: the one closest in
    /// time to its neighbours, the new one included. This keeps the first answer, which the peer uses first
    /// even on a long path, and the latest ones, of which the peer uses one after the path was blocked for a
    /// while.
    fn take_unlikely(&mut self, now: Instant) -> Option<Arc<Session>> {
        let unused: Vec<_> = self.unconfirmed().collect();
        let mut times: Vec<_> = unused.iter().map(|live| live.session.established()).collect();
        if times.len() < MAX_UNCONFIRMED || times.last().is_some_and(|last| now < *last + ANSWER_INTERVAL) {
            return None;
        }
        times.push(now);
        let unlikely = unused[closest_to_neighbours(&times)?].session.clone();
        self.sessions.retain(|live| !Arc::ptr_eq(&live.session, &unlikely));
        Some(unlikely)
    }
}
