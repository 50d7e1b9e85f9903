//! Sockets that are bound to addresses of both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use peersock_stack::Error;

/// Ports that are tried for a socket that wants one that is free for both families.
const PORT_TRIES: usize = 16;

/// Binds what takes an address: one thing, or for IPv6's wildcard one for each family at the same port,
/// IPv6's first. `undo` frees the first when the port is taken in the other family.
pub(crate) fn bind_families<T>(
    local: SocketAddr,
    v6_only: bool,
    bind: impl Fn(SocketAddr) -> Result<T, Error>,
    port: impl Fn(&T) -> u16,
    undo: impl Fn(T),
) -> Result<Vec<T>, Error> {
    if local.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED) || v6_only {
        return Ok(vec![bind(local)?]);
    }
    let mut tries = if local.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        let first = bind(local)?;
        match bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port(&first))) {
            Ok(second) => return Ok(vec![first, second]),
            Err(error) => {
                undo(first);
                tries -= 1;
                if tries == 0 {
                    return Err(error);
                }
            }
        }
    }
}

/// Binds IPv4's wildcard and, for members without an IPv4 address, IPv6's at the same port; IPv4's first.
/// Another socket may have the port of the other family, and keeps it.
pub(crate) fn bind_aliased<T>(
    local: SocketAddr,
    bind: impl Fn(SocketAddr) -> Result<T, Error>,
    port: impl Fn(&T) -> u16,
    undo: impl Fn(T),
) -> Result<Vec<T>, Error> {
    let v6 = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), local.port());
    if local.port() == 0 {
        let mut both = bind_families(v6, false, bind, port, undo)?;
        both.reverse();
        return Ok(both);
    }
    let mut both = vec![bind(local)?];
    both.extend(bind(v6));
    Ok(both)
}
