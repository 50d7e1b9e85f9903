//! The roots that this node uses, and their states.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::Endpoint;
use super::eviction::Origin;
use super::peers::PeerState;
use crate::contact::{Seen, SeenByTcp, Witness};
use crate::counters::Counters;
use crate::id::{NetworkId, NodeId, PublicIdentity};
use crate::link::{Link, PeerKey};
use crate::network::{NetworkIndex, RootsPolicy, is_endpoint};
use crate::reach::{Place, SocketIndex};
use crate::roots::{Claims, LookUps, MAX_ROOTS, Questions, Relays, Root, RootConfig, RootInfo, RootState};
use crate::session::Peer;

/// State of the endpoint's roots, besides their links.
#[derive(Debug)]
pub(super) struct Roots {
    /// Roots in the order in which they were given, then guests.
    pub(super) list: Vec<(PeerKey, Root)>,
    pub(super) look_ups: LookUps,
    /// Nicknames of this node, and nicknames it looks up.
    pub(super) claims: Claims,
    pub(super) questions: Questions,
    pub(super) relays: Arc<Relays>,
    /// Number of the next root's stream.
    next_stream: u16,
    /// Set while the wanted streams differ from those the driver knows.
    pub(super) streams_changed: bool,
    /// State of each root and its directory, as last reported to the driver.
    told: Vec<(PeerKey, RootState, bool)>,
}

impl Roots {
    pub(super) fn new(counters: Arc<Counters>, now: Instant) -> Self {
        Self {
            list: Vec::new(),
            look_ups: LookUps::new(now),
            claims: Claims::default(),
            questions: Questions::default(),
            relays: Arc::new(Relays::new(counters)),
            next_stream: 0,
            streams_changed: false,
            told: Vec::new(),
        }
    }

    pub(super) fn get(&self, key: PeerKey) -> Option<&Root> {
        self.list.iter().find(|(known, _)| *known == key).map(|(_, root)| root)
    }

    pub(super) fn get_mut(&mut self, key: PeerKey) -> Option<&mut Root> {
        self.list.iter_mut().find(|(known, _)| *known == key).map(|(_, root)| root)
    }

    /// Returns the root that listens at `address`, if it relays for this node.
    pub(super) fn at(&self, address: SocketAddr) -> Option<&Root> {
        let is_there = |root: &Root| root.relay.is_some_and(|relay| relay.root == address);
        self.list.iter().map(|(_, root)| root).find(|root| is_there(root))
    }
}

impl Endpoint {
    /// Sets the roots that this node uses, at most eight, replacing those before. Begins and keeps sessions
    /// with new roots at once; says goodbye to roots no longer named, and forgets them. A node that shuts
    /// down sets none, then drains the endpoint once more.
    pub fn set_roots(&mut self, now: Instant, roots: Vec<RootConfig>) {
        // A node that is a root may be on the list that all nodes share. It must not have a session with
        // itself.
        let mut named = BTreeSet::from([self.own_id]);
        let roots = roots.into_iter().filter(|root| named.insert(root.identity.node_id()));
        let roots: Vec<_> = roots.take(MAX_ROOTS).collect();
        // A node without roots of its user has no use for guests either.
        let is_kept = |root: &Root| {
            roots.iter().any(|one| one.identity == root.identity) || root.guest.is_some() && !roots.is_empty()
        };
        let gone = self.roots.list.iter().filter(|(_, root)| !is_kept(root)).map(|(key, _)| *key);
        for key in gone.collect::<Vec<_>>() {
            self.leave_root(now, key);
        }
        for config in roots {
            let endpoints: Vec<_> = config.endpoints.into_iter().filter(is_endpoint).collect();
            let known = self.roots.list.iter().find(|(_, root)| root.identity == config.identity);
            let key = match known.map(|(key, _)| *key) {
                Some(key) => key,
                None => self.add_root(now, config.identity),
            };
            if let Some(root) = self.roots.get_mut(key) {
                // A guest that the user names has no time limit from now on.
                (root.access, root.guest) = (config.access, None);
                root.is_listed = config.is_listed;
                root.stream.set_own(config.stream_after, endpoints);
            }
            self.publish_roots();
            self.configure_root(now, key);
            self.step_root(now, key);
        }
        self.publish_roots();
        self.renew_contact(now);
    }

    /// Publishes the set of roots.
    pub(super) fn publish_roots(&mut self) {
        let nodes = self.roots.list.iter().map(|(_, root)| root.identity.node_id()).collect();
        self.networks.set_roots(RootsPolicy { nodes });
        self.core.has_roots = !self.roots.list.is_empty();
        self.publish_clocks();
        self.publish_relays();
    }

    /// Publishes whose word about other nodes' addresses counts, and the time at those roots.
    pub(super) fn publish_clocks(&mut self) {
        let witness = |(_, root): &(PeerKey, Root)| Witness {
            root: root.identity,
            clock: root.clock,
            is_guest: root.guest.is_some(),
        };
        self.core.witnesses = self.roots.list.iter().map(witness).collect();
    }

    /// Returns the roots in the order in which they were given, then guests.
    pub fn roots(&self, now: Instant) -> Vec<RootInfo> {
        let info = |(key, root): &(PeerKey, Root)| {
            let link = &self.peers.get(*key)?.link;
            let reach = &self.nodes[link.node].reach;
            let connected = link.current().is_some();
            let path = link.handle.path().filter(|_| connected);
            let standing = root.registering.standing(now);
            let behind = |link: &Link| {
                let place = link.handle.path().map(|path| path.place);
                let is_behind = |place: &Place| {
                    place.relay().is_some() && Some(place.remote()) == root.relay.map(|relay| relay.root)
                };
                link.current().is_some() && place.as_ref().is_some_and(is_behind)
            };
            Some(RootInfo {
                node: *link.handle.id(),
                identity: root.identity,
                is_guest: root.guest.is_some(),
                endpoints: reach.remotes().filter(is_endpoint).collect(),
                state: root.state(connected, now),
                address: path.map(|path| path.remote()).filter(is_endpoint),
                stream: path.map(|path| path.socket()).filter(|socket| socket.is_stream()),
                rtt: reach.rtt(),
                observed: standing
                    .filter(|_| connected)
                    .map(|answer| answer.voucher.address)
                    .filter(is_endpoint),
                channel: standing.map(|answer| answer.channel),
                registered: root.registering.since(now).filter(|_| connected && !root.is_unreachable),
                relays: standing.is_some_and(|answer| answer.relays),
                rate: standing.map_or(0, |answer| answer.rate),
                relayed_peers: self.peers.iter().filter(|(_, peer)| behind(&peer.link)).count(),
                is_partial: root.is_partial,
            })
        };
        self.roots.list.iter().filter_map(info).collect()
    }

    /// Returns true if a root was added or removed, or its [state](RootInfo::state) or
    /// [directory](RootInfo::is_partial) has changed since the last call. Call this after every possible
    /// change. An expired registration changes the state with the next step for that root.
    pub fn poll_root_change(&mut self, now: Instant) -> bool {
        let state = |(key, root): &(PeerKey, Root)| {
            let connected = self.peers.get(*key).is_some_and(|peer| peer.link.current().is_some());
            (*key, root.state(connected, now), root.is_partial)
        };
        let states = || self.roots.list.iter().map(state);
        // Compared without an allocation, because drivers call this after every step and mostly nothing has
        // changed.
        if states().eq(self.roots.told.iter().copied()) {
            return false;
        }
        self.roots.told = states().collect();
        true
    }

    /// Returns the roots that relay for this node, for the data path. A driver keeps this and parses relayed
    /// frames with a [`RelayReader`](crate::RelayReader).
    pub fn relays(&self) -> &Arc<Relays> {
        &self.roots.relays
    }

    /// Returns the addresses at which the roots with this node's registration see it.
    pub(super) fn seen_by_roots(&self, now: Instant) -> Vec<Seen> {
        let views = |(_, root): &(PeerKey, Root)| {
            let (answer, relay) = (root.registering.standing(now)?, root.relay?);
            let is_guest = root.guest.is_some();
            let seen = |(at, voucher)| Seen { root: root.identity, at, voucher, is_guest };
            Some([Some((relay.root, answer.voucher)), root.other_view.get()].map(|view| view.map(seen)))
        };
        self.roots.list.iter().filter_map(views).flatten().flatten().collect()
    }

    /// Returns the addresses at which the roots with this node's registration see its streams.
    pub(super) fn seen_by_tcp(&self, now: Instant) -> Vec<SeenByTcp> {
        let seen = |(_, root): &(PeerKey, Root)| {
            let (answer, port) = (root.registering.standing(now)?, root.stream.port?);
            let is_guest = root.guest.is_some();
            Some(SeenByTcp { root: root.identity, port, voucher: answer.tcp?, is_guest })
        };
        self.roots.list.iter().filter_map(seen).collect()
    }

    /// Returns the root that listens at an address and relays for this node.
    pub(super) fn root_at(&self, address: SocketAddr) -> Option<NodeId> {
        self.roots.at(address).map(|root| root.identity.node_id())
    }

    fn add_root_peer(&mut self, now: Instant, identity: &PublicIdentity) -> PeerKey {
        let watched = self.core.watched.clone();
        let handle = Peer::new(*identity, NetworkIndex::ROOTS, NetworkId::ROOTS, &[], watched, now);
        let (id, node) = (*handle.id(), self.nodes.find_or_add(&identity.node_id()));
        handle.set_path(self.nodes[node].reach.path());
        let handle = Arc::new(handle);
        let link = Link::new(Arc::clone(&handle), node, now);
        let key = self.peers.insert(PeerState::new(link, true, Origin::default()));
        self.nodes.add_peer(node, key, handle);
        if let Some(network) = self.networks.get_mut(&NetworkIndex::ROOTS) {
            network.by_node.insert(id, key);
        }
        key
    }

    /// Adds a root that is not known yet.
    pub(super) fn add_root(&mut self, now: Instant, identity: PublicIdentity) -> PeerKey {
        let key = self.add_root_peer(now, &identity);
        let mut stream = SocketIndex::stream(self.roots.next_stream);
        // Stream numbers wrap around after many roots, so skip those in use.
        while self.roots.list.iter().any(|(_, root)| root.stream.socket == stream) {
            self.roots.next_stream = self.roots.next_stream.wrapping_add(1);
            stream = SocketIndex::stream(self.roots.next_stream);
        }
        self.roots.next_stream = self.roots.next_stream.wrapping_add(1);
        self.roots.list.push((key, Root::new(identity, stream, now)));
        key
    }
}
