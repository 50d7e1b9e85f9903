//! The remote nodes: one entry for all networks in which a node is a peer, because its addresses do not
//! depend on a network.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bucket::Rate;
use crate::id::NodeId;
use crate::link::{NodeKey, PeerKey};
use crate::reach::{Place, PlaceKey, Reach};
use crate::session::Peer;

/// Remote node that is a peer in at least one network.
#[derive(Debug)]
pub(super) struct Node {
    id: NodeId,
    pub(super) reach: Reach,
    /// Peers that the node is, one per network, in the order in which they became known.
    peers: Vec<(PeerKey, Arc<Peer>)>,
    /// Time when its bucket of handshakes is full.
    handshakes: Option<Instant>,
}

impl Node {
    /// Returns the peers that the node is.
    pub(super) fn peers(&self) -> impl Iterator<Item = PeerKey> {
        self.peers.iter().map(|(key, _)| *key)
    }

    /// Returns the ways to the node, and its peers with their handles.
    pub(super) fn parts(&mut self) -> (&mut Reach, &[(PeerKey, Arc<Peer>)]) {
        (&mut self.reach, &self.peers)
    }
}

/// Burst and interval of initiations from a node's path that are read even when there is no room for others.
/// Each session has a minute for its renewal, every two minutes. The 4096 peers of a full network amount to
/// 410 per second, however many of them attack.
const HANDSHAKE_BURST: u32 = 4;
const HANDSHAKE_INTERVAL: Duration = Duration::from_secs(10);

/// Maximum number of nodes examined per address. Usually there is one, or a few that have followed each
/// other.
const MAX_NODES_PER_ADDRESS: usize = 8;

/// All nodes. Indexing works for nodes that are a peer somewhere.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// Boxed, because half of a tree's slots are empty.
    table: BTreeMap<NodeKey, Box<Node>>,
    by_id: BTreeMap<NodeId, NodeKey>,
    /// Places of the nodes' present or last paths.
    at: BTreeSet<(PlaceKey, NodeKey)>,
    next: u64,
}

impl Nodes {
    /// Returns the node with this ID, and adds it if unknown.
    pub(super) fn find_or_add(&mut self, id: &NodeId) -> NodeKey {
        if let Some(&key) = self.by_id.get(id) {
            return key;
        }
        // Never used again, so that a timer or an effect of a removed node finds nothing.
        let key = NodeKey(self.next);
        self.next += 1;
        let node = Node { id: *id, reach: Reach::default(), peers: Vec::new(), handshakes: None };
        self.table.insert(key, Box::new(node));
        self.by_id.insert(*id, key);
        key
    }

    pub(super) fn get(&self, key: NodeKey) -> Option<&Node> {
        self.table.get(&key).map(Box::as_ref)
    }

    /// Returns the peers that a node is, one per network.
    pub(super) fn peers_of(&self, id: &NodeId) -> Vec<PeerKey> {
        let node = self.by_id.get(id).and_then(|key| self.table.get(key));
        node.map_or_else(Vec::new, |node| node.peers().collect())
    }

    pub(super) fn keys(&self) -> Vec<NodeKey> {
        self.table.keys().copied().collect()
    }

    /// Adds a peer to its node.
    pub(super) fn add_peer(&mut self, key: NodeKey, peer: PeerKey, handle: Arc<Peer>) {
        let peers = &mut self[key].peers;
        // Most nodes are a peer in one network, so spare capacity would only cost memory.
        peers.reserve_exact(1);
        peers.push((peer, handle));
    }

    /// Removes a peer from its node, and forgets the node with its last peer.
    pub(super) fn remove_peer(&mut self, key: NodeKey, peer: PeerKey) {
        let Some(node) = self.table.get_mut(&key) else { return };
        node.peers.retain(|(known, _)| *known != peer);
        if node.peers.is_empty()
            && let Some(node) = self.table.remove(&key)
        {
            self.by_id.remove(&node.id);
            node.reach.place().iter().for_each(|place| _ = self.at.remove(&(place.key(), key)));
        }
    }

    /// Updates the index after a change of the node's path from `before`.
    pub(super) fn note_path(&mut self, key: NodeKey, before: Option<Place>) {
        before.iter().for_each(|place| _ = self.at.remove(&(place.key(), key)));
        let now = self.table.get(&key).and_then(|node| node.reach.place());
        self.at.extend(now.map(|place| (place.key(), key)));
    }

    /// Returns the peers of nodes whose paths lead to `place`, for at most a few nodes.
    pub(super) fn peers_at(&self, place: &PlaceKey) -> Vec<PeerKey> {
        // Bounded, because unauthenticated hints make this node look here, and many nodes may share one NAT
        // box.
        self.at(place).take(MAX_NODES_PER_ADDRESS).flat_map(|key| self[key].peers()).collect()
    }

    /// Returns the nodes whose paths lead to `place`.
    fn at(&self, place: &PlaceKey) -> impl Iterator<Item = NodeKey> {
        let range = (*place, NodeKey(0))..=(*place, NodeKey(u64::MAX));
        self.at.range(range).map(|(_, key)| *key)
    }

    /// Returns true if a node's path leads to `place`.
    pub(super) fn is_known(&self, place: &PlaceKey) -> bool {
        self.at(place).next().is_some()
    }

    /// Takes one handshake from the budget of the node whose path leads to `place`. Returns false if none is
    /// left or there is no such node.
    pub(super) fn take_handshake(&mut self, place: &PlaceKey, now: Instant) -> bool {
        // Only one node's budget counts, because the initiation is not read yet.
        let first = self.at(place).next();
        let Some(node) = first.and_then(|key| self.table.get_mut(&key)) else { return false };
        let rate = Rate::every(HANDSHAKE_INTERVAL, HANDSHAKE_BURST);
        // Enough for renewals and too little for a flood that forges the peer's address.
        rate.take(node.handshakes.get_or_insert(now), now)
    }
}

impl Index<NodeKey> for Nodes {
    type Output = Node;

    fn index(&self, key: NodeKey) -> &Node {
        self.table.get(&key).expect("a peer's node is known as long as the peer is")
    }
}

impl IndexMut<NodeKey> for Nodes {
    fn index_mut(&mut self, key: NodeKey) -> &mut Node {
        self.table.get_mut(&key).expect("a peer's node is known as long as the peer is")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Identity;
    use crate::reach::{SocketIndex, Source};
    use crate::testing::instant;

    #[test]
    fn each_node_has_handshakes_of_its_own_where_it_is_reached() {
        let (mut nodes, now) = (Nodes::default(), instant());
        let at = |port| {
            let remote = ([192, 0, 2, 1], port).into();
            Place::Direct { socket: SocketIndex(0), remote }
        };
        for port in [1, 2] {
            let key = nodes.find_or_add(&Identity::from_seed(&[port as u8; 32]).node_id());
            let place = at(port);
            nodes[key].reach.prove(place, Source::Handshake, now);
            nodes[key].reach.use_place(place, 1472, &[], now);
            nodes.note_path(key, None);
        }
        let mut take = |port, now| (0..100).filter(|_| nodes.take_handshake(&at(port).key(), now)).count();
        assert_eq!([1, 2, 3].map(|port| take(port, now)), [4, 4, 0]);
        let later = now + Duration::from_secs(20);
        // One handshake in ten seconds.
        assert_eq!([1, 2, 3].map(|port| take(port, later)), [2, 2, 0]);
    }
}
