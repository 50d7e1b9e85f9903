//! The ways to roots as relays, and the effect of their changes on the places behind the roots.

use std::net::SocketAddr;
use std::time::Instant;

use super::Endpoint;
use crate::link::{Link, PeerKey, Timer};
use crate::reach::{Place, Relay};
use crate::roots::{Root, Unasked};
use crate::wire::{Channel, LookUpKey};

impl Endpoint {
    /// Publishes the way to a root as a relay, if it has changed.
    pub(super) fn update_relay(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get(key) else { return };
        let place = peer.link.handle.path().map(|path| path.place);
        let Some(root) = self.roots.get_mut(key) else { return };
        let Some(answer) = root.registering.standing(now) else { return };
        // A root that will end soon is left while it still relays, if there is another way.
        let (token, is_scarce) = (answer.token, !answer.relays || answer.drains);
        let Some(Place::Direct { socket, remote }) = place else { return };
        let relay = Relay { socket, root: remote, token, is_scarce };
        // The root relays by UDP only once it knows that this node is there.
        let is_known = |root: &Root| {
            root.registering.standing(now).is_some_and(|answer| answer.voucher.address.port() != 0)
        };
        let is_stream = |relay: &Relay| relay.socket == root.stream.socket && root.stream.is_open;
        if !socket.is_stream() && !is_known(root) && root.relay.as_ref().is_some_and(is_stream) {
            return;
        }
        root.move_at = None;
        // Each move steps the links of all nodes behind the root, which a lying root must not cause at any
        // rate.
        if root.relay.is_some_and(|before| before != relay) && !root.moves.take(now) {
            let later = now + Unasked::INTERVAL;
            root.move_at = Some(later);
            return self.core.timers.set_earlier(Timer::Root(key), later);
        }
        let Some(before) = root.relay.replace(relay) else { return self.publish_relays() };
        if before == relay {
            return;
        }
        self.publish_relays();
        if is_scarce && !before.is_scarce {
            for node in self.nodes.keys() {
                self.nodes[node].reach.root_yields(&before.root, &self.core.scarce);
            }
        }
        if (Relay { is_scarce, ..before }) == relay {
            return;
        }
        for node in self.nodes.keys() {
            let path = self.nodes[node].reach.place();
            if self.nodes[node].reach.move_relay(before.root, &relay) {
                self.nodes.note_path(node, path);
                for peer in self.nodes[node].peers().collect::<Vec<_>>() {
                    self.link(now, peer, Link::path_moved);
                }
            }
            // An attempt may have lost packets on the way that this one replaces.
            for place in self.nodes[node].reach.places_behind(&relay) {
                for peer in self.nodes[node].peers().collect::<Vec<_>>() {
                    self.link(now, peer, |link, cx| link.try_again_at(cx, &place));
                }
            }
        }
    }

    pub(super) fn publish_relays(&mut self) {
        let relays = self.roots.list.iter().filter_map(|(_, root)| root.relay);
        self.roots.relays.publish(relays.clone().map(|relay| (relay.root, relay.token)).collect());
        self.core.scarce = relays.filter(|relay| relay.is_scarce).map(|relay| relay.root).collect();
    }

    /// Handles a root's notice that it has dropped frames to a channel for exceeding the rate. Tries nodes
    /// behind that root through other roots at once.
    pub(super) fn relay_over_rate(&mut self, now: Instant, root: SocketAddr, channel: Channel) {
        for node in self.nodes.keys() {
            if !self.nodes[node].reach.is_behind(&root) {
                continue;
            }
            for peer in self.nodes[node].peers().collect::<Vec<_>>() {
                self.link(now, peer, |link, cx| link.relay_refused(cx, root, Some(channel)));
            }
        }
    }

    /// Handles a root that does not know a channel, or no longer relays: looks up nodes that are reached
    /// there.
    pub(super) fn forget_relayed(&mut self, now: Instant, root: SocketAddr, channel: Option<Channel>) {
        for node in self.nodes.keys() {
            if !self.nodes[node].reach.is_behind(&root) {
                continue;
            }
            let of_path = |place: Place| place.relay().filter(|_| place.remote() == root);
            let used = self.nodes[node].reach.place().and_then(of_path);
            let is_path = used.is_some_and(|used| channel.is_none_or(|channel| channel == used.channel));
            self.nodes[node].reach.forget_relayed(&root, channel);
            let peers = self.nodes[node].peers().collect::<Vec<_>>();
            // All peers of a node have the same ID.
            if let Some(peer) = peers.first().and_then(|peer| self.peers.get(*peer)) {
                let id = LookUpKey::Id(*peer.link.handle.id());
                for (key, _) in &self.roots.list {
                    self.roots.look_ups.forget_found(*key, &id, now);
                }
            }
            for peer in peers {
                self.link(now, peer, |link, cx| link.relay_refused(cx, root, channel));
                if is_path && self.peers.get(peer).is_some_and(|peer| peer.link.current().is_some()) {
                    self.link(now, peer, Link::heed_hint);
                }
            }
        }
    }
}
