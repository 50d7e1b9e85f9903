//! Choice of the local address for a destination (RFC 6724 section 5).
//!
//! These rules apply: the same address (1), the scope (2), the label (6), and the longest prefix (8). No
//! address here is deprecated (3), a home address (4) or temporary (7), and the interface is chosen before
//! (5).

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv6Addr};

use crate::Cidr;

/// Returns the best local address of `destination`'s family; the first of equals.
pub(crate) fn choose(own: &[Cidr], destination: IpAddr) -> Option<IpAddr> {
    let family = own.iter().filter(|own| own.address().is_ipv4() == destination.is_ipv4());
    let better = |best: &'_ Cidr, next: &'_ Cidr| compare(next, best, destination) == Ordering::Greater;
    family.reduce(|best, next| if better(best, next) { next } else { best }).map(Cidr::address)
}

/// Returns `Greater` if `a` suits the destination better than `b`.
fn compare(a: &Cidr, b: &Cidr, destination: IpAddr) -> Ordering {
    let same = |own: &Cidr| own.address() == destination;
    let [wanted, scope_a, scope_b] = [destination, a.address(), b.address()].map(scope);
    // Rule 2: the smallest sufficient scope, else the largest.
    let by_scope = match scope_a.cmp(&scope_b) {
        Ordering::Less if scope_a < wanted => Ordering::Less,
        Ordering::Less => Ordering::Greater,
        Ordering::Greater if scope_b < wanted => Ordering::Greater,
        Ordering::Greater => Ordering::Less,
        Ordering::Equal => Ordering::Equal,
    };
    // Rule 6: an address of the same kind, for example a unique local one for a unique local destination.
    let matches = |own: &Cidr| label(own.address()) == label(destination);
    // Rule 1: a packet to the node itself has the same source and destination.
    same(a)
        .cmp(&same(b))
        .then(by_scope)
        .then(matches(a).cmp(&matches(b)))
        .then(prefix(a, destination).cmp(&prefix(b, destination)))
}

/// Returns the common prefix within the local network's prefix (RFC 6724 2.2). An IPv4 network counts only if
/// it contains the destination.
fn prefix(own: &Cidr, destination: IpAddr) -> u32 {
    let limit = u32::from(own.prefix());
    let common = own.common_prefix(destination).unwrap_or(0).min(limit);
    // Common leading bits of unrelated IPv4 networks say nothing about their distance.
    if destination.is_ipv4() && common < limit { 0 } else { common }
}

/// Returns the scope (RFC 6724 3.1 and 3.2), with the numbers of multicast scopes (RFC 4291 2.7).
fn scope(address: IpAddr) -> u8 {
    const LINK: u8 = 2;
    const SITE: u8 = 5;
    const GLOBAL: u8 = 14;
    match address {
        IpAddr::V4(v4) if v4.is_link_local() || v4.is_loopback() => LINK,
        IpAddr::V4(_) => GLOBAL,
        IpAddr::V6(v6) if v6.is_multicast() => v6.octets()[1] & 15,
        IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_loopback() => LINK,
        IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfec0 => SITE,
        IpAddr::V6(_) => GLOBAL,
    }
}

/// Returns the label of the default policy table (RFC 6724 2.1).
fn label(address: IpAddr) -> u8 {
    let v6 = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let segments = v6.segments();
    match segments {
        _ if v6 == Ipv6Addr::LOCALHOST => 0,
        [0, 0, 0, 0, 0, 0xffff, _, _] => 4,
        [0, 0, 0, 0, 0, 0, _, _] => 3,
        [0x2001, 0, ..] => 5,
        [0x2002, ..] => 2,
        [0x3ffe, ..] => 12,
        [first, ..] if first & 0xffc0 == 0xfec0 => 11,
        [first, ..] if first & 0xfe00 == 0xfc00 => 13,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(own: &[&str], destination: &str) -> String {
        let own: Vec<Cidr> = own.iter().map(|own| own.parse().unwrap()).collect();
        choose(&own, destination.parse().unwrap()).unwrap().to_string()
    }

    /// Checks that the order of the addresses does not matter where a rule decides.
    #[track_caller]
    fn check(own: [&str; 2], destination: &str, expected: &str) {
        assert_eq!(chosen(&own, destination), expected);
        assert_eq!(chosen(&[own[1], own[0]], destination), expected);
    }

    /// RFC 6724 10.1, without the examples of deprecated, home and temporary addresses.
    #[test]
    fn the_examples_of_the_standard() {
        check(["2001:db8:3::1/64", "fe80::1/64"], "2001:db8:1::1", "2001:db8:3::1");
        check(["2001:db8:3::1/64", "fe80::1/64"], "ff05::1", "2001:db8:3::1");
        check(["fe80::1/64", "2001:db8:1::1/64"], "2001:db8:1::1", "2001:db8:1::1");
        check(["fe80::1/64", "2001:db8:2::1/64"], "fe80::2", "fe80::1");
        check(["2001:db8:1::2/64", "2001:db8:3::2/64"], "2001:db8:1::1", "2001:db8:1::2");
        check(["2001:db8:1::2/64", "fec0::2/64"], "2002:c633:6401::1", "2001:db8:1::2");
        check(
            ["2002:c633:6401::d5e3:7953:13eb:22e8/64", "2001:db8:1::2/64"],
            "2002:c633:6401::1",
            "2002:c633:6401:0:d5e3:7953:13eb:22e8",
        );
    }

    #[test]
    fn scopes_and_labels_come_before_prefixes() {
        check(["fe80::1/64", "fd00::1/64"], "ff02::1", "fe80::1");
        check(["fe80::1/64", "fd00::1/64"], "ff0e::1", "fd00::1");
        check(["fd00::1/8", "2001:db8::1/32"], "2a00::1", "2001:db8::1");
        check(["fd00::1/8", "2001:db8::1/32"], "fc00::1", "fd00::1");
        check(["169.254.0.1/16", "10.0.0.1/8"], "192.0.2.1", "10.0.0.1");
        check(["169.254.0.1/16", "10.0.0.1/8"], "169.254.7.7", "169.254.0.1");
    }

    #[test]
    fn the_prefix_counts_as_far_as_the_network_s_goes() {
        // The host parts share one bit more, which must not count.
        assert_eq!(chosen(&["fd00:0:0:1::8000/64", "fd00:0:0:1::1/64"], "fd00:0:0:1::2"), "fd00:0:0:1::8000");
        check(["10.0.0.1/8", "10.9.0.1/16"], "10.9.3.3", "10.9.0.1");
        check(["10.0.0.1/8", "10.9.0.1/16"], "10.2.2.3", "10.0.0.1");
        assert_eq!(chosen(&["10.0.0.1/8", "10.0.0.2/8"], "10.0.0.2"), "10.0.0.2", "the same address");
        assert_eq!(chosen(&["10.0.0.1/8", "10.0.0.2/8", "fd00::1/8"], "10.0.0.3"), "10.0.0.1");
        assert_eq!(choose(&["fd00::1/8".parse().unwrap()], "10.0.0.1".parse().unwrap()), None);
    }
}
