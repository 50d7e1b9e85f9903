//! The search for a direct path by TCP, after UDP has led to none: its messages in the session, and its
//! questions on connections. See [`TcpStreams`](crate::contact::TcpStreams).

use std::time::{Duration, Instant};

use super::punching::{MAX_ROUND_TRIP, send_shot};
use super::{Context, Link, Reason};
use crate::contact::{Contact, ROUND_DURATION, Said, TcpDue, vouched};
use crate::network::NetworkIndex;
use crate::reach::{Place, SocketIndex};
use crate::wire::Candidates;

impl Link {
    /// Performs the due step of the search by TCP.
    pub(super) fn step_tcp(&mut self, cx: &mut Context<'_>, due: TcpDue) {
        match due {
            TcpDue::Begin => self.begin_tcp(cx),
            TcpDue::Ask(id) => self.send_tcp_candidates(cx, true, id),
        }
    }

    /// Begins the search, because the round by UDP has found no direct path.
    fn begin_tcp(&mut self, cx: &mut Context<'_>) {
        let (core, now) = (&mut *cx.core, cx.now);
        let is_user = self.handle.network() != NetworkIndex::ROOTS;
        let is_possible = core.tcp.is_on() && core.contact.tcp(0).is_some();
        if !is_possible || !is_user || self.current().is_none() || !cx.reach.is_relayed() {
            return;
        }
        if let Some(latest) = core.birthday.ends(cx.node).filter(|latest| now < *latest) {
            cx.reach.punching(now).postpone_tcp(latest);
        } else {
            let id = u32::from_be_bytes(core.random());
            cx.reach.punching(now).ask_by_tcp(id, now);
        }
        self.step_punching(cx);
    }

    /// Handles the peer's TCP addresses, sent as an answer or with a question.
    pub(super) fn on_tcp_candidates(&mut self, cx: &mut Context<'_>, message: &Candidates) {
        if self.handle.network() == NetworkIndex::ROOTS {
            return cx.core.counters.control_unknown.increment();
        }
        if message.is_question { self.on_tcp_question(cx, message) } else { self.on_tcp_answer(cx, message) }
    }

    fn on_tcp_question(&mut self, cx: &mut Context<'_>, message: &Candidates) {
        let (own_id, now) = (cx.core.own_id, cx.now);
        let is_relayed = cx.reach.is_relayed();
        let punching = cx.reach.punching(now);
        if !punching.take_question(now) {
            return cx.core.counters.candidates_refused.increment();
        }
        if punching.is_asking_by_tcp() && own_id < *self.handle.id() {
            // Both have asked at once, and the peer answers this node's question.
            return;
        }
        if punching.has_agreed_by_tcp(message.id) {
            return self.send_tcp_candidates(cx, false, message.id);
        }
        let core = &mut *cx.core;
        let is_possible = is_relayed && core.tcp.is_on() && core.contact.tcp(0).is_some();
        if !is_possible || !punching.may_join_by_tcp(now) || !core.tcp.take_start(now) {
            // A refusal spares the peer its repetitions.
            return self.send_refusal(cx, message.id);
        }
        punching.join_by_tcp(message.id, now);
        self.send_tcp_candidates(cx, false, message.id);
        let theirs = Duration::from_millis(message.round_trip.into());
        let half = cx.reach.rtt().unwrap_or(theirs).min(MAX_ROUND_TRIP) / 2;
        self.connect(cx, message, half);
    }

    fn on_tcp_answer(&mut self, cx: &mut Context<'_>, message: &Candidates) {
        let (core, now) = (&mut *cx.core, cx.now);
        let has_agreed = !message.contact.candidates().is_empty();
        if !cx.reach.punching(now).take_tcp_answer(message.id, has_agreed, now) {
            return core.counters.candidates_refused.increment();
        }
        if has_agreed && cx.reach.is_relayed() && core.tcp.is_on() && core.tcp.take_start(now) {
            self.connect(cx, message, Duration::ZERO);
        }
    }

    /// Lets the driver connect to the addresses the peer has named.
    fn connect(&mut self, cx: &mut Context<'_>, message: &Candidates, after: Duration) {
        let (core, now) = (&mut *cx.core, cx.now);
        let Some(own) = core.contact.tcp(0) else { return };
        let vouched = vouched(self.handle.id(), &message.vouchers, &core.witnesses, true, now);
        let said = Said { contact: &message.contact, vouched };
        let ends: Instant = now + after + ROUND_DURATION;
        let punching = cx.reach.punching(now);
        let targets = punching.plan_by_tcp(&own.contact, &said, &mut core.allowances, ends, now);
        core.counters.tcp_punches_begun.increment();
        tracing::debug!(peer = %self.handle.logged(), addresses = targets.len(), "connecting by TCP");
        core.tcp.start(cx.node, (own.port, targets), after, now);
        self.step_punching(cx);
    }

    /// Asks on a connection whether the peer receives there. Called once the driver has connected, or the
    /// peer has shown that a connection is its own.
    pub(crate) fn ask_on_stream(&mut self, cx: &mut Context<'_>, socket: SocketIndex) {
        let (core, now) = (&mut *cx.core, cx.now);
        let Some((session, remote)) = self.current().zip(socket.stream_end()) else { return };
        if !cx.reach.is_relayed() {
            return;
        }
        let keys = &mut core.keys;
        if let Some(data) = core.tcp.ask(socket, now, || keys.nonce().ok()) {
            send_shot(cx, &session, &Place::Direct { socket, remote }, data);
        }
    }

    /// Handles the end of a connection that may have been the path.
    pub(crate) fn on_stream_lost(&mut self, cx: &mut Context<'_>) {
        if self.current().is_some() {
            self.attempt(cx, Reason::Hint);
        }
    }

    /// Refuses a question about this node's TCP addresses.
    fn send_refusal(&self, cx: &mut Context<'_>, id: u32) {
        let (contact, vouchers) = (Contact::default(), Vec::new());
        let refusal = Candidates { of_tcp: true, is_question: false, id, round_trip: 0, contact, vouchers };
        let mut plaintext = Vec::new();
        refusal.emit(&mut plaintext);
        self.send_message(cx, &plaintext);
    }

    /// Sends this node's TCP addresses to the peer.
    fn send_tcp_candidates(&self, cx: &mut Context<'_>, is_question: bool, id: u32) {
        let Some(own) = cx.core.contact.tcp(Candidates::MAX_VOUCHERS) else { return };
        let (of_tcp, contact, vouchers) = (true, own.contact, own.vouchers);
        self.send_fitting(cx, Candidates { of_tcp, is_question, id, round_trip: 0, contact, vouchers });
    }
}
