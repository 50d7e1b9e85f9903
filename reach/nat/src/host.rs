//! The machine's interfaces with their addresses and default routes.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sys::socket::SockaddrStorage;
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

/// An interface of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostInterface {
    /// Name of the interface, such as `eth0`.
    pub name: String,
    /// Index of the interface in the kernel.
    pub index: u32,
    /// True if the interface leads only to this machine.
    pub loopback: bool,
    /// Addresses of the interface, in kernel order.
    pub addresses: Vec<HostAddress>,
    /// Routers of the interface's default routes, lowest metric first.
    pub routers: Vec<IpAddr>,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HostAddress {
    /// The address.
    pub ip: IpAddr,
    /// Length of the network prefix in bits.
    pub prefix: u8,
}

/// A default route.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DefaultRoute {
    interface: String,
    router: IpAddr,
    metric: u32,
}

/// Lists the interfaces that are set up (IFF_UP) and have an address, by index. An interface without carrier
/// is included.
/// Fails if the system does not list its interfaces.
pub fn interfaces() -> io::Result<Vec<HostInterface>> {
    let mut found: BTreeMap<u32, HostInterface> = BTreeMap::new();
    for entry in getifaddrs()? {
        let Some(ip) = entry.address.as_ref().and_then(ip_of) else { continue };
        // The kernel has no routes by an interface that is down, although it keeps its IPv4 addresses.
        if !entry.flags.contains(InterfaceFlags::IFF_UP) {
            continue;
        }
        // This fails if the interface has gone in the meantime.
        let Ok(index) = if_nametoindex(entry.interface_name.as_str()) else { continue };
        let interface = found.entry(index).or_insert_with(|| HostInterface {
            // An IPv4 address may have a label, such as `eth0:1`.
            name: entry.interface_name.split(':').next().unwrap_or_default().to_owned(),
            index,
            loopback: entry.flags.contains(InterfaceFlags::IFF_LOOPBACK),
            addresses: Vec::new(),
            routers: Vec::new(),
        });
        let prefix = entry.netmask.as_ref().and_then(ip_of).map_or(0, ones);
        interface.addresses.push(HostAddress { ip, prefix });
    }
    let mut interfaces: Vec<_> = found.into_values().collect();
    let mut routes = default_routes();
    routes.sort_by_key(|route| route.metric);
    for route in routes {
        if let Some(interface) = interfaces.iter_mut().find(|interface| interface.name == route.interface)
            && !interface.routers.contains(&route.router)
        {
            interface.routers.push(route.router);
        }
    }
    Ok(interfaces)
}

impl HostInterface {
    /// Returns the first router of a family as an endpoint with port 0. A link-local address gets the
    /// interface as scope.
    pub fn router(&self, v6: bool) -> Option<SocketAddr> {
        let router = self.routers.iter().find(|router| router.is_ipv6() == v6)?;
        Some(match router {
            IpAddr::V4(ip) => (*ip, 0).into(),
            IpAddr::V6(ip) => {
                SocketAddrV6::new(*ip, 0, 0, if ip.is_unicast_link_local() { self.index } else { 0 }).into()
            }
        })
    }

    /// Returns the device to bind sockets to. `None` for loopback, which also leads to this machine's other
    /// addresses.
    pub(crate) fn device(&self) -> Option<&str> {
        (!self.loopback).then_some(self.name.as_str())
    }

    /// Returns the IPv6 source address for the Internet by this interface, if the interface leads there.
    pub fn source_outwards(&self) -> Option<IpAddr> {
        self.source_towards(ANYWHERE[1])
    }

    /// Returns the source address that the kernel chooses on this interface for a remote address; `None` if
    /// this interface does not lead there.
    pub fn source_towards(&self, remote: SocketAddr) -> Option<IpAddr> {
        source(Some(&self.name), remote).filter(|ip| self.addresses.iter().any(|address| address.ip == *ip))
    }
}

/// Remote endpoints of IPv4 and IPv6, for finding the interface that leads to the Internet. Nothing is sent
/// to them.
pub(crate) const ANYWHERE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

/// Returns the IP address of a socket address; `None` for a link-layer address.
fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v6 = || Some(address.as_sockaddr_in6()?.ip().into());
    address.as_sockaddr_in().map(|v4| v4.ip().into()).or_else(v6)
}

/// Counts the bits that are set in a mask.
fn ones(mask: IpAddr) -> u8 {
    let ones = match mask {
        IpAddr::V4(mask) => mask.to_bits().count_ones(),
        IpAddr::V6(mask) => mask.to_bits().count_ones(),
    };
    ones as u8
}

/// Returns the system's source address for a remote address. Without `interface`, the interface with that
/// address is the default one.
pub(crate) fn source(interface: Option<&str>, remote: SocketAddr) -> Option<IpAddr> {
    let socket = Socket::new(Domain::for_address(remote), Type::DGRAM, Some(Protocol::UDP)).ok()?;
    if let Some(interface) = interface {
        // Ignore a missing privilege, because the caller checks the address.
        let _ = socket.bind_device(Some(interface.as_bytes()));
    }
    let socket: UdpSocket = socket.into();
    // No packet leaves: the call only makes the system choose a route.
    socket.connect(remote).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Reads the default routes of this thread's network namespace from `/proc`.
fn default_routes() -> Vec<DefaultRoute> {
    // A namespace belongs to a thread, and `/proc/net` would show that of the process's main thread.
    let read = |name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    let mut routes: Vec<_> = read("route").lines().skip(1).filter_map(ipv4_route).collect();
    routes.extend(read("ipv6_route").lines().filter_map(ipv6_route));
    routes
}

/// Parses a line of `route`: interface, destination, gateway, flags, ..., metric (7th), mask (8th), in
/// hexadecimal of the machine's byte order.
fn ipv4_route(line: &str) -> Option<DefaultRoute> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [interface, "00000000", gateway, _, _, _, metric, "00000000", ..] = fields.as_slice() else {
        return None;
    };
    let gateway = u32::from_str_radix(gateway, 16).ok()?;
    let router = Ipv4Addr::from(gateway.to_ne_bytes());
    let route = DefaultRoute {
        interface: (*interface).to_owned(),
        router: router.into(),
        metric: metric.parse().ok()?,
    };
    (!router.is_unspecified()).then_some(route)
}

/// Parses a line of `ipv6_route`: destination, its prefix, source, its prefix, next hop, metric, ..., flags,
/// interface.
fn ipv6_route(line: &str) -> Option<DefaultRoute> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [destination, "00", _, _, gateway, metric, _, _, _, interface] = fields.as_slice() else {
        return None;
    };
    let address = |text: &str| u128::from_str_radix(text, 16).ok().map(Ipv6Addr::from);
    let router = address(gateway)?;
    let route = DefaultRoute {
        interface: (*interface).to_owned(),
        router: router.into(),
        metric: u32::from_str_radix(metric, 16).ok()?,
    };
    (address(destination)?.is_unspecified() && !router.is_unspecified()).then_some(route)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn default_routes_of_ipv4_are_read() {
        let line = "eth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0";
        let route = DefaultRoute { interface: "eth0".into(), router: [192, 168, 2, 1].into(), metric: 100 };
        assert_eq!(ipv4_route(line), Some(route));
        let network = "eth0\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0";
        assert_eq!(ipv4_route(network), None);
    }

    #[test]
    fn default_routes_of_ipv6_are_read() {
        let zero = "0".repeat(32);
        let line = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000002 00000000 00000003 eth0"
        );
        let router: Ipv6Addr = "fe80::1".parse().expect("an address");
        let route = DefaultRoute { interface: "eth0".into(), router: router.into(), metric: 1024 };
        assert_eq!(ipv6_route(&line), Some(route));
        // The line of a destination without any route.
        let unreachable = format!("{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo");
        assert_eq!(ipv6_route(&unreachable), None);
    }

    #[test]
    fn the_loopback_interface_leads_to_itself() {
        let all = interfaces().expect("the system tells");
        let lo = all.iter().find(|interface| interface.loopback).expect("there is one");
        assert_eq!(
            lo.source_towards("127.0.0.1:9".parse().expect("an endpoint")),
            Some([127, 0, 0, 1].into())
        );
        assert_eq!(lo.router(false), None);
    }

    proptest! {
        #[test]
        fn any_line_is_survived(line in ".{0,100}") {
            let _ = (ipv4_route(&line), ipv6_route(&line));
        }
    }
}
