//! Data packets: their sessions and their messages.

use std::time::Instant;

use peersock_overlay::SessionIndex;
use peersock_overlay::wire::{Control, DATA_OVERHEAD, Data, RootMessage, UnknownSession};

use crate::budget::Nanos;
use crate::clients::Slot;
use crate::{Root, Source};

/// Origin of a message.
#[derive(Debug, Clone, Copy)]
struct Came {
    source: Source,
    /// Index of the session, and when it was made.
    session: SessionIndex,
    since: Nanos,
    /// Size of the datagram in bytes.
    len: usize,
}

impl Root {
    pub(crate) fn on_data(&mut self, now: Instant, source: Source, datagram: &[u8]) {
        let Ok(data) = Data::parse(datagram) else { return self.counters.data_dropped.increment() };
        let Some(slot) = self.clients.by_index(data.receiver) else {
            return self.on_unknown_session(now, source, datagram);
        };
        let at = self.nanos(now);
        let mut plaintext = std::mem::take(&mut self.scratch);
        let provider = self.config.provider.clone();
        let opened = self.clients.get_mut(slot).and_then(|client| {
            let (session, is_used) = client.session(data.receiver)?;
            let (is_alive, since) = (at < session.expires(), session.established);
            is_alive.then(|| session.open(&*provider, &data, &mut plaintext)).flatten()?;
            // Both times change only after authentication, so forged packets keep no node alive.
            client.heard = at;
            if client.path() == Some(source) {
                client.heard_at_path = at;
            }
            Some((is_used, since))
        });
        match opened {
            None => self.counters.data_dropped.increment(),
            Some((is_used, since)) => {
                if is_used || self.confirm(at, slot, data.receiver).is_some() {
                    let came = Came { source, session: data.receiver, since, len: datagram.len() };
                    self.on_message(now, slot, came, &plaintext);
                }
            }
        }
        // Kept for the next packet, which saves an allocation.
        self.scratch = plaintext;
    }

    /// Handles an authentic message of a node.
    fn on_message(&mut self, now: Instant, slot: Slot, came: Came, plaintext: &[u8]) {
        let Came { source, session, since, len } = came;
        let is_at_path = self.clients.get(slot).is_some_and(|client| client.path() == Some(source));
        if RootMessage::is_one(plaintext) {
            let message = RootMessage::parse(plaintext);
            if message == Ok(RootMessage::Vouch) {
                return self.on_vouch(now, source, slot);
            }
            if !is_at_path {
                // The answer would exceed the question, and its source may be forged to hit a victim.
                self.counters.from_unproven.increment();
                return self.challenge(now, source, slot);
            }
            return match message {
                Ok(RootMessage::Register { registration, access }) => {
                    self.on_register(now, slot, since, &registration, &access);
                }
                Ok(RootMessage::LookUp { id, key }) => self.on_look_up(now, slot, id, key),
                Ok(RootMessage::Nickname(message)) => self.on_nickname(now, slot, since, message),
                _ => self.counters.control_unknown.increment(),
            };
        }
        let control = match plaintext.first() {
            // Keepalive.
            None | Some(0) => None,
            Some(_) => Some(Control::parse(plaintext)),
        };
        match control {
            Some(Ok(Control::Probe { id, .. })) => {
                let size = u16::try_from(len).unwrap_or(u16::MAX);
                self.answer(slot, source, Control::ProbeAck { id, size });
            }
            // One datagram does not pay for two messages, so either a challenge or an answer is sent. A node
            // that compares several paths to the root is still heard on its current one. A node that is
            // silent there seems to have a new address, perhaps unknowingly. It hears from the root in both
            // cases.
            Some(Ok(Control::Challenge { here: false, .. })) if self.seems_moved(now, source, slot) => {
                self.challenge(now, source, slot);
            }
            Some(Ok(Control::Challenge { data, .. })) => {
                self.answer(slot, source, Control::Answer { data });
            }
            Some(Ok(Control::Answer { data })) => self.on_answer(now, source, slot, data),
            Some(Ok(Control::Close { .. })) => {
                self.counters.closes_received.increment();
                return self.on_close(slot, session);
            }
            Some(Ok(Control::Params { .. })) | None => {}
            Some(_) => self.counters.control_unknown.increment(),
        }
        // Probing packets may come from anywhere (RFC 9000, section 9.1); other packets mean that the node
        // has moved there.
        if !is_at_path && !matches!(control, Some(Ok(control)) if control.is_probing()) {
            self.challenge(now, source, slot);
        }
    }

    /// Ends the node's sessions. A late message in a replaced session ends only that one.
    fn on_close(&mut self, slot: Slot, session: SessionIndex) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        match client.previous.take_if(|previous| previous.index == session) {
            Some(previous) => self.clients.free_indices([previous.index]),
            None => self.forget(slot),
        }
    }

    fn on_unknown_session(&mut self, now: Instant, source: Source, datagram: &[u8]) {
        self.counters.data_unknown_session.increment();
        if self.limits.unknown_session.take(source.ip(), now) {
            let mut reply = Vec::with_capacity(DATA_OVERHEAD);
            if UnknownSession::answer(datagram, &mut reply) {
                self.outbox.answer(&self.counters, source, reply);
            }
        }
    }
}
