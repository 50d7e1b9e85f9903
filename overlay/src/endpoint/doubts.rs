//! Roots are asked whether they are still there because peers are not heard from.

use std::time::Instant;

use super::Endpoint;
use crate::link::{Link, PeerKey, Reason, Timer, answers_within};
use crate::roots::{DOUBT_INTERVAL, Root};

impl Endpoint {
    /// The path to some peer may have failed. What has broken it, such as a NAT box that has forgotten its
    /// mappings, may have broken the ways to roots, too, by which the peer will look for this node: asks
    /// those that nothing was sent to lately.
    pub(super) fn doubt_roots(&mut self, now: Instant) {
        for key in self.roots.list.iter().map(|(key, _)| *key).collect::<Vec<_>>() {
            let connected = self.peers.get(key).filter(|peer| peer.link.current().is_some());
            let sent = connected.and_then(|peer| peer.link.handle.activity().last_sent());
            if sent.is_some_and(|sent| now >= sent + DOUBT_INTERVAL) {
                self.doubt_root(now, key);
            }
        }
    }

    /// A peer has been silent since then, or has not used what this node answers: asks the roots that were
    /// not heard since either, however much was sent there before.
    pub(super) fn doubt_roots_since(&mut self, now: Instant, since: Instant) {
        for key in self.roots.list.iter().map(|(key, _)| *key).collect::<Vec<_>>() {
            let connected = self.peers.get(key).filter(|peer| peer.link.current().is_some());
            let heard = connected.and_then(|peer| peer.link.handle.activity().last_received());
            if heard.is_some_and(|heard| heard < since) {
                self.doubt_root(now, key);
            }
        }
    }

    /// A peer is silent: if a root relays to it, that may be silent, too, and is asked.
    pub(super) fn doubt_root_of(&mut self, now: Instant, peer: PeerKey) {
        let path = self.peers.get(peer).and_then(|peer| peer.link.handle.path());
        let Some(place) = path.map(|path| path.place).filter(|place| place.relay().is_some()) else { return };
        let is_behind = |root: &Root| root.relay.is_some_and(|relay| relay.root == place.remote());
        let behind = self.roots.list.iter().find(|(_, root)| is_behind(root)).map(|(key, _)| *key);
        if let Some(key) = behind {
            self.doubt_root(now, key);
        }
    }

    /// Somebody is looked for: roots that are away are asked more often whether they are back, and one that
    /// was given up is tried again.
    pub(super) fn hurry_roots(&mut self, now: Instant) {
        for at in 0..self.roots.list.len() {
            let (key, asked) = (self.roots.list[at].0, self.roots.list[at].1.asked);
            let Some(link) = self.peers.get(key).map(|peer| &peer.link) else { continue };
            let (is_connecting, is_connected) = (link.is_connecting(), link.current().is_some());
            let patience = answers_within(self.nodes[link.node].reach.rtt().unwrap_or_default());
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

    /// Asks a root at its next step, which is due at once, unless it owes an answer already.
    fn doubt_root(&mut self, now: Instant, key: PeerKey) {
        if let Some(root) = self.roots.get_mut(key).filter(|root| root.asked.is_none()) {
            root.asked = Some((now, 0));
            self.core.timers.set_earlier(Timer::Root(key), now);
        }
    }
}
