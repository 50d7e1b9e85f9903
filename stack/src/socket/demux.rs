//! Lookup of the socket for an arriving packet: one hash per port. Connections have a `flow_table`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::sync;
use crate::{InterfaceId, Scope, UdpRoute, UdpSocket};
use peersock_primitives::Key;

/// A socket bound to a local address and port, possibly on every interface or address.
pub(crate) trait Bound {
    /// Returns the interfaces that the socket uses.
    fn scope(&self) -> &Scope;
    /// Returns the address, unspecified for all of its family.
    fn local(&self) -> SocketAddr;

    /// Returns true if the socket accepts packets. A socket may be bound only.
    fn is_open(&self) -> bool {
        true
    }

    /// Returns the specificity of the match with a packet for `address` on `interface`; `None` if it does not
    /// match.
    fn score(&self, interface: InterfaceId, address: IpAddr) -> Option<u8> {
        let scope = self.scope();
        let local = self.local().ip();
        let suits = self.is_open()
            && scope.admits(interface)
            && local.is_ipv4() == address.is_ipv4()
            && (local.is_unspecified() || local == address);
        suits.then_some(u8::from(scope.device().is_some()) + 2 * u8::from(!local.is_unspecified()))
    }

    /// Returns true if the socket accepts packets from any sender.
    fn takes_strangers(&self) -> bool {
        true
    }

    /// Returns true if a packet could match both this socket and one bound to `address` in `scope`.
    fn overlaps(&self, scope: &Scope, address: IpAddr) -> bool {
        let local = self.local().ip();
        let same = local == address || local.is_unspecified() || address.is_unspecified();
        local.is_ipv4() == address.is_ipv4() && same && self.scope().meets(scope)
    }
}

/// Bound sockets of one kind, by port.
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
    /// Returns the best match for a packet; of equals, the newest.
    pub(crate) fn find(&self, interface: InterfaceId, destination: SocketAddr) -> Option<Arc<T>> {
        let ports = self.read();
        let bound = ports.get(&destination.port())?;
        let open = bound.iter().filter(|one| one.takes_strangers());
        let scored = open.filter_map(|one| Some((one.score(interface, destination.ip())?, one)));
        // Of equals, `max_by_key` takes the last, which is the youngest.
        scored.max_by_key(|&(score, _)| score).map(|(_, one)| one.clone())
    }

    /// Returns the best match for a packet; `spread` chooses among equals.
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
        // The hash behind `spread` is needed only if there is a choice.
        let at = if count > 1 { spread() % count } else { 0 };
        equals.nth(at as usize).cloned()
    }

    /// Does the same as [`find`](Self::find), but `spread` chooses among equals that `share`.
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

    /// Returns true if nothing is bound. Takes no lock.
    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }

    /// Returns all matches for a packet.
    pub(crate) fn matching(&self, interface: InterfaceId, destination: SocketAddr) -> Vec<Arc<T>> {
        let ports = self.read();
        let bound = ports.get(&destination.port()).into_iter().flatten();
        bound.filter(|one| one.score(interface, destination.ip()).is_some()).cloned().collect()
    }

    /// Adds the socket that `make` returns, unless `free` refuses because of the sockets on the port.
    pub(crate) fn insert<E>(
        &self,
        port: u16,
        free: impl FnOnce(&[Arc<T>]) -> Result<(), E>,
        make: impl FnOnce() -> Arc<T>,
    ) -> Result<Arc<T>, E> {
        // One lock for look and insertion, so that two binds cannot both find the port free.
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

    /// Returns true if a socket bound to `port` overlaps.
    pub(crate) fn occupied(&self, port: u16, scope: &Scope, address: IpAddr) -> bool {
        let ports = self.read();
        ports.get(&port).is_some_and(|bound| bound.iter().any(|one| one.overlaps(scope, address)))
    }

    /// Returns all sockets for which `wanted` returns true.
    pub(crate) fn filter(&self, wanted: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        self.read().values().flatten().filter(|one| wanted(one)).cloned().collect()
    }

    /// Removes all sockets.
    pub(crate) fn clear(&self) {
        let bound = std::mem::take(&mut *self.write());
        self.len.store(0, Ordering::Release);
        drop(bound);
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<u16, Vec<Arc<T>>>> {
        sync::read(&self.ports)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<u16, Vec<Arc<T>>>> {
        sync::write(&self.ports)
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
        sync::read(&self.routes).get(route).cloned()
    }

    /// Adds a socket; returns `false` if the route is taken.
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
        sync::write(&self.routes)
    }
}
