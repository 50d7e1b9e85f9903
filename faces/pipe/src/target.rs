//! Addresses at which daemons listen.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use peersock::Joined;
use peersock::interfaces::{Family, Interface, Route};

/// Local addresses at which a [`Daemon`](crate::Daemon) listens: an address of this machine, the addresses of
/// an interface, or this node's addresses in a network.
///
/// ```
/// use peersock_pipe::Target;
///
/// assert_eq!(Target::loopback().addresses().len(), 2);
/// assert_eq!(Target::from(std::net::IpAddr::from([127, 0, 0, 1])).ipv6().addresses(), []);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target(Vec<SocketAddr>);

impl Target {
    /// Returns the loopback addresses of both families.
    pub fn loopback() -> Target {
        Target(vec![(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()])
    }

    /// Returns an interface's first private IPv4 address and its first link-local IPv6 address.
    pub fn local(interface: &Interface) -> Target {
        let is_local = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => ip.is_private() || ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        let first = |family| {
            let routes = interface.rp(family).routes().iter();
            let bound = routes.flat_map(|route| {
                let ips = route.nic_ips().iter().filter_map(|block| block.nth(0));
                ips.filter(is_local).filter_map(|ip| route.bind(0, Some(ip)).ok()).collect::<Vec<_>>()
            });
            bound.map(|bound| bound.address()).next()
        };
        Target([Family::Ip4, Family::Ip6].into_iter().filter_map(first).collect())
    }

    /// Keeps only the IPv4 addresses.
    pub fn ipv4(mut self) -> Target {
        self.0.retain(SocketAddr::is_ipv4);
        self
    }

    /// Keeps only the IPv6 addresses.
    pub fn ipv6(mut self) -> Target {
        self.0.retain(SocketAddr::is_ipv6);
        self
    }

    /// Returns the addresses, with port 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.0
    }
}

impl From<IpAddr> for Target {
    fn from(ip: IpAddr) -> Target {
        Target(vec![(ip, 0).into()])
    }
}

impl From<&Route> for Target {
    /// Takes the address that the route binds to; empty if it has none.
    fn from(route: &Route) -> Target {
        Target(route.bind(0, None).iter().map(|bound| bound.address()).collect())
    }
}

impl From<&Interface> for Target {
    /// Takes the first route of each family.
    fn from(interface: &Interface) -> Target {
        let routes = interface.supported().into_iter().filter_map(|family| interface.route(family));
        Target(routes.flat_map(|route| Target::from(&route).0).collect())
    }
}

impl From<&Joined> for Target {
    /// Takes the first address of each family in the network.
    fn from(joined: &Joined) -> Target {
        let addresses = joined.addresses();
        let first = |is_v6| addresses.iter().find(|ip| ip.is_ipv6() == is_v6).map(|ip| (*ip, 0).into());
        Target([false, true].into_iter().filter_map(first).collect())
    }
}
