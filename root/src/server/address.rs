//! Addresses that a root advertises, if its operator names none.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;

/// Returns the addresses at which sockets with these bindings can be reached, as far as this machine knows:
/// `interfaces` replace an unspecified address of their family. Loopback addresses are included only if there
/// are no others. Link-local ones never are, because they mean nothing elsewhere.
pub fn advertised(bound: &[SocketAddr], interfaces: &[IpAddr]) -> Vec<SocketAddr> {
    let mut all: Vec<SocketAddr> = Vec::new();
    for address in bound {
        let of_family = |ip: &&IpAddr| ip.is_ipv4() == address.is_ipv4() && !is_link_local(ip);
        match address.ip().is_unspecified() {
            true => {
                all.extend(interfaces.iter().filter(of_family).map(|ip| SocketAddr::new(*ip, address.port())))
            }
            false => all.push(*address),
        }
    }
    if all.iter().any(|address| !address.ip().is_loopback()) {
        all.retain(|address| !address.ip().is_loopback());
    }
    // A duplicate would look like two addresses.
    let mut seen = Vec::new();
    all.retain(|address| {
        !seen.contains(address) && {
            seen.push(*address);
            true
        }
    });
    all
}

/// Returns the addresses of this machine's interfaces that are up (IFF_UP).
/// Fails with the system's error.
pub fn interface_addresses() -> io::Result<Vec<IpAddr>> {
    Ok(entries_up()?.iter().filter_map(ip_of).collect())
}

/// Returns the interfaces that are up, because nothing arrives at the addresses of others.
pub(super) fn entries_up() -> io::Result<Vec<InterfaceAddress>> {
    Ok(getifaddrs()?.filter(|entry| entry.flags.contains(InterfaceFlags::IFF_UP)).collect())
}

/// Returns the IP address of an entry; `None` for a link-layer entry.
pub(super) fn ip_of(entry: &InterfaceAddress) -> Option<IpAddr> {
    let address = entry.address.as_ref()?;
    let v6 = || Some(address.as_sockaddr_in6()?.ip().into());
    address.as_sockaddr_in().map(|v4| v4.ip().into()).or_else(v6)
}

fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => Ipv6Addr::is_unicast_link_local(ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_given_to_others_only_if_there_is_nothing_else() {
        let addresses =
            |texts: &[&str]| -> Vec<SocketAddr> { texts.iter().map(|t| t.parse().unwrap()).collect() };
        let lo: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        let wild = addresses(&["0.0.0.0:1", "[::]:1"]);
        assert_eq!(advertised(&wild, &lo), addresses(&["127.0.0.1:1", "[::1]:1"]));
        let both = [lo[0], "10.0.0.1".parse().unwrap(), lo[1], "2001:db8::1".parse().unwrap()];
        assert_eq!(advertised(&wild, &both), addresses(&["10.0.0.1:1", "[2001:db8::1]:1"]));
        let bound = addresses(&["127.0.0.1:5", "0.0.0.0:5", "10.0.0.1:5"]);
        assert_eq!(advertised(&bound, &both), addresses(&["10.0.0.1:5"]));
    }
}
