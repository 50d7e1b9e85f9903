//! Our own handshakes: attempts, their repetition, and the responses to them.
//!
//! An attempt proceeds in rounds. Each round makes a fresh initiation, because the responder accepts a
//! timestamp only once, and sends it to every candidate endpoint. The responder answers whichever copy
//! arrives first. Some earlier initiations stay valid (`pending`), so a round-trip time of up to 10 s still
//! works.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::first_relay::FirstRelay;
use super::pending::{PENDING_FOR, Pending, thin};
use super::timing::{
    GIVE_UP_AFTER, HINT_GIVE_UP_AFTER, HURRIED_FOR, REJECT_AFTER, REKEY_AFTER, RETRY_HURRIED, RETRY_LOST,
    RETRY_MAX, RETRY_MIN, RETRY_REFUSED, UNREACHABLE_AFTER, rekey_age,
};
use super::{Context, Effect, Event, Link, Live, Question, Timer};
use crate::noise::{InitiationPayload, Initiator};
use crate::reach::{Place, RecvMeta, Source, Why};
use crate::session::Session;
use crate::text::List;
use crate::wire::{CookieReply, SessionIndex, StaleReply};

/// One attempt to get a session with a peer.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) started: Instant,
    /// End of the attempt; traffic that wants the peer moves it.
    until: Instant,
    /// True if the last round had somewhere to send to.
    is_asking: bool,
    /// True after a round that was a repetition.
    has_asked: bool,
    /// Time since which traffic wants the peer without having been told that it is unreachable.
    wanted: Option<Instant>,
    rounds: u32,
    pub(super) next_round: Instant,
    /// Last time something waited for the peer and needed it soon.
    hurried: Option<Instant>,
    /// Set once a cookie has triggered a round at once, which is allowed once per round.
    hastened: bool,
    /// Set once a stale reply has done the same.
    set_right: bool,
    /// True if nothing suggests that the path has failed: the first round goes to the path alone.
    pub(super) renews: bool,
    /// True if silence on an existing session began the attempt: it ends when the peer is heard on that
    /// session.
    pub(super) ends_when_heard: bool,
    /// Set once the attempt is given up: it sends nothing more, and only late answers still count.
    given_up: bool,
    pending: VecDeque<Pending>,
    /// Index of the last initiation, unless that was answered.
    last: Option<SessionIndex>,
    /// Set while each address gets a separate initiation, because a receiver of our initiations forges
    /// answers.
    apart: bool,
    /// Root that relays alone in the first round, if any.
    pub(super) first_relay: Option<FirstRelay>,
}

impl Attempt {
    /// Returns true if the last initiation belongs to the first round and more may be sent in that round.
    pub(super) fn is_first_round(&self) -> bool {
        self.rounds == 1 && !self.given_up
    }

    fn position(&self, index: SessionIndex) -> Option<usize> {
        self.pending.iter().position(|pending| pending.index() == index)
    }

    /// Returns true if the attempt was given up, so that only a late answer can still complete it.
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// Returns true if traffic waits for the peer and was not told that the peer is unreachable.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// Returns true if the attempt has sent something in the last `time`.
    pub(super) fn has_sent_since(&self, now: Instant, time: Duration) -> bool {
        self.pending.back().is_some_and(|last| now < last.sent + time)
    }

    /// Returns true if an initiation that may still be answered starts with these bytes.
    pub(crate) fn has_sent(&self, beginning: &[u8]) -> bool {
        self.pending.iter().any(|pending| pending.begins_with(beginning))
    }
}

/// Reason for beginning an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A program has packets for the peer.
    Traffic,
    /// Something unauthenticated suggests that the peer has lost the session.
    Hint,
    /// Local discovery has heard the peer, and connections wait for it.
    Heard,
    /// The session is old.
    Age,
    /// Packets are on their way to the peer, and nothing comes back.
    Silence,
}

/// Verdict on a message that answers an attempt of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tried {
    /// The message is authentic and was used.
    Authentic,
    /// No attempt waits for the message.
    Unexpected,
    /// The message is not authentic.
    Forged,
}

impl Link {
    /// Begins a handshake unless one runs or a usable session exists.
    pub(crate) fn want_session(&mut self, cx: &mut Context<'_>) {
        // A session may have expired while the machine slept and no timer ran.
        self.expire_sessions(cx);
        // A session without a proven path cannot carry packets yet.
        if self.current().is_none() || self.is_waiting_for_path {
            self.attempt(cx, Reason::Traffic);
        }
    }

    /// Begins an attempt, or extends a running one.
    pub(crate) fn attempt(&mut self, cx: &mut Context<'_>, reason: Reason) {
        let now = cx.now;
        self.used = now;
        // Anyone can send hints, so a hint alone buys only a short attempt.
        let give_up = match reason {
            Reason::Traffic | Reason::Age | Reason::Silence => GIVE_UP_AFTER,
            Reason::Hint | Reason::Heard => HINT_GIVE_UP_AFTER,
        };
        let renews = reason == Reason::Age;
        let ends_when_heard = reason == Reason::Silence && self.current().is_some();
        let wanted = (!matches!(reason, Reason::Hint | Reason::Heard)).then_some(now);
        // Late answers to the attempt before must still complete a handshake, so its initiations move to the
        // new one.
        let late = self.attempt.take_if(|attempt| attempt.given_up).map(|attempt| attempt.pending);
        if let Some(attempt) = &mut self.attempt {
            attempt.until = attempt.until.max(now + give_up);
            attempt.wanted = attempt.wanted.or(wanted);
            // Any reason other than age means that the path may have failed, so the rounds then go
            // everywhere.
            attempt.renews &= renews;
            // Only traffic or a renewal makes the attempt outlast the silence: a correct hint will be
            // repeated.
            attempt.ends_when_heard &= reason != Reason::Traffic && !renews;
            return self.arm_attempt(cx);
        }
        self.attempt = Some(Attempt {
            started: now,
            until: now + give_up,
            is_asking: false,
            // A beacon that answers a beacon would make two nodes that cannot connect go on for ever.
            has_asked: reason == Reason::Heard,
            wanted,
            rounds: 0,
            next_round: now,
            hurried: None,
            hastened: false,
            set_right: false,
            renews,
            ends_when_heard,
            given_up: false,
            pending: late.unwrap_or_default(),
            last: None,
            apart: false,
            first_relay: None,
        });
        cx.core.counters.attempts_started.increment();
        // A node that was reached before is looked up only if the first round has no answer.
        if !cx.reach.any_proven() {
            cx.effects.push(Effect::LookUp);
        }
        self.next_round(cx);
    }

    /// Tries `place` at once if an attempt runs: the peer seems to be there, newly or again.
    pub(crate) fn try_at(&mut self, cx: &mut Context<'_>, place: &Place) {
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| !attempt.given_up) else { return };
        let round = attempt.rounds;
        if attempt.pending.iter().any(|pending| pending.round == round && pending.went_to(place)) {
            return;
        }
        // This round's initiation had nowhere to go, or each place gets a separate one.
        let is_behind = attempt.pending.back().is_some_and(|pending| pending.round < round);
        // Relayed places and roots behind a stream also get a separate initiation.
        let is_apart = attempt.apart || !place.is_plain();
        attempt.is_asking = true;
        let is_shared = attempt.pending.back().is_some_and(|pending| !pending.is_apart);
        if is_apart || is_behind || (!attempt.pending.is_empty() && !is_shared) {
            if cx.reach.spend(place, cx.initiation_len()) {
                self.initiate_at(cx, vec![*place], is_apart);
            }
            return;
        }
        let last = attempt.last;
        let Some(last) = attempt.pending.back_mut().filter(|pending| Some(pending.index()) == last) else {
            return self.next_round(cx);
        };
        if cx.reach.spend(place, last.datagram.len()) {
            // With several targets an answer no longer proves that the peer receives at one of them.
            last.targets.push(*place);
            tracing::debug!(peer = %self.handle.logged(), to = %place, "initiation sent here too");
            cx.core.transmit(place, last.datagram.clone());
        }
    }

    /// Tries `place` again after the way to it has changed, because earlier initiations may be lost.
    pub(crate) fn try_again_at(&mut self, cx: &mut Context<'_>, place: &Place) {
        // A renewal asks the path alone, which works.
        if self.attempt.as_ref().is_some_and(|attempt| !attempt.renews) {
            self.try_at(cx, place);
        }
    }

    /// Shortens the waits of a running attempt for a while, because something else depends on the peer.
    pub(crate) fn hurry(&mut self, cx: &mut Context<'_>) {
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| !attempt.given_up) else { return };
        attempt.hurried = Some(cx.now);
        attempt.next_round = attempt.next_round.min(cx.now + RETRY_HURRIED);
        self.arm_attempt(cx);
    }

    /// Restarts the intervals of an attempt, because the peer has probably just come back.
    pub(crate) fn retry_at_once(&mut self, cx: &mut Context<'_>) {
        if let Some(attempt) = self.attempt.as_mut().filter(|attempt| !attempt.given_up) {
            // The backoff begins anew, because what delayed the answer is over.
            attempt.rounds = 0;
            attempt.renews = false;
            self.next_round(cx);
        }
    }

    pub(crate) fn on_attempt_timer(&mut self, cx: &mut Context<'_>) {
        let Some(attempt) = &mut self.attempt else { return };
        if cx.now >= attempt.until {
            return self.give_up(cx);
        }
        let heard = self.handle.activity().last_received();
        if attempt.ends_when_heard && heard > Some(attempt.started) {
            tracing::debug!(peer = %self.handle.logged(), "the peer is heard again: the handshake is not needed");
            self.end_silence(cx);
            return self.leave_off(cx);
        }
        // Once per demand, not per attempt, because a connection begun after the first event would wait for
        // ever.
        if attempt.wanted.take_if(|since| cx.now >= *since + UNREACHABLE_AFTER).is_some() {
            let peer = self.handle.clone();
            let is_refused = self.refusal.is_some();
            cx.core.emit(match attempt.is_asking && !is_refused {
                true => {
                    tracing::debug!(peer = %peer.logged(), "no answer for 5 s; the handshake is tried on");
                    Event::PeerSilent(peer)
                }
                false => {
                    tracing::debug!(peer = %peer.logged(), "the peer is nowhere to be found");
                    Event::PeerUnreachable(peer)
                }
            });
        }
        if cx.now >= attempt.next_round {
            self.next_round(cx);
        } else {
            self.try_other_relays(cx);
            self.arm_attempt(cx);
        }
    }

    /// Gives the attempt up when its time is over: the peer counts as away.
    fn give_up(&mut self, cx: &mut Context<'_>) {
        if self.is_connecting() {
            tracing::debug!(peer = %self.handle.logged(), "no answer: the handshake is given up");
            cx.core.counters.attempts_given_up.increment();
        }
        self.leave_off(cx);
    }

    /// Sends no more initiations, and ends the attempt once its last initiation has expired.
    fn leave_off(&mut self, cx: &mut Context<'_>) {
        let Some(attempt) = &mut self.attempt else { return };
        // The pending initiations stay valid, so a late response still completes the handshake.
        if !std::mem::replace(&mut attempt.given_up, true) {
            attempt.wanted = None;
            cx.effects.push(Effect::Refile);
        }
        match attempt.pending.back().map(|last| last.sent + PENDING_FOR) {
            Some(end) if cx.now < end => cx.set_timer(Timer::Attempt, Some(end)),
            _ => self.end_attempt(cx),
        }
    }

    /// Sends one initiation everywhere, and schedules the next round.
    pub(super) fn next_round(&mut self, cx: &mut Context<'_>) {
        let longest = match (&self.refusal, self.instance) {
            (Some(refusal), _) if refusal.is_open() => RETRY_REFUSED,
            (_, Some(_)) => RETRY_LOST,
            (_, None) => RETRY_MAX,
        };
        let Some(attempt) = &mut self.attempt else { return };
        let is_hurried = attempt.hurried.is_some_and(|at| cx.now < at + HURRIED_FOR);
        let longest = if is_hurried { longest.min(RETRY_HURRIED) } else { longest };
        // Nothing waits for a renewal, so repeat it no earlier than its answer can arrive.
        let round_trips = cx.reach.rtt().filter(|_| attempt.renews).unwrap_or_default() * 2;
        let interval = interval(attempt.rounds).max(round_trips).min(longest);
        // Shorten by up to a fifth, so that two sides do not repeat in step and no wait exceeds the bound.
        let jitter = interval / 5 * cx.core.rng.random_range(0..=100) / 100;
        attempt.rounds += 1;
        // From the second round on all roots relay.
        attempt.first_relay = None;
        attempt.hastened = false;
        attempt.set_right = false;
        attempt.next_round = cx.now + interval - jitter;
        let repeated = attempt.rounds > 1;
        let is_hint = attempt.until <= attempt.started + HINT_GIVE_UP_AFTER;
        let has_asked = attempt.has_asked;
        attempt.has_asked |= repeated;
        let sent = self.initiate(cx);
        if let Some(attempt) = &mut self.attempt {
            attempt.is_asking = sent;
        }
        self.arm_attempt(cx);
        // Without an answer, or without anywhere to send, the peer may have moved.
        if repeated || !sent {
            // A beacon makes all nodes of the local network answer, so a hint buys one.
            cx.effects.push(if is_hint && has_asked { Effect::LookUp } else { Effect::Solicit });
        }
    }

    pub(super) fn arm_attempt(&self, cx: &mut Context<'_>) {
        let Some(attempt) = &self.attempt else { return };
        let unreachable = attempt.wanted.map(|since| since + UNREACHABLE_AFTER);
        let relays = attempt.first_relay.as_ref().and_then(FirstRelay::due);
        let at = relays.into_iter().fold(attempt.next_round.min(attempt.until), Instant::min);
        cx.set_timer(Timer::Attempt, Some(unreachable.map_or(at, |unreachable| at.min(unreachable))));
    }

    /// Sends one initiation to every candidate that may be sent to, or a separate one to each. Returns false
    /// if there is no candidate.
    fn initiate(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(attempt) = &mut self.attempt else { return false };
        // A renewal goes to the path alone at first. The first answer becomes the path, and could come over a
        // way that was left for a better one.
        let path = cx.reach.usable_path(&cx.core.sockets).filter(|_| attempt.renews && attempt.rounds == 1);
        let targets = match path {
            Some(path) => vec![path],
            None => cx.reach.spend_everywhere(cx.initiation_len(), &cx.core.sockets),
        };
        if targets.is_empty() {
            tracing::debug!(
                peer = %self.handle.logged(),
                known = %List(cx.reach.remotes()),
                "no address of the peer may be sent to yet"
            );
            return false;
        }
        // Separate initiations cost a multiple of the X25519 work, so such rounds are limited. They are made
        // only while traffic waits for the peer, because anyone can send hints.
        let direct = targets.iter().filter(|target| target.is_plain()).count();
        let apart = attempt.apart && direct > 1 && attempt.is_wanted() && cx.core.apart.take(cx.now);
        // An answer proves a place if its initiation went nowhere else. This spares the few places behind
        // roots a round trip.
        let is_apart = |target: &Place| apart || !target.is_plain();
        let (alone, shared): (Vec<_>, Vec<_>) = targets.into_iter().partition(is_apart);
        // The place most likely the peer's comes last, so that `last` refers to the initiation sent there.
        let alone = alone.into_iter().rev();
        let sent = alone.fold(false, |sent, target| self.initiate_at(cx, vec![target], true) | sent);
        if shared.is_empty() { sent } else { self.initiate_at(cx, shared, false) | sent }
    }

    /// Makes one initiation and sends it to `targets`.
    pub(super) fn initiate_at(&mut self, cx: &mut Context<'_>, targets: Vec<Place>, is_apart: bool) -> bool {
        let (room, len) = (self.room_for_question(cx, &targets), cx.initiation_len());
        let Some(attempt) = &mut self.attempt else { return false };
        let (core, now) = (&mut *cx.core, cx.now);
        // Without entropy there is no handshake, because a key that repeats gives away the session.
        let Some(ephemeral) = core.ephemeral() else { return false };
        // Reserved now, because the response will name this index.
        let Some(index) = core.sessions.reserve(|| core.rng.random()) else {
            core.counters.sessions_refused.increment();
            return false;
        };
        let payload = InitiationPayload {
            network: cx.network,
            timestamp: core.clock.timestamp(now, self.floor),
            instance: core.instance,
            receive_buffer: core.receive_buffer,
            suites: core.provider.suites(),
            introduction: cx.introduction.to_vec(),
            room,
        };
        // A responder accepts each timestamp only once.
        self.floor = Some(payload.timestamp);
        let mut datagram = Vec::with_capacity(len + room);
        let responder = self.handle.identity();
        let started = Initiator::start(&core.identity, responder, *ephemeral, index, &payload, &mut datagram);
        // The key pair and the tokens `es` and `ss`.
        core.counters.handshake_x25519.add(3);
        // Fails only for a peer with a key of low order, which can have no session.
        let Ok(initiator) = started else {
            core.sessions.remove(index);
            return false;
        };
        self.cookies.append(now, self.handle.id(), (&targets, is_apart), &mut datagram);
        core.initiations.insert(index, cx.key);
        tracing::debug!(
            peer = %self.handle.logged(),
            to = %List(targets.iter()),
            round = attempt.rounds,
            "initiation sent"
        );
        for place in &targets {
            core.counters.initiations_sent.increment();
            core.transmit(place, datagram.clone());
        }
        attempt.last = Some(index);
        let round = attempt.rounds;
        // Earlier ones stay: an answer that is slower than the backoff must still complete the handshake.
        attempt.pending.push_back(Pending {
            initiator,
            sent: now,
            round,
            targets,
            datagram,
            is_apart,
            failed: 0,
        });
        if let Some(unlikely) = thin(&mut attempt.pending, now) {
            core.release(unlikely.index());
        }
        true
    }

    /// Stops trying, and frees everything the attempt holds.
    pub(super) fn end_attempt(&mut self, cx: &mut Context<'_>) {
        cx.set_timer(Timer::Attempt, None);
        let Some(attempt) = self.attempt.take() else { return };
        for pending in attempt.pending {
            cx.core.release(pending.index());
        }
        cx.effects.push(Effect::Refile);
    }

    /// Returns the number of forged responses to the initiation with this index.
    pub(crate) fn failures(&self, index: SessionIndex) -> u8 {
        let mut pending = self.attempt.iter().flat_map(|attempt| &attempt.pending);
        pending.find(|pending| pending.index() == index).map_or(0, |pending| pending.failed)
    }

    /// Counts a forged response, and after several gives the initiation up. The next round makes another,
    /// which the forger has not seen yet. If the initiation went to several addresses, the next round begins
    /// at once with a separate initiation for each address.
    pub(crate) fn note_failure(&mut self, cx: &mut Context<'_>, index: SessionIndex) {
        let Some(attempt) = &mut self.attempt else { return };
        let Some(at) = attempt.position(index) else { return };
        self.answer_unreadable = true;
        if !attempt.pending[at].note_failure() {
            return;
        }
        // The forger has a copy of this initiation and can go on, so only a new initiation helps.
        let given_up = attempt.pending.remove(at);
        cx.core.release(index);
        let is_shared = given_up.is_some_and(|pending| pending.targets.len() > 1);
        if is_shared && !std::mem::replace(&mut attempt.apart, true) {
            tracing::debug!(
                peer = %self.handle.logged(),
                "answers are forged: each address of the peer gets a separate initiation from now on"
            );
            self.next_round(cx);
        }
    }

    /// Completes our handshake with a response. Returns false if the response is not authentic.
    pub(crate) fn on_response(
        &mut self,
        cx: &mut Context<'_>,
        meta: &RecvMeta,
        index: SessionIndex,
        datagram: &[u8],
    ) -> bool {
        let now = cx.now;
        let Some(attempt) = &mut self.attempt else { return false };
        let Some(at) = attempt.position(index) else { return false };
        cx.core.counters.handshake_x25519.add(2);
        cx.core.counters.bytes_tried.add(datagram.len() as u64);
        let read = attempt.pending[at].initiator.read_response(&cx.core.identity, cx.psk, datagram);
        let Ok((keys, said)) = read else { return false };
        // `establish` checks whether the path was silent until now.
        self.handle.activity().note_received(now);
        let (handle, counters) = (self.handle.clone(), cx.core.counters.clone());
        let session = Session::new(&keys, &*cx.core.provider, handle, counters, REJECT_AFTER, now);
        let Some(session) = session.map(Arc::new) else { return false };
        cx.core.sessions.insert(session.clone());
        // A second response to the same initiation must not make a second session with the same keys.
        cx.core.initiations.remove(&index);
        attempt.last.take_if(|last| *last == index);
        let Some(pending) = attempt.pending.remove(at) else { return false };
        let place = meta.place();
        cx.reach.heard(place, datagram.len(), Source::Handshake, now);
        let is_proven = cx.reach.is_proven(&place) || pending.went_only_to(&place);
        if is_proven {
            cx.reach.sample(place, now.saturating_duration_since(pending.sent));
        }
        // A response from an unproven place proves nothing about that place, so packets go to a target that
        // is proven, if any.
        let known = pending.targets.into_iter().find(|target| cx.reach.is_proven(target));
        let instead = known.filter(|_| !is_proven && !cx.has_path());
        self.add_session(Live {
            session: session.clone(),
            instance: said.instance,
            receive_buffer: said.receive_buffer,
            place: is_proven.then_some(place),
            rekey_at: now + rekey_age(REKEY_AFTER, &mut cx.core.rng),
            question: said.question.map(|question| Question::Theirs(Box::new(question))),
        });
        cx.core.counters.handshakes_initiated.increment();
        if let Some(instead) = instead {
            self.move_path(cx, instead);
        }
        // Otherwise the attempt goes on, because a session without a path carries no packets.
        if is_proven || cx.has_path() {
            self.end_attempt(cx);
        }
        self.establish(cx, &session);
        if !is_proven {
            self.challenge(cx, place, Why::Move);
        }
        // The responder may use the session only after it has received a packet on it. With a relaying root,
        // a question about the peer's addresses, or the answer to the peer's question, has just served as
        // that packet.
        if session.sent_packets() == 0 || !is_proven {
            self.send_keepalive(cx, &session);
        }
        true
    }

    /// Handles a cookie reply: the peer is busy and wants the initiation again with a cookie.
    pub(crate) fn on_cookie_reply(&mut self, cx: &mut Context<'_>, reply: &CookieReply) -> Tried {
        let Some(attempt) = &mut self.attempt else { return Tried::Unexpected };
        let Some(at) = attempt.position(reply.receiver) else { return Tried::Unexpected };
        let Pending { targets, is_apart, .. } = &attempt.pending[at];
        cx.core.counters.bytes_tried.add(CookieReply::LEN as u64);
        if !self.cookies.receive(cx.now, (targets, *is_apart), reply) {
            return Tried::Forged;
        }
        cx.core.counters.cookies_received.increment();
        tracing::debug!(
            peer = %self.handle.logged(),
            "the peer is busy and wants the initiation again with a cookie"
        );
        // Once per round, so that a peer which answers everything with a cookie triggers no flood.
        if !attempt.given_up && !std::mem::replace(&mut attempt.hastened, true) {
            self.initiate(cx);
        }
        Tried::Authentic
    }

    /// Handles a stale reply: the peer has read a newer initiation of ours, because our clock went back
    /// between two runs.
    pub(crate) fn on_stale_reply(
        &mut self,
        cx: &mut Context<'_>,
        meta: &RecvMeta,
        reply: &StaleReply,
    ) -> Tried {
        let place = meta.place();
        let Some(attempt) = &mut self.attempt else { return Tried::Unexpected };
        let read = |pending: &Pending| {
            cx.core.counters.bytes_tried.add(StaleReply::LEN as u64);
            Some((pending.initiator.read_stale_reply(reply)?, pending.went_only_to(&place)))
        };
        let Some((newest, is_proven)) = attempt.pending.iter().find_map(read) else { return Tried::Forged };
        // The reply is late or a copy, because the last initiation was already newer.
        if self.floor.is_some_and(|floor| floor > newest) {
            return Tried::Authentic;
        }
        cx.core.counters.clock_behind.increment();
        tracing::debug!(
            peer = %self.handle.logged(),
            "the peer knows newer initiations of this node: its clock went back"
        );
        // The reply is authentic and bound to this initiation, so the next one can be newer at once.
        self.floor = Some(newest);
        if is_proven {
            cx.reach.prove(place, Source::Handshake, cx.now);
        }
        // Once per round, so that a peer which always claims a newer timestamp triggers no flood.
        if !attempt.given_up && !std::mem::replace(&mut attempt.set_right, true) {
            self.initiate(cx);
        }
        Tried::Authentic
    }
}

/// Returns the longest wait after `rounds` rounds.
fn interval(rounds: u32) -> Duration {
    RETRY_MAX.min(RETRY_MIN * 2u32.pow(rounds.min(16)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_double_up_to_the_bound() {
        let millis: Vec<_> = (0..7).map(|rounds| interval(rounds).as_millis()).collect();
        assert_eq!(millis, [250, 500, 1000, 2000, 4000, 5000, 5000]);
        assert_eq!(interval(u32::MAX), Duration::from_secs(5));
    }
}
