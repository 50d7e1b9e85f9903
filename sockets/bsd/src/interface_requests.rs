//! Interface requests of ioctl(2) (netdevice(7)): the kernel answers, and the networks where the kernel knows
//! no answer.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use libc::{c_int, c_ulong, c_void, ifconf};
use peersock_fd::{Errno, Family, Interface, Route, Socket};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::interface::{FLAGS, MTU, netmask};
use crate::kernel::check;
use crate::{Result, overlay};

/// A `struct ifreq`: the name of an interface, followed by the requested value.
type Ifreq = [u8; size_of::<libc::ifreq>()];

/// Length of the name.
const NAME: usize = libc::IF_NAMESIZE;

/// The requests about one interface that an `ifreq` names.
const ABOUT_ONE: [c_ulong; 11] = [
    libc::SIOCGIFNAME,
    libc::SIOCGIFINDEX,
    libc::SIOCGIFFLAGS,
    libc::SIOCGIFMTU,
    libc::SIOCGIFMETRIC,
    libc::SIOCGIFTXQLEN,
    libc::SIOCGIFHWADDR,
    libc::SIOCGIFADDR,
    libc::SIOCGIFDSTADDR,
    libc::SIOCGIFBRDADDR,
    libc::SIOCGIFNETMASK,
];

/// Returns all requests about interfaces.
pub fn all() -> impl Iterator<Item = c_ulong> {
    ABOUT_ONE.into_iter().chain([libc::SIOCGIFCONF])
}

/// Makes such a request.
/// Fails with the errors of ioctl(2).
///
/// # Safety
/// As ioctl(2).
pub unsafe fn ioctl(
    fd: c_int,
    request: c_ulong,
    argument: *mut c_void,
    interfaces: impl FnOnce() -> Vec<Interface>,
) -> Result<c_int> {
    let overlays = overlay(fd);
    let stand_in = overlays.as_ref().and_then(stand_in);
    let asked = stand_in.as_ref().map_or(fd, |stand_in| stand_in.as_raw_fd());
    // SAFETY: the caller's argument goes to the kernel as it is.
    let kernels = || check(unsafe { peersock_fd::syscall!(libc::SYS_ioctl, asked, request, argument) });
    let is_unknown = |error: Errno| error == Errno::NODEV || (overlays.is_some() && error == Errno::NOTTY);
    if request == libc::SIOCGIFCONF && !argument.is_null() {
        // SAFETY: the caller's.
        return unsafe { list(argument.cast(), || kernels().map(drop), is_unknown, interfaces) };
    }
    match kernels() {
        Err(error) if is_unknown(error) && !argument.is_null() => {
            let place = argument.cast::<Ifreq>();
            // SAFETY: the kernel has read it.
            let mut named = unsafe { place.read() };
            answer(request, &mut named, &interfaces())
                .map_err(|ours| if ours == Errno::NODEV { error } else { ours })?;
            // SAFETY: as above.
            unsafe { place.write(named) };
            Ok(0)
        }
        answered => answered.map(|done| done as c_int),
    }
}

/// Handles SIOCGIFCONF.
///
/// # Safety
/// `place` points to an `ifconf`, whose buffer is null or has as much room as it says.
unsafe fn list(
    place: *mut ifconf,
    kernels: impl FnOnce() -> Result<()>,
    is_unknown: impl FnOnce(Errno) -> bool,
    interfaces: impl FnOnce() -> Vec<Interface>,
) -> Result<c_int> {
    // SAFETY: the caller's.
    let before = unsafe { place.read_unaligned() };
    let asked = kernels();
    // SAFETY: as above.
    let mut list = unsafe { place.read_unaligned() };
    match asked {
        // The machine's interfaces are unknown.
        Err(error) if is_unknown(error) => list.ifc_len = 0,
        asked => asked?,
    }
    // SAFETY: both members of the union are pointers to the same.
    let buffer = unsafe { list.ifc_ifcu.ifcu_buf }.cast::<Ifreq>();
    for entry in entries(&interfaces()) {
        let end = list.ifc_len.saturating_add(size_of::<Ifreq>() as c_int);
        if !buffer.is_null() {
            // Entries that do not fit are left out, as in the kernel.
            if end > before.ifc_len {
                break;
            }
            // SAFETY: the caller guarantees that much room.
            unsafe { buffer.byte_add(list.ifc_len as usize).write(entry) };
        }
        list.ifc_len = end;
    }
    // SAFETY: as above.
    unsafe { place.write_unaligned(list) };
    Ok(0)
}

/// Opens a kernel socket in place of an overlay socket, whose AF_UNIX socket knows no addresses. Returns
/// `None` where only the overlay is allowed.
fn stand_in(of: &Socket<'_>) -> Option<OwnedFd> {
    let family = match of.family() {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    };
    socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()
}

/// Answers a request about one interface.
/// Errors: ENODEV if no network has that name or index, EADDRNOTAVAIL if it has no IPv4 address.
fn answer(request: c_ulong, asked: &mut Ifreq, interfaces: &[Interface]) -> Result<()> {
    let named = asked[..NAME].split(|byte| *byte == 0).next().unwrap_or_default();
    let index = asked[NAME..].first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    let is_meant = |of: &&Interface| match request {
        libc::SIOCGIFNAME => Some(of.index) == index,
        _ => of.name.as_bytes() == named,
    };
    let of = interfaces.iter().find(is_meant).ok_or(Errno::NODEV)?;
    let int = |value: u32| value.to_ne_bytes().to_vec();
    let address = || of.addresses.iter().find_map(v4).ok_or(Errno::ADDRNOTAVAIL);
    let value = match request {
        libc::SIOCGIFNAME => {
            put_name(asked, &of.name);
            return Ok(());
        }
        libc::SIOCGIFINDEX => int(of.index),
        libc::SIOCGIFFLAGS => (FLAGS as u16).to_ne_bytes().to_vec(),
        libc::SIOCGIFMTU => int(MTU),
        libc::SIOCGIFMETRIC | libc::SIOCGIFTXQLEN => int(0),
        // Networks have no frames, so there is no hardware address.
        libc::SIOCGIFHWADDR => socket_address(libc::ARPHRD_NONE, Ipv4Addr::UNSPECIFIED),
        libc::SIOCGIFADDR | libc::SIOCGIFDSTADDR => internet(address()?.0),
        // As Linux for an interface without one.
        libc::SIOCGIFBRDADDR => address().map(|_| internet(Ipv4Addr::UNSPECIFIED))?,
        libc::SIOCGIFNETMASK => internet(address()?.1),
        _ => return Err(Errno::NODEV),
    };
    asked[NAME..][..value.len()].copy_from_slice(&value);
    Ok(())
}

/// Returns the networks' entries for SIOCGIFCONF: one for each IPv4 address.
fn entries(interfaces: &[Interface]) -> Vec<Ifreq> {
    let of_one = |of: &Interface| -> Vec<Ifreq> {
        let entry = |(address, _)| {
            let mut entry = [0; size_of::<libc::ifreq>()];
            put_name(&mut entry, &of.name);
            let address = internet(address);
            entry[NAME..][..address.len()].copy_from_slice(&address);
            entry
        };
        of.addresses.iter().filter_map(v4).map(entry).collect()
    };
    interfaces.iter().flat_map(of_one).collect()
}

fn put_name(to: &mut Ifreq, name: &str) {
    to[..NAME].fill(0);
    let length = name.len().min(NAME - 1);
    to[..length].copy_from_slice(&name.as_bytes()[..length]);
}

/// Returns an IPv4 address with its netmask.
fn v4(of: &Route) -> Option<(Ipv4Addr, Ipv4Addr)> {
    match (of.address, netmask(of)) {
        (IpAddr::V4(address), IpAddr::V4(netmask)) => Some((address, netmask)),
        _ => None,
    }
}

fn internet(address: Ipv4Addr) -> Vec<u8> {
    socket_address(libc::AF_INET as u16, address)
}

/// Encodes a `sockaddr_in`, or a `sockaddr` of another family whose bytes are all 0.
fn socket_address(family: u16, address: Ipv4Addr) -> Vec<u8> {
    [&family.to_ne_bytes()[..], &[0; 2], &address.octets(), &[0; 8]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interface::tests::networks;

    fn ask(request: c_ulong, name: &str) -> Result<Vec<u8>> {
        let mut asked = [0xff; size_of::<libc::ifreq>()];
        put_name(&mut asked, name);
        answer(request, &mut asked, &networks())?;
        assert_eq!(&asked[..name.len() + 1], [name.as_bytes(), &[0]].concat());
        Ok(asked[NAME..].to_vec())
    }

    #[test]
    fn each_request_is_answered_of_the_interface_that_is_named() {
        assert!(ask(libc::SIOCGIFINDEX, "ps2").unwrap().starts_with(&16_777_218_u32.to_ne_bytes()));
        assert!(ask(libc::SIOCGIFMTU, "ps1").unwrap().starts_with(&1280_u32.to_ne_bytes()));
        let flags = ask(libc::SIOCGIFFLAGS, "ps1").unwrap();
        assert_eq!(i32::from(u16::from_ne_bytes([flags[0], flags[1]])), FLAGS);
        for (request, address) in [
            (libc::SIOCGIFADDR, [10, 77, 0, 3]),
            (libc::SIOCGIFDSTADDR, [10, 77, 0, 3]),
            (libc::SIOCGIFNETMASK, [255, 255, 255, 0]),
            (libc::SIOCGIFBRDADDR, [0; 4]),
        ] {
            let found = ask(request, "ps1").unwrap();
            assert_eq!((&found[..4], &found[4..8]), (&[2, 0, 0, 0][..], &address[..]));
            assert_eq!(ask(request, "ps2"), Err(Errno::ADDRNOTAVAIL), "it has IPv6 only");
        }
        assert_eq!(ask(libc::SIOCGIFMTU, "ps3"), Err(Errno::NODEV));
        assert_eq!(ask(libc::SIOCGIFMTU, "ps1:0"), Err(Errno::NODEV));
        assert_eq!(ask(libc::SIOCGIFMTU, ""), Err(Errno::NODEV));
    }

    #[test]
    fn names_are_found_by_the_index() {
        let by = |index: u32| {
            let mut asked = [0xff; size_of::<libc::ifreq>()];
            asked[NAME..][..4].copy_from_slice(&index.to_ne_bytes());
            answer(libc::SIOCGIFNAME, &mut asked, &networks()).map(|()| asked[..NAME].to_vec())
        };
        assert_eq!(by(16_777_218), Ok(b"ps2\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec()));
        assert_eq!(by(1), Err(Errno::NODEV));
    }

    #[test]
    fn lists_have_ipv4_addresses_only() {
        let [entry] = entries(&networks())[..] else { panic!("one network has IPv4") };
        assert_eq!((&entry[..4], &entry[NAME..NAME + 8]), (&b"ps1\0"[..], &[2, 0, 0, 0, 10, 77, 0, 3][..]));
    }
}
