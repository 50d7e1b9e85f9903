//! Conversion of addresses and errors between applications and the stack.

use std::net::{IpAddr, SocketAddr};

use peersock_datapath::JoinedNetwork;
use peersock_fd::{Errno, Family, Route};
use peersock_stack::{Cidr, Error};

/// Returns an address as a socket of `family` shows it: IPv4 is mapped into IPv6 (RFC 4291 2.5.5.2).
pub(crate) fn shown(family: Family, address: SocketAddr) -> SocketAddr {
    match (family, address.ip()) {
        (Family::V6, IpAddr::V4(ip)) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        _ => address,
    }
}

/// Returns the canonical form of an address: an IPv4-mapped address becomes IPv4.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Returns the C library's number for an error of the stack.
pub(crate) fn errno(error: Error) -> Errno {
    Errno::from_raw_os_error(error.errno())
}

/// Returns the address ranges reached over a network.
pub(crate) fn routes(network: &JoinedNetwork) -> impl Iterator<Item = Route> + '_ {
    network.routes.iter().map(route)
}

/// Converts an address with its prefix for applications.
pub(crate) fn route(cidr: &Cidr) -> Route {
    Route { address: cidr.address(), prefix: cidr.prefix() }
}
