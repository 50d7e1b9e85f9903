//! Parsers of option values in their C layout.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use peersock_fd::Errno;
use peersock_stack::InterfaceId;

/// Parses an `int`.
pub(super) fn integer(value: &[u8]) -> Result<i32, Errno> {
    let bytes = value.get(..4).and_then(|bytes| bytes.try_into().ok()).ok_or(Errno::INVAL)?;
    Ok(i32::from_ne_bytes(bytes))
}

/// Parses an `int`, or a single byte, as ip(7) allows.
pub(super) fn small(value: &[u8]) -> Result<i32, Errno> {
    match value {
        [byte] | [byte, _] | [byte, _, _] => Ok((*byte).into()),
        value => integer(value),
    }
}

pub(super) fn flag(value: &[u8]) -> Result<bool, Errno> {
    Ok(integer(value)? != 0)
}

/// Checks that an `int` is within a range.
pub(super) fn within(value: i32, range: std::ops::RangeInclusive<i32>) -> Result<i32, Errno> {
    if range.contains(&value) { Ok(value) } else { Err(Errno::INVAL) }
}

/// Converts to an octet; -1 means the default.
pub(super) fn octet(value: i32, default: u8, least: u8) -> Result<u8, Errno> {
    match u8::try_from(value) {
        Ok(value) if value >= least => Ok(value),
        _ if value == -1 => Ok(default),
        _ => Err(Errno::INVAL),
    }
}

pub(super) fn number(number: impl Into<i64>) -> Vec<u8> {
    (number.into() as i32).to_ne_bytes().to_vec()
}

fn v4(value: &[u8], at: usize) -> Result<Ipv4Addr, Errno> {
    let octets = value.get(at..at + 4).and_then(|octets| <[u8; 4]>::try_from(octets).ok());
    octets.map(Ipv4Addr::from).ok_or(Errno::INVAL)
}

fn v6(value: &[u8], at: usize) -> Result<Ipv6Addr, Errno> {
    let octets = value.get(at..at + 16).and_then(|octets| <[u8; 16]>::try_from(octets).ok());
    octets.map(Ipv6Addr::from).ok_or(Errno::INVAL)
}

/// Reference to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InterfaceRef {
    Any,
    Index(i32),
    Address(Ipv4Addr),
}

impl InterfaceRef {
    fn by_index(index: i32) -> Self {
        if index == 0 { Self::Any } else { Self::Index(index) }
    }

    fn by_address(address: Ipv4Addr) -> Self {
        if address.is_unspecified() { Self::Any } else { Self::Address(address) }
    }
}

/// Parses a group and its interface: `ip_mreq`, `ip_mreqn`.
pub(super) fn membership_v4(value: &[u8]) -> Result<(IpAddr, InterfaceRef), Errno> {
    let group = v4(value, 0)?;
    let address = InterfaceRef::by_address(v4(value, 4)?);
    let interface = match value.get(8..) {
        Some(index) if index.len() >= 4 && integer(index)? != 0 => InterfaceRef::Index(integer(index)?),
        _ => address,
    };
    Ok((group.into(), interface))
}

/// As above: `ipv6_mreq`.
pub(super) fn membership_v6(value: &[u8]) -> Result<(IpAddr, InterfaceRef), Errno> {
    let index = integer(value.get(16..).ok_or(Errno::INVAL)?)?;
    Ok((v6(value, 0)?.into(), InterfaceRef::by_index(index)))
}

/// As above: `group_req`, an index followed by an aligned `sockaddr_storage`.
pub(super) fn membership_any(value: &[u8]) -> Result<(IpAddr, InterfaceRef), Errno> {
    let at = size_of::<usize>();
    let group = storage(value.get(at..).ok_or(Errno::INVAL)?)?;
    Ok((group, InterfaceRef::by_index(integer(value)?)))
}

/// Parses the address in a `sockaddr_storage`.
fn storage(value: &[u8]) -> Result<IpAddr, Errno> {
    let value = value.get(..size_of::<libc::sockaddr_storage>()).ok_or(Errno::INVAL)?;
    match i32::from(u16::from_ne_bytes([value[0], value[1]])) {
        libc::AF_INET => Ok(v4(value, 4)?.into()),
        libc::AF_INET6 => Ok(v6(value, 8)?.into()),
        _ => Err(Errno::AFNOSUPPORT),
    }
}

/// Parses a group, an interface, and a source: `ip_mreq_source`.
pub(super) fn source_v4(value: &[u8]) -> Result<(IpAddr, InterfaceRef, IpAddr), Errno> {
    let (group, interface) = (v4(value, 0)?, InterfaceRef::by_address(v4(value, 4)?));
    Ok((group.into(), interface, v4(value, 8)?.into()))
}

/// As above: `group_source_req`, an index followed by two aligned `sockaddr_storage`.
pub(super) fn source_any(value: &[u8]) -> Result<(IpAddr, InterfaceRef, IpAddr), Errno> {
    let (group, interface) = membership_any(value)?;
    let behind = &value[size_of::<usize>() + size_of::<libc::sockaddr_storage>()..];
    Ok((group, interface, storage(behind)?))
}

/// Parses an `in6_pktinfo`.
pub(super) fn packet_info(value: &[u8]) -> Result<(Ipv6Addr, InterfaceRef), Errno> {
    Ok((v6(value, 0)?, InterfaceRef::by_index(integer(value.get(16..).ok_or(Errno::INVAL)?)?)))
}

/// Parses IP_MULTICAST_IF: an address, `ip_mreq` or `ip_mreqn`.
pub(super) fn multicast_interface(value: &[u8]) -> Result<InterfaceRef, Errno> {
    match value.len() {
        0..4 => Err(Errno::INVAL),
        4..8 => Ok(InterfaceRef::by_address(v4(value, 0)?)),
        _ => Ok(membership_v4(value)?.1),
    }
}

/// Parses IPV6_MULTICAST_IF.
pub(super) fn multicast_interface_v6(value: &[u8]) -> Result<InterfaceRef, Errno> {
    Ok(InterfaceRef::by_index(integer(value)?))
}

/// Returns the index of an interface, as applications see it.
pub(crate) fn index(interface: InterfaceId) -> i32 {
    let number = u16::try_from(interface.0).unwrap_or(u16::MAX);
    i32::try_from(peersock_fd::interface_index(number)).unwrap_or(i32::MAX)
}

/// Returns the name of an interface.
pub(crate) fn interface_name(interface: InterfaceId) -> String {
    format!("ps{}", interface.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_survived(value in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (integer(&value), small(&value), membership_v4(&value), membership_v6(&value));
            let _ = (membership_any(&value), multicast_interface(&value));
            let _ = (source_v4(&value), source_any(&value), packet_info(&value));
        }
    }

    #[test]
    fn the_forms_of_a_membership_are_told_apart() {
        let group = Ipv4Addr::new(239, 1, 2, 3);
        let own = Ipv4Addr::new(10, 0, 0, 1);
        let mut value = [group.octets(), own.octets()].concat();
        assert_eq!(membership_v4(&value), Ok((group.into(), InterfaceRef::Address(own))));
        value.extend(2i32.to_ne_bytes());
        assert_eq!(membership_v4(&value), Ok((group.into(), InterfaceRef::Index(2))));
        assert_eq!(membership_v4(&value[..7]), Err(Errno::INVAL));
    }
}
