//! The search for a direct path to the peer's node while datagrams are relayed: its messages in the session,
//! and the packets of its plan. See [`Punching`](crate::contact::Punching).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Context, Link, Reason, Timer};
use crate::contact::{Contact, Punching, Said, vouched};
use crate::network::NetworkIndex;
use crate::reach::{Place, Why, place_of};
use crate::session::Session;
use crate::wire::{Candidates, Control, DATA_OVERHEAD};

/// Time after which the responder of the handshake asks for the peer's addresses, if the peer has not asked.
const RESPONDER_DELAY: Duration = Duration::from_secs(1);

/// Upper bound on a round-trip time that a peer may claim.
pub(super) const MAX_ROUND_TRIP: Duration = Duration::from_secs(5);

/// Time since the last data within which data counts as flowing.
const RECENT_DATA_AGE: Duration = Duration::from_secs(15);

impl Link {
    /// Starts the exchange of addresses, because datagrams are relayed from now on. The session's initiator
    /// asks first, unless it was asked in the response.
    pub(super) fn seek_direct_in_turn(&mut self, cx: &mut Context<'_>) {
        let Some(session) = self.current() else { return };
        if self.begin_with_question(cx, &session) {
            return;
        }
        self.seek_direct(cx, if session.is_initiator() { Duration::ZERO } else { RESPONDER_DELAY });
    }

    /// Tells the peer at once that this node's addresses have changed.
    pub(crate) fn contact_changed(&mut self, cx: &mut Context<'_>) {
        cx.reach.punching(cx.now).restart();
        self.seek_direct(cx, Duration::ZERO);
    }

    /// Asks for the peer's addresses after `wait`, if datagrams are relayed.
    fn seek_direct(&mut self, cx: &mut Context<'_>, wait: Duration) {
        if !cx.reach.is_relayed() || self.current().is_none() {
            return;
        }
        let id = u32::from_be_bytes(cx.core.random());
        cx.reach.punching(cx.now).ask(id, wait, cx.now);
        self.step_punching(cx);
    }

    /// Handles traffic on the session: begins another round if the last one was long ago.
    pub(super) fn watch_relayed(&mut self, cx: &mut Context<'_>) {
        if self.data_flows(cx.now) && cx.reach.is_relayed() && cx.reach.punching(cx.now).is_due(cx.now) {
            self.seek_direct(cx, Duration::ZERO);
        }
    }

    /// Returns true if data passes, and not only signs of life.
    pub(super) fn data_flows(&self, now: Instant) -> bool {
        let data = self.handle.activity().last_data();
        data.is_some_and(|at| now.saturating_duration_since(at) < RECENT_DATA_AGE)
    }

    /// Handles a contact of the peer that was learned elsewhere; both sides begin sending at `start`.
    pub(crate) fn meet(&mut self, cx: &mut Context<'_>, contact: &Contact, start: Instant) {
        let session = self.current();
        // The contact from the DHT is older than the path, and could only lead to a worse one.
        if session.is_some() && cx.reach.is_direct() {
            return;
        }
        let own = cx.core.contact.contact().clone();
        let (core, now) = (&mut *cx.core, cx.now);
        core.counters.punches_begun.increment();
        cx.reach.punching(now).set_sockets(&core.sockets);
        let draw = || core.nonce();
        cx.reach.punching(now).begin_meeting(&own, contact, session.is_some(), start, now, draw);
        self.step_punching(cx);
    }

    /// Sends what is due, and schedules the next step.
    pub(crate) fn step_punching(&mut self, cx: &mut Context<'_>) {
        let (now, session) = (cx.now, self.current());
        let (rtt, path) = (cx.reach.rtt().unwrap_or_default(), cx.reach.place());
        let direct = path.filter(|_| session.is_some() && cx.reach.is_direct());
        let is_wanted = self.is_wanted();
        let punching = cx.reach.punching(now);
        // Challenges need a session; without one only a meeting goes on, by initiations.
        if direct.is_some() || (session.is_none() && !punching.initiates()) {
            punching.stop(direct);
        }
        let due = punching.take_due(session.is_some(), is_wanted, &mut cx.core.allowances, rtt, now);
        self.wait_for_punching(cx);
        if due.birthday {
            self.begin_birthday(cx);
        }
        if let Some(due) = due.tcp {
            self.step_tcp(cx, due);
        }
        if let Some(id) = due.question {
            self.send_candidates(cx, true, id);
        }
        let shots = due.shots.into_iter();
        let place = |(turn, to, data)| Some((place_of(&cx.core.sockets, turn, to)?, data));
        let shots: Vec<_> = shots.filter_map(place).collect();
        if shots.is_empty() {
            return;
        }
        cx.core.counters.punches_sent.add(shots.len() as u64);
        match session {
            Some(session) => {
                for (place, data) in &shots {
                    send_shot(cx, &session, place, *data);
                }
            }
            None => {
                self.attempt(cx, Reason::Hint);
                self.initiate_at(cx, shots.into_iter().map(|(place, _)| place).collect(), false);
            }
        }
    }

    pub(super) fn wait_for_punching(&self, cx: &mut Context<'_>) {
        match cx.reach.known_punching().and_then(Punching::next) {
            Some(at) => cx.core.timers.set(Timer::Punch(cx.node), at),
            None => cx.core.timers.clear(Timer::Punch(cx.node)),
        }
    }

    /// Handles the peer's addresses, sent as an answer or with a question.
    pub(super) fn on_candidates(&mut self, cx: &mut Context<'_>, message: &Candidates) {
        if message.of_tcp {
            return self.on_tcp_candidates(cx, message);
        }
        let now = cx.now;
        if self.handle.network() == NetworkIndex::ROOTS {
            return cx.core.counters.control_unknown.increment();
        }
        let start = if message.is_question {
            // Limited, because a question makes this node send packets to the addresses that the peer names.
            if !cx.reach.punching(now).take_question(now) {
                return cx.core.counters.candidates_refused.increment();
            }
            self.send_candidates(cx, false, message.id);
            let theirs = Duration::from_millis(message.round_trip.into());
            // The asked side waits half a round trip, so that both sides send at the same moment.
            now + cx.reach.rtt().unwrap_or(theirs).min(MAX_ROUND_TRIP) / 2
        } else {
            let Some(rtt) = cx.reach.punching(now).take_answer(message.id, now) else {
                return cx.core.counters.candidates_refused.increment();
            };
            if let (Some(rtt), Some(place)) = (rtt, cx.reach.place()) {
                cx.reach.sample(place, rtt);
            }
            now
        };
        cx.core.counters.candidates_received.increment();
        let is_direct =
            |place: &Place| !cx.reach.relays(&place.key()) && !message.contact.is_relayed_at(&place.remote());
        if let Some(place) = cx.reach.place().filter(is_direct) {
            // The peer does not know about the direct path yet.
            return self.challenge(cx, place, Why::Announce);
        }
        let core = &mut *cx.core;
        let vouched = vouched(self.handle.id(), &message.vouchers, &core.witnesses, false, now);
        let own = core.contact.contact().clone();
        core.counters.punches_begun.increment();
        let said = Said { contact: &message.contact, vouched };
        // A node that reaches the relay by a stream has no UDP, so TCP is tried at once.
        let is_blocked = cx.reach.place().is_some_and(|place| place.socket().is_stream());
        cx.reach.punching(now).set_turn(is_blocked, core.own_id > *self.handle.id());
        cx.reach.punching(now).set_sockets(&core.sockets);
        cx.reach.punching(now).begin(&own, said, start, now, || core.nonce());
        self.step_punching(cx);
    }

    /// Handles a challenge from `place` while the search for a direct path runs.
    pub(super) fn on_heard(&mut self, cx: &mut Context<'_>, place: &Place) {
        // A packet over a root or TURN server says nothing about a direct path.
        if place.relay().is_some() || place.socket().is_turn() || !cx.reach.is_relayed() {
            return;
        }
        if place.socket().is_extra() {
            if cx.core.birthday.heard(cx.node, *place, cx.now) {
                self.step_birthday(cx);
            }
            return;
        }
        if place.socket().is_stream() {
            // Only the node with the smaller ID chooses among several connections, so that both agree on one.
            if cx.core.own_id < *self.handle.id() {
                self.ask_on_stream(cx, place.socket());
            }
            return;
        }
        let (core, now) = (&mut *cx.core, cx.now);
        if cx.reach.punching(now).heard(place.remote(), now, || core.nonce()) {
            self.step_punching(cx);
        }
    }

    /// Handles an answer to a challenge of the plan, from the place it was sent to. Returns false if `data`
    /// is no such answer. Moves the path there if the present one is relayed.
    pub(super) fn on_punched(&mut self, cx: &mut Context<'_>, place: Place, data: [u8; 8]) -> bool {
        if place.relay().is_some() {
            return false;
        }
        let found = cx.reach.is_answer(place, data, cx.now);
        let found = found.or_else(|| cx.core.birthday.answered(cx.node, place, data, cx.now));
        let by_tcp = cx.core.tcp.answered(cx.node, &place, data, cx.now);
        let Some(rtt) = found.or(by_tcp.map(|(rtt, _)| Some(rtt))) else { return false };
        if let Some((_, remote)) = by_tcp {
            cx.reach.punching(cx.now).note_tcp_answer(&remote);
        }
        cx.reach.punched(place, rtt, cx.now);
        cx.core.counters.punches_answered.increment();
        let better = match cx.reach.place() {
            // The peer chooses the connection, and this node follows.
            _ if by_tcp.is_some() && cx.core.own_id > *self.handle.id() => None,
            None => Some(place),
            Some(_) if cx.reach.is_relayed() => cx.reach.better(&cx.core.sockets, &cx.core.scarce, cx.now),
            Some(_) => None,
        };
        if let Some(better) = better {
            tracing::debug!(peer = %self.handle.logged(), place = %better, "a better way is open");
            self.move_path(cx, better);
            // The peer may have got no answer itself, and no other packet may be on its way to it.
            self.challenge(cx, better, Why::Announce);
            self.step_punching(cx);
            self.step_birthday(cx);
        }
        true
    }

    /// Sends this node's addresses to the peer.
    fn send_candidates(&self, cx: &mut Context<'_>, is_question: bool, id: u32) {
        let contact = cx.core.contact.contact().clone();
        let relayed = cx.reach.path().filter(|path| path.place.relay().is_some());
        let relay = relayed.map(|path| path.remote());
        // First the relaying root's, because the peer certainly uses that root too.
        let vouchers = cx.core.contact.vouchers(Candidates::MAX_VOUCHERS, relay);
        let (of_tcp, round_trip) = (false, 0);
        self.send_fitting(cx, Candidates { of_tcp, is_question, id, round_trip, contact, vouchers });
    }

    /// Sends candidates with the round-trip time and as many vouchers as fit into one datagram of the path.
    pub(super) fn send_fitting(&self, cx: &mut Context<'_>, mut message: Candidates) {
        let Some(path) = cx.reach.path() else { return };
        let rtt = cx.reach.rtt().unwrap_or_default().as_millis();
        message.round_trip = u16::try_from(rtt).unwrap_or(u16::MAX);
        loop {
            let mut plaintext = Vec::new();
            message.emit(&mut plaintext);
            if plaintext.len() + DATA_OVERHEAD <= path.datagram_size {
                cx.core.counters.candidates_sent.increment();
                return self.send_message(cx, &plaintext);
            }
            // Vouchers are left out first, because the message is useless without the contact.
            if message.vouchers.pop().is_none() {
                return;
            }
        }
    }
}

/// Sends a challenge to a place that may have no receiver: it is no sign of life, and the peer owes no
/// answer.
pub(super) fn send_shot(cx: &mut Context<'_>, session: &Arc<Session>, place: &Place, data: [u8; 8]) {
    let mut plaintext = Vec::new();
    Control::Challenge { data, here: false }.emit(&mut plaintext);
    let mut datagram = vec![0; plaintext.len() + DATA_OVERHEAD];
    // Not recorded as sent, because most of these packets reach no node and so have no answer.
    if session.seal(&plaintext, &mut datagram).is_ok() {
        cx.core.counters.challenges_sent.increment();
        cx.core.transmit(place, datagram);
    }
}
