//! Which connection or socket an arriving packet belongs to: one hash for a connection, one for a port.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::keyed::Key;
use crate::{Flow, InterfaceId, UdpRoute, UdpSocket};

const SHARDS: usize = 16;

/// What tells one connection from every other, in a form that hashes fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlowKey {
    /// IPv4 addresses in their IPv4-mapped form; inner packets never have such IPv6 addresses.
    addresses: [[u8; 16]; 2],
    ports: u32,
    interface: u32,
}

impl FlowKey {
    pub(crate) fn new(interface: InterfaceId, local: SocketAddr, remote: SocketAddr) -> Self {
        Self::from_parts(interface, [local.ip(), remote.ip()], [local.port(), remote.port()])
    }

    /// The own address and port come first.
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

    /// The own address and port and the peer's, of a connection over IPv4 or not.
    pub(crate) fn endpoints(&self, v4: bool) -> (SocketAddr, SocketAddr) {
        let [local, remote] = self.addresses.map(|octets| match octets {
            [.., a, b, c, d] if v4 => IpAddr::from([a, b, c, d]),
            _ => IpAddr::from(octets),
        });
        (SocketAddr::new(local, self.local_port()), SocketAddr::new(remote, self.ports as u16))
    }

    /// A shard's lock is all that a skewed choice can crowd, so this need not be keyed.
    fn shard(&self) -> usize {
        (self.ports ^ self.ports >> 16 ^ self.ports >> 4) as usize % SHARDS
    }
}

impl Hash for FlowKey {
    /// All at once: hashers are slow at small pieces.
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

/// A flow under its key, which it holds itself: an entry takes eight bytes.
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

/// All connections, in every state.
///
/// Lock order: a flow's lock may be held when a shard's is taken, never the other way round.
pub(crate) struct FlowTable {
    shards: [RwLock<HashSet<Entry, Key>>; SHARDS],
    len: AtomicUsize,
    /// How many flows use each local port.
    ports: Mutex<HashMap<u16, usize>>,
}

impl FlowTable {
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        let key = Key::new(seed, "flow table");
        Self {
            shards: std::array::from_fn(|_| RwLock::new(HashSet::with_hasher(key.clone()))),
            len: AtomicUsize::new(0),
            ports: Mutex::default(),
        }
    }

    pub(crate) fn find(&self, key: &FlowKey) -> Option<Arc<Flow>> {
        self.read(key.shard()).get(key).map(|entry| entry.0.clone())
    }

    /// Enters a flow; `false` if its place is taken.
    pub(crate) fn insert(&self, flow: &Arc<Flow>) -> bool {
        let key = flow.key();
        if !self.write(key.shard()).insert(Entry(flow.clone())) {
            return false;
        }
        self.len.fetch_add(1, Ordering::Relaxed);
        *self.lock_ports().entry(key.local_port()).or_default() += 1;
        true
    }

    pub(crate) fn remove(&self, key: &FlowKey) {
        // Dropped after the locks are released: a flow's end may take others.
        let removed = self.write(key.shard()).take(key);
        if removed.is_none() {
            return;
        }
        self.len.fetch_sub(1, Ordering::Relaxed);
        let mut ports = self.lock_ports();
        if let Some(users) = ports.get_mut(&key.local_port()) {
            *users -= 1;
            if *users == 0 {
                ports.remove(&key.local_port());
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether any flow has this local port.
    pub(crate) fn uses_port(&self, port: u16) -> bool {
        self.lock_ports().contains_key(&port)
    }

    /// The flows that `wanted` accepts.
    pub(crate) fn filter(&self, wanted: impl Fn(&Flow) -> bool) -> Vec<Arc<Flow>> {
        let matching = |shard: usize| -> Vec<_> {
            self.read(shard).iter().filter(|entry| wanted(&entry.0)).map(|entry| entry.0.clone()).collect()
        };
        (0..SHARDS).flat_map(matching).collect()
    }

    /// Forgets all flows, so that those whom nobody else holds are freed.
    pub(crate) fn clear(&self) {
        for shard in 0..SHARDS {
            let flows: Vec<_> = self.write(shard).drain().collect();
            self.len.fetch_sub(flows.len(), Ordering::Relaxed);
        }
        self.lock_ports().clear();
    }

    fn read(&self, shard: usize) -> RwLockReadGuard<'_, HashSet<Entry, Key>> {
        self.shards[shard].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, shard: usize) -> RwLockWriteGuard<'_, HashSet<Entry, Key>> {
        self.shards[shard].write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_ports(&self) -> MutexGuard<'_, HashMap<u16, usize>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something bound to a local address and port, perhaps on every interface or address.
pub(crate) trait Bound {
    /// The interface, `None` for all.
    fn interface(&self) -> Option<InterfaceId>;
    /// The address, unspecified for all of its family.
    fn local(&self) -> SocketAddr;

    /// Whether it takes packets at all: it may only be bound.
    fn is_open(&self) -> bool {
        true
    }

    /// How well it suits a packet for `address` on `interface`: the more it asks for, the better;
    /// `None` if it does not.
    fn score(&self, interface: InterfaceId, address: IpAddr) -> Option<u8> {
        let own = self.interface();
        let local = self.local().ip();
        let suits = self.is_open()
            && own.is_none_or(|own| own == interface)
            && local.is_ipv4() == address.is_ipv4()
            && (local.is_unspecified() || local == address);
        suits.then_some(u8::from(own.is_some()) + 2 * u8::from(!local.is_unspecified()))
    }

    /// Whether it takes packets from whoever sends them.
    fn takes_strangers(&self) -> bool {
        true
    }

    /// Whether a packet could suit this and a socket bound to `interface` and `address`.
    fn overlaps(&self, interface: Option<InterfaceId>, address: IpAddr) -> bool {
        let local = self.local().ip();
        let meet = match (self.interface(), interface) {
            (Some(own), Some(other)) => own == other,
            _ => true,
        };
        let same = local == address || local.is_unspecified() || address.is_unspecified();
        meet && local.is_ipv4() == address.is_ipv4() && same
    }
}

/// Everything of one kind that is bound, by port.
pub(crate) struct Binds<T> {
    ports: RwLock<HashMap<u16, Vec<Arc<T>>>>,
    len: AtomicUsize,
}

impl<T> Default for Binds<T> {
    fn default() -> Self {
        Self { ports: RwLock::default(), len: AtomicUsize::new(0) }
    }
}

impl<T: Bound> Binds<T> {
    /// The one that suits a packet best; of equals the youngest.
    pub(crate) fn find(&self, interface: InterfaceId, destination: SocketAddr) -> Option<Arc<T>> {
        let ports = self.read();
        let bound = ports.get(&destination.port())?;
        let open = bound.iter().filter(|one| one.takes_strangers());
        let scored = open.filter_map(|one| Some((one.score(interface, destination.ip())?, one)));
        scored.max_by_key(|&(score, _)| score).map(|(_, one)| one.clone())
    }

    /// The one that suits a packet best; equals share, and `spread` says whose part it is.
    pub(crate) fn find_spread(
        &self,
        interface: InterfaceId,
        destination: SocketAddr,
        spread: impl FnOnce() -> u64,
    ) -> Option<Arc<T>> {
        let ports = self.read();
        let bound = ports.get(&destination.port())?;
        let score = |one: &T| one.score(interface, destination.ip());
        let best = bound.iter().filter_map(|one| score(one)).max()?;
        let mut equals = bound.iter().filter(|one| score(one) == Some(best));
        let count = equals.clone().count() as u64;
        let at = if count > 1 { spread() % count } else { 0 };
        equals.nth(at as usize).cloned()
    }

    /// As [`find`](Self::find), but of equals that all `share` the one that `spread` gives.
    pub(crate) fn find_shared(
        &self,
        interface: InterfaceId,
        destination: SocketAddr,
        share: impl Fn(&T) -> bool,
        spread: impl FnOnce() -> u64,
    ) -> Option<Arc<T>> {
        let ports = self.read();
        let bound = ports.get(&destination.port())?;
        let score = |one: &T| one.score(interface, destination.ip()).filter(|_| one.takes_strangers());
        let (best, found) =
            bound.iter().filter_map(|one| Some((score(one)?, one))).max_by_key(|&(score, _)| score)?;
        if !share(found) {
            return Some(found.clone());
        }
        let mut equals = bound.iter().filter(|one| score(one) == Some(best) && share(one));
        let count = equals.clone().count() as u64;
        let at = if count > 1 { spread() % count } else { 0 };
        equals.nth(at as usize).cloned()
    }

    /// Whether nothing is bound. Takes no lock.
    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }

    /// All that suit a packet.
    pub(crate) fn matching(&self, interface: InterfaceId, destination: SocketAddr) -> Vec<Arc<T>> {
        let ports = self.read();
        let bound = ports.get(&destination.port()).into_iter().flatten();
        bound.filter(|one| one.score(interface, destination.ip()).is_some()).cloned().collect()
    }

    /// Enters what `make` gives, unless something there stands in the way.
    pub(crate) fn insert<E>(
        &self,
        port: u16,
        free: impl FnOnce(&[Arc<T>]) -> Result<(), E>,
        make: impl FnOnce() -> Arc<T>,
    ) -> Result<Arc<T>, E> {
        let mut ports = self.write();
        free(ports.get(&port).map_or(&[], Vec::as_slice))?;
        let one = make();
        ports.entry(port).or_default().push(one.clone());
        self.len.fetch_add(1, Ordering::Release);
        Ok(one)
    }

    pub(crate) fn remove(&self, port: u16, one: &T) {
        let mut ports = self.write();
        if let Some(bound) = ports.get_mut(&port) {
            let before = bound.len();
            bound.retain(|other| !std::ptr::eq(Arc::as_ptr(other), one));
            self.len.fetch_sub(before - bound.len(), Ordering::Release);
            if bound.is_empty() {
                ports.remove(&port);
            }
        }
    }

    /// Whether anything bound to `port` overlaps.
    pub(crate) fn occupied(&self, port: u16, interface: Option<InterfaceId>, address: IpAddr) -> bool {
        let ports = self.read();
        ports.get(&port).is_some_and(|bound| bound.iter().any(|one| one.overlaps(interface, address)))
    }

    /// All that `wanted` accepts.
    pub(crate) fn filter(&self, wanted: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        self.read().values().flatten().filter(|one| wanted(one)).cloned().collect()
    }

    /// Forgets all.
    pub(crate) fn clear(&self) {
        let bound = std::mem::take(&mut *self.write());
        self.len.store(0, Ordering::Release);
        drop(bound);
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<u16, Vec<Arc<T>>>> {
        self.ports.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<u16, Vec<Arc<T>>>> {
        self.ports.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connected UDP sockets by their pair of addresses.
pub(crate) struct ConnectedUdp {
    routes: RwLock<HashMap<UdpRoute, Arc<UdpSocket>, Key>>,
}

impl ConnectedUdp {
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        Self { routes: RwLock::new(HashMap::with_hasher(Key::new(seed, "udp table"))) }
    }

    pub(crate) fn find(&self, route: &UdpRoute) -> Option<Arc<UdpSocket>> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).get(route).cloned()
    }

    /// Enters a socket; `false` if its place is taken.
    pub(crate) fn insert(&self, route: UdpRoute, socket: &Arc<UdpSocket>) -> bool {
        let mut routes = self.write();
        let free = !routes.contains_key(&route);
        if free {
            routes.insert(route, socket.clone());
        }
        free
    }

    pub(crate) fn remove(&self, route: &UdpRoute) {
        let removed = self.write().remove(route);
        drop(removed);
    }

    pub(crate) fn clear(&self) {
        let routes: Vec<_> = self.write().drain().collect();
        drop(routes);
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<UdpRoute, Arc<UdpSocket>, Key>> {
        self.routes.write().unwrap_or_else(PoisonError::into_inner)
    }
}
