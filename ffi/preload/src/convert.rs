//! Conversion of a kernel socket to an overlay socket, with the state that this library keeps about it.

use std::os::fd::{AsFd, OwnedFd, RawFd};

use libc::{c_int, c_void, socklen_t};
use peersock_bsd::{Client, Errno, Socket};

use crate::{epoll, groups};

/// Turns `fd` into an overlay socket, see [`peersock_bsd::convert`].
///
/// # Errors
/// Errors of [`peersock_bsd::convert`].
pub(crate) fn convert(client: &Client, fd: RawFd) -> Result<(), Errno> {
    peersock_bsd::replace(fd, &counterpart(client, fd)?, epoll::take)
}

/// Turns `fd` into an overlay socket, and sets an option on it.
///
/// # Errors
/// Errors of [`convert`] and of setsockopt(2).
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

/// Opens an overlay socket like `fd`, with the groups that `fd` has joined.
///
/// # Errors
/// Errors of [`peersock_bsd::counterpart`].
pub(crate) fn counterpart(client: &Client, fd: RawFd) -> Result<OwnedFd, Errno> {
    let new = peersock_bsd::counterpart(client, fd)?;
    groups::repeat(fd, &Socket::of(new.as_fd()).ok_or(Errno::NOTSOCK)?);
    Ok(new)
}
