//! Properties of a network when programs query it as an interface of the machine.

use std::net::IpAddr;

use libc::c_int;
use peersock_fd::Route;

/// Flags of the interface: networks carry groups, and no frames.
pub const FLAGS: c_int = libc::IFF_UP | libc::IFF_RUNNING | libc::IFF_NOARP | libc::IFF_MULTICAST;

/// MTU of the interface, bytes, which the path to every member supports. Most support more.
pub const MTU: u32 = 1280;

/// Returns the netmask of an address.
pub fn netmask(of: &Route) -> IpAddr {
    let prefix = u32::from(of.prefix);
    match of.address {
        IpAddr::V4(_) => IpAddr::V4(u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or(0).into()),
        IpAddr::V6(_) => IpAddr::V6(u128::MAX.checked_shl(128 - prefix.min(128)).unwrap_or(0).into()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use peersock_fd::{Interface, interface_index};

    use super::*;

    /// Returns a network of both families, and one of IPv6 only.
    pub(crate) fn networks() -> Vec<Interface> {
        let own = |address: &str, prefix| Route { address: address.parse().unwrap(), prefix };
        let of = |number: u16, addresses| {
            let (index, name) = (interface_index(number), format!("ps{number}"));
            Interface { index, name, addresses }
        };
        vec![of(1, vec![own("10.77.0.3", 24), own("fd77::3", 64)]), of(2, vec![own("fd78::3", 48)])]
    }

    #[test]
    fn netmasks_have_as_many_bits_as_the_prefix() {
        let of = |address: &str, prefix| netmask(&Route { address: address.parse().unwrap(), prefix });
        assert_eq!(of("10.7.0.1", 0).to_string(), "0.0.0.0");
        assert_eq!(of("10.7.0.1", 20).to_string(), "255.255.240.0");
        assert_eq!(of("10.7.0.1", 32).to_string(), "255.255.255.255");
        assert_eq!(of("fd00::1", 0).to_string(), "::");
        assert_eq!(of("fd00::1", 49).to_string(), "ffff:ffff:ffff:8000::");
    }
}
