//! Packets to groups: a copy for each member of the network.
//!
//! Peers that have reported that they are no members get none, see [`membership`](super::membership).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use peersock_overlay::{DATA_OVERHEAD, Event, NetworkIndex, NodeId, Peer};
use peersock_stack::{Batch, InterfaceId, MAX_DATAGRAM};

use crate::Datapath;
use crate::datagrams::BASE_DATAGRAM;
use crate::socket::PeerLink;
use peersock_primitives::sync;

/// Limit of peers per network that get a copy of a packet, in the order in which the node learned of them.
/// Further peers get none.
pub(super) const MAX_COPIES: usize = 1024;

/// Minimum interval of session requests for one peer by packets to groups, because it may be away for long.
const SESSION_REQUEST_INTERVAL: Duration = Duration::from_secs(60);

/// Peers of each network.
#[derive(Default)]
pub(super) struct Members(RwLock<BTreeMap<NetworkIndex, Known>>);

/// Peers of one network. The cost of a change does not grow with their number.
#[derive(Default)]
struct Known {
    /// Peers in the order in which the node learned of them.
    peers: BTreeMap<u64, Arc<Peer>>,
    places: BTreeMap<NodeId, u64>,
    next: u64,
    /// Copy for senders, made by the first send after a change.
    list: Option<Peers>,
}

/// List shared with current senders while the peers change.
type Peers = Arc<Vec<Arc<Peer>>>;

impl Known {
    fn add(&mut self, peer: &Arc<Peer>) {
        self.list = None;
        if let Some(before) = self.places.insert(*peer.id(), self.next) {
            self.peers.remove(&before);
        }
        self.peers.insert(self.next, Arc::clone(peer));
        self.next += 1;
    }

    fn remove(&mut self, peer: &Arc<Peer>) {
        let Some(&place) = self.places.get(peer.id()) else { return };
        // The same node may already be back as another peer.
        if self.peers.get(&place).is_some_and(|known| Arc::ptr_eq(known, peer)) {
            self.list = None;
            self.peers.remove(&place);
            self.places.remove(peer.id());
        }
    }
}

impl Members {
    /// Follows the events of control.
    pub(super) fn note(&self, event: &Event) {
        match event {
            Event::PeerAdded(peer) => self.write().entry(peer.network()).or_default().add(peer),
            Event::PeerRemoved(peer) => {
                let mut networks = self.write();
                let Some(known) = networks.get_mut(&peer.network()) else { return };
                known.remove(peer);
                if known.peers.is_empty() {
                    networks.remove(&peer.network());
                }
            }
            _ => {}
        }
    }

    pub(super) fn of(&self, network: NetworkIndex) -> Peers {
        let networks = sync::read(&self.0);
        match networks.get(&network) {
            None => return Peers::default(),
            Some(Known { list: Some(list), .. }) => return list.clone(),
            // The read lock ends here, because the list must be rebuilt under the write lock.
            Some(_) => drop(networks),
        }
        let mut networks = self.write();
        let Some(known) = networks.get_mut(&network) else { return Peers::default() };
        known.list.get_or_insert_with(|| Arc::new(known.peers.values().cloned().collect())).clone()
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<NetworkIndex, Known>> {
        sync::write(&self.0)
    }
}

/// Time at which a packet to a group last requested a session with a peer.
#[derive(Debug, Default)]
pub(super) struct Asked(Mutex<Option<Instant>>);

impl Asked {
    /// Returns true if a request is due, and records it.
    fn again(&self, now: Instant) -> bool {
        let mut asked = sync::lock(&self.0);
        let due = asked.is_none_or(|at| now.saturating_duration_since(at) >= SESSION_REQUEST_INTERVAL);
        if due {
            *asked = Some(now);
        }
        due
    }
}

impl Datapath {
    /// Sends a packet to the peers of a network that may be members of the group.
    pub(super) fn send_to_group(
        &self,
        now: Instant,
        interface: InterfaceId,
        group: IpAddr,
        packet: &[u8],
        batch: &mut Batch,
    ) {
        if !leaves_node(packet) {
            return;
        }
        let peers = self.peers_on(interface);
        let guarded = self.guarded(interface);
        let skipped = peers.len().saturating_sub(MAX_COPIES);
        self.counters.out_group_peers_skipped.add(skipped as u64);
        // A copy per peer, because fragments are cut in place.
        let mut copy = Vec::with_capacity(packet.len());
        for peer in peers.iter().take(MAX_COPIES) {
            if !PeerLink::of(peer).reported.wants(now, group) {
                self.counters.out_group_peers_left.increment();
                continue;
            }
            // Nobody is told, as of a group without members.
            if peer.sender().is_some()
                && let Some(network) = &guarded
                && self.refuses_outgoing(now, network, peer, packet, network.device.is_some())
            {
                continue;
            }
            copy.clear();
            copy.extend_from_slice(packet);
            if let Some(sender) = peer.sender() {
                self.send_sealed(now, interface, &sender, &mut copy, batch);
            } else if PeerLink::of(peer).asked.again(now)
                && let Some(address) = peer.addresses().first()
            {
                // The packet waits together with packets to the peer alone.
                let kept = self.lock_waiting().add_packet(now, true, interface, *address, &copy);
                self.counters.out_waiting_dropped.add(u64::from(!kept));
                self.go_on(now, peer, batch);
            }
        }
    }

    /// Returns the size of the largest IP packet that all peers take, bytes.
    pub(super) fn group_mtu(&self, interface: InterfaceId) -> usize {
        let size = |peer: &Arc<Peer>| peer.sender().map_or(BASE_DATAGRAM, |sender| sender.path.datagram_size);
        let sizes = self.peers_on(interface).iter().take(MAX_COPIES).map(size).min();
        sizes.map_or(MAX_DATAGRAM, |size| size - DATA_OVERHEAD)
    }

    pub(super) fn peers_on(&self, interface: InterfaceId) -> Peers {
        self.network_by_interface(interface).map(|index| self.members.of(index)).unwrap_or_default()
    }
}

/// Returns true if a packet to a group may leave this node: its hop limit is not 0 (RFC 1112 6.1), and the
/// scope of an IPv6 group exceeds the interface (RFC 4291 2.7).
fn leaves_node(packet: &[u8]) -> bool {
    match packet {
        [first, _, _, _, _, _, _, _, hop_limit, ..] if first >> 4 == 4 => *hop_limit > 0,
        [first, _, _, _, _, _, _, hop_limit, rest @ ..] if first >> 4 == 6 && rest.len() >= 32 => {
            let scope = rest[17] & 15;
            *hop_limit > 0 && scope > 1
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v6(hop_limit: u8, group: &str) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, 17, hop_limit];
        packet.extend([0; 16]);
        let group: IpAddr = group.parse().unwrap();
        let IpAddr::V6(group) = group else { panic!("IPv6") };
        packet.extend(group.octets());
        packet
    }

    #[test]
    fn the_scope_and_the_hop_limit_decide_what_leaves_the_node() {
        for group in ["ff02::1", "ff05::1:3", "ff08::99", "ff0e::1"] {
            assert!(leaves_node(&v6(1, group)), "{group}");
            assert!(!leaves_node(&v6(0, group)), "{group}");
        }
        assert!(!leaves_node(&v6(64, "ff01::1")));
        let mut v4 = [0; 20];
        (v4[0], v4[8], v4[16]) = (0x45, 1, 224);
        assert!(leaves_node(&v4));
        v4[8] = 0;
        assert!(!leaves_node(&v4));
        assert!(!leaves_node(&[]));
    }
}
