//! Finding peers on the local networks: beacons and hellos.
//!
//! A **beacon** goes to multicast and broadcast addresses. It has a salt and, for each network that its
//! sender is in, a hash of the salt that only those who know the network can make. Who recognises one answers
//! with a **hello**, by unicast and sealed for that network, which says who he is; the answer to that says
//! who the beacon's sender is. Now both know each other's keys and address, and a handshake can begin
//! whenever somebody wants one.
//!
//! - The salt of regular beacons stays the same for a while, so that those who have met need not answer
//!   again. A restart, a change of the own networks, and a beacon that asks for somebody have a new one.
//! - A hello carries its sender's *instance*, random at each start. If it is not the one that the session was
//!   made with, the peer has been restarted and a handshake begins at once.
//! - A hello makes its sender a peer only if somebody here waits for it, or if it repeats a nonce that was
//!   sent to its address. Any other is answered without a trace, and asked to do that.
//! - Source addresses are unproven here. One beacon buys one hello, one hello buys one hello or one
//!   initiation, never longer than itself. More is possible only after the other side has repeated a nonce
//!   that was sent to its address.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt;
use subtle::ConstantTimeEq;

use super::Endpoint;
use super::peers::PeerState;
use crate::crypto::hash;
use crate::id::PublicIdentity;
use crate::link::{Link, PeerKey, Reason, Timer};
use crate::network::NetworkIndex;
use crate::reach::{Place, RecvMeta, Source, Why};
use crate::text::List;
use crate::wire::{Beacon, Hello, mapped};

/// Beacons after a start or a change, in milliseconds from then.
const LADDER: [u64; 5] = [0, 100, 300, 1000, 3000];
/// After that one per so many milliseconds.
const REGULAR: std::ops::RangeInclusive<u64> = 20_000..=30_000;
/// The least time between two beacons that ask for somebody.
const SOLICIT_INTERVAL: Duration = Duration::from_secs(1);
/// A salt is used so long.
const SALT_LIFETIME: Duration = Duration::from_secs(600);

/// Sources whose beacons are remembered; the one heard longest ago makes room.
const MAX_HEARD: usize = 1024;
/// Nonces of hellos are made anew so often. Their echoes are recognised for two such times at least, which is
/// the longest round trip and the time that the other node's queue may add, and for three at most.
const ECHO_EPOCH: Duration = Duration::from_secs(6);

#[derive(Debug)]
pub(super) struct Discovery {
    /// Fills beacons up, and makes nonces that are recognised when they come back.
    secret: [u8; 32],
    salt: [u8; 16],
    salt_since: Instant,
    /// Salts of our own beacons, which multicast brings back to us.
    own_salts: VecDeque<[u8; 16]>,
    /// The next rung of the ladder.
    rung: usize,
    /// With more networks than fit into one beacon, where the next one begins.
    turn: usize,
    solicited: Option<Instant>,
    heard: BTreeMap<SocketAddr, Heard>,
    /// The ages of nonces count from here.
    start: Instant,
}

/// What we know of the sender of a beacon.
#[derive(Debug)]
struct Heard {
    salt: [u8; 16],
    at: Instant,
    /// Networks that it is in too and in which we have not met yet; the first is the next to try.
    unmet: VecDeque<NetworkIndex>,
    /// Who it is in the networks in which we have met.
    met: BTreeMap<NetworkIndex, PeerKey>,
}

impl Discovery {
    /// `secret` and `salt` are random and used for nothing else.
    pub(super) fn new(secret: [u8; 32], salt: [u8; 16], now: Instant) -> Self {
        Self {
            secret,
            salt,
            salt_since: now,
            own_salts: VecDeque::from([salt]),
            rung: 0,
            turn: 0,
            solicited: None,
            heard: BTreeMap::new(),
            start: now,
        }
    }

    /// Forgets whose beacons were answered.
    pub(super) fn forget_heard(&mut self) {
        self.heard.clear();
    }

    /// We have met the node behind `remote` in this network. It is no peer if it has our own identity. True
    /// if its beacon named the network and we had not met there before.
    pub(super) fn acknowledged(
        &mut self,
        remote: &SocketAddr,
        network: NetworkIndex,
        peer: impl Into<Option<PeerKey>>,
    ) -> bool {
        let Some(heard) = self.heard.get_mut(remote) else { return false };
        let before = heard.unmet.len();
        heard.unmet.retain(|unmet| *unmet != network);
        heard.met.extend(peer.into().map(|peer| (network, peer)));
        heard.unmet.len() < before
    }

    /// A peer was removed: its next beacon is answered as a newcomer's.
    pub(super) fn forget(&mut self, peer: PeerKey) {
        self.heard.retain(|_, heard| !heard.met.values().any(|met| *met == peer));
    }

    /// Tags that look like any others and are the same in all beacons of one salt: whoever compares those
    /// does not see which tags stay.
    fn fill(&self, salt: &[u8; 16], filler: &mut [u8]) {
        for (index, tag) in (0u8..).zip(filler.chunks_exact_mut(Beacon::TAG)) {
            tag.copy_from_slice(&hash::mac16(&self.secret, &[salt, &[index]]));
        }
    }

    /// A nonce for a hello to `remote` that asks for an answer. Nothing is kept of it: only who has the
    /// secret can tell it from random bytes, or make it.
    fn nonce_for(&self, random: [u8; 8], remote: &SocketAddr, now: Instant) -> [u8; 24] {
        let mut nonce = [0; 24];
        nonce[..8].copy_from_slice(&random);
        nonce[8..].copy_from_slice(&self.echo_mac(random, remote, self.epoch(now)));
        nonce
    }

    /// Whether a hello to `remote` had this nonce lately.
    fn is_echo(&self, echo: &[u8; 24], remote: &SocketAddr, now: Instant) -> bool {
        let (random, mac) = echo.split_first_chunk::<8>().expect("24 bytes");
        let epoch = self.epoch(now);
        (epoch.saturating_sub(2)..=epoch).any(|epoch| self.echo_mac(*random, remote, epoch).ct_eq(mac).into())
    }

    fn echo_mac(&self, random: [u8; 8], remote: &SocketAddr, epoch: u64) -> [u8; 16] {
        // Fillers of beacons are made from 17 bytes, these from 34.
        let ip = mapped(remote.ip()).octets();
        let parts = [&random[..], &epoch.to_be_bytes(), &ip, &remote.port().to_be_bytes()];
        hash::mac16(&self.secret, &parts)
    }

    fn epoch(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / ECHO_EPOCH.as_secs()
    }

    fn renew_salt(&mut self, salt: [u8; 16], now: Instant) {
        self.salt = salt;
        self.salt_since = now;
        self.own_salts.push_front(salt);
        self.own_salts.truncate(8);
    }

    /// Remembers a beacon; `None` if the same one was heard from there before and nothing is left to do about
    /// it.
    fn hear(&mut self, remote: SocketAddr, salt: [u8; 16], now: Instant) -> Option<&mut Heard> {
        if self.heard.len() >= MAX_HEARD && !self.heard.contains_key(&remote) {
            let oldest = self.heard.iter().min_by_key(|(_, heard)| heard.at).map(|(&remote, _)| remote);
            oldest.and_then(|remote| self.heard.remove(&remote));
        }
        let fresh = self.heard.get(&remote).is_none_or(|heard| heard.salt != salt);
        if fresh {
            let met = self.heard.remove(&remote).map(|heard| heard.met).unwrap_or_default();
            self.heard.insert(remote, Heard { salt, at: now, unmet: VecDeque::new(), met });
        }
        let heard = self.heard.get_mut(&remote)?;
        heard.at = now;
        (fresh || !heard.unmet.is_empty()).then_some(heard)
    }
}

impl Endpoint {
    /// Announces the node now and, on a ladder, some times more.
    pub(super) fn restart_beacons(&mut self, now: Instant) {
        self.discovery.rung = 0;
        let salt = self.core.random();
        self.discovery.renew_salt(salt, now);
        self.on_beacon_timer(now);
    }

    pub(super) fn on_beacon_timer(&mut self, now: Instant) {
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
            None => self.core.rng.random_range(REGULAR),
        };
        self.core.timers.set(Timer::Beacon, now + Duration::from_millis(wait));
    }

    /// Asks on the local networks for somebody that is missing: at once, or as soon as the last time is long
    /// enough ago.
    pub(super) fn solicit(&mut self, now: Instant) {
        let allowed = self.discovery.solicited.map_or(now, |last| last + SOLICIT_INTERVAL);
        self.core.timers.set_earlier(Timer::Solicit, allowed.max(now));
        if allowed <= now {
            self.core.timers.clear(Timer::Solicit);
            self.on_solicit_timer(now);
        }
    }

    pub(super) fn on_solicit_timer(&mut self, now: Instant) {
        self.discovery.solicited = Some(now);
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
            // Others take an equal salt for an equal beacon, so each turn needs its own.
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

    pub(super) fn on_beacon(&mut self, now: Instant, meta: RecvMeta, datagram: &[u8]) {
        let Ok(beacon) = Beacon::parse(datagram) else {
            self.core.counters.discovery_malformed.increment();
            return;
        };
        if self.discovery.own_salts.contains(&beacon.salt) {
            return;
        }
        self.core.counters.beacons_received.increment();
        // Only the discovery socket: elsewhere it would be a stranger's question whether we are on some
        // network.
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
            let why = "it is of no network that this node is in, or its sender has another secret";
            return self.log_refusal(now, &meta, "beacon", why);
        };
        heard.unmet.rotate_left(1);
        self.core.counters.beacons_matched.increment();
        tracing::debug!(from = %meta.remote, "beacon of a common network heard");
        self.send_hello(now, network, &meta, true, NO_ECHO);
    }

    /// A beacon as before came from there: the peers that we have met there in its networks are still there.
    fn note_beacon_of_peers(&mut self, now: Instant, remote: &SocketAddr) {
        let met = self.discovery.heard.get(remote).into_iter().flat_map(|heard| heard.met.values());
        for &key in met {
            if let Some(peer) = self.peers.get_mut(key) {
                peer.note_heard(now);
            }
        }
    }

    fn send_hello(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        meta: &RecvMeta,
        reply_wanted: bool,
        echo: [u8; 24],
    ) {
        let Some(network) = self.networks.get(&network).filter(|_| self.introduce) else { return };
        let hello = Hello {
            identity: *self.core.identity.public(),
            instance: self.core.instance,
            reply_wanted,
            suites: self.core.provider.suites(),
            echo,
        };
        let Some(random) = self.core.nonce() else { return };
        let nonce = self.discovery.nonce_for(random, &meta.remote, now);
        let mut datagram = Vec::with_capacity(Hello::LEN);
        hello.seal(&network.discovery, nonce, &mut datagram);
        self.core.counters.hellos_sent.increment();
        tracing::debug!(to = %meta.remote, reply_wanted, "hello sent");
        self.core.transmit(&meta.place(), datagram);
    }

    pub(super) fn on_hello(&mut self, now: Instant, meta: RecvMeta, datagram: &[u8]) {
        if datagram.len() != Hello::LEN {
            self.core.counters.discovery_malformed.increment();
            return;
        }
        if !self.hints.hellos.take(meta.remote.ip(), now) {
            self.core.counters.hellos_limited.increment();
            return self.log_refusal(now, &meta, "hello", "too many come from there");
        }
        let opened = self.networks.values().find_map(|network| {
            self.core.counters.bytes_tried.add(datagram.len() as u64);
            Hello::open(&network.discovery, datagram).ok().map(|hello| (network.index, hello))
        });
        let Some((network, hello)) = opened else {
            self.core.counters.hellos_unknown.increment();
            let why = "it is of no network that this node is in, or its sender has another secret";
            return self.log_refusal(now, &meta, "hello", why);
        };
        self.core.counters.hellos_received.increment();
        if hello.identity == *self.core.identity.public() {
            return self.on_own_hello(now, network, &meta, &hello, nonce_of(datagram));
        }
        let proven = self.discovery.is_echo(&hello.echo, &meta.remote, now);
        if !proven && self.introduce && !self.is_looked_for(now, network, &hello.identity) {
            return self.answer_stranger(now, network, &meta, &hello, nonce_of(datagram));
        }
        let Some(key) = self.find_or_add(now, network, &hello.identity, meta.remote.ip()) else {
            let why = "its sender is no member of the network, or there is no room for it";
            return self.log_refusal(now, &meta, "hello", why);
        };
        tracing::debug!(peer = %hello.identity.node_id(), from = %meta.remote, "hello received");
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.note_heard(now);
        let reach = &mut self.nodes[peer.link.node].reach;
        reach.heard(meta.place(), datagram.len(), Source::Hello, now);
        if proven {
            reach.prove(meta.place(), Source::Hello, now);
        }
        self.link(now, key, Link::announce);
        self.follow_up(now, key, &meta, hello.instance);
        if hello.reply_wanted && self.may_answer(key, &meta) {
            self.send_hello(now, network, &meta, false, nonce_of(datagram));
        }
        // Once per beacon: a copy of this hello is no reason to introduce us again.
        if proven && self.discovery.acknowledged(&meta.remote, network, key) {
            self.meet_elsewhere(now, &meta);
        }
    }

    /// Whether the sender of a hello is a peer already, or somebody waits for it.
    fn is_looked_for(&mut self, now: Instant, network: NetworkIndex, identity: &PublicIdentity) -> bool {
        let Some(network) = self.networks.get_mut(&network) else { return false };
        let node = identity.node_id();
        network.by_node.contains_key(&node) || network.wants(&network.policy.addresses_of(&node), now)
    }

    /// A hello of somebody who is not known here, and who may have forged its source: it is answered as one
    /// byte for each that came, and leaves nothing behind. Who answers that in turn is there, and becomes a
    /// peer.
    fn answer_stranger(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        meta: &RecvMeta,
        hello: &Hello,
        nonce: [u8; 24],
    ) {
        if !self
            .networks
            .get(&network)
            .is_some_and(|network| network.policy.admits(&hello.identity.node_id()))
        {
            self.core.counters.strangers_refused.increment();
            return self.log_refusal(now, meta, "hello", "its sender is no member of the network");
        }
        tracing::debug!(node = %hello.identity.node_id(), from = %meta.remote, "hello of an unknown node");
        if hello.reply_wanted {
            self.send_hello(now, network, meta, true, nonce);
        }
    }

    /// A hello with our own keys: one that came back to us, or one of another node that has them too. That is
    /// believed if it repeats the nonce of a hello of ours; so it gets one, if it asks for one.
    fn on_own_hello(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        meta: &RecvMeta,
        hello: &Hello,
        nonce: [u8; 24],
    ) {
        if hello.instance == self.core.instance {
            return;
        }
        if self.discovery.is_echo(&hello.echo, &meta.remote, now) {
            self.discovery.acknowledged(&meta.remote, network, None);
            self.on_elsewhere(now, meta.remote);
        } else if hello.reply_wanted {
            self.send_hello(now, network, meta, false, nonce);
        }
    }

    /// What the news of where a peer is means for it: a handshake if it is wanted or was restarted, or a
    /// better path.
    fn follow_up(&mut self, now: Instant, key: PeerKey, meta: &RecvMeta, instance: u64) {
        let Some(PeerState { link, .. }) = self.peers.get(key) else { return };
        let (handle, place) = (link.handle.clone(), meta.place());
        let connected = link.current().is_some();
        if connected && link.instance.is_some_and(|known| known != instance) {
            self.link(now, key, Link::heed_restart);
            return;
        }
        if link.is_connecting() {
            self.link(now, key, |link, cx| link.try_at(cx, &place));
            return;
        }
        let waiting = self
            .networks
            .get_mut(&handle.network())
            .is_some_and(|network| network.take_wanted(&handle.prefixes(), now));
        let local = handle.path().is_some_and(|path| path.place.is_loopback());
        if !connected && waiting {
            self.link(now, key, |link, cx| link.attempt(cx, Reason::Traffic));
        } else if connected && !local && place.is_loopback() {
            self.link(now, key, |link, cx| link.challenge(cx, place, Why::Move));
        }
    }

    /// Whether the hello may be answered with what its sender's address has left.
    fn may_answer(&mut self, key: PeerKey, meta: &RecvMeta) -> bool {
        self.peers
            .get(key)
            .is_some_and(|peer| self.nodes[peer.link.node].reach.spend(&meta.place(), Hello::LEN))
    }

    /// The node behind this address receives there: introduces us in the other networks that its beacon
    /// named.
    fn meet_elsewhere(&mut self, now: Instant, meta: &RecvMeta) {
        let Some(heard) = self.discovery.heard.get(&meta.remote) else { return };
        let unmet: BTreeSet<NetworkIndex> = heard.unmet.iter().copied().collect();
        for network in unmet {
            self.send_hello(now, network, meta, true, NO_ECHO);
        }
    }
}

/// The echo of a hello that answers none.
const NO_ECHO: [u8; 24] = [0; 24];

fn nonce_of(hello: &[u8]) -> [u8; 24] {
    hello[2..26].try_into().expect("a hello has its nonce there")
}
