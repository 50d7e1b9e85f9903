//! A socket of the kernel's becomes one of the overlay's, with what this library knows of it.

use std::os::fd::{AsFd, OwnedFd, RawFd};

use libc::{c_int, c_void, socklen_t};
use peersock_bsd::{Client, Errno, Socket};

use crate::{epoll, groups};

/// Turns `fd` into an overlay socket, see [`peersock_bsd::convert`].
///
/// # Errors
/// As [`peersock_bsd::convert`].
pub(crate) fn convert(client: &Client, fd: RawFd) -> Result<(), Errno> {
    peersock_bsd::replace(fd, &counterpart(client, fd)?, epoll::take)
}

/// Turns `fd` into an overlay socket, and sets an option of that.
///
/// # Errors
/// As [`convert`], and those of setsockopt(2).
///
/// # Safety
/// As setsockopt(2).
pub(crate) unsafe fn convert_and_set(
    client: &Client,
    fd: RawFd,
    (level, name): (c_int, c_int),
    value: *const c_void,
    length: socklen_t,
) -> Result<c_int, Errno> {
    convert(client, fd)?;
    let socket = peersock_bsd::overlay(fd).ok_or(Errno::BADF)?;
    // SAFETY: the caller's.
    unsafe { peersock_bsd::setsockopt(&socket, level, name, value, length) }
}

/// Opens an overlay socket like `fd`, with the groups that that has joined.
///
/// # Errors
/// As [`peersock_bsd::counterpart`].
pub(crate) fn counterpart(client: &Client, fd: RawFd) -> Result<OwnedFd, Errno> {
    let new = peersock_bsd::counterpart(client, fd)?;
    groups::repeat(fd, &Socket::of(new.as_fd()).ok_or(Errno::NOTSOCK)?);
    Ok(new)
}
