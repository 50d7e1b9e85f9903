//! Grouping of an interface's addresses by external address: the rules of P2PD's two worked examples. Pure.

use std::net::IpAddr;

use super::{Family, IpBlock, Route};

/// Groups IPv4 addresses. Private addresses share a route, the route of the first one. A public address or
/// block that is seen as itself has a separate route; one that is seen as another address joins that
/// address's route.
///
/// `seen_as` returns the external address of an address; `None` if no server could be asked. A public address
/// then counts as seen as itself, and a private one has no external address.
pub(super) fn ipv4(nic: &[IpBlock], seen_as: impl Fn(IpAddr) -> Option<IpAddr>) -> Vec<Route> {
    let (public, private): (Vec<IpBlock>, Vec<IpBlock>) = nic.iter().partition(|block| block.is_public());
    let mut routes: Vec<(Vec<IpBlock>, Option<IpBlock>)> = Vec::new();
    if let Some(first) = private.first().and_then(|block| block.nth(0)) {
        routes.push((private, seen_as(first).map(IpBlock::single)));
    }
    for block in public {
        let Some(first) = block.nth(0) else { continue };
        let seen = seen_as(first).unwrap_or(first);
        let ext = if seen == first { block } else { IpBlock::single(seen) };
        match routes.iter_mut().find(|(_, known)| *known == Some(ext)) {
            Some((members, _)) => members.push(block),
            None => routes.push((vec![block], Some(ext))),
        }
    }
    let route =
        |(nic, ext): (Vec<IpBlock>, Option<IpBlock>)| Route::new(Family::Ip4, nic, Vec::from_iter(ext));
    routes.into_iter().map(route).collect()
}

/// Groups IPv6 addresses. Each global address or block has a separate route, which also contains all
/// link-local addresses. Private addresses (RFC 4193) have a route only if a translator makes them appear as
/// a global address.
pub(super) fn ipv6(nic: &[IpBlock], seen_as: impl Fn(IpAddr) -> Option<IpAddr>) -> Vec<Route> {
    let locals: Vec<IpBlock> = nic.iter().filter(|block| block.is_link_local()).copied().collect();
    let mut routes = Vec::new();
    for block in nic.iter().filter(|block| !block.is_link_local()) {
        let Some(first) = block.nth(0) else { continue };
        let seen = seen_as(first);
        if block.is_public() && seen.is_none_or(|seen| seen == first) {
            routes.push(Route::new(Family::Ip6, locals.clone(), vec![*block]));
        } else if let Some(seen) = seen {
            let nic = locals.iter().chain([block]).copied().collect();
            routes.push(Route::new(Family::Ip6, nic, vec![IpBlock::single(seen)]));
        }
    }
    if routes.is_empty() && !nic.is_empty() {
        routes.push(Route::new(Family::Ip6, nic.to_vec(), Vec::new()));
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(texts: &[&str]) -> Vec<IpBlock> {
        let block = |text: &&str| {
            let (ip, prefix) = text.split_once('/').expect("a block");
            IpBlock::new(ip.parse().expect("an address"), prefix.parse().expect("a number"))
                .expect("few bits")
        };
        texts.iter().map(block).collect()
    }

    #[test]
    fn the_worked_example_for_ipv4() {
        let nic = blocks(&["192.168.0.20/32", "193.168.0.0/16", "7.7.7.7/32", "8.8.0.0/16"]);
        let seen_as = |ip: IpAddr| match ip.to_string().as_str() {
            "8.8.0.1" => Some(ip),
            _ => Some([1, 3, 3, 7].into()),
        };
        let routes = ipv4(&nic, seen_as);
        let expected = [
            Route::new(
                Family::Ip4,
                blocks(&["192.168.0.20/32", "193.168.0.0/16", "7.7.7.7/32"]),
                blocks(&["1.3.3.7/32"]),
            ),
            Route::new(Family::Ip4, blocks(&["8.8.0.0/16"]), blocks(&["8.8.0.0/16"])),
        ];
        assert_eq!(routes, expected);
    }

    #[test]
    fn the_worked_example_for_ipv6() {
        let nic = blocks(&["2020:deed:beef::/128", "2020:deed:deed::/64", "fe80:deed:beef::/128"]);
        let routes = ipv6(&nic, |_| None);
        let expected = [
            Route::new(Family::Ip6, blocks(&["fe80:deed:beef::/128"]), blocks(&["2020:deed:beef::/128"])),
            Route::new(Family::Ip6, blocks(&["fe80:deed:beef::/128"]), blocks(&["2020:deed:deed::/64"])),
        ];
        assert_eq!(routes, expected);
    }

    #[test]
    fn without_an_answer_private_addresses_have_a_route_without_external_address() {
        let nic = blocks(&["10.0.0.1/32", "9.9.9.9/32"]);
        let routes = ipv4(&nic, |_| None);
        assert_eq!((routes[0].ext(), routes[1].ext()), (None, Some([9, 9, 9, 9].into())));
        let routes = ipv6(&blocks(&["fe80::1/128", "fd00::1/128"]), |_| None);
        assert_eq!((routes.len(), routes[0].ext(), routes[0].nic_ips().len()), (1, None, 2));
        assert_eq!((ipv4(&[], |_| None), ipv6(&[], |_| None)), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_translated_private_ipv6_address_is_a_route_with_its_own_address() {
        let nic = blocks(&["fe80::1/128", "fd00::1/128"]);
        let routes = ipv6(&nic, |_| Some("2001:db8::9".parse().expect("an address")));
        assert_eq!(routes, [Route::new(Family::Ip6, nic, blocks(&["2001:db8::9/128"]))]);
    }
}
