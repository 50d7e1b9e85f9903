//! Our own handshakes: attempts, their repetition, and the responses to them.
//!
//! An attempt goes in rounds. Each round makes a fresh initiation, since the responder accepts a timestamp once only,
//! and sends it to every candidate endpoint; whichever copy arrives first is answered. Up to [`MAX_PENDING`] earlier
//! initiations stay valid, so that a round-trip time of up to 10 s does no harm.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::load::MAX_FAILED_RESPONSES;
use super::log::List;
use super::peers::{Live, PeerKey};
use super::timing::{
    GIVE_UP_AFTER, HINT_GIVE_UP_AFTER, REJECT_AFTER, REKEY_AFTER, RETRY_LOST, RETRY_MAX, RETRY_MIN,
    RETRY_REFUSED, UNREACHABLE_AFTER, rekey_age,
};
use super::{Endpoint, Event, Timer};
use crate::noise::{InitiationPayload, Initiator};
use crate::reach::{Place, RecvMeta, Source, Why};
use crate::session::{Peer, Session, SessionIndex};
use crate::wire::{CookieReply, Initiation, Response, StaleReply};

/// Initiations of one attempt that a response may still answer.
const MAX_PENDING: usize = 8;

/// A response may come so late: the longest round trip, and the time that the responder's queue may add.
const PENDING_FOR: Duration = Duration::from_secs(12);

/// One attempt to get a session with a peer.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) started: Instant,
    /// It goes on until then; traffic that wants the peer moves this.
    until: Instant,
    /// Since when traffic wants the peer and was not told that it is unreachable.
    wanted: Option<Instant>,
    rounds: u32,
    next_round: Instant,
    /// A cookie makes the next round come at once, but once per round only.
    hastened: bool,
    /// So does the news that our clock is behind.
    set_right: bool,
    pending: VecDeque<Pending>,
    /// The last initiation, unless it was answered.
    last: Vec<u8>,
}

#[derive(Debug)]
struct Pending {
    initiator: Initiator,
    sent: Instant,
    /// Where it went.
    targets: Vec<Place>,
    /// Responses to it that were not authentic.
    failed: u8,
}

impl Pending {
    /// Whether it went there, and nowhere else: then its answer shows that the peer receives there. A copy that went
    /// elsewhere too may have been answered from anywhere.
    fn went_only_to(&self, place: &Place) -> bool {
        matches!(&self.targets[..], [only] if only.remote() == place.remote())
    }
}

impl Attempt {
    /// Takes out the initiation that is least likely to be answered, if there are too many: one that is too old, or else
    /// the one that is closest in time to its neighbours. So the first, whose answer comes first however long the way
    /// is, stays, and what is kept is spread over the time that an answer may take.
    fn thin(&mut self, now: Instant) -> Option<Pending> {
        if self.pending.len() <= MAX_PENDING {
            return None;
        }
        if self.pending.front().is_some_and(|oldest| now >= oldest.sent + PENDING_FOR) {
            return self.pending.pop_front();
        }
        let gap = |at: usize| self.pending[at + 1].sent - self.pending[at - 1].sent;
        let closest = (1..self.pending.len() - 1).min_by_key(|&at| gap(at))?;
        self.pending.remove(closest)
    }

    /// Whether traffic waits for the peer, and was not told that it is unreachable.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// Whether the last initiation began like this.
    pub(super) fn has_sent(&self, beginning: &[u8]) -> bool {
        let common = self.last.len().min(beginning.len());
        common > 0 && self.last[..common] == beginning[..common]
    }
}

/// Why an attempt is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Somebody has packets for the peer.
    Traffic,
    /// Something unauthenticated suggests that the peer has lost the session.
    Hint,
}

impl Endpoint {
    /// Sees to it that there will be a session with the peer: begins a handshake unless one runs or a session stands.
    ///
    /// The outcome is an event: [`Event::SessionReady`], or [`Event::PeerUnreachable`] after 5 s. The handshake is tried
    /// for 90 s after the last such call (or packet sent), at intervals from 250 ms to 5 s.
    pub fn want_session(&mut self, now: Instant, peer: &Arc<Peer>) {
        let Some(key) = self.key_of(peer) else { return };
        self.expire_sessions(now, key);
        if peer.session().is_none() {
            self.attempt(now, key, Reason::Traffic);
        }
    }

    /// Begins an attempt, or lets one that runs go on for longer.
    pub(super) fn attempt(&mut self, now: Instant, key: PeerKey, reason: Reason) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.used = now;
        let give_up = match reason {
            Reason::Traffic => GIVE_UP_AFTER,
            Reason::Hint => HINT_GIVE_UP_AFTER,
        };
        let wanted = (reason == Reason::Traffic).then_some(now);
        if let Some(attempt) = &mut peer.attempt {
            attempt.until = attempt.until.max(now + give_up);
            attempt.wanted = attempt.wanted.or(wanted);
            return self.arm_attempt(key);
        }
        peer.attempt = Some(Attempt {
            started: now,
            until: now + give_up,
            wanted,
            rounds: 0,
            next_round: now,
            hastened: false,
            set_right: false,
            pending: VecDeque::new(),
            last: Vec::new(),
        });
        self.counters.attempts_started.increment();
        self.next_round(now, key);
    }

    /// The peer seems to be at `place`, newly or again: an attempt that runs tries it there at once.
    pub(super) fn try_at(&mut self, now: Instant, key: PeerKey, place: &Place) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(attempt) = &mut peer.attempt else { return };
        let Some(last) = attempt.pending.back_mut().filter(|_| !attempt.last.is_empty()) else {
            return self.next_round(now, key);
        };
        let is_tried = last.targets.iter().any(|target| target.remote() == place.remote());
        if !is_tried && self.nodes[peer.node].reach.spend(place, attempt.last.len()) {
            last.targets.push(*place);
            tracing::debug!(peer = %peer.handle.id(), to = %place, "initiation sent here too");
            let datagram = attempt.last.clone();
            self.transmit(place, datagram);
        }
    }

    /// Begins the intervals of an attempt anew, because the peer has probably just come back.
    pub(super) fn retry_at_once(&mut self, now: Instant, key: PeerKey) {
        if let Some(attempt) = self.peers.get_mut(key).and_then(|peer| peer.attempt.as_mut()) {
            attempt.rounds = 0;
            self.next_round(now, key);
        }
    }

    pub(super) fn on_attempt_timer(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(attempt) = &mut peer.attempt else { return };
        if now >= attempt.until {
            tracing::debug!(peer = %peer.handle.id(), "no answer: the handshake is given up");
            self.counters.attempts_given_up.increment();
            return self.end_attempt(key);
        }
        let report = attempt.wanted.take_if(|since| now >= *since + UNREACHABLE_AFTER).is_some();
        let due = now >= attempt.next_round;
        let handle = peer.handle.clone();
        if report {
            tracing::debug!(peer = %handle.id(), "no answer for 5 s; the handshake is tried on");
            self.emit(Event::PeerUnreachable(handle));
        }
        if due {
            self.next_round(now, key);
        } else {
            self.arm_attempt(key);
        }
    }

    /// Sends one initiation everywhere, and sets the time of the next.
    fn next_round(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let longest = match (&peer.refusal, peer.instance) {
            (Some(refusal), _) if refusal.is_open() => RETRY_REFUSED,
            (_, Some(_)) => RETRY_LOST,
            (_, None) => RETRY_MAX,
        };
        let Some(attempt) = &mut peer.attempt else { return };
        let interval = interval(attempt.rounds).min(longest);
        // Up to a fifth shorter, so that two sides do not repeat in step, and never longer than the bound.
        let jitter = interval / 5 * self.rng.random_range(0..=100) / 100;
        attempt.rounds += 1;
        attempt.hastened = false;
        attempt.set_right = false;
        attempt.next_round = now + interval - jitter;
        let repeated = attempt.rounds > 1;
        let sent = self.initiate(now, key);
        self.arm_attempt(key);
        // No answer, or nowhere to send to: the peer may be somewhere else by now.
        if repeated || !sent {
            self.solicit(now);
        }
    }

    fn arm_attempt(&mut self, key: PeerKey) {
        let Some(attempt) = self.peers.get(key).and_then(|peer| peer.attempt.as_ref()) else { return };
        let mut at = attempt.next_round.min(attempt.until);
        if let Some(since) = attempt.wanted {
            at = at.min(since + UNREACHABLE_AFTER);
        }
        self.timers.set(Timer::Attempt(key), at);
    }

    /// Makes one initiation and sends it to every candidate that may be sent to; false if there is none.
    fn initiate(&mut self, now: Instant, key: PeerKey) -> bool {
        let Some(peer) = self.peers.get_mut(key) else { return false };
        let Some(network) = self.networks.get(&peer.handle.network()) else { return false };
        let reach = &mut self.nodes[peer.node].reach;
        let targets = reach.spend_everywhere(Initiation::MIN, &self.sockets);
        if targets.is_empty() {
            tracing::debug!(
                peer = %peer.handle.id(),
                known = %List(reach.remotes()),
                "no address of the peer may be sent to yet"
            );
            return false;
        }
        let rng = &mut self.rng;
        let Some(index) = self.sessions.reserve(|| rng.random()) else {
            self.counters.sessions_refused.increment();
            return false;
        };
        let payload = InitiationPayload {
            network: network.id,
            timestamp: self.clock.timestamp(now, peer.floor),
            instance: self.instance,
            receive_buffer: self.receive_buffer,
            suites: self.provider.suites(),
        };
        peer.floor = Some(payload.timestamp);
        let mut datagram = Vec::with_capacity(Initiation::MIN);
        let (identity, ephemeral) = (&self.identity, self.keys.draw());
        let started =
            Initiator::start(identity, peer.handle.identity(), *ephemeral, index, &payload, &mut datagram);
        self.counters.handshake_x25519.add(3);
        // It fails only for a peer with a key of low order, which can have no session.
        let (Ok(initiator), Some(attempt)) = (started, &mut peer.attempt) else {
            self.sessions.remove(index);
            return false;
        };
        peer.macs.append(now, &mut datagram);
        self.initiations.insert(index, key);
        attempt.pending.push_back(Pending { initiator, sent: now, targets: targets.clone(), failed: 0 });
        if let Some(unlikely) = attempt.thin(now) {
            self.initiations.remove(&unlikely.initiator.index());
            self.sessions.remove(unlikely.initiator.index());
        }
        tracing::debug!(
            peer = %peer.handle.id(),
            to = %List(targets.iter()),
            round = attempt.rounds,
            "initiation sent"
        );
        attempt.last.clone_from(&datagram);
        for place in &targets {
            self.counters.initiations_sent.increment();
            self.transmit(place, datagram.clone());
        }
        true
    }

    /// Stops trying, and frees what the attempt holds.
    pub(super) fn end_attempt(&mut self, key: PeerKey) {
        self.timers.clear(Timer::Attempt(key));
        let Some(attempt) = self.peers.get_mut(key).and_then(|peer| peer.attempt.take()) else { return };
        for pending in attempt.pending {
            let index = pending.initiator.index();
            // The index of the initiation that was answered is the session's now.
            if self.initiations.remove(&index).is_some() {
                self.sessions.remove(index);
            }
        }
        self.refile(key);
    }

    pub(super) fn on_response(&mut self, now: Instant, meta: RecvMeta, datagram: &[u8]) {
        let Ok(response) = Response::parse(datagram) else {
            self.counters.handshake_malformed.increment();
            return self.log_refusal(now, &meta, "response", "it is malformed");
        };
        // The index comes first: it is random, so only who saw the initiation gets further than this.
        let Some(&key) = self.initiations.get(&response.receiver) else {
            self.counters.responses_unexpected.increment();
            return self.log_refusal(now, &meta, "response", "nothing waits for it any more");
        };
        if !self.cookies.check_mac1(datagram) {
            self.counters.mac1_invalid.increment();
            return self.log_refusal(now, &meta, "response", "it is not for this node");
        }
        let failed = self.failures(key, response.receiver);
        if !self.load.may_try_response(meta.remote.ip(), failed, now) {
            self.counters.handshakes_refused.increment();
            return self.log_refusal(now, &meta, "response", "too many came that were not authentic");
        }
        if !self.finish(now, key, &meta, response.receiver, datagram) {
            self.load.note_failed_response(meta.remote.ip(), now);
            self.note_failure(key, response.receiver);
            self.counters.handshake_unauthentic.increment();
            let why = "it is not authentic; both sides must have the same secret for the network";
            self.log_refusal(now, &meta, "response", why);
        }
    }

    /// How many forged responses the initiation with this index has had.
    fn failures(&self, key: PeerKey, index: SessionIndex) -> u8 {
        let attempt = self.peers.get(key).and_then(|peer| peer.attempt.as_ref());
        let mut pending = attempt.into_iter().flat_map(|attempt| &attempt.pending);
        pending.find(|pending| pending.initiator.index() == index).map_or(0, |pending| pending.failed)
    }

    /// Counts a forged response, and gives the initiation up after some: the next round makes another, which its
    /// forger has not seen yet.
    fn note_failure(&mut self, key: PeerKey, index: SessionIndex) {
        let Some(attempt) = self.peers.get_mut(key).and_then(|peer| peer.attempt.as_mut()) else { return };
        let Some(at) = attempt.pending.iter().position(|pending| pending.initiator.index() == index) else {
            return;
        };
        attempt.pending[at].failed += 1;
        if attempt.pending[at].failed >= MAX_FAILED_RESPONSES {
            attempt.pending.remove(at);
            self.initiations.remove(&index);
            self.sessions.remove(index);
        }
    }

    /// Completes our handshake by a response; false if it is not authentic.
    fn finish(
        &mut self,
        now: Instant,
        key: PeerKey,
        meta: &RecvMeta,
        index: SessionIndex,
        datagram: &[u8],
    ) -> bool {
        let Some(peer) = self.peers.get_mut(key) else { return false };
        let Some(network) = self.networks.get(&peer.handle.network()) else { return false };
        let Some(attempt) = &mut peer.attempt else { return false };
        let Some(at) = attempt.pending.iter().position(|p| p.initiator.index() == index) else {
            return false;
        };
        let pending = &attempt.pending[at];
        self.counters.handshake_x25519.add(2);
        let Ok((keys, said)) = pending.initiator.read_response(&self.identity, &network.psk, datagram) else {
            return false;
        };
        // Whether its path was silent until now is for `establish` to say.
        peer.handle.activity().note_received(now);
        let (handle, counters) = (peer.handle.clone(), self.counters.clone());
        let Some(session) = Session::new(&keys, &*self.provider, handle, counters, REJECT_AFTER, now) else {
            return false;
        };
        let session = Arc::new(session);
        self.sessions.insert(session.clone());
        self.initiations.remove(&index);
        if at + 1 == attempt.pending.len() {
            attempt.last.clear();
        }
        let Some(pending) = attempt.pending.remove(at) else { return false };
        let (place, node) = (meta.place(), peer.node);
        let reach = &mut self.nodes[node].reach;
        reach.heard(place, datagram.len(), Source::Handshake, now);
        let is_proven = reach.is_trusted(&place) || pending.went_only_to(&place);
        if is_proven {
            reach.sample(place, now.saturating_duration_since(pending.sent));
        }
        // If it came from a place that it does not prove, packets go where the peer is known to receive, if anywhere.
        let known = pending.targets.into_iter().find(|target| reach.is_trusted(target));
        let instead = known.filter(|_| !is_proven && reach.place().is_none());
        peer.sessions.push(Live {
            session: session.clone(),
            instance: said.instance,
            receive_buffer: said.receive_buffer,
            place: is_proven.then_some(place),
            rekey_at: now + rekey_age(REKEY_AFTER, &mut self.rng),
        });
        self.counters.handshakes_initiated.increment();
        if let Some(instead) = instead {
            self.move_path(now, node, instead);
        }
        if is_proven || self.nodes[node].reach.place().is_some() {
            self.end_attempt(key);
        }
        self.establish(now, key, &session);
        if !is_proven {
            self.challenge(now, key, place, Why::Move);
        }
        // The responder may not use the session before it has seen a packet on it.
        self.send_keepalive(now, key, &session);
        true
    }

    pub(super) fn on_cookie_reply(&mut self, now: Instant, datagram: &[u8]) {
        let Ok(reply) = CookieReply::parse(datagram) else {
            self.counters.handshake_malformed.increment();
            return;
        };
        let peer =
            self.initiations.get(&reply.receiver).and_then(|&key| Some((key, self.peers.get_mut(key)?)));
        let Some((key, peer)) = peer.filter(|(_, peer)| peer.attempt.is_some()) else {
            self.counters.responses_unexpected.increment();
            return;
        };
        if !peer.macs.receive_cookie(now, &reply) {
            self.counters.handshake_unauthentic.increment();
            return;
        }
        self.counters.cookies_received.increment();
        tracing::debug!(peer = %peer.handle.id(), "the peer is busy and wants the initiation again with a cookie");
        if let Some(attempt) = &mut peer.attempt
            && !std::mem::replace(&mut attempt.hastened, true)
        {
            self.initiate(now, key);
        }
    }

    /// The peer has read a newer initiation of ours than this one: our clock went back between two runs. What
    /// it says is authentic and bound to this initiation, so the next one can be newer at once.
    pub(super) fn on_stale_reply(&mut self, now: Instant, meta: RecvMeta, datagram: &[u8]) {
        let Ok(reply) = StaleReply::parse(datagram) else {
            self.counters.handshake_malformed.increment();
            return;
        };
        let place = meta.place();
        let peer =
            self.initiations.get(&reply.receiver).and_then(|&key| Some((key, self.peers.get_mut(key)?)));
        let Some((key, peer)) = peer else {
            self.counters.responses_unexpected.increment();
            return;
        };
        let Some(attempt) = &mut peer.attempt else { return };
        let read = |pending: &Pending| {
            Some((pending.initiator.read_stale_reply(&reply)?, pending.went_only_to(&place)))
        };
        let Some((newest, is_proven)) = attempt.pending.iter().find_map(read) else {
            self.counters.handshake_unauthentic.increment();
            return;
        };
        // Late, or a copy: the last initiation was newer already.
        if peer.floor.is_some_and(|floor| floor > newest) {
            return;
        }
        self.counters.clock_behind.increment();
        tracing::debug!(peer = %peer.handle.id(), "the peer knows newer initiations of this node: its clock went back");
        peer.floor = Some(newest);
        if is_proven {
            self.nodes[peer.node].reach.prove(place, Source::Handshake, now);
        }
        // Once per round: a peer that always knows a newer one gets no flood.
        if !std::mem::replace(&mut attempt.set_right, true) {
            self.initiate(now, key);
        }
    }
}

/// The longest wait after that many rounds.
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
