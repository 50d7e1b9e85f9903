//! Joined networks, and the choice among them by destination.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use crate::ip::source;
use crate::sync;
use crate::{Cidr, InterfaceConfig, InterfaceId, Scope};

/// One joined network as sockets see it. New addresses make a new value with the same identifier.
pub(crate) struct Interface {
    pub(crate) id: InterfaceId,
    pub(crate) checksums: bool,
    ports: RangeInclusive<u16>,
    addresses: Vec<Cidr>,
    routes: Vec<Cidr>,
}

impl Interface {
    /// Returns true if the network allows `port` as a service's.
    pub(crate) fn allows(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }

    pub(crate) fn is_local(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.address() == address)
    }

    /// Returns the local address from which to reach `remote`.
    pub(crate) fn source_for(&self, remote: IpAddr) -> Option<IpAddr> {
        source::choose(&self.addresses, remote)
    }

    /// Returns the longest prefix of the interface's networks that contains `remote`.
    fn route_to(&self, remote: IpAddr) -> Option<u8> {
        self.addresses.iter().chain(&self.routes).filter(|own| own.contains(remote)).map(Cidr::prefix).max()
    }
}

/// All interfaces by identifier.
#[derive(Default)]
pub(crate) struct Interfaces {
    table: RwLock<Table>,
    /// Version of the table, unique among all tables of all stacks.
    version: AtomicU64,
}

/// Last version given to a table.
static LAST_VERSION: AtomicU64 = AtomicU64::new(0);

/// A cached look-up of an interface. Packets come in bursts from one interface, and checking the version
/// takes no lock.
pub(crate) struct Cached {
    version: u64,
    interface: Arc<Interface>,
}

impl Cached {
    pub(crate) fn interface(&self) -> &Arc<Interface> {
        &self.interface
    }
}

#[derive(Default)]
struct Table {
    last: u32,
    /// Interfaces in order, so that equal routes always give the same result.
    entries: BTreeMap<InterfaceId, Arc<Interface>>,
}

impl Table {
    /// Returns the interfaces that a scope admits, in order.
    fn of(&self, scope: &Scope) -> impl Iterator<Item = &Arc<Interface>> {
        self.entries.values().filter(|interface| scope.admits(interface.id))
    }
}

impl Interfaces {
    /// Returns true if an interface of the scope allows `port`, or if there is none yet, because a later one
    /// may.
    pub(crate) fn any_allows(&self, scope: &Scope, port: u16) -> bool {
        let table = sync::read(&self.table);
        table.entries.is_empty()
            || scope.is_empty()
            || table.of(scope).any(|interface| interface.allows(port))
    }

    pub(crate) fn add(&self, config: InterfaceConfig) -> InterfaceId {
        let mut table = sync::write(&self.table);
        // Identifiers are never reused, so that a stale one finds nothing.
        table.last += 1;
        let id = InterfaceId(table.last);
        let InterfaceConfig { name: _, addresses, routes, ports, checksums } = config;
        let interface = Interface { id, checksums, ports, addresses, routes };
        table.entries.insert(id, Arc::new(interface));
        self.changed();
        id
    }

    pub(crate) fn remove(&self, id: InterfaceId) -> Option<Arc<Interface>> {
        let mut table = sync::write(&self.table);
        let removed = table.entries.remove(&id);
        self.changed();
        removed
    }

    /// Replaces the addresses; returns true if the interface exists.
    pub(crate) fn set_addresses(&self, id: InterfaceId, addresses: &[Cidr]) -> bool {
        let mut table = sync::write(&self.table);
        let Some(interface) = table.entries.get_mut(&id) else { return false };
        let Interface { checksums, ports, routes, .. } = &**interface;
        let (checksums, ports, routes) = (*checksums, ports.clone(), routes.clone());
        // Packets in work may still hold the old interface, so it is replaced as a whole.
        *interface = Arc::new(Interface { id, checksums, ports, addresses: addresses.to_vec(), routes });
        self.changed();
        true
    }

    /// Sets a new version. Call it before the lock is released.
    fn changed(&self) {
        self.version.store(LAST_VERSION.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// Finds an interface as [`find`](Self::find) does, without a lock if `cached`, the last result, is still
    /// valid.
    pub(crate) fn find_again(&self, id: InterfaceId, cached: Option<Cached>) -> Option<Cached> {
        // The version is read first, so that a change in between makes the entry outdated, not wrong.
        let version = self.version.load(Ordering::Acquire);
        let valid = |cached: &Cached| cached.version == version && cached.interface.id == id;
        cached.filter(valid).or_else(|| Some(Cached { version, interface: self.find(id)? }))
    }

    pub(crate) fn find(&self, id: InterfaceId) -> Option<Arc<Interface>> {
        self.read().entries.get(&id).cloned()
    }

    /// Returns the interface of the scope whose network contains `remote`, by the longest prefix.
    pub(crate) fn route(&self, scope: &Scope, remote: IpAddr) -> Option<Arc<Interface>> {
        let table = self.read();
        // The longest prefix wins, as in a kernel's table, also between interfaces.
        let routes = table.of(scope).filter_map(|one| Some((one.route_to(remote)?, one)));
        // Of equal prefixes, the first interface in the order of the table wins.
        routes.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, one)| one.clone())
    }

    /// Returns the first interface of the scope that has an address of the family of `other`.
    pub(crate) fn first_with(&self, scope: &Scope, other: IpAddr) -> Option<Arc<Interface>> {
        let of_family = |interface: &Interface| {
            interface.addresses.iter().any(|own| own.address().is_ipv4() == other.is_ipv4())
        };
        self.read().of(scope).find(|interface| of_family(interface)).cloned()
    }

    /// Returns the interface of the scope that has `address`.
    pub(crate) fn owner(&self, scope: &Scope, address: IpAddr) -> Option<Arc<Interface>> {
        self.read().of(scope).find(|interface| interface.is_local(address)).cloned()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        sync::read(&self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_up_is_used_until_the_table_changes() {
        let interfaces = [Interfaces::default(), Interfaces::default()];
        let add =
            |table: &Interfaces, own: &str| table.add(InterfaceConfig::new("net", [own.parse().unwrap()]));
        let id = add(&interfaces[0], "10.0.0.1/8");
        assert_eq!(add(&interfaces[1], "10.0.0.2/8"), id);
        let is = |cached: &Option<Cached>, own: &str| {
            cached.as_ref().is_some_and(|cached| cached.interface().is_local(own.parse().unwrap()))
        };
        let mut cached = interfaces[0].find_again(id, None);
        assert!(is(&cached, "10.0.0.1"));
        cached = interfaces[1].find_again(id, cached);
        assert!(is(&cached, "10.0.0.2"), "another stack");
        interfaces[1].set_addresses(id, &["10.0.0.3/8".parse().unwrap()]);
        cached = interfaces[1].find_again(id, cached);
        assert!(is(&cached, "10.0.0.3") && !is(&cached, "10.0.0.2"));
        interfaces[1].remove(id);
        assert!(interfaces[1].find_again(id, cached).is_none());
    }

    #[test]
    fn the_longest_prefix_routes_and_chooses_the_source() {
        let interfaces = Interfaces::default();
        let wide = ["10.0.0.1/8".parse().unwrap(), "10.9.0.1/16".parse().unwrap()];
        let wide = interfaces.add(InterfaceConfig::new("wide", wide));
        let narrow = interfaces.add(InterfaceConfig::new("narrow", ["10.1.0.1/16".parse().unwrap()]));
        let route =
            |to: &str| interfaces.route(&Scope::default(), to.parse().unwrap()).map(|interface| interface.id);
        assert_eq!(route("10.1.2.3"), Some(narrow));
        assert_eq!(route("10.2.2.3"), Some(wide));
        assert_eq!(route("192.0.2.1"), None);
        let wide = interfaces.find(wide).unwrap();
        assert_eq!(wide.source_for("10.9.3.3".parse().unwrap()), Some("10.9.0.1".parse().unwrap()));
        assert_eq!(wide.source_for("10.2.2.3".parse().unwrap()), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(wide.source_for("fd00::1".parse().unwrap()), None);
    }

    #[test]
    fn a_route_leads_to_where_the_node_has_no_address_also_with_new_addresses() {
        let interfaces = Interfaces::default();
        let routes = vec!["192.0.2.0/24".parse().unwrap()];
        let own = ["10.0.0.1/8".parse().unwrap()];
        let id = interfaces.add(InterfaceConfig { routes, ..InterfaceConfig::new("net", own) });
        let route =
            |to: &str| interfaces.route(&Scope::default(), to.parse().unwrap()).map(|interface| interface.id);
        assert_eq!((route("192.0.2.9"), route("192.0.3.9")), (Some(id), None));
        interfaces.set_addresses(id, &["10.0.0.2/8".parse().unwrap()]);
        assert_eq!(route("192.0.2.9"), Some(id));
        let source = interfaces.find(id).unwrap().source_for("192.0.2.9".parse().unwrap());
        assert_eq!(source, Some("10.0.0.2".parse().unwrap()));
    }
}
