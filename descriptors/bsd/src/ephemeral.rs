//! UDP servers at any port: they bind to port 0, ask which port it became, tell others, and wait.
//!
//! Such a socket is bound as a client's is, so binding it does not tell that peers are to reach it; asking
//! for the port does. From then on the socket is on both networks, see [`Sides::share`](crate::Sides::share).

use std::net::SocketAddr;
use std::os::fd::RawFd;

use crate::kernel::{self, int_option};
use crate::{is_any, overlay};

/// Sockets that are remembered; beyond it the oldest is forgotten.
const MOST: usize = 1024;

/// The cookie (SO_COOKIE) of a UDP socket of the kernel that is bound to `local`, if that is any port of a
/// wildcard address.
pub fn cookie_of_any_port(fd: RawFd, local: SocketAddr) -> Option<u64> {
    let is_udp = || int_option(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL) == Some(libc::IPPROTO_UDP);
    if is_any(local) && is_udp() && overlay(fd).is_none() { kernel::cookie(fd) } else { None }
}

/// The sockets that were bound to any port, and whose port was not asked for yet.
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
    /// None yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Returns true if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Remembers a socket.
    pub fn note(&mut self, cookie: u64) {
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push(cookie);
    }

    /// Forgets a socket; true if it was remembered.
    pub fn take(&mut self, cookie: u64) -> bool {
        self.0.extract_if(.., |known| *known == cookie).next().is_some()
    }
}
