//! Sockets of both networks, see [`peersock_bsd::alongside`], with what this library knows of a descriptor.

use std::net::SocketAddr;
use std::os::fd::RawFd;

use libc::{c_int, sockaddr, socklen_t};
use peersock_bsd::{Errno, Rules, alongside, kernel};
use rustix::io::Result;

use crate::convert::counterpart;
use crate::epoll;

/// bind(2) of the kernel. The port may be that of a socket that is closed, and that the node still has.
///
/// # Safety
/// As bind(2).
pub(crate) unsafe fn bind(
    rules: &Rules,
    fd: RawFd,
    address: *const sockaddr,
    length: socklen_t,
    port: u16,
) -> Result<c_int> {
    // SAFETY: the caller's.
    match unsafe { kernel::bind(fd, address, length) } {
        Err(Errno::ADDRINUSE) => {
            alongside::vacate(&rules.client, port)?;
            // SAFETY: the caller's.
            unsafe { kernel::bind(fd, address, length) }
        }
        result => result,
    }
}

/// bind(2) of a UDP socket.
pub(crate) fn bind_datagrams(rules: &Rules, fd: RawFd, local: SocketAddr) -> Result<c_int> {
    alongside::bind_datagrams(rules, fd, local, counterpart, epoll::take)
}

/// listen(2) of a socket of the kernel's that is bound to `local`, or to no port yet.
pub(crate) fn listen(rules: &Rules, fd: RawFd, local: SocketAddr, backlog: c_int) -> Result<c_int> {
    alongside::listen(rules, fd, local, backlog, counterpart, epoll::take)
}
