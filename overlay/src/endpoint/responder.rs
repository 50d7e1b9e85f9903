//! Other nodes' handshakes: initiations, from the cheapest check to the dearest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rand::RngExt;

use super::handshake::Reason;
use super::load::Admission;
use super::peers::{Live, MAX_UNCONFIRMED, PeerKey};
use super::timing::{REJECT_AFTER, REKEY_AFTER_RESPONDER, UNCONFIRMED_FOR, rekey_age};
use super::{Endpoint, Timer};
use crate::noise::{MacWriter, Received, ResponsePayload, Timestamp};
use crate::reach::{RecvMeta, Source};
use crate::session::Session;
use crate::wire::{Initiation, StaleReply};

impl Endpoint {
    pub(super) fn on_initiation(&mut self, now: Instant, meta: RecvMeta, datagram: &[u8]) {
        let Ok(initiation) = Initiation::parse(datagram) else {
            self.counters.handshake_malformed.increment();
            return self.log_refusal(now, &meta, "initiation", "it is malformed or of another version");
        };
        if !self.cookies.check_mac1(datagram) {
            self.counters.mac1_invalid.increment();
            return self.log_refusal(now, &meta, "initiation", "it is for another identity than this node's");
        }
        // A copy, by the network or by an attacker, is worth nothing: neither X25519 nor a token of the load measure.
        if self.recent.contains(datagram) {
            self.counters.initiations_replayed.increment();
            return;
        }
        let cookies = &self.cookies;
        let has_cookie = || cookies.check_mac2(now, meta.remote, datagram);
        let is_known = || self.nodes.any_at(&meta.remote);
        match self.load.admit(meta.remote, now, has_cookie, is_known) {
            Admission::Accept => {}
            Admission::Refuse => {
                self.counters.handshakes_refused.increment();
                return self.log_refusal(now, &meta, "initiation", "too many come from there");
            }
            Admission::DemandCookie => {
                let nonce = self.keys.nonce();
                let reply = self.cookies.reply(now, meta.remote, datagram, initiation.sender, nonce);
                let mut out = Vec::new();
                reply.iter().for_each(|reply| reply.emit(&mut out));
                self.counters.cookies_sent.increment();
                self.log_refusal(
                    now,
                    &meta,
                    "initiation",
                    "this node is busy and wants it again with a cookie",
                );
                self.transmit(&meta.place(), out);
                return;
            }
        }
        self.counters.handshake_x25519.add(2);
        let Ok(received) = Received::read(&self.identity, datagram) else {
            self.counters.handshake_unauthentic.increment();
            return self.log_refusal(now, &meta, "initiation", "it is not authentic");
        };
        self.recent.insert(datagram);
        self.accept(now, meta, received, datagram.len());
    }

    /// The sender holds the key that it names: is it a member, and is this new?
    fn accept(&mut self, now: Instant, meta: RecvMeta, received: Received, len: usize) {
        let network = received.payload().network;
        let Some(network) = self.networks.values().find(|joined| joined.id == network) else {
            self.counters.strangers_refused.increment();
            return self.log_refusal(
                now,
                &meta,
                "initiation",
                "it is for a network that this node has not joined",
            );
        };
        let (network, source) = (network.index, meta.remote.ip());
        let Some(key) = self.find_or_add(now, network, received.initiator(), source) else {
            let why = "its sender is no member of the network, or there is no room for it";
            return self.log_refusal(now, &meta, "initiation", why);
        };
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.used = now;
        self.nodes[peer.node].reach.heard(meta.place(), len, Source::Handshake, now);
        let timestamp = received.payload().timestamp;
        if let Some(newest) = peer.newest.filter(|newest| timestamp <= *newest) {
            return self.on_stale_initiation(now, key, &meta, &received, newest);
        }
        peer.newest = Some(timestamp);
        self.forget_unconfirmed(now, key);
        self.respond(now, key, &meta, received);
    }

    /// An initiation that is authentic and not new is a replay, or its sender's clock went back. It gets no response,
    /// but the newest timestamp, readable by its sender only: a live peer begins again with a newer one. And
    /// now and then a handshake of ours, which a live peer answers whatever its clock says.
    fn on_stale_initiation(
        &mut self,
        now: Instant,
        key: PeerKey,
        meta: &RecvMeta,
        received: &Received,
        newest: Timestamp,
    ) {
        self.counters.initiations_stale.increment();
        let Some(peer) = self.peers.get_mut(key) else { return };
        tracing::debug!(peer = %peer.handle.id(), from = %meta.remote, "an initiation is not new: a replay, or its sender's clock went back");
        if peer.stale_replies.take(now) && self.nodes[peer.node].reach.spend(&meta.place(), StaleReply::LEN) {
            let mut reply = Vec::with_capacity(StaleReply::LEN);
            received.stale_reply(newest, self.keys.nonce()).emit(&mut reply);
            self.counters.stale_replies_sent.increment();
            self.transmit(&meta.place(), reply);
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.attempt.is_some() {
            self.try_at(now, key, &meta.place());
        } else if peer.hints.take(now) {
            self.attempt(now, key, Reason::Hint);
        }
    }

    fn respond(&mut self, now: Instant, key: PeerKey, meta: &RecvMeta, received: Received) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(network) = self.networks.get(&peer.handle.network()) else { return };
        let surplus = peer.take_unlikely(now);
        if peer.unconfirmed() >= MAX_UNCONFIRMED {
            self.counters.handshakes_refused.increment();
            return self.log_refusal(now, meta, "initiation", "earlier answers to this peer were not used");
        }
        let Some(suite) = self.provider.suites().choose(received.payload().suites) else {
            self.counters.suites_unsupported.increment();
            return self.log_refusal(now, meta, "initiation", "its sender has no cipher that this node has");
        };
        if let Some(session) = surplus {
            session.erase();
            self.sessions.remove(session.index());
        }
        let rng = &mut self.rng;
        let Some(index) = self.sessions.reserve(|| rng.random()) else {
            self.counters.sessions_refused.increment();
            return;
        };
        let payload = *received.payload();
        let ephemeral = self.keys.draw();
        let answer = ResponsePayload { instance: self.instance, receive_buffer: self.receive_buffer };
        let mut response = Vec::new();
        self.counters.handshake_x25519.add(3);
        let keys = received.respond(&network.psk, *ephemeral, index, suite, &answer, &mut response);
        let (handle, counters) = (peer.handle.clone(), self.counters.clone());
        let session = keys
            .ok()
            .and_then(|keys| Session::new(&keys, &*self.provider, handle, counters, REJECT_AFTER, now));
        let Some(session) = session.map(Arc::new) else {
            self.sessions.remove(index);
            self.counters.handshake_unauthentic.increment();
            return;
        };
        peer.sessions.push(Live {
            session: session.clone(),
            instance: payload.instance,
            receive_buffer: payload.receive_buffer,
            // Who uses the session has read the response, which goes there and nowhere else.
            place: Some(meta.place()),
            rekey_at: now + rekey_age(REKEY_AFTER_RESPONDER, &mut self.rng),
        });
        self.sessions.insert(session);
        MacWriter::new(peer.handle.id()).append(now, &mut response);
        self.timers.set_earlier(Timer::Expire(key), now + UNCONFIRMED_FOR);
        // The initiation paid for it; what is left may pay for a hint.
        if self.nodes[peer.node].reach.spend(&meta.place(), response.len()) {
            self.counters.handshakes_answered.increment();
            tracing::debug!(peer = %peer.handle.id(), to = %meta.remote, "initiation answered");
            self.transmit(&meta.place(), response);
        }
    }
}

/// The last authentic initiations, by their MAC1.
#[derive(Debug, Default)]
pub(super) struct Recent {
    macs: VecDeque<[u8; 16]>,
}

const MAX_RECENT: usize = 64;

impl Recent {
    fn contains(&self, datagram: &[u8]) -> bool {
        mac1(datagram).is_some_and(|mac| self.macs.contains(mac))
    }

    fn insert(&mut self, datagram: &[u8]) {
        if let Some(mac) = mac1(datagram) {
            self.macs.truncate(MAX_RECENT - 1);
            self.macs.push_front(*mac);
        }
    }
}

/// MAC1 stands in front of MAC2, which ends the message.
fn mac1(datagram: &[u8]) -> Option<&[u8; 16]> {
    let (rest, _) = datagram.split_last_chunk::<16>()?;
    rest.last_chunk()
}
