//! Control messages inside a session.

use std::net::SocketAddr;
use std::sync::Arc;

use super::paths::may_answer_at;
use super::{Context, Effect, Event, Gone, Link};
use crate::reach::{RecvMeta, Source};
use crate::session::Session;
use crate::wire::{Candidates, Control, DATA_OVERHEAD, ProbeSize};

/// The first byte of a keepalive.
const KEEPALIVE_KIND: u8 = 0;

/// Length in bytes of the datagram of a probe acknowledgement.
const PROBE_ACK_LEN: usize = DATA_OVERHEAD + ProbeSize::MIN.get();

/// Report of a peer about something other than its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// Another node with this node's identity is active at this address.
    Elsewhere(SocketAddr),
}

impl Link {
    /// Handles a plaintext on `session` that is no IP packet.
    pub(crate) fn on_control(
        &mut self,
        cx: &mut Context<'_>,
        session: &Arc<Session>,
        meta: &RecvMeta,
        message: &[u8],
    ) -> Option<Report> {
        self.heard_on(cx, session);
        let (place, bytes) = (meta.place(), message.len() + DATA_OVERHEAD);
        let control = match message.first() {
            None | Some(&KEEPALIVE_KIND) => None,
            Some(_) => Some(Control::parse(message)),
        };
        match &control {
            // The peer tests whether we receive there, or answers such a test; it may itself be elsewhere.
            Some(Ok(message)) if message.is_probing() && meta.is_from_node() => {
                if place.socket().is_peer_stream() {
                    // The packet is authentic, so it shows which node has opened the connection.
                    cx.core.tcp.claim(place.socket(), cx.node);
                }
                cx.reach.heard(place, bytes, Source::Session, cx.now)
            }
            _ => self.heard_at(cx, session, meta, bytes),
        }
        if Candidates::is_one(message) {
            match Candidates::parse(message) {
                Ok(candidates) => self.on_candidates(cx, &candidates),
                Err(_) => cx.core.counters.control_unknown.increment(),
            }
            return None;
        }
        let Some(control) = control else {
            cx.core.counters.keepalives_received.increment();
            return None;
        };
        match control {
            Ok(Control::Probe { id, .. }) => {
                let size = u16::try_from(bytes).unwrap_or(u16::MAX);
                // The answer goes where the probe came from, which may be a path under trial.
                if may_answer_at(cx, &place, PROBE_ACK_LEN) {
                    self.send_control(cx, session, &place, Control::ProbeAck { id, size });
                }
            }
            // An acknowledgement from elsewhere says nothing of the path, because its sender can guess the
            // id.
            Ok(Control::ProbeAck { .. }) if cx.reach.place() != Some(place) => {}
            Ok(Control::ProbeAck { id, .. }) => {
                cx.reach.probe_acknowledged(id, cx.now);
                self.probe_mtu(cx);
            }
            Ok(Control::Challenge { data, .. }) => self.on_challenge(cx, session, place, data),
            Ok(Control::Answer { data }) => self.on_answer(cx, place, data),
            Ok(Control::Params { receive_buffer, .. }) => self.handle.set_receive_buffer(receive_buffer),
            Ok(Control::Elsewhere { instance, remote }) => {
                return (instance != cx.core.instance).then_some(Report::Elsewhere(remote));
            }
            Ok(Control::Birthday { id, step, is_fast }) => self.on_birthday(cx, id, step, is_fast),
            Ok(Control::Close { .. }) => self.on_close(cx, session),
            Err(_) => cx.core.counters.control_unknown.increment(),
        }
        None
    }

    /// Records a message of `bytes` bytes on `session` that does not locate the peer's path.
    pub(crate) fn heard_beside_path(
        &mut self,
        cx: &mut Context<'_>,
        session: &Arc<Session>,
        meta: &RecvMeta,
        bytes: usize,
    ) {
        self.heard_on(cx, session);
        if meta.is_from_node() {
            cx.reach.heard(meta.place(), bytes, Source::Session, cx.now);
        }
    }

    /// Handles the peer's departure: ends its sessions, except those with a successor that has started
    /// meanwhile.
    fn on_close(&mut self, cx: &mut Context<'_>, session: &Arc<Session>) {
        let Some(instance) = self.live(session).map(|live| live.instance) else { return };
        cx.core.counters.closes_received.increment();
        tracing::debug!(peer = %self.handle.logged(), "the peer has left");
        // The goodbye of an earlier instance may arrive after its successor's handshake, so only its own
        // sessions end.
        let closed = self.take_instance(instance);
        self.departed = self.sessions.is_empty();
        self.end_attempt(cx);
        if self.instance == Some(instance) {
            cx.core.emit(Event::PeerGone(self.handle.clone(), Gone::Left));
        }
        self.drop_sessions(cx, closed);
        cx.effects.push(Effect::Departed);
    }
}
