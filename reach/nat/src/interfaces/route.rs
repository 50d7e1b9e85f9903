//! Routes: the external addresses that belong to an interface's addresses.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpListener, UdpSocket};

use serde::{Deserialize, Serialize};

use super::{Family, IpBlock};
use crate::socket;

/// The relation of an interface's addresses to external ones.
///
/// A route can lack an external address, if no server was asked or none answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    #[serde(rename = "af", with = "super::family_number")]
    family: Family,
    nic_ips: Vec<IpBlock>,
    ext_ips: Vec<IpBlock>,
    /// The interface for sockets. Dictionaries contain its name once, beside the routes.
    #[serde(skip)]
    interface: Option<(String, u32)>,
}

impl Route {
    /// Makes a route that is not tied to an interface.
    pub fn new(family: Family, nic_ips: Vec<IpBlock>, ext_ips: Vec<IpBlock>) -> Self {
        Self { family, nic_ips, ext_ips, interface: None }
    }

    pub(super) fn tie(&mut self, name: &str, index: u32) {
        self.interface = Some((name.to_owned(), index));
    }

    /// Returns the family of the route.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Returns the addresses of the interface. In IPv6 these are the link-local ones, and private ones behind
    /// a translator.
    pub fn nic_ips(&self) -> &[IpBlock] {
        &self.nic_ips
    }

    /// Returns the external addresses under which those addresses appear.
    pub fn ext_ips(&self) -> &[IpBlock] {
        &self.ext_ips
    }

    /// Returns the first address of the interface.
    pub fn nic(&self) -> Option<IpAddr> {
        self.nic_ips.first().and_then(|block| block.nth(0))
    }

    /// Returns the first external address.
    pub fn ext(&self) -> Option<IpAddr> {
        self.ext_ips.first().and_then(|block| block.nth(0))
    }

    /// Returns the number of external addresses.
    pub(super) fn count(&self) -> u128 {
        self.ext_ips.iter().fold(0, |sum, block| sum.saturating_add(block.len()))
    }

    /// Returns the route for one external address. If the interface itself has the external block, its
    /// address in that route is the external one.
    pub(super) fn nth(&self, mut index: u128) -> Option<Self> {
        for block in &self.ext_ips {
            match block.nth(index) {
                Some(ip) => {
                    let ext = IpBlock::single(ip);
                    let is_own = self.nic_ips.contains(block);
                    let nic_ips = if is_own { vec![ext] } else { self.nic_ips.clone() };
                    return Some(Self { nic_ips, ext_ips: vec![ext], ..self.clone() });
                }
                None => index -= block.len(),
            }
        }
        None
    }

    /// Returns the endpoint for sockets that use this route. In IPv4 it has the interface's address; in IPv6
    /// the external one, where both are the same; or `ip`. Sockets at an `ip` outside the route, such as
    /// 127.0.0.1, are not bound to the interface. With port 0 the system chooses one.
    ///
    /// Fails if the route has no address, or `ip` is of the other family.
    pub fn bind(&self, port: u16, ip: Option<IpAddr>) -> io::Result<BoundRoute> {
        let own = |family| match family {
            Family::Ip4 => self.nic(),
            // A translated external address does not belong to this machine.
            Family::Ip6 => {
                let private = self.nic_ips.iter().find(|block| !block.is_link_local());
                private.and_then(|block| block.nth(0)).or_else(|| self.ext()).or_else(|| self.nic())
            }
        };
        let is_here = |ip: IpAddr| self.nic_ips.iter().chain(&self.ext_ips).any(|block| block.contains(ip));
        let chosen = match ip {
            Some(ip) => Some(ip).filter(|ip| Family::of(*ip) == self.family),
            None => own(self.family),
        };
        let missing = || io::Error::new(io::ErrorKind::AddrNotAvailable, "the route has no such address");
        let ip = chosen.ok_or_else(missing)?;
        let interface = self.interface.as_ref().filter(|_| is_here(ip));
        let address = match (ip, interface) {
            (IpAddr::V6(ip), Some((_, index))) if ip.is_unicast_link_local() => {
                SocketAddrV6::new(ip, port, 0, *index).into()
            }
            (ip, _) => SocketAddr::new(ip, port),
        };
        Ok(BoundRoute { address, interface: interface.map(|(name, _)| name.clone()) })
    }
}

/// A route with the endpoint to which sockets are bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundRoute {
    address: SocketAddr,
    interface: Option<String>,
}

impl BoundRoute {
    /// Returns the endpoint for `bind`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the interface to which sockets are bound, if any.
    pub fn interface(&self) -> Option<&str> {
        self.interface.as_deref()
    }

    /// Makes a UDP socket at the endpoint, bound to the interface.
    /// Fails if the endpoint is in use, or the address is gone.
    pub fn udp(&self) -> io::Result<UdpSocket> {
        let socket = socket::udp(self.address, self.interface.as_deref())?;
        socket.set_nonblocking(false)?;
        Ok(socket)
    }

    /// Makes a listener at the endpoint, bound to the interface.
    /// Fails if the endpoint is in use, or the address is gone.
    pub fn listen(&self) -> io::Result<TcpListener> {
        socket::listen(self.address, self.interface.as_deref())
    }
}

/// The routes of an interface and a family, as a sequence of single external addresses: P2PD's `RoutePool`.
///
/// ```
/// use peersock_nat::interfaces::{Family, IpBlock, Route, RoutePool};
///
/// let block = IpBlock::new("8.8.0.0".parse()?, 16).expect("16 bits of 32");
/// let pool = RoutePool::new(vec![Route::new(Family::Ip4, vec![block], vec![block])]);
/// assert_eq!(pool.len(), 65_534);
/// let second = pool.get(1).and_then(|route| route.ext());
/// assert_eq!(second, Some("8.8.0.2".parse()?));
/// assert_eq!(pool.iter().take(3).count(), 3);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RoutePool {
    routes: Vec<Route>,
}

impl RoutePool {
    /// Makes a pool of these routes.
    pub fn new(routes: Vec<Route>) -> Self {
        Self { routes }
    }

    /// Returns the routes as they were found: each may have several external addresses, or none.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    pub(super) fn routes_mut(&mut self) -> &mut [Route] {
        &mut self.routes
    }

    /// Returns the total number of external addresses.
    pub fn len(&self) -> u128 {
        self.routes.iter().fold(0, |sum, route| sum.saturating_add(route.count()))
    }

    /// Returns true if there is no external address.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the route for the external address of that number.
    pub fn get(&self, mut index: u128) -> Option<Route> {
        for route in &self.routes {
            match route.nth(index) {
                Some(single) => return Some(single),
                None => index -= route.count(),
            }
        }
        None
    }

    /// Iterates over all external addresses, with one route each. There can be very many.
    pub fn iter(&self) -> impl Iterator<Item = Route> {
        (0..self.len()).map_while(|index| self.get(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> IpBlock {
        let (ip, prefix) = text.split_once('/').expect("a block");
        IpBlock::new(ip.parse().expect("an address"), prefix.parse().expect("a number")).expect("few bits")
    }

    fn pool() -> RoutePool {
        RoutePool::new(vec![
            Route::new(Family::Ip4, vec![block("192.168.0.20/32")], vec![block("1.3.3.7/32")]),
            Route::new(Family::Ip4, vec![block("10.0.0.1/32")], Vec::new()),
            Route::new(Family::Ip4, vec![block("8.8.0.0/29")], vec![block("8.8.0.0/29")]),
        ])
    }

    #[test]
    fn a_pool_is_the_sequence_of_its_external_addresses() {
        let pool = pool();
        let all: Vec<String> = pool.iter().filter_map(|route| route.ext()).map(|ip| ip.to_string()).collect();
        let expected = ["1.3.3.7", "8.8.0.1", "8.8.0.2", "8.8.0.3", "8.8.0.4", "8.8.0.5", "8.8.0.6"];
        assert_eq!((all, pool.len()), (expected.map(str::to_owned).to_vec(), 7));
        assert_eq!(pool.get(7), None);
    }

    #[test]
    fn an_address_of_a_public_block_is_bound_itself_and_one_behind_a_nat_by_the_interface() {
        let pool = pool();
        let bound =
            |index| pool.get(index).expect("it is there").bind(80, None).expect("it has one").address();
        assert_eq!(bound(0).to_string(), "192.168.0.20:80");
        assert_eq!(bound(3).to_string(), "8.8.0.3:80");
    }

    #[test]
    fn only_sockets_at_addresses_of_the_route_are_kept_to_its_interface() {
        let mut route = pool().get(0).expect("it is there");
        route.tie("eth0", 2);
        let interface = |ip: [u8; 4]| route.bind(0, Some(ip.into())).expect("an IPv4 address").interface;
        assert_eq!(interface([192, 168, 0, 20]), Some("eth0".into()));
        assert_eq!(interface([127, 0, 0, 1]), None);
        let error = route.bind(0, Some([0u16; 8].into())).expect_err("it is of the other family");
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn ipv6_is_bound_by_the_global_address_unless_it_is_translated() {
        let local = block("fe80::1/128");
        let global = Route::new(Family::Ip6, vec![local], vec![block("2001:db8::1/128")]);
        assert_eq!(global.bind(0, None).expect("it has one").address().to_string(), "[2001:db8::1]:0");
        let translated =
            Route::new(Family::Ip6, vec![local, block("fd00::1/128")], vec![block("2001:db8::1/128")]);
        assert_eq!(translated.bind(0, None).expect("it has one").address().to_string(), "[fd00::1]:0");
        let mut alone = Route::new(Family::Ip6, vec![local], Vec::new());
        alone.tie("eth0", 7);
        assert_eq!(alone.bind(0, None).expect("it has one").address().to_string(), "[fe80::1%7]:0");
    }
}
