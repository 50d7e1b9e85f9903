//! The search for a direct path by many ports, after few ports have led to none: its messages in the session,
//! and its packets. See [`Birthday`](crate::contact::Birthday).

use rand::Rng;
use rand::rngs::ChaCha20Rng;

use super::punching::{MAX_ROUND_TRIP, send_shot};
use super::{Context, Link, Timer};
use crate::contact::{DirectOutcome, Draw, Join, NotTried, Pace};
use crate::crypto::KeySource;
use crate::network::NetworkIndex;
use crate::reach::place_of;
use crate::wire::{BirthdayStep, Control};

impl Link {
    /// Begins a search by many ports, if the round of few ports has found no direct path and this node is the
    /// side that has to begin.
    pub(super) fn begin_birthday(&mut self, cx: &mut Context<'_>) {
        let (core, now) = (&mut *cx.core, cx.now);
        let is_user = self.handle.network() != NetworkIndex::ROOTS;
        if !core.birthday.is_on() || !is_user || self.current().is_none() || !cx.reach.is_relayed() {
            return;
        }
        let own = core.contact.contact().clone();
        let punching = cx.reach.punching(now);
        let to = match punching.birthday_target(&own) {
            None => return,
            Some(Err(why)) => return punching.refuse_birthday(&own, why, now),
            Some(Ok(to)) => to,
        };
        if core.birthday.is_for(cx.node) || !punching.may_begin_birthday(now) {
            return;
        }
        let like = place_of(&core.sockets, None, to).map(|place| place.socket());
        let Some(like) = like.filter(|like| !like.is_stream()) else { return };
        let id = u32::from_be_bytes(core.random());
        if !core.birthday.begin(cx.node, id, (like, to), now) {
            return punching.refuse_birthday(&own, NotTried::TooOften, now);
        }
        punching.note_birthday(true, now);
        core.counters.birthdays_begun.increment();
        tracing::debug!(peer = %self.handle.id(), "many ports are tried");
        self.step_birthday(cx);
    }

    /// Sends what is due, and schedules the next step.
    pub(crate) fn step_birthday(&mut self, cx: &mut Context<'_>) {
        let (node, now) = (cx.node, cx.now);
        if let Some(place) = cx.reach.place().filter(|_| cx.reach.is_direct()) {
            if let Some((address, sent, outcome)) = cx.core.birthday.succeeded(node, place, now) {
                cx.reach.punching(now).set_birthday(address, sent, outcome, now);
            }
            return self.wait_for_birthday(cx);
        }
        let Some(session) = self.current() else {
            if let Some((address, sent)) = cx.core.birthday.abandon(node) {
                cx.reach.punching(now).set_birthday(address, sent, DirectOutcome::Silent, now);
            }
            return self.wait_for_birthday(cx);
        };
        let rtt = cx.reach.rtt().unwrap_or_default().min(MAX_ROUND_TRIP);
        let core = &mut *cx.core;
        let due = core.birthday.take_due(node, rtt, now, &mut Chance(&mut core.rng, &mut core.keys));
        if let Some((address, sent, outcome)) = due.progress {
            cx.reach.punching(now).set_birthday(address, sent, outcome, now);
        }
        self.wait_for_birthday(cx);
        let ask = |is_ipv4| if is_ipv4 { BirthdayStep::Ask } else { BirthdayStep::AskIpv6 };
        let asked = due.ask.map(|(id, is_ipv4)| (id, ask(is_ipv4)));
        for (id, step) in asked.into_iter().chain(due.stop.map(|id| (id, BirthdayStep::Stop))) {
            let is_fast = step != BirthdayStep::Stop;
            self.send_on_current(cx, Control::Birthday { id, step, is_fast });
        }
        cx.core.counters.birthday_probes_sent.add(due.shots.len() as u64);
        for (socket, to, data) in due.shots {
            if let Some(place) = place_of(&cx.core.sockets, socket, to) {
                send_shot(cx, &session, &place, data);
            }
        }
    }

    /// Handles the peer's message about such a search.
    pub(super) fn on_birthday(&mut self, cx: &mut Context<'_>, id: u32, step: BirthdayStep, is_fast: bool) {
        if self.handle.network() == NetworkIndex::ROOTS {
            return cx.core.counters.control_unknown.increment();
        }
        let (node, now, pace) = (cx.node, cx.now, Pace::of_flag(is_fast));
        match step {
            BirthdayStep::Ask | BirthdayStep::AskIpv6 => {
                if cx.reach.known_punching().is_none_or(|punching| punching.theirs().is_none()) {
                    // The packet with the peer's addresses was lost or is late. The peer repeats its
                    // question, but after a refusal it would wait for minutes.
                    return;
                }
                let is_ipv4 = step == BirthdayStep::Ask;
                let joins = self.joins(cx, id, is_ipv4, pace);
                let step = if joins { BirthdayStep::Agree } else { BirthdayStep::Refuse };
                self.send_on_current(cx, Control::Birthday { id, step, is_fast: is_fast && joins });
            }
            BirthdayStep::Agree => cx.core.birthday.agreed(node, id, pace, now),
            BirthdayStep::Refuse | BirthdayStep::Stop => {
                if let Some((address, sent, outcome)) = cx.core.birthday.refused(node, id) {
                    cx.reach.punching(now).set_birthday(address, sent, outcome, now);
                }
            }
        }
        self.step_birthday(cx);
    }

    /// Handles a change of the sockets that the driver has opened for this search.
    pub(crate) fn on_extra_sockets(&mut self, cx: &mut Context<'_>) {
        let core = &mut *cx.core;
        let open = core.sockets.iter().map(|socket| socket.index).filter(|index| index.is_extra());
        core.birthday.opened(open, cx.now, &mut Chance(&mut core.rng, &mut core.keys));
        self.step_birthday(cx);
    }

    /// Returns true if this node sends to many ports of the peer, which asks for that by IPv4 or IPv6.
    fn joins(&self, cx: &mut Context<'_>, id: u32, is_ipv4: bool, pace: Pace) -> bool {
        let (core, now) = (&mut *cx.core, cx.now);
        if !cx.reach.is_relayed() {
            return false;
        }
        // The answer takes half a round trip, and both sides should begin when it arrives.
        let half = cx.reach.rtt().unwrap_or_default().min(MAX_ROUND_TRIP) / 2;
        let punching = cx.reach.punching(now);
        let Some(host) = punching.birthday_host(core.contact.contact(), is_ipv4) else { return false };
        // A repetition of the question is no new search, so the pause does not refuse it.
        if !core.birthday.is_for(cx.node) && !punching.may_join_birthday(now) {
            return false;
        }
        match core.birthday.join(cx.node, id, (host, pace), half, now) {
            Join::New => {
                punching.note_birthday(false, now);
                core.counters.birthdays_begun.increment();
                true
            }
            Join::Again => true,
            Join::Not => false,
        }
    }

    fn wait_for_birthday(&self, cx: &mut Context<'_>) {
        match cx.core.birthday.next(cx.node) {
            Some(at) => cx.core.timers.set(Timer::Birthday(cx.node), at),
            None => cx.core.timers.clear(Timer::Birthday(cx.node)),
        }
        // A search by TCP waits for the end of this one.
        self.wait_for_punching(cx);
    }
}

/// Source of random draws.
struct Chance<'a>(&'a mut ChaCha20Rng, &'a mut KeySource);

impl Draw for Chance<'_> {
    fn number(&mut self) -> Option<[u8; 8]> {
        self.1.nonce().ok()
    }

    fn port(&mut self) -> u16 {
        let drawn = self.0.next_u32() as u16;
        // Ports below `FIRST_PORT` are ports that no NAT assigns. Redrawing keeps the others equally likely.
        if drawn < FIRST_PORT { self.port() } else { drawn }
    }
}

/// First port that NATs assign (RFC 4787, REQ-3).
const FIRST_PORT: u16 = 1024;
