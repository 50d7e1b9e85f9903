//! Checks for IPv4 connectivity, which the DHT needs.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use super::interfaces::{self, Interfaces};
use super::nat64::{SOME_IPV4, SOME_IPV6};

/// Returns the first permitted IPv4 address, preferring interfaces other than loopback.
pub(crate) fn first_ipv4(allowed: &Interfaces) -> io::Result<Option<Ipv4Addr>> {
    let mut allowed = interfaces::list(allowed)?;
    allowed.sort_by_key(|interface| interface.loopback);
    Ok(allowed.iter().find_map(|interface| interface.ipv4.first().copied()))
}

/// Returns true if the machine reaches the Internet by IPv6, and has no IPv4 route to any of these nodes
/// (without any: to the Internet). A NAT64 does not count as IPv4.
pub(crate) fn reaches_by_ipv6_only(wanted: &[SocketAddrV4]) -> bool {
    let has_ipv4 = match wanted {
        [] => interfaces::has_route((SOME_IPV4, 9).into()),
        wanted => wanted.iter().any(|one| interfaces::has_route(SocketAddr::V4(*one))),
    };
    !has_ipv4 && interfaces::has_route((SOME_IPV6, 9).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_this_machine_is_reached_by_ipv4() {
        assert!(!reaches_by_ipv6_only(&[SocketAddrV4::new(Ipv4Addr::LOCALHOST, 6881)]));
    }
}
