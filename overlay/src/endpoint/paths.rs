//! What connects the ways to a node with its peers: challenges and probes are sent in their sessions, and the node's path
//! is the path of each of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rand::Rng;

use super::nodes::NodeKey;
use super::peers::PeerKey;
use super::{Endpoint, Event, Timer};
use crate::reach::{Answer, BASE, BUSY_CONFIRM_INTERVAL, Place, Source, Why, place_of, socket_for};
use crate::session::{DATA_OVERHEAD, Peer, Session};
use crate::wire::Control;

/// Lengths of datagrams, in bytes.
const CHALLENGE_LEN: usize = DATA_OVERHEAD + Control::CHALLENGE_LEN;
const HERE_LEN: usize = DATA_OVERHEAD + Control::HERE_LEN;
const ANSWER_LEN: usize = DATA_OVERHEAD + Control::ANSWER_LEN;

impl Endpoint {
    /// Asks the peer to repeat a random number from `place`, unless that was just done or costs more than may be sent
    /// there.
    pub(super) fn challenge(&mut self, now: Instant, key: PeerKey, place: Place, why: Why) {
        let Some(peer) = self.peers.get(key) else { return };
        let Some(session) = peer.current() else { return };
        let mut fresh = [0; 8];
        self.rng.fill_bytes(&mut fresh);
        let reach = &mut self.nodes[peer.node].reach;
        // The path's own side may have changed: then the peer has to follow.
        let here = why == Why::Announce;
        let bytes = if here { HERE_LEN } else { CHALLENGE_LEN };
        let Some(data) = reach.challenge(place, why, fresh, bytes, now) else { return };
        self.counters.challenges_sent.increment();
        self.send_control(now, &session, &place, Control::Challenge { data, here });
    }

    /// Repeats a peer's challenge where it came from, as far as what came from there pays for it.
    pub(super) fn on_challenge(
        &mut self,
        now: Instant,
        key: PeerKey,
        session: &Arc<Session>,
        place: Place,
        data: [u8; 8],
    ) {
        if self.may_answer_at(key, &place, ANSWER_LEN) {
            self.send_control(now, session, &place, Control::Answer { data });
        }
    }

    /// A peer has answered a challenge, or says so.
    pub(super) fn on_answer(&mut self, now: Instant, key: PeerKey, place: Place, data: [u8; 8]) {
        let Some(peer) = self.peers.get(key) else { return };
        let node = peer.node;
        match self.nodes[node].reach.answer(place, data, now) {
            Answer::Right { why, .. } => self.on_right_answer(now, node, place, why),
            Answer::Copy => {}
            Answer::Wrong => self.counters.answers_wrong.increment(),
        }
    }

    fn on_right_answer(&mut self, now: Instant, node: NodeKey, place: Place, why: Why) {
        let known = self.nodes[node].reach.place();
        if why == Why::Move || known.is_none() {
            self.move_path(now, node, place);
        } else if why == Why::Compare {
            if let Some(better) = self.nodes[node].reach.better(&self.sockets, now) {
                tracing::debug!(from = known.map(tracing::field::display), to = %better, "a better path");
                self.move_path(now, node, better);
            }
            return;
        }
        for key in self.nodes[node].peers.clone() {
            let Some(peer) = self.peers.get_mut(key) else { continue };
            peer.told = None;
            let handle = peer.handle.clone();
            handle.activity().take_silence();
            if peer.current().is_none() {
                continue;
            }
            // A session whose place was in doubt is usable now.
            let event = if peer.is_waiting_for_path { Event::SessionReady } else { Event::PathConfirmed };
            if std::mem::take(&mut peer.is_waiting_for_path) {
                self.end_attempt(key);
            }
            self.emit(event(handle));
        }
    }

    /// Traffic flows: looks now and then how good the places are that there are.
    pub(super) fn compare_places(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get(key) else { return };
        if let Some(place) = self.nodes[peer.node].reach.compare(&self.sockets, CHALLENGE_LEN, now) {
            self.challenge(now, key, place, Why::Compare);
        }
    }

    /// Whether so many bytes may be sent where the peer was heard.
    pub(super) fn may_answer_at(&mut self, key: PeerKey, place: &Place, bytes: usize) -> bool {
        let Some(peer) = self.peers.get(key) else { return false };
        let reach = &mut self.nodes[peer.node].reach;
        reach.place() == Some(*place) || reach.spend(place, bytes)
    }

    /// The place of an address, from the socket it is reached by.
    pub(super) fn place_of(&self, remote: SocketAddr) -> Option<Place> {
        place_of(&self.sockets, None, remote)
    }

    /// Tries the paths whose socket is gone from another one, where there is one.
    pub(super) fn leave_lost_sockets(&mut self, now: Instant) {
        for node in self.nodes.keys() {
            let Some(known) = self.nodes[node].reach.place() else { continue };
            let place = place_of(&self.sockets, Some(known.socket()), known.remote());
            if let Some(place) = place.filter(|place| *place != known)
                && let Some((key, _)) = self.carrier(node)
            {
                self.challenge(now, key, place, Why::Move);
            }
        }
    }

    /// Makes a place that is proven or configured the path of a node, for all peers that it is.
    pub(super) fn move_path(&mut self, now: Instant, node: NodeKey, place: Place) {
        let max =
            socket_for(&self.sockets, Some(place.socket()), &place.remote()).map_or(BASE, |s| s.max_datagram);
        let reach = &mut self.nodes[node].reach;
        let known = reach.place();
        if reach.use_place(place, max, now) {
            if known.is_some() {
                self.counters.paths_moved.increment();
            }
            self.nodes.note_path(node, known, place);
            self.publish_path(node);
        }
        self.probe_mtu(now, node);
    }

    /// Tells all peers that a node is what its path is.
    fn publish_path(&mut self, node: NodeKey) {
        let path = self.nodes[node].reach.path();
        for key in self.nodes[node].peers.clone() {
            let Some(peer) = self.peers.get(key) else { continue };
            let handle = peer.handle.clone();
            handle.set_path(path);
            if handle.session().is_some() {
                self.emit(Event::PathChanged(handle));
            }
        }
    }

    /// The peer of a node in whose session probes are sent: the one that was heard from last.
    pub(super) fn carrier(&self, node: NodeKey) -> Option<(PeerKey, Arc<Session>)> {
        let peers = self.nodes.get(node)?.peers.iter();
        let with_session = peers.filter_map(|&key| {
            let peer = self.peers.get(key)?;
            Some((peer.handle.activity().last_received(), key, peer.current()?))
        });
        with_session.max_by_key(|(heard, key, _)| (*heard, *key)).map(|(_, key, session)| (key, session))
    }

    /// Sends the path MTU probe that is due, and makes known what is learned.
    pub(super) fn probe_mtu(&mut self, now: Instant, node: NodeKey) {
        let Some((_, session)) = self.carrier(node) else { return };
        let step = self.nodes[node].reach.probe_mtu(now);
        match step.deadline {
            Some(at) => self.timers.set(Timer::Mtu(node), at),
            None => self.timers.clear(Timer::Mtu(node)),
        }
        let Some(path) = self.nodes[node].reach.path() else { return };
        if let Some((before, current)) = step.changed {
            for key in self.nodes[node].peers.clone() {
                let Some(peer) = self.peers.get(key) else { continue };
                let handle = peer.handle.clone();
                handle.set_path(Some(path));
                if handle.session().is_none() {
                    continue;
                }
                tracing::debug!(peer = %handle.id(), from = before, to = current, "the path's datagram size changed");
                self.emit(Event::PathChanged(handle.clone()));
                if current < before {
                    self.emit(Event::PathShrunk(handle));
                }
            }
            if current < before {
                self.counters.black_holes.increment();
            }
        }
        let Some((id, size)) = step.probe else { return };
        self.send_probe(&session, &path.place, id, size);
        // Its companion, right behind it: as short as a probe can be.
        self.send_probe(&session, &path.place, id.wrapping_add(1), 0);
    }

    fn send_probe(&mut self, session: &Arc<Session>, place: &Place, id: u32, size: usize) {
        self.counters.probes_sent.increment();
        if !self.outbox.push_probe(*place, session.clone(), id, size) {
            self.counters.transmits_dropped.increment();
        }
    }

    /// A hint from above that packets of a peer are lost, for example from TCP's retransmissions: confirms at
    /// once that the path still carries its datagram size.
    pub fn path_suspected(&mut self, now: Instant, peer: &Arc<Peer>) {
        if let Some(key) = self.key_of(peer) {
            self.suspect_path(now, key);
        }
    }

    pub(super) fn suspect_path(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get(key) else { return };
        let node = peer.node;
        if let Some(mtud) = self.nodes[node].reach.mtud() {
            mtud.confirm(true);
        }
        self.probe_mtu(now, node);
    }

    /// Packets pass on the peer's session: has the path's size confirmed now and then while much is sent, and
    /// comes back with the first packet after [`BUSY_CONFIRM_INTERVAL`].
    pub(super) fn watch_path(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get(key) else { return };
        let Some(session) = peer.current() else { return };
        let Some(rekey_at) = peer.live(&session).map(|live| live.rekey_at) else { return };
        let next = now + BUSY_CONFIRM_INTERVAL;
        session.set_attention(Some(if rekey_at > now { next.min(rekey_at) } else { next }));
        let node = peer.node;
        let sent = self.nodes[node].peers.iter().filter_map(|&key| self.peers.get(key)?.current());
        let sent = sent.map(|session| session.sent_bytes()).sum();
        let Some(mtud) = self.nodes[node].reach.mtud() else { return };
        mtud.carried(sent, now);
        self.probe_mtu(now, node);
        self.compare_places(now, key);
    }

    /// Seals a control message and sends it to a place.
    pub(super) fn send_control(
        &mut self,
        now: Instant,
        session: &Arc<Session>,
        place: &Place,
        message: Control,
    ) {
        let mut plaintext = Vec::new();
        message.emit(&mut plaintext);
        self.send_sealed(now, session, place, &plaintext);
    }

    /// Notes that `bytes` of a session came from a place.
    pub(super) fn credit(&mut self, now: Instant, key: PeerKey, place: Place, bytes: usize) {
        if let Some(peer) = self.peers.get(key) {
            self.nodes[peer.node].reach.heard(place, bytes, Source::Session, now);
        }
    }
}
