//! A socket of the kernel's becomes one of the overlay's, with what this library knows of it.

use std::os::fd::{AsFd, OwnedFd, RawFd};

use peersock_bsd::{Client, Errno, Socket};

use crate::{epoll, groups};

/// Turns `fd` into an overlay socket, see [`peersock_bsd::convert`].
///
/// # Errors
/// As [`peersock_bsd::convert`].
pub(crate) fn convert(client: &Client, fd: RawFd) -> Result<(), Errno> {
    peersock_bsd::replace(fd, &counterpart(client, fd)?, epoll::take)
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
