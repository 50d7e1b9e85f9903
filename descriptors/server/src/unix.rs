//! The AF_UNIX sockets of the node's own.

use std::os::fd::OwnedFd;

use peersock_fd::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// A socket of the node's, which nobody inherits and no call waits on.
pub(crate) fn unix(kind: SocketType) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)
}
