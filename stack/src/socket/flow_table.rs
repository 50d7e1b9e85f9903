//! All connections by addresses and ports, by the peer's address, and the memory account of each peer.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet, hash_map};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::sync;
use crate::tcp::{Memory, Share};
use crate::{Cidr, Flow, InterfaceId};
use peersock_primitives::Key;

// Several locks, so that threads seldom wait for one another.
const SHARDS: usize = 16;

/// Key of a connection, in a form that hashes fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlowKey {
    /// Addresses, local and remote. IPv4 addresses are IPv4-mapped; packets never contain such IPv6
    /// addresses.
    addresses: [[u8; 16]; 2],
    ports: u32,
    interface: u32,
}

/// Address of a peer, and the interface.
type PeerKey = ([u8; 16], u32);

impl FlowKey {
    pub(crate) fn new(interface: InterfaceId, local: SocketAddr, remote: SocketAddr) -> Self {
        Self::from_parts(interface, [local.ip(), remote.ip()], [local.port(), remote.port()])
    }

    /// Returns the key of a connection; the local address and port come first.
    pub(crate) fn from_parts(interface: InterfaceId, addresses: [IpAddr; 2], ports: [u16; 2]) -> Self {
        Self {
            addresses: addresses.map(octets),
            ports: u32::from(ports[0]) << 16 | u32::from(ports[1]),
            interface: interface.0,
        }
    }

    fn local_port(&self) -> u16 {
        (self.ports >> 16) as u16
    }

    fn peer(&self) -> PeerKey {
        (self.addresses[1], self.interface)
    }

    /// Returns the local address and port, as IPv4 if `v4`.
    pub(crate) fn local(&self, v4: bool) -> SocketAddr {
        SocketAddr::new(address(self.addresses[0], v4), self.local_port())
    }

    /// Returns the peer's address and port.
    pub(crate) fn remote(&self, v4: bool) -> SocketAddr {
        SocketAddr::new(address(self.addresses[1], v4), self.ports as u16)
    }

    /// Returns the number of the shard.
    fn shard(&self) -> usize {
        // The hash needs no key, because a chosen collision only crowds one shard's lock.
        (self.ports ^ self.ports >> 16 ^ self.ports >> 4) as usize % SHARDS
    }
}

impl Hash for FlowKey {
    /// Hashes all fields in one write, because hashers are slow with small pieces.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut bytes = [0; 40];
        bytes[..32].copy_from_slice(self.addresses.as_flattened());
        bytes[32..36].copy_from_slice(&self.ports.to_ne_bytes());
        bytes[36..].copy_from_slice(&self.interface.to_ne_bytes());
        state.write(&bytes);
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Reverses [`octets`].
fn address(octets: [u8; 16], v4: bool) -> IpAddr {
    let [.., a, b, c, d] = octets;
    if v4 { IpAddr::from([a, b, c, d]) } else { IpAddr::from(octets) }
}

/// A flow in the table. The key lies in the flow, so an entry takes eight bytes.
struct Entry(Arc<Flow>);

impl Borrow<FlowKey> for Entry {
    fn borrow(&self) -> &FlowKey {
        self.0.key()
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl Eq for Entry {}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key().hash(state);
    }
}

/// All connections in every state.
///
/// Lock order: a flow, the index, a shard. No lock is taken while a later one is held.
pub(crate) struct FlowTable {
    shards: [RwLock<HashSet<Entry, Key>>; SHARDS],
    len: AtomicUsize,
    /// Data that changes only when connections come and go.
    index: Mutex<Index>,
    /// Number of flows visited one by one.
    #[cfg(test)]
    looked_at: AtomicUsize,
}

struct Index {
    /// Number of flows on each local port.
    ports: HashMap<u16, usize, Key>,
    /// Connections by the peer's address.
    peers: HashMap<PeerKey, Peer, Key>,
    /// Account of each peer, by the peer's representative address. It outlives the flows while a connection
    /// has unread data.
    accounts: HashMap<PeerKey, Arc<Share>, Key>,
    /// Number of accounts at which unused ones are removed.
    most_accounts: usize,
}

/// Connections with one address; there is at least one.
struct Peer {
    /// Flows; each knows its position, so that removal needs no search.
    flows: Vec<Arc<Flow>>,
    /// Account of the peer that has the address; it counts the flows.
    share: Arc<Share>,
}

/// Number of accounts below which unused ones are kept.
const ACCOUNTS: usize = 64;

impl FlowTable {
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        let key = Key::new(seed, "flow table");
        let ports = HashMap::with_hasher(Key::new(seed, "port table"));
        let peers = HashMap::with_hasher(Key::new(seed, "peer table"));
        let accounts = HashMap::with_hasher(Key::new(seed, "account table"));
        let index = Index { ports, peers, accounts, most_accounts: ACCOUNTS };
        Self {
            shards: std::array::from_fn(|_| RwLock::new(HashSet::with_hasher(key.clone()))),
            len: AtomicUsize::new(0),
            index: Mutex::new(index),
            #[cfg(test)]
            looked_at: AtomicUsize::new(0),
        }
    }

    pub(crate) fn find(&self, key: &FlowKey) -> Option<Arc<Flow>> {
        self.read(key.shard()).get(key).map(|entry| entry.0.clone())
    }

    /// Returns the account of the peer that has the address `remote` and is represented by `owner`; a new one
    /// if there is none.
    pub(crate) fn share(
        &self,
        interface: InterfaceId,
        remote: IpAddr,
        owner: IpAddr,
        node: &Arc<Memory>,
    ) -> Arc<Share> {
        let mut index = self.lock_index();
        let share = index.account((octets(owner), interface.0), node);
        // The address may have belonged to another peer before.
        if let Some(peer) = index.peers.get_mut(&(octets(remote), interface.0)) {
            peer.belong_to(&share);
        }
        share
    }

    /// Adds a flow with the account `share`; returns `false` if the key is taken.
    pub(crate) fn insert(&self, flow: &Arc<Flow>, share: &Arc<Share>) -> bool {
        let key = flow.key();
        let mut index = self.lock_index();
        // The shard decides: of two calls for one place, only one may enter the index.
        if !self.write(key.shard()).insert(Entry(flow.clone())) {
            return false;
        }
        self.len.fetch_add(1, Ordering::Relaxed);
        index.insert(flow, share);
        true
    }

    pub(crate) fn remove(&self, key: &FlowKey) {
        // Dropped after the locks are released, because the drop of a flow may take other locks.
        let removed = {
            let mut index = self.lock_index();
            let removed = self.write(key.shard()).take(key);
            removed.map(|entry| (index.remove(&entry.0), entry))
        };
        if removed.is_some() {
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Returns true if any flow has this local port.
    pub(crate) fn uses_port(&self, port: u16) -> bool {
        self.lock_index().ports.contains_key(&port)
    }

    /// Returns the flows to the addresses of a peer. Visits no other flow; for a block of addresses, it
    /// visits every peer once.
    pub(crate) fn of_peer(&self, interface: InterfaceId, remote: Cidr) -> Vec<Arc<Flow>> {
        let index = self.lock_index();
        let mut found = Vec::new();
        // A single address is one look-up, so a peer that moves often costs only its own flows.
        if remote == Cidr::from(remote.address()) {
            if let Some(peer) = index.peers.get(&(octets(remote.address()), interface.0)) {
                found.extend_from_slice(&peer.flows);
            }
        } else {
            let within = |flow: &Flow| flow.is_on(interface) && remote.contains(flow.remote().ip());
            for peer in
                index.peers.values().filter(|peer| peer.flows.first().is_some_and(|first| within(first)))
            {
                found.extend_from_slice(&peer.flows);
            }
        }
        self.count(found.len());
        found
    }

    /// Returns the flows for which `wanted` returns true, of all. `wanted` must not lock them.
    pub(crate) fn filter(&self, wanted: impl Fn(&Flow) -> bool) -> Vec<Arc<Flow>> {
        let matching = |shard: usize| -> Vec<_> {
            let flows = self.read(shard);
            self.count(flows.len());
            flows.iter().filter(|entry| wanted(&entry.0)).map(|entry| entry.0.clone()).collect()
        };
        (0..SHARDS).flat_map(matching).collect()
    }

    /// Returns a sixteenth of the flows, chosen by `turn`.
    pub(crate) fn part(&self, turn: usize) -> Vec<Arc<Flow>> {
        self.read(turn % SHARDS).iter().map(|entry| entry.0.clone()).collect()
    }

    /// Counts flows visited one by one, for tests.
    #[cfg(test)]
    fn count(&self, flows: usize) {
        self.looked_at.fetch_add(flows, Ordering::Relaxed);
    }

    #[cfg(not(test))]
    fn count(&self, _: usize) {}

    /// Removes all flows, so that unreferenced flows are freed.
    pub(crate) fn clear(&self) {
        let mut index = self.lock_index();
        index.ports.clear();
        let mut flows: Vec<_> = index.peers.drain().flat_map(|(_, peer)| peer.flows).map(Entry).collect();
        for shard in 0..SHARDS {
            flows.extend(self.write(shard).drain());
        }
        self.len.store(0, Ordering::Relaxed);
        // The flows are dropped after the locks, because the drop of a flow may take other locks.
        drop(index);
    }

    fn read(&self, shard: usize) -> RwLockReadGuard<'_, HashSet<Entry, Key>> {
        sync::read(&self.shards[shard])
    }

    fn write(&self, shard: usize) -> RwLockWriteGuard<'_, HashSet<Entry, Key>> {
        sync::write(&self.shards[shard])
    }

    fn lock_index(&self) -> MutexGuard<'_, Index> {
        sync::lock(&self.index)
    }
}

impl Index {
    /// Returns the account of a peer, a new one if there is none.
    fn account(&mut self, owner: PeerKey, node: &Arc<Memory>) -> Arc<Share> {
        if self.accounts.len() >= self.most_accounts && !self.accounts.contains_key(&owner) {
            // Only the table refers to such an account, so no connection is charged to it.
            self.accounts.retain(|_, share| Arc::strong_count(share) > 1);
            self.most_accounts = ACCOUNTS.max(2 * self.accounts.len());
        }
        // The account outlives its flows, so that opening and resetting connections in turn gains a peer
        // nothing.
        self.accounts.entry(owner).or_insert_with(|| Arc::new(Share::new(node))).clone()
    }

    fn insert(&mut self, flow: &Arc<Flow>, share: &Arc<Share>) {
        let key = flow.key();
        *self.ports.entry(key.local_port()).or_default() += 1;
        let peer = self.peers.entry(key.peer()).or_insert_with(|| Peer::new(share.clone()));
        peer.share.add_flows(1);
        flow.set_position(peer.flows.len());
        peer.flows.push(flow.clone());
    }

    /// Removes a flow and entries that only it needed; returns it so that the caller drops it.
    fn remove(&mut self, flow: &Flow) -> Option<Arc<Flow>> {
        let key = flow.key();
        if let hash_map::Entry::Occupied(mut users) = self.ports.entry(key.local_port()) {
            *users.get_mut() -= 1;
            if *users.get() == 0 {
                users.remove();
            }
        }
        let hash_map::Entry::Occupied(mut found) = self.peers.entry(key.peer()) else { return None };
        let peer = found.get_mut();
        let position = flow.position();
        let removed = peer.flows.swap_remove(position);
        // `swap_remove` has moved the last flow to this place.
        if let Some(moved) = peer.flows.get(position) {
            moved.set_position(position);
        }
        peer.share.remove_flows(1);
        if peer.flows.is_empty() {
            found.remove();
        }
        Some(removed)
    }
}

impl Peer {
    fn new(share: Arc<Share>) -> Self {
        Self { flows: Vec::new(), share }
    }

    /// Moves the address to another peer's account. Memory of its existing connections stays charged to their
    /// old account.
    fn belong_to(&mut self, share: &Arc<Share>) {
        if !Arc::ptr_eq(&self.share, share) {
            self.share.remove_flows(self.flows.len());
            share.add_flows(self.flows.len());
            self.share = share.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::testing::stack;
    use crate::{Batch, Departure, TcpOptions};

    /// A peer that changes its instance or path has its own flows visited each time, and no others.
    #[test]
    fn what_a_peer_causes_costs_its_own_flows() {
        let (stack, net, now) = stack();
        let peer = |number: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a01_0000 + number));
        let connect = |number: u32| {
            let remote = SocketAddr::new(peer(number), 80);
            stack.tcp_connect(now, net, None, remote, TcpOptions::default()).unwrap()
        };
        let flows: Vec<_> = (0..500).flat_map(|number| [connect(number), connect(number)]).collect();
        let table = &stack.shared.flows;
        let mut batch = Batch::new();
        let looked_at = || table.looked_at.swap(0, Ordering::Relaxed);
        looked_at();
        stack.lose_peer(now, net, &[peer(3).into()], Departure::Presumed, |_| true, &mut batch);
        assert_eq!(looked_at(), 2);
        stack.revive_flows(net, &[peer(3).into(), peer(4).into()], &mut batch);
        assert_eq!(looked_at(), 4);
        stack.expedite_flows(net, &[peer(600).into()], &mut batch);
        assert_eq!(looked_at(), 0);
        stack.expedite_flows(net, &[peer(5).into()], &mut batch);
        assert_eq!((looked_at(), batch.flows.len()), (2, 2));

        // One account serves all flows of a peer and ends with the last flow; few unused accounts are kept.
        let node = &stack.shared.memory;
        let share = table.share(net, peer(7), peer(7), node);
        assert_eq!(share.flows(), 2);
        assert!(Arc::ptr_eq(&share, &table.share(net, peer(7), peer(7), node)));
        drop(share);
        // An address that has moved to another peer counts there.
        let other = table.share(net, peer(8), peer(7), node);
        assert_eq!(other.flows(), 4);
        assert_eq!(table.share(net, peer(8), peer(8), node).flows(), 2);
        assert_eq!(other.flows(), 2);
        flows.iter().for_each(|flow| flow.close(now));
        assert_eq!(other.flows(), 0);
        drop(other);
        (0..5000).for_each(|number| drop(table.share(net, peer(number), peer(number), node)));
        assert!(table.lock_index().accounts.len() <= 2 * ACCOUNTS);

        // A removed flow is not found again and leaves nothing behind.
        assert_eq!(table.of_peer(net, peer(9).into()).len(), 0);
        let index = table.lock_index();
        assert_eq!((table.len(), index.ports.len(), index.peers.len()), (0, 0, 0));
    }
}
