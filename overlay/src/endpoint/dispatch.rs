//! Dispatch from a datagram, a call or a deadline to its link, and from the link's effects to other links.

use std::sync::Arc;
use std::time::Instant;

use super::Endpoint;
use crate::link::{Attention, Context, Effect, Link, NodeKey, PeerKey, Report, Timer};
use crate::network::Programs;
use crate::reach::{RecvMeta, SizeState, Why, usable};
use crate::session::{Peer, Session};
use crate::wire::{DATA_OVERHEAD, MembershipMessage, RootMessage};

impl Endpoint {
    /// Requests a session with the peer: begins a handshake unless one runs or a session exists.
    ///
    /// The outcome is an event: [`Event::SessionReady`](crate::Event::SessionReady), or
    /// [`Event::PeerSilent`](crate::Event::PeerSilent) or
    /// [`Event::PeerUnreachable`](crate::Event::PeerUnreachable) after 5 s. The node tries the handshake for
    /// 90 s after the last such call (or packet sent), at intervals from 250 ms to 5 s.
    pub fn want_session(&mut self, now: Instant, peer: &Arc<Peer>) {
        self.link_of(now, peer, Link::want_session);
        self.report_refused(peer);
    }

    /// Handles a session that needs control's attention. Call this when [`Session::note_received`] or
    /// [`Session::note_sent`] asks for it. An authentic packet confirms a session. If it came from another
    /// source than the path, a challenge follows, and its answer moves the path there.
    pub fn session_attention(&mut self, now: Instant, session: &Arc<Session>, why: Attention) {
        self.link_of(now, session.peer(), |link, cx| link.on_attention(cx, session, why));
    }

    /// Handles a plaintext that is no IP packet: empty, or with a first byte below 16. The caller has opened
    /// it with `session` and called [`Session::note_received`].
    pub fn handle_control(&mut self, now: Instant, session: &Arc<Session>, meta: RecvMeta, message: &[u8]) {
        let peer = session.peer();
        if peer.is_root() && RootMessage::is_one(message) {
            let len = message.len() + DATA_OVERHEAD;
            // This answer comes over the address family that the path does not use, so it must not move the
            // path.
            let is_beside_path = matches!(RootMessage::parse(message), Ok(RootMessage::Vouched(_)));
            self.link_of(now, peer, |link, cx| match is_beside_path {
                true => link.heard_beside_path(cx, session, &meta, len),
                false => link.on_attention(cx, session, Attention::Packet(meta, len)),
            });
            if let Some(key) = self.key_of(peer) {
                self.on_root_message(now, key, message);
            }
            return;
        }
        if MembershipMessage::is_one(message) && self.asks_members(peer.network()) {
            let why = Attention::Packet(meta, message.len() + DATA_OVERHEAD);
            self.link_of(now, peer, |link, cx| link.on_attention(cx, session, why));
            if let Some(key) = self.key_of(peer) {
                self.on_membership_message(now, key, message);
            }
            return;
        }
        let report =
            self.link_of(now, peer, |link, cx| link.on_control(cx, session, &meta, message)).flatten();
        if let Some(Report::Elsewhere(remote)) = report {
            self.on_elsewhere_reported(now, *peer.id(), remote);
        }
    }

    /// Handles a hint from an upper layer that packets of a peer are lost, for example from TCP's
    /// retransmissions. Confirms at once that the path still carries its datagram size. Begins a handshake if
    /// nothing has come from the peer one second, or two round trips, after data was sent to it.
    pub fn path_suspected(&mut self, now: Instant, peer: &Arc<Peer>) {
        self.link_of(now, peer, Link::doubt);
        self.doubt_roots(now);
    }

    /// Confirms at once that the path to a peer still carries its datagram size. [`Endpoint::size_state`]
    /// gives the result.
    pub fn confirm_size(&mut self, now: Instant, peer: &Arc<Peer>) {
        self.link_of(now, peer, Link::suspect_path);
    }

    /// Returns the state of the path's datagram size to a peer. `None` without a path.
    pub fn size_state(&mut self, now: Instant, peer: &Arc<Peer>) -> Option<SizeState> {
        self.link_of(now, peer, |_, cx| cx.reach.mtud().map(|mtud| mtud.size_state())).flatten()
    }

    /// Handles a hint from an upper layer that the peer does not answer, for example from TCP's
    /// retransmissions. Confirms that the path still carries its datagram size, and begins a handshake unless
    /// the peer was heard in the last second.
    pub fn peer_unresponsive(&mut self, now: Instant, peer: &Arc<Peer>) {
        self.link_of(now, peer, Link::unresponsive);
        self.doubt_roots(now);
    }

    /// Performs a step of a peer's link, unless the peer was removed.
    fn link_of<R>(
        &mut self,
        now: Instant,
        peer: &Arc<Peer>,
        step: impl FnOnce(&mut Link, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let key = self.key_of(peer)?;
        self.link(now, key, step)
    }

    /// Performs a step of a link, then applies its effects on others. Returns `None` if the link no longer
    /// exists.
    pub(super) fn link<R>(
        &mut self,
        now: Instant,
        key: PeerKey,
        step: impl FnOnce(&mut Link, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let (mut step, mut result) = (Some(step), None);
        self.step_link(now, key, &mut |link, cx| result = step.take().map(|step| step(link, cx)));
        result
    }

    /// Like [`Self::link`], but not generic.
    fn step_link(&mut self, now: Instant, key: PeerKey, step: &mut dyn FnMut(&mut Link, &mut Context<'_>)) {
        // Compiled once here, and not for each of some sixty steps.
        self.core.note_time(now);
        let Some(peer) = self.peers.get_mut(key) else { return };
        let link = &mut peer.link;
        let Some(network) = self.networks.get(&link.handle.network()) else { return };
        let node = link.node;
        let (reach, handles) = self.nodes[node].parts();
        let mut cx = Context {
            now,
            key,
            core: &mut self.core,
            node,
            reach,
            handles,
            network: network.id,
            psk: &network.psk,
            introduction: network.policy.programs().map_or(&[], Programs::introduction),
            effects: Vec::new(),
        };
        step(link, &mut cx);
        // After the step, because an effect may step this link again, or another one.
        for effect in cx.effects {
            self.apply(now, key, node, effect);
        }
        while let Some(event) = self.core.root_events.pop_front() {
            self.on_root_event(now, &event);
        }
    }

    fn apply(&mut self, now: Instant, key: PeerKey, node: NodeKey, effect: Effect) {
        match effect {
            Effect::Solicit => {
                if self.peers.get(key).is_some_and(|peer| !peer.link.handle.is_root()) {
                    self.solicit(now);
                }
                self.look_up_peer(now, key);
            }
            Effect::LookUp => self.look_up_peer(now, key),
            Effect::Silent(since) => self.doubt_roots_since(now, since),
            Effect::Refile => _ = self.refile(key),
            // Roots relay no beacons, so no beacon of the peer is open there.
            Effect::Met(place) if place.relay().is_some() => {}
            Effect::Met(place) => {
                if let Some(peer) = self.peers.get(key) {
                    self.discovery.acknowledged(&place.remote(), peer.link.handle.network(), key);
                }
            }
            Effect::PathMoved(before) => {
                self.nodes.note_path(node, before);
                self.others(now, key, node, Link::path_moved);
                // A relayed path may be one of several. Other roots may know the node too, and one of them
                // may be nearer.
                if self.nodes[node].reach.place().is_some_and(|place| place.relay().is_some()) {
                    self.look_up_more(now, key, node);
                }
            }
            Effect::SizeChanged(before) => {
                self.others(now, key, node, |link, cx| link.size_changed(cx, before));
            }
            Effect::PathTooSmall => self.others(now, key, node, Link::path_too_small),
            Effect::Confirmed => self.others(now, key, node, Link::path_confirmed),
            Effect::Doubted => self.others(now, key, node, Link::doubt_liveness),
            Effect::Departed => self.forget_departed(now),
            Effect::Established => {
                self.show_credentials(now, key);
                self.ask_for_credentials(now, key);
                self.tell_haves_again(now, key);
                self.hurry_questions(now, key);
            }
            Effect::SessionLost => {
                self.forget_verdict(key);
                if self.carrier(node).is_none() {
                    self.core.timers.clear(Timer::Mtu(node));
                }
            }
        }
    }

    /// Performs the same step on the links to a node in other networks.
    fn others(
        &mut self,
        now: Instant,
        key: PeerKey,
        node: NodeKey,
        step: impl Fn(&mut Link, &mut Context<'_>),
    ) {
        // Collected first, because a step may add or remove peers.
        let others = self.nodes.get(node).map_or_else(Vec::new, |node| node.peers().collect());
        for other in others.into_iter().filter(|other| *other != key) {
            self.link(now, other, &step);
        }
    }

    /// Returns the peer of a node whose session carries the node's probes: the one heard last.
    pub(super) fn carrier(&self, node: NodeKey) -> Option<PeerKey> {
        let peers = self.nodes.get(node)?.peers();
        let connected = peers.filter_map(|key| {
            let link = &self.peers.get(key)?.link;
            link.current()?;
            Some((link.handle.activity().last_received(), key))
        });
        // Only one session carries the probes, because all sessions of the node share one path and one size.
        connected.max().map(|(_, key)| key)
    }

    /// Sends the path MTU probe that is due.
    pub(super) fn on_mtu_timer(&mut self, now: Instant, node: NodeKey) {
        if let Some(key) = self.carrier(node) {
            self.link(now, key, Link::probe_mtu);
        }
    }

    /// Challenges a node at its path's address, from an existing socket.
    pub(super) fn challenge_path(&mut self, now: Instant, node: NodeKey, why: Why) {
        let Some(known) = self.nodes.get(node).and_then(|node| node.reach.place()) else { return };
        let place = usable(&self.core.sockets, &known);
        // A challenge at the same place would move nothing; only an announcement needs the answer.
        let place = place.filter(|place| why == Why::Announce || *place != known);
        if let Some((place, key)) = place.zip(self.carrier(node)) {
            self.link(now, key, |link, cx| link.challenge(cx, place, why));
        }
    }

    /// Challenges paths whose socket is gone from another socket, if there is one.
    pub(super) fn leave_lost_sockets(&mut self, now: Instant) {
        for node in self.nodes.keys() {
            self.challenge_path(now, node, Why::Move);
        }
    }
}
