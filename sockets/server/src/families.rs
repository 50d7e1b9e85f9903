//! Sockets bound to addresses of both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use peersock_stack::Error;

/// Number of attempts to find a port that is free in both families.
const FREE_PORT_ATTEMPTS: usize = 16;

/// Binds an address with `bind`: once, or for IPv6's wildcard address once per family at the same port, IPv6
/// first. `undo` frees the first if the port is taken in the other family.
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
    let tries = if local.port() == 0 { FREE_PORT_ATTEMPTS } else { 1 };
    let mut bound = Err(Error::AddrInUse);
    // Hold failed ports until the end; otherwise the same port could be chosen each time.
    let mut in_vain = Vec::new();
    for _ in 0..tries {
        let first = match bind(local) {
            Ok(first) => first,
            Err(error) => {
                bound = Err(error);
                break;
            }
        };
        match bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port(&first))) {
            Ok(second) => {
                bound = Ok(vec![first, second]);
                break;
            }
            Err(error) => {
                in_vain.push(first);
                bound = Err(error);
            }
        }
    }
    in_vain.into_iter().for_each(undo);
    bound
}

/// Binds IPv4's wildcard address and, for members without an IPv4 address, IPv6's at the same port; IPv4
/// first. If another socket has the port in the other family, that socket keeps it.
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::*;

    /// As in a network that allows a short range of ports: the first free one is chosen.
    #[test]
    fn a_port_that_the_other_family_has_is_not_chosen_again() {
        let bound: RefCell<BTreeSet<(bool, u16)>> = RefCell::new([(true, 5000), (true, 5001)].into());
        let take = |local: SocketAddr| {
            let is_free = |port: &u16| !bound.borrow().contains(&(local.is_ipv4(), *port));
            let port = match local.port() {
                0 => (5000..=5002).find(is_free),
                port => Some(port).filter(is_free),
            };
            let one = (local.is_ipv4(), port.ok_or(Error::AddrInUse)?);
            bound.borrow_mut().insert(one);
            Ok(one)
        };
        let undo = |one| assert!(bound.borrow_mut().remove(&one));
        let any = "[::]:0".parse().unwrap();
        let both = bind_families(any, false, take, |one| one.1, undo);
        assert_eq!(both, Ok(vec![(false, 5002), (true, 5002)]));
        assert_eq!(bound.borrow().len(), 4, "the others are free again");
        assert_eq!(bind_families(any, false, take, |one| one.1, undo), Err(Error::AddrInUse));
        assert_eq!(bound.borrow().len(), 4);
    }
}
