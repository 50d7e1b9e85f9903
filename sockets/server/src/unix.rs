//! The node's AF_UNIX sockets.

use std::os::fd::OwnedFd;

use peersock_fd::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Returns a non-blocking socket that child programs do not inherit.
pub(crate) fn unix(kind: SocketType) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)
}
