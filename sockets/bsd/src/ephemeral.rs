//! UDP servers at any port: they bind to port 0, read the port, tell others, and wait.
//!
//! A client binds in the same way, so binding does not show that peers must reach the socket; reading the
//! port does. From then on the socket is on both networks, see [`Sides::share`](crate::Sides::share).

use std::net::SocketAddr;
use std::os::fd::RawFd;

use crate::kernel::{self, int_option};
use crate::{is_any, overlay};

/// Maximum number of sockets remembered; beyond it the oldest is forgotten.
const MAX_SOCKETS: usize = 1024;

/// Returns the cookie (SO_COOKIE) of a kernel UDP socket that is bound to `local`, if `local` is any port of
/// a wildcard address.
pub fn cookie_of_any_port(fd: RawFd, local: SocketAddr) -> Option<u64> {
    let is_udp = || int_option(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL) == Some(libc::IPPROTO_UDP);
    if is_any(local) && is_udp() && overlay(fd).is_none() { kernel::cookie(fd) } else { None }
}

/// The sockets that were bound to any port, and whose port no call has read yet.
///
/// ```
/// use std::net::UdpSocket;
/// use std::os::fd::AsRawFd as _;
/// use peersock_bsd::ephemeral::{AnyPorts, cookie_of_any_port};
///
/// let (mut known, socket) = (AnyPorts::new(), UdpSocket::bind("[::]:0")?);
/// let cookie = cookie_of_any_port(socket.as_raw_fd(), "[::]:0".parse().unwrap()).expect("the kernel's");
/// known.note(cookie);
/// assert!(known.take(cookie) && !known.take(cookie));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct AnyPorts(Vec<u64>);

impl AnyPorts {
    /// Creates an empty set.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Returns true if the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a socket.
    pub fn note(&mut self, cookie: u64) {
        if self.0.len() >= MAX_SOCKETS {
            self.0.remove(0);
        }
        self.0.push(cookie);
    }

    /// Removes a socket. Returns true if it was in the set.
    pub fn take(&mut self, cookie: u64) -> bool {
        self.0.extract_if(.., |known| *known == cookie).next().is_some()
    }
}
