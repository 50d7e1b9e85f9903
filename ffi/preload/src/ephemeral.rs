//! UDP servers at any port: they bind to port 0, ask which port it became, tell others, and wait.
//!
//! Such a socket is bound as a client's is, so binding it does not tell that it is to be reached; asking for
//! the port does. From then on it is on both networks.

use std::net::SocketAddr;
use std::os::fd::RawFd;

use peersock_bsd::{Sides, is_any};

use crate::fork_lock::ForkLock;
use crate::kernel::{cookie, int_option};

/// Sockets that are remembered; beyond it the oldest is forgotten.
const MOST: usize = 1024;

/// The sockets (SO_COOKIE) that were bound to any port of a wildcard address.
pub(crate) static KNOWN: ForkLock<Vec<u64>> = ForkLock::new(Vec::new());

/// Notes that a socket was bound.
pub(crate) fn note(fd: RawFd, local: SocketAddr) {
    if !is_any(local) || int_option(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL) != Some(libc::IPPROTO_UDP) {
        return;
    }
    let Some(cookie) = cookie(fd) else { return };
    let mut known = KNOWN.lock();
    if known.len() >= MOST {
        known.remove(0);
    }
    known.push(cookie);
}

/// The program is about to be told the address of a socket.
pub(crate) fn told(sides: &Sides<'_>, fd: RawFd) {
    if KNOWN.lock().is_empty() {
        return;
    }
    let Some(cookie) = cookie(fd) else { return };
    let is_known = KNOWN.lock().extract_if(.., |known| *known == cookie).next().is_some();
    if is_known {
        // Where the overlay has no room for it, it stays reachable from the system's network.
        let _ = sides.share(fd);
    }
}
