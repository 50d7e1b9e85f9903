//! Hellos: to whom this node identifies itself, and whose hellos count.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;

use super::Discovery;
use crate::crypto::hash;
use crate::endpoint::Endpoint;
use crate::endpoint::peers::PeerState;
use crate::id::PublicIdentity;
use crate::link::{Link, PeerKey, Reason};
use crate::network::NetworkIndex;
use crate::reach::{RecvMeta, Source, Why};
use crate::wire::{Hello, mapped};

/// Lifetime of the key of hello nonces. An echo is recognised for at least two such times, the longest round
/// trip plus the other node's queueing time, and for at most three.
const ECHO_EPOCH: Duration = Duration::from_secs(6);

impl Discovery {
    /// Returns a nonce for a hello to `remote` that asks for an answer. It needs no stored state: only a
    /// holder of the secret can make it or tell it from random bytes.
    fn nonce_for(&self, random: [u8; 8], remote: &SocketAddr, now: Instant) -> [u8; 24] {
        let mut nonce = [0; 24];
        nonce[..8].copy_from_slice(&random);
        nonce[8..].copy_from_slice(&self.echo_mac(random, remote, self.epoch(now)));
        nonce
    }

    /// Returns true if a recent hello to `remote` had this nonce.
    fn is_echo(&self, echo: &[u8; 24], remote: &SocketAddr, now: Instant) -> bool {
        let (random, mac) = echo.split_first_chunk::<8>().expect("24 bytes");
        let epoch = self.epoch(now);
        // In constant time. A comparison that stops at the first wrong byte would let an attacker find the
        // echo of an address at which it does not receive.
        (epoch.saturating_sub(2)..=epoch).any(|epoch| self.echo_mac(*random, remote, epoch).ct_eq(mac).into())
    }

    fn echo_mac(&self, random: [u8; 8], remote: &SocketAddr, epoch: u64) -> [u8; 16] {
        // Domain separation: fillers of beacons are made from 17 bytes, echoes from 34.
        let ip = mapped(remote.ip()).octets();
        let parts = [&random[..], &epoch.to_be_bytes(), &ip, &remote.port().to_be_bytes()];
        hash::mac16(&self.secret, &parts)
    }

    fn epoch(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / ECHO_EPOCH.as_secs()
    }
}

impl Endpoint {
    pub(super) fn send_hello(
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

    pub(in crate::endpoint) fn on_hello(&mut self, now: Instant, meta: RecvMeta, datagram: &[u8]) {
        // A longer hello could carry nothing, and a shorter one would make this node answer with more bytes
        // than it received.
        if datagram.len() != Hello::LEN {
            self.core.counters.discovery_malformed.increment();
            return;
        }
        // Before the decryption, which is tried with the key of each network.
        if !self.hints.hellos.take_address(meta.remote, now) {
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
        // Every node with the network's key can make hellos in any name, so only an echo proves anything.
        let proven = self.discovery.is_echo(&hello.echo, &meta.remote, now);
        // Otherwise forged sources would fill the table of peers.
        let is_new = !proven && !self.is_looked_for(now, network, &hello.identity);
        if self.introduce && (is_new || self.may_be_program(network, &hello.identity)) {
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
            // A program's handshake is longer than a hello, so it needs the other node's answer before.
            let is_program = self.programs(network).is_some_and(|programs| programs.own().is_some());
            self.send_hello(now, network, &meta, is_program && !proven, nonce_of(datagram));
        }
        // Once per beacon, because a copy of this hello is no reason to introduce this node again.
        if proven && self.discovery.acknowledged(&meta.remote, network, key) {
            self.meet_elsewhere(now, &meta);
        }
    }

    /// Returns true if the sender of a hello is already a peer, or a program waits for it.
    fn is_looked_for(&mut self, now: Instant, network: NetworkIndex, identity: &PublicIdentity) -> bool {
        let Some(network) = self.networks.get_mut(&network) else { return false };
        let node = identity.node_id();
        network.by_node.contains_key(&node) || network.wants(&network.policy.addresses_of(&node), now)
    }

    /// Returns true if a node is unknown, and may be a program of a member. It shows that in its handshake.
    fn may_be_program(&self, network: NetworkIndex, identity: &PublicIdentity) -> bool {
        self.networks.get(&network).is_some_and(|network| {
            network.policy.programs().is_some() && !network.policy.admits(&identity.node_id())
        })
    }

    /// Answers a hello of an unknown node, whose source may be forged. The answer is no longer than the hello
    /// and leaves no state. A node that answers it in turn does receive there, and becomes a peer.
    fn answer_stranger(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        meta: &RecvMeta,
        hello: &Hello,
        nonce: [u8; 24],
    ) {
        let policy = self.networks.get(&network).map(|network| &network.policy);
        let is_admitted = policy.is_some_and(|policy| policy.admits(&hello.identity.node_id()));
        if !is_admitted && !self.may_be_program(network, &hello.identity) {
            self.core.counters.strangers_refused.increment();
            return self.log_refusal(now, meta, "hello", "its sender is no member of the network");
        }
        tracing::debug!(node = %hello.identity.node_id(), from = %meta.remote, "hello of an unknown node");
        if hello.reply_wanted {
            self.send_hello(now, network, meta, true, nonce);
        }
    }

    /// Handles a hello with our own keys: an echo of our own, or one of another node that has the keys too.
    fn on_own_hello(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        meta: &RecvMeta,
        hello: &Hello,
        nonce: [u8; 24],
    ) {
        // The own datagram, which multicast or a loop in the network has brought back.
        if hello.instance == self.core.instance {
            return;
        }
        // A replay cannot repeat a nonce of this run, so only an echo shows that the other node is there now.
        if self.discovery.is_echo(&hello.echo, &meta.remote, now) {
            self.discovery.acknowledged(&meta.remote, network, None);
            self.on_elsewhere(now, meta.remote);
        } else if hello.reply_wanted {
            self.send_hello(now, network, meta, false, nonce);
        }
    }

    /// Acts on the news of a peer's address: begins a handshake if the peer is wanted, has connections, was
    /// restarted or may know an answer, or tries a better path.
    fn follow_up(&mut self, now: Instant, key: PeerKey, meta: &RecvMeta, instance: u64) {
        let Some(PeerState { link, .. }) = self.peers.get(key) else { return };
        let (handle, place) = (link.handle.clone(), meta.place());
        let connected = link.current().is_some();
        // The peer has lost the keys of the session, so waiting for its timers would only lengthen the
        // outage.
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
        } else if !connected && self.is_to_meet(now, handle.network()) {
            self.link(now, key, |link, cx| link.attempt(cx, Reason::Hint));
        } else if !connected {
            self.link(now, key, Link::heed_presence);
        // Both nodes are on one machine, where loopback always beats a way through the network.
        } else if !local && place.is_loopback() {
            self.link(now, key, |link, cx| link.challenge(cx, place, Why::Move));
        }
    }

    /// Returns true if the credit of the sender's address covers an answer to the hello.
    fn may_answer(&mut self, key: PeerKey, meta: &RecvMeta) -> bool {
        self.peers
            .get(key)
            .is_some_and(|peer| self.nodes[peer.link.node].reach.spend(&meta.place(), Hello::LEN))
    }

    /// Introduces this node in the other networks named by the beacon, because the node at this address
    /// receives there.
    fn meet_elsewhere(&mut self, now: Instant, meta: &RecvMeta) {
        let Some(heard) = self.discovery.heard.get(&meta.remote) else { return };
        let unmet: BTreeSet<NetworkIndex> = heard.unmet.iter().copied().collect();
        for network in unmet {
            self.send_hello(now, network, meta, true, NO_ECHO);
        }
    }
}

/// Echo of a hello that answers none.
pub(super) const NO_ECHO: [u8; 24] = [0; 24];

fn nonce_of(hello: &[u8]) -> [u8; 24] {
    hello[2..26].try_into().expect("a hello has its nonce there")
}
