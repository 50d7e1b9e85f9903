//! Beacons: their schedule, and the handling of received ones.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::Discovery;
use super::hellos::NO_ECHO;
use crate::crypto::hash;
use crate::endpoint::Endpoint;
use crate::link::{Link, Timer};
use crate::reach::{Place, RecvMeta};
use crate::text::List;
use crate::wire::Beacon;

/// Times of beacons after a start or a change, in milliseconds.
const LADDER: [u64; 5] = [0, 100, 300, 1000, 3000];
/// Interval of beacons after that, in milliseconds.
const REGULAR: std::ops::RangeInclusive<u64> = 20_000..=30_000;
/// Minimum interval between beacons that ask for a node.
const SOLICIT_INTERVAL: Duration = Duration::from_secs(1);
/// Lifetime of a salt.
const SALT_LIFETIME: Duration = Duration::from_secs(600);

impl Discovery {
    /// Fills the rest of a beacon with tags that look like real ones and are the same in all beacons of one
    /// salt.
    fn fill(&self, salt: &[u8; 16], filler: &mut [u8]) {
        // Fresh random fillers would show, by comparison of two beacons, which tags stay.
        for (index, tag) in (0u8..).zip(filler.chunks_exact_mut(Beacon::TAG)) {
            tag.copy_from_slice(&hash::mac16(&self.secret, &[salt, &[index]]));
        }
    }

    fn renew_salt(&mut self, salt: [u8; 16], now: Instant) {
        self.salt = salt;
        self.salt_since = now;
        self.own_salts.push_front(salt);
        // Own beacons come back by multicast loops within moments, so a few are enough.
        self.own_salts.truncate(8);
    }
}

impl Endpoint {
    /// Announces the node now, and again at the times of the ladder.
    pub(in crate::endpoint) fn restart_beacons(&mut self, now: Instant) {
        self.discovery.rung = 0;
        // A new salt makes nodes answer that have met this one before.
        let salt = self.core.random();
        self.discovery.renew_salt(salt, now);
        self.on_beacon_timer(now);
    }

    pub(in crate::endpoint) fn on_beacon_timer(&mut self, now: Instant) {
        if self.networks.is_empty() || self.core.sockets.iter().all(|socket| socket.beacon_targets.is_empty())
        {
            self.core.timers.clear(Timer::Beacon);
            return;
        }
        if now.saturating_duration_since(self.discovery.salt_since) >= SALT_LIFETIME {
            let salt = self.core.random();
            self.discovery.renew_salt(salt, now);
        }
        self.send_beacon();
        let rung = self.discovery.rung;
        self.discovery.rung = (rung + 1).min(LADDER.len());
        let wait = match LADDER.get(rung + 1) {
            Some(next) => next - LADDER[rung],
            // Random, so that nodes that started together do not all send at once.
            None => self.core.rng.random_range(REGULAR),
        };
        self.core.timers.set(Timer::Beacon, now + Duration::from_millis(wait));
    }

    /// Asks on the local networks for a missing node: at once, or as soon as the minimum interval has passed.
    pub(in crate::endpoint) fn solicit(&mut self, now: Instant) {
        // Programs that scan a network would otherwise send a beacon for each address.
        let allowed = self.discovery.solicited.map_or(now, |last| last + SOLICIT_INTERVAL);
        self.core.timers.set_earlier(Timer::Solicit, allowed.max(now));
        if allowed <= now {
            self.core.timers.clear(Timer::Solicit);
            self.on_solicit_timer(now);
        }
    }

    pub(in crate::endpoint) fn on_solicit_timer(&mut self, now: Instant) {
        self.discovery.solicited = Some(now);
        // All nodes must answer, also those that have met this one before.
        let salt = self.core.random();
        self.discovery.renew_salt(salt, now);
        self.send_beacon();
        if self.networks.values().any(|network| network.asks(now)) {
            self.core.timers.set(Timer::Solicit, now + SOLICIT_INTERVAL);
        }
    }

    fn send_beacon(&mut self) {
        let networks = self.networks.len();
        if networks > Beacon::MAX_TAGS {
            // Receivers take an equal salt for an equal beacon, so each turn needs another salt.
            let salt = self.core.random();
            self.discovery.renew_salt(salt, self.discovery.salt_since);
        }
        let salt = self.discovery.salt;
        let turn = self.networks.values().cycle().skip(self.discovery.turn);
        let tags: Vec<_> = turn
            .take(networks.min(Beacon::MAX_TAGS))
            .map(|network| network.discovery.beacon_tag(&salt))
            .collect();
        if tags.is_empty() {
            return;
        }
        // The next beacon goes on where this one ended, so that each network has its turn.
        self.discovery.turn = (self.discovery.turn + tags.len()) % networks;
        let mut datagram = Vec::with_capacity(Beacon::LEN);
        Beacon::emit(salt, &tags, |filler| self.discovery.fill(&salt, filler), &mut datagram);
        let targets = self.core.sockets.iter().flat_map(|socket| &socket.beacon_targets);
        tracing::debug!(to = %List(targets), "beacon sent");
        for socket in &self.core.sockets {
            for &target in &socket.beacon_targets {
                self.core.counters.beacons_sent.increment();
                let place = Place::Direct { socket: socket.index, remote: target };
                if !self.core.outbox.push(place, datagram.clone()) {
                    self.core.counters.transmits_dropped.increment();
                }
            }
        }
    }

    pub(in crate::endpoint) fn on_beacon(&mut self, now: Instant, meta: RecvMeta, datagram: &[u8]) {
        let Ok(beacon) = Beacon::parse(datagram) else {
            self.core.counters.discovery_malformed.increment();
            return;
        };
        if self.discovery.own_salts.contains(&beacon.salt) {
            return;
        }
        self.core.counters.beacons_received.increment();
        // Only the discovery socket gets beacons of the local network. Elsewhere a stranger could probe which
        // networks we are on.
        if !meta.multicast || !self.hints.beacons.take_address(meta.remote, now) {
            return;
        }
        let known = self.discovery.hear(meta.remote, beacon.salt, now);
        let Some(heard) = known else { return self.note_beacon_of_peers(now, &meta.remote) };
        if heard.unmet.is_empty() {
            let common = self.networks.values().filter(|network| {
                self.core.counters.bytes_tried.add(datagram.len() as u64);
                let tag = network.discovery.beacon_tag(&beacon.salt);
                beacon.contains(&tag)
            });
            heard.unmet = common.map(|network| network.index).collect();
            heard.met.retain(|network, _| heard.unmet.contains(network));
        }
        let Some(network) = heard.unmet.front().copied() else {
            // Every node on the local network sends beacons repeatedly, so report a refusal once. Before a
            // network is joined all are refused, which means nothing.
            if !heard.is_refusal_said && !self.networks.is_empty() {
                let why = "it is of no network that this node is in, or its sender has another secret";
                let is_said = self.tries_to_log_refusal(now, &meta, "beacon", why);
                if let Some(heard) = self.discovery.heard.get_mut(&meta.remote) {
                    heard.is_refusal_said = is_said;
                }
            }
            return;
        };
        // One beacon buys one hello, so the next beacon is answered in the next network.
        heard.unmet.rotate_left(1);
        self.core.counters.beacons_matched.increment();
        tracing::debug!(from = %meta.remote, "beacon of a common network heard");
        self.send_hello(now, network, &meta, true, NO_ECHO);
    }

    /// Records that the peers met at this address are still there, because the same beacon came again. Those
    /// whose connections have no session get one.
    fn note_beacon_of_peers(&mut self, now: Instant, remote: &SocketAddr) {
        let met = self.discovery.heard.get(remote).into_iter().flat_map(|heard| heard.met.values());
        // Collected first, because a handshake needs the whole endpoint. There is one peer for each network.
        for key in met.copied().collect::<Vec<_>>() {
            if let Some(peer) = self.peers.get_mut(key) {
                peer.note_heard(now);
                self.link(now, key, Link::heed_presence);
            }
        }
    }
}
