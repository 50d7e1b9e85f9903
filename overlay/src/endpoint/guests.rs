//! Roots that this node uses for a while, because a peer is registered there and at none of its own: one of
//! its own roots has referred it to them.
//!
//! A guest is asked for that peer, relays to it, and is left when it is of no use any more. It is told nothing
//! else: not whom this node looks for besides, nor the access token of its own roots.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Endpoint;
use crate::link::{PeerKey, Timer};
use crate::roots::Guest;
use crate::wire::{LookUpKey, Referral};

/// Most such roots at once.
const MAX_GUESTS: usize = 8;
/// Most nodes that one of them is asked for; those beyond wait until it is left.
const MAX_NODES: usize = 256;
/// A root that no peer was reached through for so long is left.
const IDLE: Duration = Duration::from_secs(120);

impl Endpoint {
    /// A root says that the node which somebody waits for is registered at another one. That is believed if the
    /// node has signed that it is there, and the other root where it listens; whether it is true, that one is
    /// asked.
    pub(super) fn on_referred(
        &mut self,
        now: Instant,
        key: PeerKey,
        wanted: &LookUpKey,
        pass: &[u8; 32],
        referral: &Referral,
    ) {
        let (node, root) = (referral.identity.node_id(), referral.root.identity.node_id());
        if !wanted.matches(&node) || [node, root].contains(&self.own_id) || !referral.verify() {
            tracing::debug!("a root's referral is not the node's and the other root's own word");
            return self.core.counters.root_answers_refused.increment();
        }
        self.core.counters.root_referrals.increment();
        // It has said what it knows.
        self.roots.look_ups.found(key, wanted, now);
        let known = self.roots.list.iter().find(|(_, root)| root.identity == referral.root.identity);
        let guest = match known {
            // It is asked for everybody, too.
            Some((_, own)) if own.guest.is_none() => return,
            Some((guest, _)) => *guest,
            None => {
                let guests = self.roots.list.iter().filter(|(_, root)| root.guest.is_some()).count();
                let addresses = referral.root.addresses();
                if guests >= MAX_GUESTS || addresses.is_empty() {
                    return self.core.counters.root_referrals_ignored.increment();
                }
                tracing::info!(root = %root, "uses a root that another one has named");
                let guest = self.add_root(now, referral.root.identity);
                if let Some(root) = self.roots.get_mut(guest) {
                    root.guest = Some(Guest { nodes: BTreeSet::new(), used: now });
                    root.stream.endpoints = addresses;
                }
                self.publish_roots();
                self.configure_root(now, guest);
                guest
            }
        };
        let Some(root) = self.roots.get_mut(guest) else { return };
        root.access = pass.to_vec();
        let is_registered = root.registering.standing(now).is_some();
        let Some(state) = &mut root.guest else { return };
        state.used = now;
        let is_new = state.nodes.len() < MAX_NODES && state.nodes.insert(node);
        self.step_root(now, guest);
        if is_new && is_registered {
            self.ask_root(now, guest);
        }
    }

    /// Leaves a root that was named by another one, if nobody has been reached through it for a while. True if
    /// it was left.
    pub(super) fn leave_idle_guest(&mut self, now: Instant, key: PeerKey) -> bool {
        let Some(root) = self.roots.get(key) else { return false };
        let Some(guest) = &root.guest else { return false };
        let is_reached = |relay: &crate::reach::Relay| {
            let mut peers = guest.nodes.iter().flat_map(|node| self.nodes.peers_of(node));
            peers.any(|peer| {
                let link = self.peers.get(peer).map(|peer| &peer.link);
                link.is_some_and(|link| {
                    link.current().is_some() && self.nodes[link.node].reach.is_behind(&relay.root)
                })
            })
        };
        let is_used = root.relay.as_ref().is_some_and(is_reached);
        let is_over = root.registering.is_refused() || (!is_used && now >= guest.used + IDLE);
        if is_over {
            self.leave_root(now, key);
            self.publish_roots();
        } else if is_used && let Some(guest) = self.roots.get_mut(key).and_then(|root| root.guest.as_mut()) {
            guest.used = now;
        }
        is_over
    }

    /// Tells a root goodbye and forgets it.
    pub(super) fn leave_root(&mut self, now: Instant, key: PeerKey) {
        let Some(at) = self.roots.list.iter().position(|(known, _)| *known == key) else { return };
        let (_, root) = self.roots.list.remove(at);
        self.link(now, key, |link, cx| link.say_goodbye(cx));
        self.remove_peer(now, key);
        self.roots.look_ups.forget_root(key);
        self.core.timers.clear(Timer::Root(key));
        self.core.sockets.retain(|known| known.index != root.stream.socket);
        self.roots.streams_changed |= root.stream.is_wanted;
        if let Some(relay) = root.relay {
            self.forget_relayed(now, relay.root, None);
        }
    }
}
