//! Answers to our own initiations.

use std::time::Instant;

use super::Endpoint;
use crate::link::Tried;
use crate::reach::RecvMeta;
use crate::wire::{CookieReply, Response, StaleReply};

impl Endpoint {
    pub(super) fn on_response(&mut self, now: Instant, meta: RecvMeta, datagram: &[u8]) {
        let Ok(response) = Response::parse(datagram) else {
            self.core.counters.handshake_malformed.increment();
            return self.log_refusal(now, &meta, "response", "it is malformed");
        };
        let index = response.receiver;
        // The index is checked first: it is random, so only a node that saw the initiation gets past this
        // check.
        let Some(&key) = self.core.initiations.get(&index) else {
            self.core.counters.responses_unexpected.increment();
            return self.log_refusal(now, &meta, "response", "nothing waits for it any more");
        };
        self.core.counters.bytes_tried.add(datagram.len() as u64);
        if !self.cookies.check_mac1(datagram) {
            self.core.counters.mac1_invalid.increment();
            return self.log_refusal(now, &meta, "response", "it is not for this node");
        }
        // An attacker that sees the initiation can forge responses to it, each of which costs two X25519
        // operations.
        let failed = self.peers.get(key).map_or(0, |peer| peer.link.failures(index));
        if !self.load.may_try_response(meta.origin(), failed, now) {
            self.core.counters.handshakes_refused.increment();
            return self.log_refusal(now, &meta, "response", "too many came that were not authentic");
        }
        let finished = self.link(now, key, |link, cx| {
            let finished = link.on_response(cx, &meta, index, datagram);
            if !finished {
                link.note_failure(cx, index);
            }
            finished
        });
        if finished != Some(true) {
            self.load.note_failed_response(meta.origin(), now);
            self.core.counters.handshake_unauthentic.increment();
            let why = "it is not authentic; both sides must have the same secret for the network";
            self.log_refusal(now, &meta, "response", why);
        }
    }

    pub(super) fn on_cookie_reply(&mut self, now: Instant, datagram: &[u8]) {
        let Ok(reply) = CookieReply::parse(datagram) else {
            self.core.counters.handshake_malformed.increment();
            return;
        };
        let key = self.core.initiations.get(&reply.receiver).copied();
        let tried = key.and_then(|key| self.link(now, key, |link, cx| link.on_cookie_reply(cx, &reply)));
        self.count(tried);
    }

    pub(super) fn on_stale_reply(&mut self, now: Instant, meta: RecvMeta, datagram: &[u8]) {
        let Ok(reply) = StaleReply::parse(datagram) else {
            self.core.counters.handshake_malformed.increment();
            return;
        };
        let key = self.core.initiations.get(&reply.receiver).copied();
        let tried =
            key.and_then(|key| self.link(now, key, |link, cx| link.on_stale_reply(cx, &meta, &reply)));
        self.count(tried);
    }

    fn count(&self, tried: Option<Tried>) {
        match tried {
            Some(Tried::Authentic) => {}
            Some(Tried::Forged) => self.core.counters.handshake_unauthentic.increment(),
            Some(Tried::Unexpected) | None => self.core.counters.responses_unexpected.increment(),
        }
    }
}
