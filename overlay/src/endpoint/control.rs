//! Control messages inside a session, path probes, and packets without a session.

use std::sync::Arc;
use std::time::Instant;

use super::handshake::Reason;
use super::peers::PeerKey;
use super::{Endpoint, Event, Gone};
use crate::reach::RecvMeta;
use crate::session::{DATA_OVERHEAD, Session};
use crate::wire::{Control, ProbeSize, UnknownSession};

/// The first byte of a keepalive.
const KEEPALIVE_KIND: u8 = 0;

/// Length of the datagram of a probe's acknowledgement, in bytes.
const PROBE_ACK_LEN: usize = DATA_OVERHEAD + ProbeSize::MIN.get();

impl Endpoint {
    /// Takes a plaintext that is no IP packet: empty, or with a first byte below 16. The caller has opened it with
    /// `session` and called [`Session::note_received`].
    pub fn handle_control(&mut self, now: Instant, session: &Arc<Session>, meta: RecvMeta, message: &[u8]) {
        let Some(key) = self.key_of(session.peer()) else { return };
        self.heard_on(now, key, session);
        let (place, bytes) = (meta.place(), message.len() + DATA_OVERHEAD);
        let control = match message.first() {
            None | Some(&KEEPALIVE_KIND) => None,
            Some(_) => Some(Control::parse(message)),
        };
        match &control {
            // The peer looks whether we receive there, or answers that; it may be elsewhere.
            Some(Ok(message)) if message.is_probing() => {
                self.credit(now, key, place, bytes);
            }
            _ => self.heard_at(now, key, &meta, bytes),
        }
        let Some(control) = control else {
            self.counters.keepalives_received.increment();
            return;
        };
        match control {
            Ok(Control::Probe { id, .. }) => {
                let size = u16::try_from(bytes).unwrap_or(u16::MAX);
                // To where the probe came from, which may be a path that is only being tried.
                if self.may_answer_at(key, &place, PROBE_ACK_LEN) {
                    self.send_control(now, session, &place, Control::ProbeAck { id, size });
                }
            }
            Ok(Control::ProbeAck { id, .. }) => self.on_probe_ack(now, key, id),
            Ok(Control::Challenge { data, .. }) => self.on_challenge(now, key, session, place, data),
            Ok(Control::Answer { data }) => self.on_answer(now, key, place, data),
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

    fn on_probe_ack(&mut self, now: Instant, key: PeerKey, id: u32) {
        let Some(peer) = self.peers.get(key) else { return };
        let node = peer.node;
        self.nodes[node].reach.probe_acknowledged(id, now);
        self.probe_mtu(now, node);
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

    /// Data of a session that we do not have, probably because we were restarted: tells its sender.
    pub(super) fn on_unknown_data(&mut self, now: Instant, meta: RecvMeta, datagram: &[u8]) {
        self.counters.data_unknown_session.increment();
        let mut answer = Vec::new();
        if UnknownSession::answer(datagram, &mut answer)
            && self.hints.unknown_sent.take(meta.remote.ip(), now)
        {
            self.counters.unknown_session_sent.increment();
            tracing::debug!(from = %meta.remote, "a packet of a session that this node does not know: its sender is told");
            self.transmit(&meta.place(), answer);
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
            peer.handle.path().is_some_and(|path| path.remote() == meta.remote)
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
