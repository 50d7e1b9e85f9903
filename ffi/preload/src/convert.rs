//! Turning a socket of the kernel into one of the overlay, under the same descriptor.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use libc::c_int;
use peersock_bsd::{Errno, Socket};
use peersock_fd::Client;
use rustix::fs::OFlags;
use rustix::io::{DupFlags, FdFlags};

use crate::kernel::{borrow, int_option};
use crate::{epoll, groups};

/// Options that a program may have set before: level, name, and the value that need not be repeated.
const OPTIONS: &[(c_int, c_int, c_int)] = &[
    (libc::SOL_SOCKET, libc::SO_REUSEADDR, 0),
    (libc::SOL_SOCKET, libc::SO_REUSEPORT, 0),
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 0),
    (libc::SOL_SOCKET, libc::SO_BROADCAST, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, 64),
    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, 1),
    (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, 1),
    (libc::IPPROTO_IP, libc::IP_TTL, 64),
    (libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, 1),
    (libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, 1),
    (libc::IPPROTO_IP, libc::IP_TOS, 0),
    (libc::IPPROTO_IP, libc::IP_PKTINFO, 0),
    (libc::IPPROTO_IP, libc::IP_RECVTTL, 0),
    (libc::IPPROTO_IP, libc::IP_RECVTOS, 0),
    (libc::IPPROTO_IP, libc::IP_RECVERR, 0),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY, 0),
    (libc::IPPROTO_TCP, libc::TCP_CORK, 0),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 7200),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 75),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 9),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 0),
    (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 0),
];

/// Options whose value is longer: repeated unless it is all zeros.
const LONG_OPTIONS: &[(c_int, c_int, usize)] = &[
    (libc::SOL_SOCKET, libc::SO_LINGER, 8),
    (libc::SOL_SOCKET, libc::SO_RCVTIMEO, 16),
    (libc::SOL_SOCKET, libc::SO_SNDTIMEO, 16),
];

/// Turns `fd` into an overlay socket of the same family and kind, with the options that were set.
///
/// # Errors
/// EPROTONOSUPPORT where the overlay has no such sockets, and those of socket(2) and dup3(2).
pub(crate) fn convert(client: &Client, fd: RawFd) -> Result<(), Errno> {
    replace(fd, &counterpart(client, fd)?)
}

/// Opens an overlay socket of the same family and kind as `fd`, with the options that were set.
///
/// # Errors
/// EPROTONOSUPPORT where the overlay has no such sockets, and those of socket(2).
pub(crate) fn counterpart(client: &Client, fd: RawFd) -> Result<OwnedFd, Errno> {
    let option = |name| int_option(fd, libc::SOL_SOCKET, name).ok_or(Errno::NOTSOCK);
    let (domain, kind) = (option(libc::SO_DOMAIN)?, option(libc::SO_TYPE)?);
    let new = peersock_bsd::socket(client, domain, kind, option(libc::SO_PROTOCOL)?)?;
    // SAFETY: it was just opened, and nobody else knows of it.
    let new = unsafe { OwnedFd::from_raw_fd(new) };
    let old = borrow(fd).ok_or(Errno::BADF)?;
    let status = rustix::fs::fcntl_getfl(old)?;
    rustix::fs::fcntl_setfl(
        &new,
        status & (OFlags::NONBLOCK | OFlags::from_bits_retain(libc::O_ASYNC as u32)),
    )?;
    let socket = Socket::of(new.as_fd()).ok_or(Errno::NOTSOCK)?;
    repeat_options(fd, &socket);
    groups::repeat(fd, &socket);
    Ok(new)
}

/// Has `fd` stand for `new` from now on.
///
/// # Errors
/// Those of dup3(2).
pub(crate) fn replace(fd: RawFd, new: &OwnedFd) -> Result<(), Errno> {
    let old = borrow(fd).ok_or(Errno::BADF)?;
    let flags = match rustix::io::fcntl_getfd(old)?.contains(FdFlags::CLOEXEC) {
        true => DupFlags::CLOEXEC,
        false => DupFlags::empty(),
    };
    let sets = epoll::take(fd);
    // SAFETY: the program's descriptor, which goes on being its own; `dup3` replaces what it stands for at once.
    let mut target = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(fd) });
    rustix::io::dup3(new, &mut target, flags)?;
    epoll::restore(target.as_raw_fd(), sets);
    Ok(())
}

/// Sets on the new socket what differs on the old one from what sockets begin with. What the overlay does not have it
/// refuses now as it would have then; nobody hears of it, as nobody heard of it then.
fn repeat_options(old: RawFd, new: &Socket<'_>) {
    for &(level, name, usual) in OPTIONS {
        if let Some(value) = int_option(old, level, name)
            && value != usual
            && !(name == libc::IPV6_UNICAST_HOPS && value == -1)
        {
            let bytes = value.to_ne_bytes();
            // SAFETY: the value is as long as we say.
            let _ = unsafe { peersock_bsd::setsockopt(new, level, name, bytes.as_ptr().cast(), 4) };
        }
    }
    for &(level, name, size) in LONG_OPTIONS {
        let mut value = [0u8; 16];
        let mut length = size as libc::socklen_t;
        let value_ptr = value.as_mut_ptr().cast();
        // SAFETY: both pointers are to live variables of the sizes that the kernel is told.
        let got = unsafe { peersock_bsd::kernel::getsockopt(old, level, name, value_ptr, &raw mut length) };
        if got.is_ok() && value != [0; 16] {
            // SAFETY: the value is as long as the kernel has said.
            let _ = unsafe { peersock_bsd::setsockopt(new, level, name, value.as_ptr().cast(), length) };
        }
    }
}
