//! Addresses in C's form.

use std::mem::{offset_of, size_of};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ptr;

use libc::{sockaddr, sockaddr_in, sockaddr_in6, socklen_t};
use peersock_fd::{Errno, Family};

use crate::Result;

/// Length of a `sockaddr_in6` without the scope, which old programs leave out (RFC 2133), bytes.
const LEAST_IN6: usize = offset_of!(sockaddr_in6, sin6_scope_id);

/// Reads an address. Returns `None` for AF_UNSPEC.
///
/// # Errors
/// EFAULT for a null pointer, EINVAL for a length that is too short or longer than any address, EAFNOSUPPORT
/// for other families.
///
/// # Safety
/// `address` is null or points to `length` bytes.
pub unsafe fn read(address: *const sockaddr, length: socklen_t) -> Result<Option<SocketAddr>> {
    if address.is_null() {
        return Err(Errno::FAULT);
    }
    let length = length as usize;
    if !(size_of::<libc::sa_family_t>()..=size_of::<libc::sockaddr_storage>()).contains(&length) {
        return Err(Errno::INVAL);
    }
    // SAFETY: at least the family is there; it need not be aligned.
    let family = unsafe { ptr::read_unaligned(&raw const (*address).sa_family) };
    match i32::from(family) {
        libc::AF_UNSPEC => Ok(None),
        libc::AF_INET if length >= size_of::<sockaddr_in>() => {
            // SAFETY: the caller says that this many bytes are there; any bytes are a `sockaddr_in`.
            let address = unsafe { ptr::read_unaligned(address.cast::<sockaddr_in>()) };
            let ip = Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes());
            Ok(Some((ip, u16::from_be(address.sin_port)).into()))
        }
        libc::AF_INET6 if length >= LEAST_IN6 => {
            // SAFETY: any bytes, zeros too, are a `sockaddr_in6`.
            let mut full: sockaddr_in6 = unsafe { std::mem::zeroed() };
            let length = length.min(size_of::<sockaddr_in6>());
            // SAFETY: `length` bytes are there and fit.
            unsafe { ptr::copy_nonoverlapping(address.cast::<u8>(), (&raw mut full).cast::<u8>(), length) };
            let ip = Ipv6Addr::from(full.sin6_addr.s6_addr);
            let port = u16::from_be(full.sin6_port);
            Ok(Some(SocketAddrV6::new(ip, port, full.sin6_flowinfo, full.sin6_scope_id).into()))
        }
        libc::AF_INET | libc::AF_INET6 => Err(Errno::INVAL),
        _ => Err(Errno::AFNOSUPPORT),
    }
}

/// Returns Linux's error if a socket of this family cannot be bound or, as a stream, connected to an address
/// in a structure of this length. An IPv6 socket rejects a structure of IPv4's length as too short before it
/// checks the family.
/// Errors: EAFNOSUPPORT, EINVAL.
pub(crate) fn check_structure(family: Family, address: SocketAddr, length: socklen_t) -> Result<()> {
    match (family, Family::of(address.ip())) {
        (Family::V6, Family::V4) if (length as usize) < LEAST_IN6 => Err(Errno::INVAL),
        (own, other) if own != other => Err(Errno::AFNOSUPPORT),
        _ => Ok(()),
    }
}

/// Writes an address, as much as fits, and its whole length; nothing if `address` is null.
/// Errors: EFAULT if there is an address but no length, EINVAL for a negative length.
///
/// # Safety
/// `address` is null, or `length` points to a length and `address` to that many bytes.
pub unsafe fn write(value: SocketAddr, address: *mut sockaddr, length: *mut socklen_t) -> Result<()> {
    if address.is_null() {
        return Ok(());
    }
    if length.is_null() {
        return Err(Errno::FAULT);
    }
    // SAFETY: the caller guarantees a length.
    let room = unsafe { ptr::read_unaligned(length) };
    if i32::try_from(room).is_err() {
        return Err(Errno::INVAL);
    }
    // SAFETY: the caller says that this many bytes are there.
    let whole = unsafe { write_to(value, address, room) };
    // SAFETY: as above.
    unsafe { ptr::write_unaligned(length, whole) };
    Ok(())
}

/// Writes an address, as much as fits, and returns its whole length.
///
/// # Safety
/// `address` points to `room` bytes.
pub(crate) unsafe fn write_to(value: SocketAddr, address: *mut sockaddr, room: socklen_t) -> socklen_t {
    match value {
        SocketAddr::V4(value) => {
            // SAFETY: any bytes, zeros too, are a `sockaddr_in`.
            let mut full: sockaddr_in = unsafe { std::mem::zeroed() };
            full.sin_family = libc::AF_INET as libc::sa_family_t;
            full.sin_port = value.port().to_be();
            full.sin_addr.s_addr = u32::from_ne_bytes(value.ip().octets());
            // SAFETY: the caller says that `room` bytes are there.
            unsafe { put(&full, address, room) }
        }
        SocketAddr::V6(value) => {
            // SAFETY: any bytes, zeros too, are a `sockaddr_in6`.
            let mut full: sockaddr_in6 = unsafe { std::mem::zeroed() };
            full.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            full.sin6_port = value.port().to_be();
            full.sin6_addr.s6_addr = value.ip().octets();
            full.sin6_flowinfo = value.flowinfo();
            full.sin6_scope_id = value.scope_id();
            // SAFETY: the caller says that `room` bytes are there.
            unsafe { put(&full, address, room) }
        }
    }
}

/// # Safety
/// `address` points to `room` bytes.
unsafe fn put<T: Copy>(full: &T, address: *mut sockaddr, room: socklen_t) -> socklen_t {
    let length = size_of::<T>().min(room as usize);
    // SAFETY: no more than is there is read, and no more than fits is written.
    unsafe { ptr::copy_nonoverlapping(ptr::from_ref(full).cast::<u8>(), address.cast::<u8>(), length) };
    size_of::<T>() as socklen_t
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for text in ["10.1.2.3:80", "[fd00::1]:443"] {
            let address: SocketAddr = text.parse().expect("an address");
            let mut storage = [0u8; 64];
            let mut length = 64;
            // SAFETY: the storage is as long as the given length.
            unsafe {
                write(address, storage.as_mut_ptr().cast(), &raw mut length).expect("there is room");
                assert_eq!(read(storage.as_ptr().cast(), length), Ok(Some(address)));
                assert_eq!(read(storage.as_ptr().cast(), length - 5), Err(Errno::INVAL));
            }
        }
    }

    #[test]
    fn an_address_of_the_other_family_is_refused_as_linux_refuses_it() {
        let (v4, v6): (SocketAddr, SocketAddr) =
            ("10.1.2.3:80".parse().expect("an address"), "[fd00::1]:443".parse().expect("an address"));
        for (family, address, length, wanted) in [
            (Family::V6, v4, 16, Err(Errno::INVAL)),
            (Family::V6, v4, 23, Err(Errno::INVAL)),
            (Family::V6, v4, 24, Err(Errno::AFNOSUPPORT)),
            (Family::V6, v4, 128, Err(Errno::AFNOSUPPORT)),
            (Family::V4, v6, 28, Err(Errno::AFNOSUPPORT)),
            (Family::V4, v4, 16, Ok(())),
            (Family::V6, v6, 24, Ok(())),
        ] {
            assert_eq!(check_structure(family, address, length), wanted, "{family:?} {address} {length}");
        }
    }

    #[test]
    fn what_does_not_fit_is_cut_and_its_length_told() {
        let address: SocketAddr = "[fd00::1]:443".parse().expect("an address");
        let mut storage = [0xaa_u8; 8];
        let mut length = 4;
        // SAFETY: the storage is longer than the given length.
        unsafe { write(address, storage.as_mut_ptr().cast(), &raw mut length).expect("some room") };
        assert_eq!((length, storage[4]), (28, 0xaa));
    }

    #[test]
    fn null_is_an_error_or_nothing() {
        // SAFETY: null is allowed.
        unsafe {
            assert_eq!(read(ptr::null(), 16), Err(Errno::FAULT));
            let any = SocketAddr::from(([0; 4], 0));
            assert_eq!(write(any, ptr::null_mut(), ptr::null_mut()), Ok(()));
            let mut byte = 0u8;
            assert_eq!(write(any, (&raw mut byte).cast(), ptr::null_mut()), Err(Errno::FAULT));
        }
    }
}
