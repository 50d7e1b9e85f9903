//! Other nodes' handshakes: initiations, from the cheapest check to the dearest.

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
        if !self.cookies.check_mac1(datagram) {
            self.core.counters.mac1_invalid.increment();
            return self.log_refusal(now, &meta, "initiation", "it is for another identity than this node's");
        }
        // A copy, by the network or by an attacker, is worth nothing: neither X25519 nor a token of the load
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

    /// Works off some of the initiations that wait. Those that are left are due at once, but after what else
    /// is due, and after the driver has read its sockets.
    pub(super) fn work_off(&mut self, now: Instant) {
        for _ in 0..WORKED_OFF_AT_ONCE {
            let Some(Waiting { meta, datagram }) = self.backlog.pop() else { return };
            if self.recent.contains(&datagram) {
                self.core.counters.initiations_replayed.increment();
                continue;
            }
            self.read_initiation(now, meta, &datagram);
        }
        if !self.backlog.is_empty() {
            self.core.timers.set(Timer::Backlog, now + NEXT);
        }
    }

    /// Does the X25519 operations that show who the sender is.
    fn read_initiation(&mut self, now: Instant, meta: RecvMeta, datagram: &[u8]) {
        self.core.counters.handshake_x25519.add(2);
        self.core.counters.bytes_tried.add(datagram.len() as u64);
        let Ok(received) = Received::read(&self.core.identity, datagram) else {
            self.core.counters.handshake_unauthentic.increment();
            return self.log_refusal(now, &meta, "initiation", "it is not authentic");
        };
        self.recent.insert(datagram);
        self.accept(now, meta, received, datagram.len());
    }

    /// The sender holds the key that it names: is it a member, and is this new?
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
        let Some(key) = self.find_or_add(now, network, received.initiator(), source) else {
            self.tell_of_stranger(now, network, &received.initiator().node_id());
            let why = "its sender is no member of the network, or there is no room for it";
            return self.log_refusal(now, &meta, "initiation", why);
        };
        let answered = self.link(now, key, |link, cx| link.on_initiation(cx, &meta, received, len));
        if let Some(Err(why)) = answered {
            self.log_refusal(now, &meta, "initiation", why);
        }
    }
}

/// Returns a bucket for the initiations that a node admits and works off as they come, without a way through
/// the backlog: a tenth.
pub(super) fn at_once(limits: &Limits, now: Instant) -> Bucket {
    let (rate, burst) = (limits.handshakes_per_second / 10, limits.handshake_burst / 10);
    Bucket::new(Rate::per_second(rate, burst.max(1)), now)
}

/// Initiations that are worked off before the driver reads its sockets again: a millisecond.
const WORKED_OFF_AT_ONCE: usize = 4;

/// A time after now, so that the driver has its turn.
const NEXT: Duration = Duration::from_micros(1);

/// The last 64 authentic initiations, by their MAC1.
///
/// ```
/// use peersock_overlay::load::Recent;
///
/// let (mut recent, initiation) = (Recent::default(), [7; 198]);
/// recent.insert(&initiation);
/// assert!(recent.contains(&initiation));
/// ```
#[derive(Debug, Default)]
pub struct Recent {
    macs: VecDeque<[u8; 16]>,
}

const MAX_RECENT: usize = 64;

impl Recent {
    /// Whether it is an exact copy of one of them.
    pub fn contains(&self, datagram: &[u8]) -> bool {
        mac1(datagram).is_some_and(|mac| self.macs.contains(mac))
    }

    /// Takes one in.
    pub fn insert(&mut self, datagram: &[u8]) {
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
