//! Control messages inside a session, path probes, and packets without a session.

use std::sync::Arc;
use std::time::Instant;

use super::handshake::Reason;
use super::keepalive::KEEPALIVE;
use super::mtud::BUSY_CONFIRM_INTERVAL;
use super::peers::PeerKey;
use super::{Endpoint, Event, Gone, Timer};
use crate::session::{DATA_OVERHEAD, Path, Peer, RecvMeta, Sender, Session};
use crate::wire::{Control, UnknownSession};

impl Endpoint {
    /// Takes a plaintext that is no IP packet: empty, or with a first byte below 16. The caller has opened it with
    /// `session` and called [`Session::note_received`].
    pub fn handle_control(&mut self, now: Instant, session: &Arc<Session>, meta: RecvMeta, message: &[u8]) {
        let Some(key) = self.key_of(session.peer()) else { return };
        self.heard_on(now, key, session, &meta);
        if message.first().is_none_or(|&first| first == KEEPALIVE[0]) {
            self.counters.keepalives_received.increment();
            return;
        }
        match Control::parse(message) {
            Ok(Control::Probe { id, .. }) => {
                let size = u16::try_from(message.len() + DATA_OVERHEAD).unwrap_or(u16::MAX);
                let mut answer = Vec::new();
                Control::ProbeAck { id, size }.emit(&mut answer);
                // To where the probe came from, which may be a path that is only being tried.
                self.send_sealed(now, key, session, &meta, &answer);
            }
            Ok(Control::ProbeAck { id, .. }) => self.on_probe_ack(now, key, &meta, id),
            Ok(Control::Params { receive_buffer, .. }) => session.peer().set_receive_buffer(receive_buffer),
            Ok(Control::Elsewhere { instance, remote }) => {
                if instance != self.instance {
                    let peer = *session.peer().id();
                    self.on_elsewhere_reported(now, peer, remote);
                }
            }
            Ok(Control::Close { .. }) => self.on_close(now, key, session),
            Err(_) => self.counters.control_unknown.increment(),
        }
    }

    fn on_probe_ack(&mut self, now: Instant, key: PeerKey, meta: &RecvMeta, id: u32) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if let Some(moving) = peer.moving.take_if(|moving| moving.probe == id && moving.to == *meta) {
            peer.candidates.heard(meta, 0, true, now);
            peer.sample_rtt(now.saturating_duration_since(moving.sent));
            let handle = peer.handle.clone();
            self.move_path(now, key, meta);
            handle.activity().take_silence();
            self.emit(Event::PathConfirmed(handle));
            return;
        }
        if let Some(rtt) = peer.mtud.as_mut().and_then(|mtud| mtud.acknowledged(id, now)) {
            peer.sample_rtt(rtt);
        }
        self.note_answer(key, id);
        self.probe_mtu(now, key);
    }

    /// The peer leaves: its sessions end, but not those with a successor that was started meanwhile.
    fn on_close(&mut self, now: Instant, key: PeerKey, session: &Arc<Session>) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(instance) = peer.live(session).map(|live| live.instance) else { return };
        self.counters.closes_received.increment();
        tracing::debug!(peer = %peer.handle.id(), "the peer has left");
        let closed = peer.take_instance(instance);
        peer.departed = peer.sessions.is_empty();
        let (handle, present) = (peer.handle.clone(), peer.instance == Some(instance));
        self.end_attempt(key);
        if present {
            self.emit(Event::PeerGone(handle, Gone::Left));
        }
        self.drop_sessions(key, closed);
        self.forget_departed(now);
    }

    /// Sends the path MTU probe that is due, and makes known what is learned.
    pub(super) fn probe_mtu(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let (Some(mtud), Some(sender)) = (&mut peer.mtud, peer.handle.sender()) else { return };
        let id = peer.next_probe;
        let size = mtud.poll(now, peer.rtt, id);
        let (current, deadline) = (mtud.current(), mtud.deadline());
        match deadline {
            Some(at) => self.timers.set(Timer::Mtu(key), at),
            None => self.timers.clear(Timer::Mtu(key)),
        }
        if size.is_some() {
            peer.next_probe = id.wrapping_add(2);
        }
        let before = sender.path.datagram_size;
        if current != before {
            let handle = peer.handle.clone();
            handle.set_datagram_size(&sender.path, current);
            tracing::debug!(peer = %handle.id(), from = before, to = current, "the path's datagram size changed");
            self.emit(Event::PathChanged(handle.clone()));
            if current < before {
                self.counters.black_holes.increment();
                self.emit(Event::PathShrunk(handle));
            }
        }
        let Some(size) = size else { return };
        self.send_probe(&sender, id, size);
        // Its companion, right behind it: as short as a probe can be.
        self.send_probe(&sender, id.wrapping_add(1), 0);
    }

    fn send_probe(&mut self, sender: &Sender, id: u32, size: usize) {
        self.counters.probes_sent.increment();
        let Path { socket, remote, .. } = sender.path;
        if !self.outbox.push_probe(socket, remote, sender.session.clone(), id, size) {
            self.counters.transmits_dropped.increment();
        }
    }

    /// A hint from above that packets of a peer are lost, for example from TCP's retransmissions: confirms at
    /// once that the path still carries its datagram size.
    pub fn path_suspected(&mut self, now: Instant, peer: &Arc<Peer>) {
        let Some(key) = self.key_of(peer) else { return };
        if let Some(mtud) = self.peers.get_mut(key).and_then(|peer| peer.mtud.as_mut()) {
            mtud.confirm(true);
        }
        self.probe_mtu(now, key);
    }

    /// Packets pass on the peer's session: has the path's size confirmed now and then while much is sent, and
    /// comes back with the first packet after [`BUSY_CONFIRM_INTERVAL`].
    pub(super) fn watch_path(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(session) = peer.current() else { return };
        let Some(rekey_at) = peer.live(&session).map(|live| live.rekey_at) else { return };
        let next = now + BUSY_CONFIRM_INTERVAL;
        session.set_attention(Some(if rekey_at > now { next.min(rekey_at) } else { next }));
        let Some(mtud) = &mut peer.mtud else { return };
        mtud.carried(session.stats().sent_bytes, now);
        self.probe_mtu(now, key);
    }

    /// Data of a session that we do not have, probably because we were restarted: tells its sender.
    pub(super) fn on_unknown_data(&mut self, now: Instant, meta: RecvMeta, datagram: &[u8]) {
        self.counters.data_unknown_session.increment();
        let mut answer = Vec::new();
        if UnknownSession::answer(datagram, &mut answer)
            && self.hints.unknown_sent.take(meta.remote.ip(), now)
        {
            self.counters.unknown_session_sent.increment();
            tracing::debug!(from = %meta.remote, "a packet of a session that this node does not know: its sender is told");
            self.transmit(&meta, answer);
        }
    }

    /// A peer says that it does not know our session. Anyone can say that, so it changes nothing; but a handshake shows
    /// whether it is true.
    pub(super) fn on_unknown_session(&mut self, now: Instant, meta: RecvMeta, datagram: &[u8]) {
        let Ok(hint) = UnknownSession::parse(datagram) else {
            self.counters.unknown_message.increment();
            return;
        };
        self.counters.unknown_session_received.increment();
        if !self.hints.unknown_heard.take(meta.remote.ip(), now) {
            return;
        }
        // It must come from where we send to, and name a session and a packet number that we used.
        let found = self.peers.iter().find(|(_, peer)| {
            peer.handle.path().is_some_and(|path| path.remote == meta.remote)
                && peer.sessions.iter().any(|live| {
                    live.session.remote_index() == hint.index
                        && hint.counter < live.session.stats().sent_packets
                })
        });
        let Some((key, _)) = found else { return };
        let Some(peer) = self.peers.get_mut(key) else { return };
        tracing::debug!(peer = %peer.handle.id(), from = %meta.remote, "the peer does not know our session");
        if peer.attempt.is_none() && peer.hints.take(now) {
            self.attempt(now, key, Reason::Hint);
        }
    }
}
