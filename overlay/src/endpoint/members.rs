//! Joining and leaving networks, and the peers in them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::credentials::Shown;
use super::eviction::Origin;
use super::networks::{JoinedNetwork, MAX_NETWORKS};
use super::peers::PeerState;
use super::revocations::start_of;
use super::{Endpoint, JoinError, Lookup, NetworkInfo, PeerInfo, session_limit};
use crate::contact::Punching;
use crate::id::{NetworkId, NodeId, PublicIdentity};
use crate::link::{Link, PeerKey, Timer};
use crate::membership::Question;
use crate::network::{
    Membership, NetworkConfig, NetworkIndex, PeerDescription, Policy, Prefix, Programs, is_endpoint,
};
use crate::reach::place_of;
use crate::routes::Route;
use crate::session::Peer;

impl Endpoint {
    /// Joins a network. The members of a static network are peers at once ([`Event::PeerAdded`] for each).
    ///
    /// # Errors
    /// Returns an error for a description that contradicts itself, a network joined already with this or
    /// another secret, too many networks, or a static network that does not list this node.
    ///
    /// [`Event::PeerAdded`]: crate::Event::PeerAdded
    pub fn join(&mut self, now: Instant, network: NetworkConfig) -> Result<NetworkIndex, JoinError> {
        network.validate()?;
        let id = network.id();
        if let Some(joined) = self.networks.values().find(|joined| joined.id == id) {
            return Err(match joined.policy.is_described_by(&network) {
                true => JoinError::AlreadyJoined(id),
                false => JoinError::JoinedOtherwise(id),
            });
        }
        if self.networks.len() >= MAX_NETWORKS {
            return Err(JoinError::TooMany(MAX_NETWORKS));
        }
        let mut policy = network.policy();
        if let Some(membership) = policy.membership_mut() {
            let begun = membership.begin(&self.own_id);
            begun.map_err(|refusal| JoinError::Credentials { network: id, refusal })?;
        }
        if let Some(own) = policy.programs().and_then(Programs::own).cloned() {
            let begun = policy.introduce(&self.own_id, own, true, self.core.clock.unix_time(now));
            begun.map_err(|refusal| JoinError::Credentials { network: id, refusal })?;
        }
        if !policy.admits(&self.own_id) {
            return Err(JoinError::NotAMember { network: id, key: *self.core.identity.public() });
        }
        // Never used again, so that a handle from before cannot mean another network.
        let index = NetworkIndex(self.next_network);
        self.next_network += 1;
        self.routes.publish(index, &prefixes_of(&*policy, &self.own_id), &Route::Local);
        let members =
            policy.members().into_iter().filter(|member| member.identity != *self.core.identity.public());
        let members: Vec<_> = members.map(|member| (member.identity, member.endpoints.clone())).collect();
        self.networks.insert(index, JoinedNetwork::new(index, policy));
        self.limit_sessions();
        for (identity, endpoints) in members {
            let Some(key) = self.add_peer(now, index, identity, None) else { continue };
            let Some(peer) = self.peers.get(key) else { continue };
            self.nodes[peer.link.node].reach.set_configured(index, &endpoints);
            self.link(now, key, Link::announce);
        }
        // Nodes of this network may have been heard before it was joined.
        self.discovery.forget_heard();
        self.restart_beacons(now);
        self.begin_asking(now, index);
        self.begin_programs(now, index);
        Ok(index)
    }

    /// Leaves a network: its peers are told and forgotten ([`Event::PeerRemoved`] for each). Does nothing for
    /// a network that is not joined. A node that shuts down leaves all its networks, then drains the endpoint
    /// once more.
    ///
    /// [`Event::PeerRemoved`]: crate::Event::PeerRemoved
    pub fn leave(&mut self, now: Instant, network: NetworkIndex) {
        let keys: Vec<_> = self.peers.of_network(network).map(|(key, _)| key).collect();
        for key in keys {
            self.link(now, key, |link, cx| link.say_goodbye(cx));
            self.remove_peer(now, key);
        }
        if let Some(left) = self.networks.remove(&network) {
            self.routes.withdraw(network, &prefixes_of(&*left.policy, &self.own_id));
            self.core.timers.clear(Timer::Asking(network));
            self.core.timers.clear(Timer::Heads(network));
            self.core.timers.clear(Timer::Rules(network));
            self.core.timers.clear(Timer::Programs(network));
            self.restart_beacons(now);
            self.limit_sessions();
        }
        self.arm_forgetting(now);
    }

    /// Sets the limit of the session table.
    fn limit_sessions(&self) {
        // Listed members always have room, because the list is itself a limit.
        let listed = self.networks.values().map(|network| network.policy.members().len()).sum();
        self.core.sessions.set_limit(session_limit(&self.limits, listed));
    }

    /// Replaces the configured endpoints of a static network's member, for one whose host name was resolved.
    /// Keeps at most eight. A running handshake goes to the new ones at once. Does nothing for nodes other
    /// than listed members.
    pub fn set_endpoints(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        node: &NodeId,
        endpoints: &[SocketAddr],
    ) {
        let key = self.networks.get(&network).and_then(|network| network.by_node.get(node).copied());
        let Some((key, peer)) = key.and_then(|key| Some((key, self.peers.get(key)?))) else { return };
        if !peer.listed {
            return;
        }
        for remote in self.nodes[peer.link.node].reach.set_configured(network, endpoints) {
            if let Some(place) = place_of(&self.core.sockets, None, remote) {
                self.link(now, key, |link, cx| link.try_at(cx, &place));
            }
        }
    }

    /// Returns the owner of an overlay address, as [`Routes::get`] does. For an unknown node's
    /// self-certifying address, the node asks for it on the local networks, at most once per second.
    ///
    /// [`Routes::get`]: crate::Routes::get
    pub fn lookup(&mut self, now: Instant, network: NetworkIndex, dst: IpAddr) -> Lookup {
        match self.routes.get(network, dst) {
            Some(Route::Local) => return Lookup::Local,
            Some(Route::Peer(peer)) => {
                if let Some(state) = self.key_of(&peer).and_then(|key| self.peers.get_mut(key)) {
                    state.link.used = now;
                }
                return Lookup::Peer(peer);
            }
            None => {}
        }
        let Some(network) = self.networks.get_mut(&network) else { return Lookup::NoRoute };
        if !network.policy.may_exist(dst) {
            return Lookup::NoRoute;
        }
        let index = network.index;
        let is_granted = !network.id.certified_prefix().contains(dst);
        network.want(dst, now);
        if is_granted {
            // Only the network's controllers know whose it is.
            self.find_member(now, index, &Question::FindAddress(dst));
            return Lookup::Unknown;
        }
        self.solicit(now);
        self.look_up_address(now, index, dst);
        Lookup::Unknown
    }

    /// Returns the description of this node by a network; `None` if the network is not joined.
    pub fn own_description(&self, network: NetworkIndex) -> Option<PeerDescription> {
        Some(PeerDescription::of(&*self.networks.get(&network)?.policy, &self.own_id))
    }

    /// Returns this node's addresses in a network, the self-certifying one first; none if the network is not
    /// joined.
    pub fn addresses(&self, network: NetworkIndex) -> Vec<IpAddr> {
        self.networks.get(&network).map_or_else(Vec::new, |network| network.policy.addresses_of(&self.own_id))
    }

    /// Returns the addresses that belong to a network, in use or not; none if the network is not joined.
    pub fn prefixes(&self, network: NetworkIndex) -> Vec<Prefix> {
        self.networks.get(&network).map_or_else(Vec::new, |network| network.policy.prefixes())
    }

    /// Returns the addresses of the members with this name, this node's name included, in the order of
    /// joining. A member without an address in the pool of a managed network does not know which addresses
    /// belong to it, and gets none of these: packets to them would leave by the system's network.
    pub fn addresses_named(&self, name: &str, is_meant: impl Fn(NetworkId) -> bool) -> Vec<IpAddr> {
        let of_one = |network: &JoinedNetwork| {
            let mut named = network.policy.nodes_named(name);
            // Programs that have ended stay known for a while, and others may have their label.
            let is_program = |node: &NodeId| network.policy.machine_of(node).is_some();
            named.sort_by_key(|node| is_program(node).then(|| !self.is_node_connected(network, node)));
            let prefixes = network.policy.prefixes();
            let is_inside = |address: &IpAddr| prefixes.iter().any(|prefix| prefix.contains(*address));
            let addresses = named.iter().flat_map(|node| network.policy.addresses_of(node));
            addresses.filter(is_inside).collect::<Vec<_>>()
        };
        self.networks.values().filter(|network| is_meant(network.id)).flat_map(of_one).collect()
    }

    /// Returns the network in which a label leads to programs that this node knows, and has no session with
    /// any of them. They may have ended, and another one may have the label.
    pub fn label_in_doubt(&self, name: &str, is_meant: impl Fn(NetworkId) -> bool) -> Option<NetworkIndex> {
        let is_in_doubt = |network: &&JoinedNetwork| {
            let named = network.policy.nodes_named(name);
            let is_there = |node: &NodeId| *node == self.own_id || self.is_node_connected(network, node);
            !named.is_empty() && !named.iter().any(is_there)
        };
        let mut meant = self.networks.values().filter(|network| name.contains('.') && is_meant(network.id));
        meant.find(is_in_doubt).map(|network| network.index)
    }

    /// Returns the name of the member that has an address in one of the networks that are meant; the first
    /// one in the order of joining.
    pub fn name_at(&self, address: IpAddr, is_meant: impl Fn(NetworkId) -> bool) -> Option<String> {
        let of_one = |network: &JoinedNetwork| {
            let node = match self.routes.get(network.index, address)? {
                Route::Local => self.own_id,
                Route::Peer(peer) => *peer.id(),
            };
            network.policy.name_of(&node).map(str::to_owned)
        };
        self.networks.values().filter(|network| is_meant(network.id)).find_map(of_one)
    }

    /// Returns the joined networks, in the order of joining.
    pub fn networks(&self) -> Vec<NetworkInfo> {
        let own = start_of(&self.own_id);
        let info = |network: &JoinedNetwork| {
            let (mut connected, mut traffic) = (0, network.past);
            for peer in network.by_node.values().filter_map(|&key| self.peers.get(key)) {
                connected += usize::from(peer.link.current().is_some());
                traffic.add(&peer.link.traffic());
            }
            NetworkInfo {
                index: network.index,
                id: network.id,
                summary: network.policy.summary(),
                addresses: network.policy.addresses_of(&self.own_id),
                peers: network.by_node.len(),
                connected,
                forgotten: network.forgotten,
                name: network.policy.name_of(&self.own_id).map(str::to_owned),
                signed_epoch: network.policy.membership().and_then(|known| Some(known.head_by(own)?.epoch())),
                rules: network.policy.membership().and_then(|known| Some(known.rules()?.head().version())),
                is_key_contested: network.policy.membership().is_some_and(Membership::is_contested),
                traffic,
            }
        };
        self.networks.values().map(info).collect()
    }

    /// Returns all peers of all networks, in the order in which they became known.
    pub fn peers(&self) -> Vec<PeerInfo> {
        let info = |peer: &PeerState| {
            let link = &peer.link;
            let session = link.current();
            let network = self.networks.get(&link.handle.network());
            let reach = &self.nodes[link.node].reach;
            let path = session.as_ref().and_then(|_| link.handle.path());
            let relayed = path.filter(|path| path.place.relay().is_some());
            let root = relayed.and_then(|path| self.root_at(path.remote()));
            let policy = network.map(|network| &*network.policy);
            let shown = peer.shown.as_deref();
            PeerInfo {
                peer: link.handle.clone(),
                addresses: link.handle.addresses(),
                path,
                root,
                turn: path
                    .is_some_and(|path| path.place.relay().is_none() && reach.relays(&path.place.key())),
                suite: session.as_ref().map(|session| session.suite()),
                established: session.map(|session| session.established()),
                rtt: reach.rtt(),
                candidates: reach.remotes().filter(is_endpoint).collect(),
                contact: reach.known_punching().and_then(|punching| punching.theirs().cloned()),
                attempts: reach.known_punching().map_or_else(Vec::new, Punching::attempts),
                connecting: link.is_connecting(),
                answer_unreadable: link.answer_unreadable,
                at_roots: reach.roots(),
                elsewhere: link.duplicate.last(),
                listed: peer.listed,
                name: policy.and_then(|policy| policy.name_of(link.handle.id())).map(str::to_owned),
                machine: link.handle.machine().map(|machine| machine.node_id()),
                label: policy.and_then(|policy| policy.label_of(link.handle.id())).cloned(),
                admitted: link.handle.is_admitted(),
                refusal: shown.and_then(Shown::refusal),
                known_rules: shown
                    .and_then(|shown| shown.rules.known_version(link.instance.unwrap_or_default())),
                known_epoch: shown.and_then(|shown| shown.known_epoch(link.instance.unwrap_or_default())),
                left: link.departed,
                last_seen: link.last_seen(),
                last_heard: peer.heard,
                traffic: link.traffic(),
            }
        };
        let is_user = |peer: &PeerState| !peer.link.handle.is_root();
        self.peers.iter().filter(|(_, peer)| is_user(peer)).map(|(_, peer)| info(peer)).collect()
    }

    /// Returns the peer with these keys, heard from `source`. Adds it if it may be a member and there is
    /// room.
    pub(super) fn find_or_add(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        identity: &PublicIdentity,
        source: IpAddr,
    ) -> Option<PeerKey> {
        let members = self.networks.get(&network)?;
        let node = identity.node_id();
        if node == self.own_id || !members.policy.admits(&node) {
            self.core.counters.strangers_refused.increment();
            return None;
        }
        match members.by_node.get(&node) {
            Some(&key) => Some(key),
            None => self.add_peer(now, network, *identity, Some(source)),
        }
    }

    /// Adds a peer that the network lists, or that was heard from `source`.
    pub(super) fn add_peer(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        identity: PublicIdentity,
        source: Option<IpAddr>,
    ) -> Option<PeerKey> {
        let members = self.networks.get(&network)?;
        let node = identity.node_id();
        let addresses = members.policy.addresses_of(&node);
        let listed = members.policy.keeps(&node);
        // The address has only 80 bits of the node ID. A node whose ID collides with another's in them must
        // gain nothing.
        let is_taken = |prefix: &Prefix| self.routes.exact(network, *prefix).is_some();
        // In a managed network a newer certificate takes the other addresses over, so they keep no node out.
        let is_managed = members.policy.membership().is_some();
        let decisive = if is_managed { 1 } else { addresses.len() };
        if addresses.iter().take(decisive).any(|&address| is_taken(&address.into())) {
            self.core.counters.strangers_refused.increment();
            return None;
        }
        let mut prefixes = prefixes_of(&*members.policy, &node);
        prefixes.retain(|prefix| !is_managed || !is_taken(prefix));
        if source.is_some_and(|source| !self.make_room(now, network, &addresses, source)) {
            return None;
        }
        let members = self.networks.get_mut(&network)?;
        // The first address is the self-certifying one, which the peer derives itself.
        let watched = self.core.watched.clone();
        let handle = Arc::new(Peer::new(identity, network, members.id, &addresses[1..], watched, now));
        handle.describe(&*members.policy);
        handle.set_prefixes(prefixes.into());
        handle.set_admitted(members.policy.membership().is_none());
        handle.set_cut_off(members.policy.membership().is_some_and(Membership::is_removed));
        let node_key = self.nodes.find_or_add(&node);
        // The node's path may be known from another network.
        handle.set_path(self.nodes[node_key].reach.path());
        self.routes.publish(network, &handle.prefixes(), &Route::Peer(Arc::clone(&handle)));
        let origin = source.map_or_else(Origin::default, Origin::of);
        let link = Link::new(Arc::clone(&handle), node_key, now);
        let key = self.peers.insert(PeerState::new(link, listed, origin));
        self.nodes.add_peer(node_key, key, handle);
        members.by_node.insert(node, key);
        if !listed {
            members.order.hold(origin);
            self.refile(key);
            self.expect_to_forget(now);
        }
        Some(key)
    }

    /// Forgets a peer and all its state.
    pub(super) fn remove_peer(&mut self, now: Instant, key: PeerKey) {
        self.link(now, key, Link::close);
        let Some(peer) = self.peers.remove(key) else { return };
        self.forget_credentials(&peer.link.handle);
        let (handle, node) = (&peer.link.handle, peer.link.node);
        self.discovery.forget(key);
        self.nodes[node].reach.set_configured(handle.network(), &[]);
        self.nodes.remove_peer(node, key);
        if self.carrier(node).is_none() {
            self.core.timers.clear(Timer::Mtu(node));
        }
        if self.nodes.get(node).is_none() {
            self.core.timers.clear(Timer::Punch(node));
            self.roots.look_ups.forget_node(handle.id());
        }
        if let Some(network) = self.networks.get_mut(&handle.network()) {
            network.by_node.remove(handle.id());
            network.order.file(peer.origin, peer.rank, None);
            if !peer.listed {
                network.order.release(peer.origin);
                network.policy.set_addresses(handle.id(), &[]);
            }
            network.forgotten += 1;
            network.past.add(&peer.link.traffic());
        }
        self.routes.withdraw(handle.network(), &handle.prefixes());
    }

    /// Returns the key that belongs to a handle, unless the peer was removed meanwhile.
    pub(super) fn key_of(&self, handle: &Arc<Peer>) -> Option<PeerKey> {
        let key = *self.networks.get(&handle.network())?.by_node.get(handle.id())?;
        self.peers.get(key).filter(|peer| Arc::ptr_eq(&peer.link.handle, handle)).map(|_| key)
    }
}

/// Returns a member's addresses, each as a full-length prefix, and the blocks behind it.
fn prefixes_of(policy: &dyn Policy, node: &NodeId) -> Vec<Prefix> {
    policy.addresses_of(node).into_iter().map(Prefix::from).chain(policy.routes_of(node)).collect()
}
