//! Reverse DNS names of addresses, and of all addresses in a prefix.

use std::net::IpAddr;

/// Parses the address in a reverse DNS name (RFC 1035 3.5, RFC 3596 2.5).
pub(crate) fn address_in(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let reversed: Vec<&str> = labels.rsplit('.').collect();
        return reversed.join(".").parse().map(IpAddr::V4).ok();
    }
    let digits: Vec<&str> = name.strip_suffix(".ip6.arpa")?.rsplit('.').collect();
    if digits.len() != 32 || digits.iter().any(|digit| digit.len() != 1) {
        return None;
    }
    let bits = u128::from_str_radix(&digits.concat(), 16).ok()?;
    Some(IpAddr::V6(bits.into()))
}

/// Returns the reverse domains of the addresses with these first `length` bits (RFC 1035 3.5, RFC 3596 2.5).
/// A domain ends at a byte of IPv4 or a half byte of IPv6, so there may be up to 128 domains.
pub fn zones(address: IpAddr, length: u8) -> Vec<String> {
    let (bits, width, of_label) = match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32, 8),
        IpAddr::V6(v6) => (v6.to_bits(), 128, 4),
    };
    let length = u32::from(length).min(width);
    let labels = length.div_ceil(of_label);
    let (first, more) = (bits.checked_shr(128 - length).unwrap_or(0), labels * of_label - length);
    let zone = |number: u128| {
        let label = |at: u32| number >> (at * of_label) & ((1 << of_label) - 1);
        let labels = (0..labels).map(|at| match address {
            IpAddr::V4(_) => format!("{}.", label(at)),
            IpAddr::V6(_) => format!("{:x}.", label(at)),
        });
        let all = if address.is_ipv4() { "in-addr.arpa" } else { "ip6.arpa" };
        format!("{}{all}", labels.collect::<String>())
    };
    (0..1 << more).map(|at| zone(first << more | at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_have_zones_for_the_names_of_their_addresses() {
        let zones = |address: &str, length| zones(address.parse().unwrap(), length);
        assert_eq!(zones("10.97.0.1", 24), ["0.97.10.in-addr.arpa"]);
        assert_eq!(zones("10.97.0.6", 31), ["6.0.97.10.in-addr.arpa", "7.0.97.10.in-addr.arpa"]);
        assert_eq!(zones("10.97.5.6", 23), ["4.97.10.in-addr.arpa", "5.97.10.in-addr.arpa"]);
        assert_eq!(zones("10.97.5.6", 32), ["6.5.97.10.in-addr.arpa"]);
        assert_eq!(zones("fd12:3456::1", 32), ["6.5.4.3.2.1.d.f.ip6.arpa"]);
        assert_eq!(zones("fd12:3456::1", 31), ["6.5.4.3.2.1.d.f.ip6.arpa", "7.5.4.3.2.1.d.f.ip6.arpa"]);
    }

    #[test]
    fn the_zone_of_an_address_is_its_name() {
        for address in ["10.97.5.6", "fd12:3456::1"].map(|text| text.parse::<IpAddr>().unwrap()) {
            let [zone] = &zones(address, if address.is_ipv4() { 32 } else { 128 })[..] else { panic!() };
            assert_eq!(address_in(zone), Some(address));
        }
    }
}
