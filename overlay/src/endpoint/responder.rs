//! Other nodes' handshakes: initiations, checked from the cheapest check to the most expensive.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Endpoint;
use super::backlog::{Standing, Waiting};
use super::config::Limits;
use super::load::Admission;
use crate::bucket::{Bucket, Rate};
use crate::link::Timer;
use crate::noise::Received;
use crate::reach::RecvMeta;
use crate::wire::Initiation;

impl Endpoint {
    pub(super) fn on_initiation(&mut self, now: Instant, meta: RecvMeta, datagram: &[u8]) {
        let Ok(initiation) = Initiation::parse(datagram) else {
            self.core.counters.handshake_malformed.increment();
            return self.log_refusal(now, &meta, "initiation", "it is malformed or of another version");
        };
        self.core.counters.bytes_tried.add(datagram.len() as u64);
        // The cheapest check first: one hash, against several X25519 operations for a handshake.
        if !self.cookies.check_mac1(datagram) {
            self.core.counters.mac1_invalid.increment();
            return self.log_refusal(now, &meta, "initiation", "it is for another identity than this node's");
        }
        // A copy, made by the network or an attacker, deserves neither X25519 nor a token of the load
        // measure.
        if self.recent.contains(datagram) {
            self.core.counters.initiations_replayed.increment();
            return;
        }
        if self.backlog.is_long() {
            self.load.note_behind(now);
        }
        let (cookies, counters) = (&self.cookies, &self.core.counters);
        let has_cookie = || {
            counters.bytes_tried.add(datagram.len() as u64);
            cookies.check_mac2(now, meta.origin(), datagram)
        };
        // The initiator may be a peer that renews its session, which must succeed during a flood.
        let take_known = || self.nodes.take_handshake(&meta.place().key(), now);
        match self.load.admit(meta.origin(), now, has_cookie, take_known) {
            Admission::Accept => {}
            Admission::Refuse => {
                self.core.counters.handshakes_refused.increment();
                return self.log_refusal(now, &meta, "initiation", "too many come from there");
            }
            Admission::DemandCookie => {
                let Some(nonce) = self.core.nonce() else { return };
                let reply = self.cookies.reply(now, meta.origin(), datagram, initiation.sender, nonce);
                let mut out = Vec::new();
                reply.iter().for_each(|reply| reply.emit(&mut out));
                self.core.counters.cookies_sent.increment();
                self.log_refusal(
                    now,
                    &meta,
                    "initiation",
                    "this node is busy and wants it again with a cookie",
                );
                self.core.transmit(&meta.place(), out);
                return;
            }
        }
        // Not past waiting ones, which were there first.
        if self.backlog.is_empty() && self.at_once.take(now) {
            return self.read_initiation(now, meta, datagram);
        }
        let standing = match self.load.asks_for_cookies() {
            _ if self.nodes.is_known(&meta.place().key()) => Standing::Known,
            true => Standing::Proven,
            false => Standing::Unproven,
        };
        if self.backlog.push(standing, meta, datagram) {
            self.core.timers.set_earlier(Timer::Backlog, now);
        } else {
            self.core.counters.handshakes_refused.increment();
            self.log_refusal(now, &meta, "initiation", "too many wait for the processor");
        }
    }

    /// Handles some of the waiting initiations. The rest is due at once, but after other due timers and after
    /// the driver has read its sockets.
    pub(super) fn work_off(&mut self, now: Instant) {
        // A few at a time, so that packets of sessions are handled in between.
        for _ in 0..WORKED_OFF_AT_ONCE {
            let Some(Waiting { meta, datagram }) = self.backlog.pop() else { return };
            // A copy may have been read while this one waited.
            if self.recent.contains(&datagram) {
                self.core.counters.initiations_replayed.increment();
                continue;
            }
            self.read_initiation(now, meta, &datagram);
        }
        if !self.backlog.is_empty() {
            self.core.timers.set(Timer::Backlog, now + NEXT_BATCH_DELAY);
        }
    }

    /// Performs the X25519 operations that identify the sender.
    fn read_initiation(&mut self, now: Instant, meta: RecvMeta, datagram: &[u8]) {
        self.core.counters.handshake_x25519.add(2);
        self.core.counters.bytes_tried.add(datagram.len() as u64);
        let Ok(received) = Received::read(&self.core.identity, datagram) else {
            self.core.counters.handshake_unauthentic.increment();
            return self.log_refusal(now, &meta, "initiation", "it is not authentic");
        };
        // Only authentic ones, so that forgeries cannot push genuine entries out.
        self.recent.insert(datagram);
        self.accept(now, meta, received, datagram.len());
    }

    /// Handles an initiation whose sender holds the key it names: checks membership and novelty.
    fn accept(&mut self, now: Instant, meta: RecvMeta, received: Received, len: usize) {
        let network = received.payload().network;
        let Some(network) = self.networks.values().find(|joined| joined.id == network) else {
            self.core.counters.strangers_refused.increment();
            return self.log_refusal(
                now,
                &meta,
                "initiation",
                "it is for a network that this node has not joined",
            );
        };
        let (network, source) = (network.index, meta.remote.ip());
        let node = received.initiator().node_id();
        self.introduce(now, network, &node, &received.payload().introduction);
        let Some(key) = self.find_or_add(now, network, received.initiator(), source) else {
            self.tell_of_stranger(now, network, &node);
            // Nothing else would forget its certificate.
            self.forget_program(network, &node);
            let why = "its sender is no member of the network, or there is no room for it";
            return self.log_refusal(now, &meta, "initiation", why);
        };
        let answered = self.link(now, key, |link, cx| link.on_initiation(cx, &meta, received, len));
        if let Some(Err(why)) = answered {
            self.log_refusal(now, &meta, "initiation", why);
        }
    }
}

/// Returns a bucket for initiations handled as they come, without passing through the backlog: a tenth of
/// all.
pub(super) fn at_once(limits: &Limits, now: Instant) -> Bucket {
    let (rate, burst) = (limits.handshakes_per_second / 10, limits.handshake_burst / 10);
    Bucket::new(Rate::per_second(rate, burst.max(1)), now)
}

/// Number of initiations handled before the driver reads its sockets again: about a millisecond.
const WORKED_OFF_AT_ONCE: usize = 4;

/// Delay after which the next ones are due.
// More than zero, so that the driver has its turn.
const NEXT_BATCH_DELAY: Duration = Duration::from_micros(1);

/// The last 64 authentic initiations, by their MAC1.
#[derive(Debug, Default)]
pub struct Recent {
    macs: VecDeque<[u8; 16]>,
}

const MAX_RECENT: usize = 64;

impl Recent {
    /// Returns true if `datagram` is an exact copy of one of them.
    pub fn contains(&self, datagram: &[u8]) -> bool {
        mac1(datagram).is_some_and(|mac| self.macs.contains(mac))
    }

    /// Adds an initiation.
    pub fn insert(&mut self, datagram: &[u8]) {
        if let Some(mac) = mac1(datagram) {
            // Only copies that follow soon matter. Later ones fail by their timestamp, at the cost of reading
            // them.
            self.macs.truncate(MAX_RECENT - 1);
            self.macs.push_front(*mac);
        }
    }
}

/// Returns MAC1, which precedes the MAC2 at the end of the message.
fn mac1(datagram: &[u8]) -> Option<&[u8; 16]> {
    let (rest, _) = datagram.split_last_chunk::<16>()?;
    rest.last_chunk()
}
