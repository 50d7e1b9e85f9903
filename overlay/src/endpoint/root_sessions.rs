//! The sessions with roots: their beginning and maintenance, and the messages in them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Endpoint;
use crate::bucket::Rate;
use crate::link::{Event, PeerKey, Reason, Timer};
use crate::reach::Why;
use crate::roots::{ANSWER_TIMEOUT, MAX_UNANSWERED, RETRY_INTERVAL};
use crate::session::Session;
use crate::wire::{Channel, NotFound, NoticeCode, Registered, RootMessage};

impl Endpoint {
    /// Handles a change of the link to a root.
    pub(super) fn on_root_event(&mut self, now: Instant, event: &Event) {
        let Some(key) = self.key_of(event.peer()) else { return };
        let Some(root) = self.roots.get_mut(key) else { return };
        match event {
            Event::PeerSilent(_) | Event::PeerUnreachable(_) => {
                root.is_unreachable = true;
                root.registering.interrupted();
            }
            Event::SessionReady(_) | Event::PathConfirmed(_) => {
                // The root may have forgotten this node meanwhile.
                if std::mem::take(&mut root.is_unreachable) {
                    root.registering.renew_soon(now);
                }
            }
            Event::SessionLost(_) => root.registering.interrupted(),
            Event::PathChanged(_) => {}
            _ => return,
        }
        // The root follows to a new source only on a packet other than a probe, such as a registration.
        if matches!(event, Event::PathChanged(_)) && root.stream.is_open {
            root.registering.renew_soon(now);
        }
        self.update_relay(now, key);
        // Deferred to the timer, because this call may be in the middle of a step of that link.
        self.core.timers.set(Timer::Root(key), now);
    }

    /// Maintains a session with a root, this node's registration there, and regular signs of life from the
    /// root.
    pub(super) fn step_root(&mut self, now: Instant, key: PeerKey) {
        if self.leave_idle_guest(now, key) {
            return;
        }
        if self.roots.get(key).is_some_and(|root| root.move_at.is_some_and(|at| now >= at)) {
            self.update_relay(now, key);
        }
        let Some(session) = self.step_root_session(now, key) else { return };
        let stream = self.step_stream(now, key);
        let other_view = self.step_other_view(now, key);
        let nicknames = self.step_nicknames(now, key);
        let moves = self.roots.get(key).and_then(|root| root.move_at);
        let due = [stream, other_view, nicknames, moves].into_iter().flatten().fold(session, Instant::min);
        self.core.timers.set(Timer::Root(key), due.max(now + MIN_TIMER_DELAY));
    }

    /// Performs the session's due step and returns when to check again.
    fn step_root_session(&mut self, now: Instant, key: PeerKey) -> Option<Instant> {
        let peer = self.peers.get(key)?;
        let handle = Arc::clone(&peer.link.handle);
        let Some(session) = handle.sender().map(|sender| sender.session) else {
            if !peer.link.is_connecting() {
                let tried = self.roots.get(key).is_some_and(|root| root.is_unreachable);
                // A root that has not answered before gets short attempts with pauses.
                let reason = if tried { Reason::Hint } else { Reason::Traffic };
                self.link(now, key, |link, cx| link.attempt(cx, reason));
            }
            return Some(now + RETRY_INTERVAL);
        };
        self.register_if_due(now, key, &session);
        let activity = handle.activity();
        let (sent, heard) = (activity.last_sent(), activity.last_received());
        let root = self.roots.get_mut(key)?;
        // Any packet is a sign of life, so a lost answer does not matter if others came.
        root.asked.take_if(|(since, _)| heard.is_some_and(|heard| heard >= *since));
        let due = match root.asked {
            Some((since, times)) => since + ANSWER_TIMEOUT * times,
            None => sent.map_or(now, |sent| sent + root.keeping.pause()),
        };
        let due = if now < due {
            due
        } else {
            let (since, times) = root.asked.unwrap_or((now, 0));
            root.asked = Some((since, times + 1));
            if times >= MAX_UNANSWERED {
                root.asked = None;
                root.registering.interrupted();
                self.link(now, key, |link, cx| link.attempt(cx, Reason::Traffic));
                now + RETRY_INTERVAL
            } else {
                // A NAT box may have given this node another address, and the root must follow to it.
                self.link(now, key, |link, cx| link.renew_or_ask_path(cx, Why::Announce));
                now + ANSWER_TIMEOUT
            }
        };
        let register = self.roots.get(key).and_then(|root| root.registering.next());
        Some(register.map_or(due, |at| due.min(at)))
    }

    fn register_if_due(&mut self, now: Instant, key: PeerKey, session: &Session) {
        let unix_time = self.core.clock.unix_time(now);
        let identity = Arc::clone(&self.core.identity);
        let Some(root) = self.roots.get_mut(key) else { return };
        if !root.registering.is_due(session.index(), now) {
            return;
        }
        let (id, access) = (root.identity.node_id(), root.access.clone());
        let message = root.registering.ask(&identity, &id, &access, session.index(), unix_time, now);
        // A registration has an answer, so repeating it unanswered must not pass for a working session.
        root.asked.get_or_insert((now, 1));
        self.core.counters.root_registrations_sent.increment();
        self.tell_root(now, key, &message);
    }

    pub(super) fn tell_root(&mut self, now: Instant, key: PeerKey, message: &RootMessage) {
        let mut plaintext = Vec::new();
        message.emit(&mut plaintext);
        self.link(now, key, |link, cx| link.send_message(cx, &plaintext));
    }

    /// Renews all registrations after a change of this node's own addresses, because the roots now see
    /// others.
    pub(super) fn renew_registrations(&mut self, now: Instant) {
        for (key, root) in &mut self.roots.list {
            root.registering.renew_soon(now + ADDRESS_SETTLES);
            root.keeping.forget_mapping();
            self.core.timers.set_earlier(Timer::Root(*key), now + ADDRESS_SETTLES);
        }
    }

    /// Handles a root's message in its session.
    pub(super) fn on_root_message(&mut self, now: Instant, key: PeerKey, plaintext: &[u8]) {
        let Ok(message) = RootMessage::parse(plaintext) else {
            return self.core.counters.control_unknown.increment();
        };
        match message {
            RootMessage::Registered(answer) => self.on_registered(now, key, answer),
            RootMessage::Found { id, result } => match self.roots.look_ups.take_open(key, id) {
                Some(wanted) => {
                    if let Some(root) = self.roots.get_mut(key) {
                        root.is_partial = result == Err(NotFound::Partial);
                    }
                    result.into_iter().for_each(|entry| self.on_found(now, key, &wanted, &entry));
                }
                None => self.core.counters.root_answers_refused.increment(),
            },
            RootMessage::Referred { id, pass, referral } => match self.roots.look_ups.take_open(key, id) {
                Some(wanted) => self.on_referred(now, key, &wanted, &pass, &referral),
                None => self.core.counters.root_answers_refused.increment(),
            },
            RootMessage::Notice { code, channel } => self.on_notice(now, key, code, channel),
            RootMessage::Vouched(voucher) => self.on_vouched(now, key, voucher),
            RootMessage::Nickname(message) => self.on_nickname(now, key, message),
            // Only roots get the other messages.
            _ => self.core.counters.control_unknown.increment(),
        }
    }

    fn on_registered(&mut self, now: Instant, key: PeerKey, answer: Registered) {
        let own = self.own_id;
        let Some(root) = self.roots.get_mut(key) else { return };
        let identity = root.identity;
        let was_registered = root.registering.standing(now).is_some();
        let was_confirmed = root.registering.is_confirmed(now);
        let before = root.registering.standing(now).map(|answer| answer.sequence);
        let (time, seen) = (answer.voucher.time, answer.voucher.address);
        if !root.registering.answered(answer, &identity, &own, now) {
            return self.core.counters.root_answers_refused.increment();
        }
        if !was_registered {
            tracing::info!(root = %identity.node_id(), "registered at a root");
        }
        root.clock = Some((time, now));
        if before != Some(answer.sequence) {
            self.roots.claims.registered(key, now);
        }
        let Some(root) = self.roots.get_mut(key) else { return };
        let path = self.peers.get(key).and_then(|peer| peer.link.handle.path());
        if let Some(way) = path.map(|path| path.place).filter(|place| !place.socket().is_stream()) {
            root.keeping.note((way.socket(), way.remote()), seen);
        }
        root.other_view.ask(now);
        if let Some(guest) = &mut root.guest {
            guest.refused = 0;
        }
        self.publish_clocks();
        self.update_relay(now, key);
        self.renew_contact(now);
        self.core.timers.set(Timer::Root(key), now);
        if !was_confirmed {
            self.ask_root(now, key);
        }
    }

    fn on_notice(&mut self, now: Instant, key: PeerKey, code: NoticeCode, channel: Channel) {
        let Some(root) = self.roots.get_mut(key) else { return };
        tracing::debug!(root = %root.identity.node_id(), code = code as u8, %channel, "a root says");
        match code {
            NoticeCode::NotRegistered => root.registering.lost(now),
            NoticeCode::Refused if root.show_next_pass(now) => {}
            NoticeCode::Refused => root.registering.refused(now),
            NoticeCode::Drains => {
                root.registering.drains();
                self.update_relay(now, key);
            }
            NoticeCode::OverRate | NoticeCode::NoChannel => {
                let is_over_rate = code == NoticeCode::OverRate;
                self.core.counters.root_over_rate.add(is_over_rate.into());
                // Each notice examines all nodes. A dropped one is repeated with the next frame.
                if !root.notices.take_of(Rate::per_second(NOTICES, NOTICES_BURST), now) {
                    return self.core.counters.root_notices_limited.increment();
                }
                match root.relay.map(|relay| relay.root) {
                    Some(root) if is_over_rate => self.relay_over_rate(now, root, channel),
                    Some(root) => self.forget_relayed(now, root, Some(channel)),
                    None => {}
                }
            }
        }
        self.core.timers.set(Timer::Root(key), now);
    }
}

/// Rate and burst of notices about unknown channels and exceeded rates that are handled. Each peer behind a
/// restarted root may cause one.
const NOTICES: u32 = 50;
const NOTICES_BURST: u32 = 500;

/// Minimum delay of a timer that is due again.
// A loop cannot run without end then.
pub(super) const MIN_TIMER_DELAY: Duration = Duration::from_millis(1);

/// Time after a change of address until the root has probably seen this node there.
const ADDRESS_SETTLES: Duration = Duration::from_millis(500);
