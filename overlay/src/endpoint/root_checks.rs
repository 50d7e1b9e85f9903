//! Checks of roots after peers have fallen silent.

use std::time::Instant;

use super::Endpoint;
use crate::link::{Link, PeerKey, Reason, Timer, answers_within};
use crate::roots::{DOUBT_INTERVAL, Root};

impl Endpoint {
    /// Asks the roots to which nothing was sent lately, because the path to some peer may have failed.
    pub(super) fn doubt_roots(&mut self, now: Instant) {
        // The cause, such as a NAT box that has lost its mappings, may also have broken the ways to roots.
        // The peer will look for this node through them.
        for key in self.roots.list.iter().map(|(key, _)| *key).collect::<Vec<_>>() {
            let connected = self.peers.get(key).filter(|peer| peer.link.current().is_some());
            let sent = connected.and_then(|peer| peer.link.handle.activity().last_sent());
            if sent.is_some_and(|sent| now >= sent + DOUBT_INTERVAL) {
                self.doubt_root(now, key);
            }
        }
    }

    /// Asks the roots not heard since `since`, however much was sent to them. Since then a peer is silent, or
    /// has not used this node's answers.
    pub(super) fn doubt_roots_since(&mut self, now: Instant, since: Instant) {
        for key in self.roots.list.iter().map(|(key, _)| *key).collect::<Vec<_>>() {
            let connected = self.peers.get(key).filter(|peer| peer.link.current().is_some());
            let heard = connected.and_then(|peer| peer.link.handle.activity().last_received());
            if heard.is_some_and(|heard| heard < since) {
                self.doubt_root(now, key);
            }
        }
    }

    /// Asks the root that relays to a silent peer, because the root may be silent too.
    pub(super) fn doubt_root_of(&mut self, now: Instant, peer: PeerKey) {
        let path = self.peers.get(peer).and_then(|peer| peer.link.handle.path());
        let Some(place) = path.map(|path| path.place).filter(|place| place.relay().is_some()) else { return };
        let is_behind = |root: &Root| root.relay.is_some_and(|relay| relay.root == place.remote());
        let behind = self.roots.list.iter().find(|(_, root)| is_behind(root)).map(|(key, _)| *key);
        if let Some(key) = behind {
            self.doubt_root(now, key);
        }
    }

    /// Hurries the roots, because a node is looked up: asks absent roots more often, and retries one that was
    /// given up.
    pub(super) fn hurry_roots(&mut self, now: Instant) {
        for at in 0..self.roots.list.len() {
            let (key, asked) = (self.roots.list[at].0, self.roots.list[at].1.asked);
            let Some(link) = self.peers.get(key).map(|peer| &peer.link) else { continue };
            let (is_connecting, is_connected) = (link.is_connecting(), link.current().is_some());
            let patience = answers_within(self.nodes[link.node].reach.rtt().unwrap_or_default());
            // A session looks alive for seconds after its root is gone.
            let is_late = asked.is_some_and(|(since, times)| times > 0 && now >= since + patience);
            if !is_connecting && (!is_connected || is_late) {
                let reason = if is_connected { Reason::Silence } else { Reason::Traffic };
                self.link(now, key, |link, cx| link.attempt(cx, reason));
            }
            if is_connecting || is_late {
                self.link(now, key, Link::hurry);
            }
        }
    }

    /// Asks a root at its next step, which is due at once, unless it already owes an answer.
    fn doubt_root(&mut self, now: Instant, key: PeerKey) {
        if let Some(root) = self.roots.get_mut(key).filter(|root| root.asked.is_none()) {
            root.asked = Some((now, 0));
            self.core.timers.set_earlier(Timer::Root(key), now);
        }
    }
}
