//! The site of an exit: the public or global prefixes on the links of its machine.
//!
//! An exit leads to all public addresses, and its site may have such addresses, in IPv6 almost always. At
//! most a firewall in front of the machine protects hosts on its links. The member's packets bypass that
//! firewall, with the machine's address as source.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_sys::protocols::NETLINK_ROUTE;
use peersock::overlay::{Exit, Prefix};

use crate::exit::present;
use crate::netlink::{each_route, exchange, open};

/// Smallest prefix length of a link. Shorter prefixes are routes to the Internet, such as a tunnel's
/// `0.0.0.0/1`.
const LEAST_BITS_V4: u8 = 8;
const LEAST_BITS_V6: u8 = 16;

/// Returns the public prefixes on links of this machine, except the links of the devices `own`.
pub(crate) fn prefixes(own: &BTreeSet<u32>) -> io::Result<BTreeSet<(IpAddr, u8)>> {
    let socket = open(NETLINK_ROUTE)?;
    let mut found = Vec::new();
    for family in present() {
        each_route(&socket, family, |route| found.extend(on_link(&route, own)))?;
        let mut question = AddressMessage::default();
        question.header.family = family;
        let answers = exchange(&socket, RouteNetlinkMessage::GetAddress(question), NLM_F_DUMP)?;
        found.extend(answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(address) => around(address, own),
            _ => None,
        }));
    }
    let public = Exit { ipv4: true, ipv6: true }.blocks();
    let prefixes = found.into_iter().filter(|prefix| public.iter().any(|block| overlaps(block, prefix)));
    Ok(prefixes.map(|prefix| (prefix.address(), prefix.length())).collect())
}

/// Returns the destination of a route without a gateway.
fn on_link(route: &RouteMessage, own: &BTreeSet<u32>) -> Option<Prefix> {
    // Routes to the machine's addresses have another kind.
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let (mut destination, mut is_elsewhere) = (None, false);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_) => {
                return None;
            }
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = Some((*address).into()),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                destination = Some((*address).into())
            }
            RouteAttribute::Oif(index) => is_elsewhere = !own.contains(index),
            _ => {}
        }
    }
    link_prefix(destination?, route.header.destination_prefix_length).filter(|_| is_elsewhere)
}

/// Returns the prefix of an interface's address.
fn around(message: &AddressMessage, own: &BTreeSet<u32>) -> Option<Prefix> {
    if own.contains(&message.header.index) {
        return None;
    }
    // On a point-to-point link this is the other end's address.
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    link_prefix(address?, message.header.prefix_len)
}

fn link_prefix(address: IpAddr, length: u8) -> Option<Prefix> {
    let least = if address.is_ipv4() { LEAST_BITS_V4 } else { LEAST_BITS_V6 };
    Prefix::new(address, length).filter(|_| length >= least)
}

fn overlaps(one: &Prefix, other: &Prefix) -> bool {
    let (outer, inner) = if one.length() <= other.length() { (one, other) } else { (other, one) };
    outer.contains(inner.address())
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::route::RouteHeader;

    use super::*;
    use crate::placing::route;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        Prefix::new(address.parse().unwrap(), length.parse().unwrap()).unwrap()
    }

    #[test]
    fn links_are_routes_without_a_gateway_and_what_addresses_have_around_them() {
        let own = BTreeSet::from([7]);
        let plain = |index, to: &str| route(index, prefix(to), RouteHeader::RT_TABLE_MAIN, None);
        assert_eq!(on_link(&plain(2, "203.0.113.0/24"), &own), Some(prefix("203.0.113.0/24")));
        assert_eq!(on_link(&plain(2, "2001:db8:1::/64"), &own), Some(prefix("2001:db8:1::/64")));
        for to in ["0.0.0.0/0", "128.0.0.0/1", "::/0", "2000::/3"] {
            assert_eq!(on_link(&plain(2, to), &own), None, "{to}");
        }
        assert_eq!(on_link(&plain(7, "203.0.113.0/24"), &own), None, "the device itself");
        let mut behind = plain(2, "203.0.113.0/24");
        behind.attributes.push(RouteAttribute::Gateway(IpAddr::from([203, 0, 113, 1]).into()));
        assert_eq!(on_link(&behind, &own), None);
        let mut local = plain(2, "203.0.113.5/32");
        local.header.kind = RouteType::Local;
        assert_eq!(on_link(&local, &own), None);

        let mut address = AddressMessage::default();
        address.header.family = AddressFamily::Inet;
        (address.header.index, address.header.prefix_len) = (2, 29);
        address.attributes = vec![AddressAttribute::Address([203, 0, 113, 77].into())];
        assert_eq!(around(&address, &own), Some(prefix("203.0.113.72/29")));
        address.header.index = 7;
        assert_eq!(around(&address, &own), None);
    }

    #[test]
    fn prefixes_overlap_if_one_holds_the_other() {
        for (one, other, expected) in [
            ("10.0.0.0/8", "10.7.0.0/16", true),
            ("10.7.0.0/16", "10.0.0.0/8", true),
            ("10.7.0.0/16", "10.8.0.0/16", false),
            ("2000::/3", "2001:db8::/64", true),
            ("2000::/3", "10.0.0.0/8", false),
        ] {
            assert_eq!(overlaps(&prefix(one), &prefix(other)), expected, "{one} {other}");
        }
    }
}
