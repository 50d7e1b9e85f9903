//! The networks that the node has joined, and which of them leads where.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, PoisonError, RwLock};

use crate::{Cidr, InterfaceConfig, InterfaceId, source};

/// One joined network as sockets see it.
pub(crate) struct Interface {
    pub(crate) id: InterfaceId,
    pub(crate) checksums: bool,
    ports: RangeInclusive<u16>,
    addresses: RwLock<Vec<Cidr>>,
}

impl Interface {
    /// Whether the network allows `port` as a service's.
    pub(crate) fn allows(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }

    pub(crate) fn is_local(&self, address: IpAddr) -> bool {
        self.read().iter().any(|own| own.address() == address)
    }

    /// The own address to reach `remote` from.
    pub(crate) fn source_for(&self, remote: IpAddr) -> Option<IpAddr> {
        source::choose(&self.read(), remote)
    }

    /// How long a prefix the interface's networks share with `remote`, if it lies in one of them.
    fn route_to(&self, remote: IpAddr) -> Option<u8> {
        self.read().iter().filter(|own| own.contains(remote)).map(Cidr::prefix).max()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Vec<Cidr>> {
        self.addresses.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All of them, by identifier.
#[derive(Default)]
pub(crate) struct Interfaces {
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    last: u32,
    /// Ordered, so that equal routes are decided the same way each time.
    entries: BTreeMap<InterfaceId, Arc<Interface>>,
}

impl Interfaces {
    pub(crate) fn add(&self, config: InterfaceConfig) -> InterfaceId {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.last += 1;
        let id = InterfaceId(table.last);
        let interface = Interface {
            id,
            checksums: config.checksums,
            ports: config.ports,
            addresses: RwLock::new(config.addresses),
        };
        table.entries.insert(id, Arc::new(interface));
        id
    }

    pub(crate) fn remove(&self, id: InterfaceId) -> Option<Arc<Interface>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner).entries.remove(&id)
    }

    /// Replaces the addresses; says whether the interface exists.
    pub(crate) fn set_addresses(&self, id: InterfaceId, addresses: &[Cidr]) -> bool {
        let Some(interface) = self.find(id) else { return false };
        *interface.addresses.write().unwrap_or_else(PoisonError::into_inner) = addresses.to_vec();
        true
    }

    pub(crate) fn find(&self, id: InterfaceId) -> Option<Arc<Interface>> {
        self.read().entries.get(&id).cloned()
    }

    /// The interface whose network holds `remote`, by the longest prefix.
    pub(crate) fn route(&self, remote: IpAddr) -> Option<Arc<Interface>> {
        let table = self.read();
        let routes = table.entries.values().filter_map(|one| Some((one.route_to(remote)?, one)));
        routes.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, one)| one.clone())
    }

    /// The first interface that has an address of the family of `other`.
    pub(crate) fn first_with(&self, other: IpAddr) -> Option<Arc<Interface>> {
        let of_family = |interface: &Interface| {
            interface.read().iter().any(|own| own.address().is_ipv4() == other.is_ipv4())
        };
        self.read().entries.values().find(|interface| of_family(interface)).cloned()
    }

    /// The interface that has `address`.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<Arc<Interface>> {
        self.read().entries.values().find(|interface| interface.is_local(address)).cloned()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_routes_and_chooses_the_source() {
        let interfaces = Interfaces::default();
        let wide = ["10.0.0.1/8".parse().unwrap(), "10.9.0.1/16".parse().unwrap()];
        let wide = interfaces.add(InterfaceConfig::new("wide", wide));
        let narrow = interfaces.add(InterfaceConfig::new("narrow", ["10.1.0.1/16".parse().unwrap()]));
        let route = |to: &str| interfaces.route(to.parse().unwrap()).map(|interface| interface.id);
        assert_eq!(route("10.1.2.3"), Some(narrow));
        assert_eq!(route("10.2.2.3"), Some(wide));
        assert_eq!(route("192.0.2.1"), None);
        let wide = interfaces.find(wide).unwrap();
        assert_eq!(wide.source_for("10.9.3.3".parse().unwrap()), Some("10.9.0.1".parse().unwrap()));
        assert_eq!(wide.source_for("10.2.2.3".parse().unwrap()), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(wide.source_for("fd00::1".parse().unwrap()), None);
    }
}
