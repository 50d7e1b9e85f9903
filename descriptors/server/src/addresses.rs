//! Addresses as applications and as the stack name them, and what an error of the stack is called.

use std::net::{IpAddr, SocketAddr};

use peersock_datapath::JoinedNetwork;
use peersock_fd::{Errno, Family, Route};
use peersock_stack::{Cidr, Error};

/// An address as a socket of a family shows it: IPv4 is mapped into IPv6 (RFC 4291 2.5.5.2).
pub(crate) fn shown(family: Family, address: SocketAddr) -> SocketAddr {
    match (family, address.ip()) {
        (Family::V6, IpAddr::V4(ip)) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        _ => address,
    }
}

/// The address that is meant: a mapped one is IPv4's.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What the C library calls an error of the stack.
pub(crate) fn errno(error: Error) -> Errno {
    Errno::from_raw_os_error(error.errno())
}

/// The addresses that are reached over a network.
pub(crate) fn routes(network: &JoinedNetwork) -> impl Iterator<Item = Route> + '_ {
    network.routes.iter().map(route)
}

/// An address with its prefix, as applications are told it.
pub(crate) fn route(cidr: &Cidr) -> Route {
    Route { address: cidr.address(), prefix: cidr.prefix() }
}
