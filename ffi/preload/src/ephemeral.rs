//! UDP sockets bound to any port, which become servers once the program reads the port, see
//! [`peersock_bsd::ephemeral`].

use std::net::SocketAddr;
use std::os::fd::RawFd;

use peersock_bsd::Sides;
use peersock_bsd::ephemeral::{AnyPorts, cookie_of_any_port};

use crate::fork_lock::ForkLock;
use crate::kernel::cookie;

/// The sockets of this process.
pub(crate) static ANY_PORT_SOCKETS: ForkLock<AnyPorts> = ForkLock::new(AnyPorts::new());

/// Notes that a socket was bound.
pub(crate) fn note(fd: RawFd, local: SocketAddr) {
    if let Some(cookie) = cookie_of_any_port(fd, local) {
        ANY_PORT_SOCKETS.lock().note(cookie);
    }
}

/// Handles a program's query for the address of a socket.
pub(crate) fn told(sides: &Sides<'_>, fd: RawFd) {
    if ANY_PORT_SOCKETS.lock().is_empty() {
        return;
    }
    let Some(cookie) = cookie(fd) else { return };
    let is_known = ANY_PORT_SOCKETS.lock().take(cookie);
    if is_known {
        // If the overlay has no room for it, it stays reachable from the system's network.
        let _ = sides.share(fd);
    }
}
