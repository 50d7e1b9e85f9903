//! Connection between the ways to a node and a session: challenges, path MTU probes, and the handling of
//! their answers.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Context, Effect, Event, Link, Timer};
use crate::reach::{Answer, BASE, BUSY_CONFIRM_INTERVAL, Flow, Kind, LOAD_MIN_BYTES, Place, Why, socket_for};
use crate::session::Session;
use crate::wire::{Control, DATA_OVERHEAD};

/// Lengths of datagrams, in bytes.
const CHALLENGE_LEN: usize = DATA_OVERHEAD + Control::CHALLENGE_LEN;
const HERE_LEN: usize = DATA_OVERHEAD + Control::HERE_LEN;
const ANSWER_LEN: usize = DATA_OVERHEAD + Control::ANSWER_LEN;

/// State while the peer is heard at a relayed place instead of at the path, which is better.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stray {
    /// Time when the path was asked whether it still works, or answered that.
    since: Instant,
    answered: bool,
}

/// Minimum wait for the path's answer to that question.
const STRAY_WAIT: Duration = Duration::from_millis(400);

/// Time after an answer in which the path is not asked again.
const STRAY_INTERVAL: Duration = Duration::from_secs(1);

/// Time since the path left a place, after which a peer heard there counts as moved.
const MOVED_BACK_MIN_AGE: Duration = Duration::from_secs(5);

impl Link {
    /// Asks the peer to repeat a random number from `place`, unless that was just done or exceeds the budget
    /// of the place.
    pub(crate) fn challenge(&mut self, cx: &mut Context<'_>, place: Place, why: Why) {
        let Some(session) = self.current() else { return };
        // Unpredictable, so that only a receiver at the place can answer (RFC 9000, section 8.2).
        let Some(fresh) = cx.core.nonce() else { return };
        // This node's end of the path may have changed, so the peer has to follow.
        let here = why == Why::Announce;
        let bytes = if here { HERE_LEN } else { CHALLENGE_LEN };
        let Some(data) = cx.reach.challenge(place, why, fresh, bytes, cx.now) else { return };
        cx.core.counters.challenges_sent.increment();
        self.send_control(cx, &session, &place, Control::Challenge { data, here });
    }

    /// Answers a peer's challenge where it came from, within the budget that its bytes have paid for.
    pub(super) fn on_challenge(
        &mut self,
        cx: &mut Context<'_>,
        session: &Arc<Session>,
        place: Place,
        data: [u8; 8],
    ) {
        if may_answer_at(cx, &place, ANSWER_LEN) {
            self.send_control(cx, session, &place, Control::Answer { data });
        }
        self.on_heard(cx, &place);
    }

    /// Handles an answer to a challenge, or a forged one.
    pub(super) fn on_answer(&mut self, cx: &mut Context<'_>, place: Place, data: [u8; 8]) {
        match cx.reach.answer(place, data, cx.now) {
            Answer::Right { why, .. } => self.on_right_answer(cx, place, why),
            // Networks duplicate packets, so a second copy is no sign of an attack.
            Answer::Copy => {}
            Answer::Wrong if self.on_proof(cx, data) || self.on_punched(cx, place, data) => {}
            Answer::Wrong => cx.core.counters.answers_wrong.increment(),
        }
    }

    /// Returns true if the path should follow the peer, which was heard at `place`.
    pub(super) fn may_follow(&mut self, cx: &mut Context<'_>, place: &Place) -> bool {
        let kind = |key| cx.reach.kind(&key, &cx.core.scarce);
        let Some(path) = cx.reach.place() else { return true };
        // One side must give way, because both could otherwise follow each other back and forth for ever.
        let gives_way = cx.core.own_id > *self.handle.id();
        let follows = match kind(place.key()).cmp(&kind(path.key())) {
            // When a path leaves a root or a TURN server, delayed packets still arrive from there. So the
            // better path is left only if it no longer answers.
            Ordering::Less => false,
            // The rule covers only the place that the path has just left, because any other one shows that
            // the peer has moved.
            Ordering::Equal if kind(path.key()) == Kind::Direct => {
                let left = cx.reach.left_at(place).map(|at| cx.now.saturating_duration_since(at));
                left.is_none_or(|left| match gives_way {
                    // Packets sent before the peer changed its path too have arrived by then.
                    true => left >= STRAY_WAIT.max(cx.reach.rtt_at(place).unwrap_or_default() * 2),
                    false => left >= MOVED_BACK_MIN_AGE,
                })
            }
            // Both sides may leave one place at once, each for a different one.
            Ordering::Equal => gives_way,
            Ordering::Greater => true,
        };
        if follows {
            return true;
        }
        let wait = STRAY_WAIT.max(cx.reach.rtt().unwrap_or_default() * 2);
        match self.stray {
            Some(Stray { since, answered: false }) if cx.now >= since + wait => {
                self.stray = None;
                true
            }
            Some(Stray { answered: false, .. }) => false,
            Some(Stray { since, answered: true }) if cx.now < since + STRAY_INTERVAL => false,
            _ => {
                self.stray = Some(Stray { since: cx.now, answered: false });
                self.ask_path(cx, Why::Doubt);
                false
            }
        }
    }

    /// Returns the place for the path after a handshake that began at `begin` and proved `place`. That is
    /// `place`, unless a better place has answered while the handshake ran.
    pub(super) fn path_or(&self, cx: &Context<'_>, place: Place, begin: Instant) -> Place {
        let kind = |place: &Place| cx.reach.kind(&place.key(), &cx.core.scarce);
        let path = cx.reach.place().filter(|path| kind(path) > kind(&place));
        path.filter(|path| cx.reach.is_proven_since(path, begin)).unwrap_or(place)
    }

    fn on_right_answer(&mut self, cx: &mut Context<'_>, place: Place, why: Why) {
        let known = cx.reach.place();
        if known == Some(place) {
            self.path_is_proven();
            if let Some(stray) = &mut self.stray {
                *stray = Stray { since: cx.now, answered: true };
            }
        }
        if why == Why::Move || known.is_none() {
            self.move_path(cx, place);
        } else if why == Why::Compare {
            if let Some(better) = cx.reach.better(&cx.core.sockets, &cx.core.scarce, cx.now) {
                let before = known.map(tracing::field::display);
                tracing::debug!(before, place = %better, "a better path");
                self.move_path(cx, better);
            }
            return;
        }
        self.path_confirmed(cx);
        cx.effects.push(Effect::Confirmed);
    }

    /// Handles proof that packets pass to the node, from this link's session or another's.
    pub(crate) fn path_confirmed(&mut self, cx: &mut Context<'_>) {
        self.told = None;
        self.handle.activity().take_silence();
        if self.current().is_some() {
            cx.core.emit(Event::PathConfirmed(self.handle.clone()));
        }
    }

    /// Makes a proven or configured place the path of the node.
    pub(super) fn move_path(&mut self, cx: &mut Context<'_>, place: Place) {
        let max = socket_for(&cx.core.sockets, Some(place.socket()), &place.remote());
        let max = max.map_or(BASE, |socket| socket.max_datagram.saturating_sub(place.overhead()));
        let before = cx.reach.place();
        if cx.reach.use_place(place, max, &cx.core.scarce, cx.now) {
            if before.is_some() {
                cx.core.counters.paths_moved.increment();
            }
            self.path_is_proven();
            self.path_moved(cx);
            cx.effects.push(Effect::PathMoved(before));
            if cx.reach.relays(&place.key()) {
                self.seek_direct_in_turn(cx);
            }
        } else if self.has_carried_data_lately(cx.now)
            && let Some(mtud) = cx.reach.mtud()
        {
            // The path is unchanged but the session is new: a size that failed two minutes ago may pass now.
            mtud.search();
        }
        self.probe_mtu(cx);
    }

    /// Returns true if the path carries enough data to be worth size probes.
    fn has_carried_data_lately(&self, now: Instant) -> bool {
        let data = self.handle.activity().last_data();
        data.is_none_or(|at| now.saturating_duration_since(at) < SIZE_SEARCH_MAX_IDLE)
    }

    /// Publishes the node's new path to the senders to this peer.
    pub(crate) fn path_moved(&mut self, cx: &mut Context<'_>) {
        self.handle.set_path(cx.reach.path());
        if self.current().is_none() {
            return;
        }
        cx.core.emit(Event::PathChanged(self.handle.clone()));
        if std::mem::take(&mut self.is_waiting_for_path) {
            self.end_attempt(cx);
            cx.core.emit(Event::SessionReady(self.handle.clone()));
        }
    }

    /// Publishes a possible change of the path's datagram size from `before`.
    pub(crate) fn size_changed(&mut self, cx: &mut Context<'_>, before: usize) {
        let Some(path) = cx.reach.path() else { return };
        self.handle.set_path(Some(path));
        if self.current().is_none() {
            return;
        }
        let (handle, current) = (self.handle.clone(), path.datagram_size);
        tracing::debug!(
            peer = %handle.logged(), before, size = current, "the path's datagram size changed"
        );
        cx.core.emit(Event::PathChanged(handle.clone()));
        if current < before {
            cx.core.emit(Event::PathShrunk(handle));
        }
    }

    /// Reports that the path carries less than the smallest datagram.
    pub(crate) fn path_too_small(&mut self, cx: &mut Context<'_>) {
        if self.current().is_some() {
            tracing::debug!(peer = %self.handle.logged(), "the path carries less than the least datagram");
            cx.core.emit(Event::PathTooSmall(self.handle.clone()));
        }
    }

    /// Sends the path MTU probe that is due, and publishes its result.
    pub(crate) fn probe_mtu(&mut self, cx: &mut Context<'_>) {
        let Some(session) = self.current() else { return };
        // A root gets only short messages, so its path needs no size search.
        if self.handle.is_root() {
            return;
        }
        if let Some(end) = cx.reach.hold_probes(cx.now) {
            return cx.core.timers.set(Timer::Mtu(cx.node), end);
        }
        let step = cx.reach.probe_mtu(cx.now);
        match step.deadline {
            Some(at) => cx.core.timers.set(Timer::Mtu(cx.node), at),
            None => cx.core.timers.clear(Timer::Mtu(cx.node)),
        }
        let Some(path) = cx.reach.path() else { return };
        if let Some((before, current)) = step.changed {
            if current < before {
                cx.core.counters.black_holes.increment();
            }
            self.size_changed(cx, before);
            cx.effects.push(Effect::SizeChanged(before));
        }
        if step.became_too_small {
            cx.core.counters.paths_too_small.increment();
            self.path_too_small(cx);
            cx.effects.push(Effect::PathTooSmall);
        }
        let Some((id, size)) = step.probe else { return };
        // A companion of minimum size follows right behind the probe.
        for (id, size) in [(id, size), (id.wrapping_add(1), 0)] {
            cx.core.counters.probes_sent.increment();
            match cx.core.outbox.push_probe(path.place, session.clone(), id, size) {
                true => self.probed += if size as u64 >= LOAD_MIN_BYTES { size as u64 } else { 0 },
                false => cx.core.counters.transmits_dropped.increment(),
            }
        }
    }

    /// Confirms the path's datagram size at once, because packets of that size seem to be lost.
    pub(crate) fn suspect_path(&mut self, cx: &mut Context<'_>) {
        if let Some(mtud) = cx.reach.mtud() {
            mtud.confirm(true);
        }
        self.probe_mtu(cx);
    }

    /// Handles traffic on the session. Under load it confirms the path's size now and then, and compares
    /// other places. Runs again with the first packet after [`BUSY_CONFIRM_INTERVAL`].
    pub(super) fn watch_path(&mut self, cx: &mut Context<'_>) {
        let Some(session) = self.current() else { return };
        let Some(rekey_at) = self.live(&session).map(|live| live.rekey_at) else { return };
        let next = cx.now + BUSY_CONFIRM_INTERVAL;
        // The next packet after this time asks for attention, so an idle session needs no timer.
        session.set_attention(Some(if rekey_at > cx.now { next.min(rekey_at) } else { next }));
        let total = session.sent_bytes();
        let before = std::mem::replace(&mut self.carried, total);
        // A new session counts from zero. Probes of `LOAD_MIN_BYTES` bytes do not count, because they alone
        // would trigger another size confirmation again and again.
        let sent = total.checked_sub(before).unwrap_or(total);
        cx.reach.carried(sent.saturating_sub(std::mem::take(&mut self.probed)), cx.now);
        self.probe_mtu(cx);
        let flow = match (self.data_flows(cx.now), self.handle.is_root()) {
            (true, _) => Flow::Data,
            (false, true) => Flow::Root,
            (false, false) => Flow::None,
        };
        let place = cx.reach.compare(flow, &cx.core.sockets, &cx.core.scarce, CHALLENGE_LEN, cx.now);
        if let Some(place) = place {
            self.challenge(cx, place, Why::Compare);
        }
        self.watch_relayed(cx);
    }
}

/// Time without data after which the size of a path is not searched for again.
const SIZE_SEARCH_MAX_IDLE: Duration = Duration::from_secs(60);

/// Returns true if an answer of `bytes` bytes may be sent to the place where the peer was heard.
pub(super) fn may_answer_at(cx: &mut Context<'_>, place: &Place, bytes: usize) -> bool {
    cx.reach.place() == Some(*place) || cx.reach.spend(place, bytes)
}
