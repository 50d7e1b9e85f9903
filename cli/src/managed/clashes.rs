//! Pools that have addresses of the local networks of this machine.

use std::net::IpAddr;

use peersock::overlay::Prefix;
use peersock_nat::host::{HostInterface, interfaces};

use crate::stdio;

/// Warns of pools that overlap with local networks. `own` are the machine's addresses in the network, which
/// `peersock up` gives to an interface. `advice` is for who can choose another pool.
pub(super) fn warn(pools: impl IntoIterator<Item = Prefix>, own: &[IpAddr], advice: &str) {
    // Without a list of interfaces there is nothing to warn of.
    let interfaces = interfaces().unwrap_or_default();
    for pool in pools {
        if let Some(clash) = clash(&pool, &interfaces, own) {
            stdio::note(format_args!("the pool {pool} overlaps with {clash}: {advice}"));
        }
    }
}

/// Returns the first local network that has addresses of a pool, with its interface.
fn clash(pool: &Prefix, interfaces: &[HostInterface], own: &[IpAddr]) -> Option<String> {
    let others = interfaces.iter().filter(|interface| !interface.loopback);
    let networks = others.flat_map(|interface| {
        let foreign = interface.addresses.iter().filter(|address| !own.contains(&address.ip));
        foreign.filter_map(|address| Some((&interface.name, Prefix::new(address.ip, address.prefix)?)))
    });
    let overlap =
        |one: &Prefix, other: &Prefix| one.contains(other.address()) || other.contains(one.address());
    let (name, network) = networks.into_iter().find(|(_, network)| overlap(network, pool))?;
    Some(format!("{network} of interface {name}"))
}

#[cfg(test)]
mod tests {
    use peersock_nat::host::HostAddress;

    use super::*;

    #[test]
    fn a_pool_clashes_with_networks_that_share_addresses() {
        let interface = |name: &str, loopback, addresses: &[(&str, u8)]| {
            let address =
                |(ip, prefix): &(&str, u8)| HostAddress { ip: ip.parse().expect("IP"), prefix: *prefix };
            let addresses = addresses.iter().map(address).collect();
            HostInterface { name: name.to_owned(), index: 1, loopback, addresses, routers: Vec::new() }
        };
        let interfaces = [
            interface("lo", true, &[("127.0.0.1", 8), ("10.77.0.9", 32)]),
            interface("eth0", false, &[("192.168.1.7", 24), ("fd00:1::7", 64), ("fe80::7", 64)]),
            interface("peersock0", false, &[("10.77.0.1", 24)]),
        ];
        let of = |pool: &str, own: &[&str]| {
            let (address, length) = pool.split_once('/').expect("a block");
            let pool = Prefix::new(address.parse().expect("IP"), length.parse().expect("a number"));
            let own: Vec<_> = own.iter().map(|own| own.parse().expect("IP")).collect();
            clash(&pool.expect("a block"), &interfaces, &own)
        };
        assert_eq!(of("192.168.0.0/16", &[]).as_deref(), Some("192.168.1.0/24 of interface eth0"));
        assert_eq!(of("192.168.1.128/25", &[]).as_deref(), Some("192.168.1.0/24 of interface eth0"));
        assert_eq!(of("fd00:1::/64", &[]).as_deref(), Some("fd00:1::/64 of interface eth0"));
        assert_eq!(of("10.77.0.0/16", &[]).as_deref(), Some("10.77.0.0/24 of interface peersock0"));
        assert_eq!(of("10.77.0.0/16", &["10.77.0.1"]), None, "the network's own interface");
        for pool in ["192.168.2.0/24", "10.78.0.0/16", "127.0.0.0/16", "fd00:2::/64"] {
            assert_eq!(of(pool, &[]), None, "{pool}");
        }
    }
}
