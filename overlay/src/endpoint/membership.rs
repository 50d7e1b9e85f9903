//! Joining and leaving networks, and the peers in them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::networks::{MAX_NETWORKS, Network};
use super::peers::{PeerKey, PeerState};
use super::{Endpoint, Event, JoinError, Lookup, NetworkInfo, PeerInfo, Timer};
use crate::id::PublicIdentity;
use crate::network::{NetworkConfig, NetworkIndex};
use crate::session::Peer;
use crate::wire::Control;

impl Endpoint {
    /// Joins a network. The members of a static network are peers at once ([`Event::PeerAdded`] for each).
    ///
    /// # Errors
    /// A description that contradicts itself, a network joined already, one too many, or a static network that does
    /// not list this node.
    pub fn join(&mut self, now: Instant, network: NetworkConfig) -> Result<NetworkIndex, JoinError> {
        network.validate()?;
        let id = network.id();
        if self.networks.values().any(|joined| joined.id == id) {
            return Err(JoinError::AlreadyJoined(id));
        }
        if self.networks.len() >= MAX_NETWORKS {
            return Err(JoinError::TooMany(MAX_NETWORKS));
        }
        let index = NetworkIndex(self.next_network);
        let network = Network::new(index, network, self.identity.public())
            .ok_or(JoinError::NotAMember { network: id, node: self.own_id })?;
        self.next_network += 1;
        let members: Vec<_> = network.listed().map(|m| (m.identity, m.endpoints.clone())).collect();
        self.networks.insert(index, network);
        for (identity, endpoints) in members {
            let Some(key) = self.add_peer(now, index, identity, true) else { continue };
            let Some(peer) = self.peers.get_mut(key) else { continue };
            endpoints.into_iter().for_each(|remote| peer.candidates.add_configured(remote));
            self.announce(key);
        }
        // Others of this network may have been heard before it was ours.
        self.discovery.forget_heard();
        self.restart_beacons(now);
        Ok(index)
    }

    /// Leaves a network: its peers are told and forgotten ([`Event::PeerRemoved`] for each). Does nothing for a network
    /// that is not joined. A node that shuts down leaves all its networks, then drains the endpoint once more.
    pub fn leave(&mut self, now: Instant, network: NetworkIndex) {
        let keys: Vec<_> = self.peers.of_network(network).map(|(key, _)| key).collect();
        for key in keys {
            self.send_on_current(now, key, Control::Close { reason: LEAVING });
            self.remove_peer(key);
        }
        if self.networks.remove(&network).is_some() {
            self.restart_beacons(now);
        }
    }

    /// Says who has an overlay address. An unknown node's self-certifying address makes the node ask for it on the
    /// local networks, at most once per second.
    pub fn lookup(&mut self, now: Instant, network: NetworkIndex, dst: IpAddr) -> Lookup {
        let Some(network) = self.networks.get_mut(&network) else { return Lookup::NoRoute };
        if network.addresses.contains(&dst) {
            return Lookup::Local;
        }
        if let Some(peer) = network.by_address.get(&dst).and_then(|&key| self.peers.get_mut(key)) {
            peer.used = now;
            return Lookup::Peer(peer.handle.clone());
        }
        if !network.may_exist(dst) {
            return Lookup::NoRoute;
        }
        network.want(dst, now);
        self.solicit(now);
        Lookup::Unknown
    }

    /// This node's addresses in a network, the self-certifying one first; none if it is not joined.
    pub fn addresses(&self, network: NetworkIndex) -> Vec<IpAddr> {
        self.networks.get(&network).map_or_else(Vec::new, |network| network.addresses.clone())
    }

    /// The joined networks, in the order of joining.
    pub fn networks(&self) -> Vec<NetworkInfo> {
        let connected = |network: &Network| {
            let keys = network.by_node.values();
            keys.filter(|&&key| self.peers.get(key).is_some_and(|peer| peer.current().is_some())).count()
        };
        let info = |network: &Network| NetworkInfo {
            index: network.index,
            id: network.id,
            addresses: network.addresses.clone(),
            peers: network.by_node.len(),
            connected: connected(network),
        };
        self.networks.values().map(info).collect()
    }

    /// All peers of all networks, in the order in which they were learned of.
    pub fn peers(&self) -> Vec<PeerInfo> {
        let info = |peer: &PeerState| {
            let session = peer.current();
            PeerInfo {
                peer: peer.handle.clone(),
                addresses: peer.handle.addresses().to_vec(),
                path: session.as_ref().and_then(|_| peer.handle.path()),
                suite: session.as_ref().map(|session| session.suite()),
                established: session.map(|session| session.established()),
                rtt: peer.rtt,
                candidates: peer.candidates.remotes().collect(),
                connecting: peer.attempt.is_some(),
            }
        };
        self.peers.iter().map(|(_, peer)| info(peer)).collect()
    }

    /// Finds the peer with these keys, or takes it in if it may be a member and there is room.
    pub(super) fn find_or_add(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        identity: &PublicIdentity,
    ) -> Option<PeerKey> {
        let members = self.networks.get(&network)?;
        let node = identity.node_id();
        if node == self.own_id || !members.admits(identity) {
            self.counters.strangers_refused.increment();
            return None;
        }
        match members.by_node.get(&node) {
            Some(&key) => Some(key),
            None => self.add_peer(now, network, *identity, false),
        }
    }

    fn add_peer(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        identity: PublicIdentity,
        listed: bool,
    ) -> Option<PeerKey> {
        let members = self.networks.get(&network)?;
        let node = identity.node_id();
        let addresses = members.addresses_of(&node);
        // 80 bits of the node ID are in the address: who finds another node with the same ones gets nothing by it.
        if addresses.iter().any(|address| members.by_address.contains_key(address)) {
            self.counters.strangers_refused.increment();
            return None;
        }
        if !listed && members.by_node.len() >= self.limits.peers_per_network.max(1) {
            let Some(evicted) = self.peers.evictable(network) else {
                self.counters.peers_refused.increment();
                return None;
            };
            self.counters.peers_evicted.increment();
            self.remove_peer(evicted);
        }
        let members = self.networks.get_mut(&network)?;
        // The first address is the self-certifying one, which the peer makes itself.
        let handle = Arc::new(Peer::new(identity, network, members.id, &addresses[1..], now));
        let key = self.peers.insert(PeerState::new(handle, listed, now));
        members.by_node.insert(node, key);
        members.by_address.extend(addresses.into_iter().map(|address| (address, key)));
        Some(key)
    }

    /// Forgets a peer and everything that belongs to it.
    fn remove_peer(&mut self, key: PeerKey) {
        self.end_attempt(key);
        let Some(mut peer) = self.peers.remove(key) else { return };
        peer.handle.set_session(None);
        peer.handle.set_path(None);
        self.discard(peer.sessions.drain(..).map(|live| live.session).collect());
        for timer in [Timer::Attempt(key), Timer::Expire(key), Timer::Activity(key), Timer::Mtu(key)] {
            self.timers.clear(timer);
        }
        if let Some(network) = self.networks.get_mut(&peer.handle.network()) {
            network.by_node.remove(peer.handle.id());
            for address in peer.handle.addresses() {
                network.by_address.remove(address);
            }
        }
        if peer.announced {
            self.emit(Event::PeerRemoved(peer.handle));
        }
    }

    /// Tells the driver of a peer, once.
    pub(super) fn announce(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if !std::mem::replace(&mut peer.announced, true) {
            let handle = peer.handle.clone();
            self.emit(Event::PeerAdded(handle));
        }
    }

    /// The state that belongs to a handle, unless the peer was removed meanwhile.
    pub(super) fn key_of(&self, handle: &Arc<Peer>) -> Option<PeerKey> {
        let key = *self.networks.get(&handle.network())?.by_node.get(handle.id())?;
        self.peers.get(key).filter(|peer| Arc::ptr_eq(&peer.handle, handle)).map(|_| key)
    }
}

/// The reason in a [`Control::Close`].
const LEAVING: u8 = 0;
