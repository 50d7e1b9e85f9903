//! Look-ups of nodes at the roots, and the places that follow from the answers.

use std::net::IpAddr;
use std::time::Instant;

use super::Endpoint;
use super::root_sessions::MIN_TIMER_DELAY;
use super::roots::Roots;
use crate::link::{Link, NodeKey, PeerKey, Reason, Timer};
use crate::network::NetworkIndex;
use crate::reach::Place;
use crate::roots::{ANSWER_TIMEOUT, Root};
use crate::wire::{Entry, LookUpKey, RootMessage};

impl Endpoint {
    /// Asks a root for all nodes that are wanted.
    pub(super) fn ask_root(&mut self, now: Instant, key: PeerKey) {
        let Roots { list, look_ups, .. } = &mut self.roots;
        let questions = look_ups.ask_at(key, now, |wanted| may_ask(list, key, wanted));
        if let Some(at) = look_ups.next() {
            self.core.timers.set(Timer::LookUp, at.max(now + MIN_TIMER_DELAY));
        }
        self.ask_roots(now, questions);
    }

    /// Looks up the node that has a self-certifying address at the roots.
    pub(super) fn look_up_address(&mut self, now: Instant, network: NetworkIndex, address: IpAddr) {
        // Roots know nodes by their IDs, and only a self-certifying address shows a part of one.
        let IpAddr::V6(certified) = address else { return };
        let Some(prefix) = certified.octets().last_chunk().copied() else { return };
        self.look_up(now, LookUpKey::Prefix(prefix), Some((network, address)));
    }

    /// Looks up a way to a peer at the roots.
    pub(super) fn look_up_peer(&mut self, now: Instant, key: PeerKey) {
        // Roots are not looked up, because their addresses are configured.
        if let Some(peer) = self.peers.get(key).filter(|peer| !peer.link.handle.is_root()) {
            let node = *peer.link.handle.id();
            self.doubt_root_of(now, key);
            self.hurry_roots(now);
            self.look_up(now, LookUpKey::Id(node), None);
        }
    }

    /// Looks for more roots of a node whose path leads through one, in case that root ends.
    pub(super) fn look_up_more(&mut self, now: Instant, key: PeerKey, node: NodeKey) {
        let reach = &self.nodes[node].reach;
        let own = self.roots.list.iter().filter(|(_, root)| root.guest.is_none());
        let relays = own.filter_map(|(_, root)| root.relay);
        // Roots behind which the node is known have nothing to add.
        if relays.into_iter().any(|relay| !reach.is_behind(&relay.root)) {
            self.look_up_peer(now, key);
        }
    }

    fn look_up(&mut self, now: Instant, key: LookUpKey, waiting: Option<(NetworkIndex, IpAddr)>) {
        if self.roots.list.is_empty() {
            return;
        }
        let id = u32::from_be_bytes(self.core.random());
        self.roots.look_ups.want(key, waiting, id, now);
        self.on_look_up_timer(now);
    }

    pub(super) fn on_look_up_timer(&mut self, now: Instant) {
        let usable = |(key, root): &(PeerKey, Root)| root.relay.map(|_| *key);
        let roots: Vec<_> = self.roots.list.iter().filter_map(usable).collect();
        let Roots { list, look_ups, .. } = &mut self.roots;
        let questions = look_ups.due(&roots, now, |root, wanted| may_ask(list, root, wanted));
        match self.roots.look_ups.next() {
            Some(at) => self.core.timers.set(Timer::LookUp, at.max(now + MIN_TIMER_DELAY)),
            None => self.core.timers.clear(Timer::LookUp),
        }
        self.ask_roots(now, questions);
    }

    fn ask_roots(&mut self, now: Instant, questions: Vec<(PeerKey, u32, LookUpKey)>) {
        for (root, id, key) in questions {
            self.core.counters.root_look_ups_sent.increment();
            self.tell_root(now, root, &RootMessage::LookUp { id, key });
            // Every question has an answer. A missing one may mean that nothing passes to the root any more.
            if let Some(known) = self.roots.get_mut(root) {
                known.asked.get_or_insert((now, 1));
                self.core.timers.set_earlier(Timer::Root(root), now + ANSWER_TIMEOUT);
            }
        }
    }

    /// Handles a root's answer with the place of a wanted node. Believes it if the key is the right one and
    /// the node has signed that it is registered at this root. A handshake then shows whether it is.
    pub(super) fn on_found(&mut self, now: Instant, key: PeerKey, wanted: &LookUpKey, entry: &Entry) {
        let Some(root) = self.roots.get(key) else { return };
        let (identity, node) = (entry.identity, entry.identity.node_id());
        let is_signed = || entry.registration.verify(&identity, &root.identity.node_id());
        if !wanted.matches(&node) || node == self.own_id || !is_signed() {
            tracing::debug!(root = %root.identity.node_id(), "a root's answer is not the node's own word");
            return self.core.counters.root_answers_refused.increment();
        }
        let Some(relay) = root.relay else { return };
        let place = relay.place(entry.channel);
        let rtt = self.peers.get(key).and_then(|peer| self.nodes[peer.link.node].reach.rtt());
        for (network, address) in self.roots.look_ups.found(key, wanted, now) {
            let Some(joined) = self.networks.get(&network) else { continue };
            // A root answers with a node whose ID begins so; only the whole address shows that it is the one.
            let is_there = joined.id.address_of(&node) == address;
            if is_there && let Some(peer) = self.find_or_add(now, network, &identity, relay.root.ip()) {
                self.add_relayed(now, peer, &place);
                self.link(now, peer, Link::announce);
                let waits =
                    |joined: &mut super::networks::JoinedNetwork| joined.take_wanted(&[address.into()], now);
                let is_idle = self.peers.get(peer).is_some_and(|peer| !peer.link.has_confirmed_session());
                if is_idle && self.networks.get_mut(&network).is_some_and(waits) {
                    self.link(now, peer, |link, cx| link.attempt(cx, Reason::Traffic));
                }
            }
        }
        for peer in self.nodes.peers_of(&node) {
            self.add_relayed(now, peer, &place);
            self.link(now, peer, |link, cx| link.try_relayed(cx, &place, rtt));
        }
    }

    pub(super) fn add_relayed(&mut self, now: Instant, peer: PeerKey, place: &Place) {
        let Some(state) = self.peers.get(peer) else { return };
        let (node, handle) = (state.link.node, &state.link.handle);
        // A root is reached directly, because relayed frames in relayed frames are not allowed.
        if self.networks.is_root(handle.id()) {
            return;
        }
        if self.nodes[node].reach.add_relayed(place) {
            tracing::debug!(peer = %handle.id(), %place, "a root knows the peer");
            self.core.counters.root_places_found.increment();
        }
        self.link(now, peer, Link::announce);
    }
}

/// Returns true if a root may be asked for a node. A guest is asked only for nodes that another root has said
/// are there.
fn may_ask(roots: &[(PeerKey, Root)], key: PeerKey, wanted: &LookUpKey) -> bool {
    let root = roots.iter().find(|(known, _)| *known == key).map(|(_, root)| root);
    root.is_some_and(|root| {
        root.guest.as_ref().is_none_or(|guest| guest.nodes.iter().any(|node| wanted.matches(node)))
    })
}
