//! `UdpSocket`.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use peersock_stack::Received;

use super::Mode;
use crate::node::{self, Node};
use crate::socket::{Datagrams, ToSocketAddrs, resolve};
use peersock_primitives::wait::Interest;

/// A UDP socket on the overlay, as [`std::net::UdpSocket`].
///
/// A datagram that is longer than the buffer is cut off. One that does not fit the path to its destination
/// whole goes in fragments, and is lost if one of them is; what fits on every path is 1124 bytes. The longest
/// are 65,507 bytes over IPv4 and 65,527 over IPv6; more is refused with the error EMSGSIZE.
///
/// ```no_run
/// use peersock::blocking::UdpSocket;
///
/// let socket = UdpSocket::bind("[::]:5353")?;
/// let mut buf = [0; 1500];
/// let (n, from) = socket.recv_from(&mut buf)?;
/// socket.send_to(&buf[..n], from)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UdpSocket {
    shared: Arc<Shared>,
}

struct Shared {
    datagrams: Datagrams,
    mode: Mode,
}

impl UdpSocket {
    /// Binds through the process's node: to an address of its own, or with `[::]` to all; port 0 lets the
    /// node choose one that is free and, as long as there is one, that the network allows.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, `PermissionDenied`, and those of [`node()`](crate::node()).
    pub fn bind(addr: impl ToSocketAddrs) -> io::Result<UdpSocket> {
        UdpSocket::bind_on(&node::node()?, addr)
    }

    /// As [`UdpSocket::bind`], through `node`.
    ///
    /// # Errors
    /// See [`UdpSocket::bind`].
    pub fn bind_on(node: &Node, addr: impl ToSocketAddrs) -> io::Result<UdpSocket> {
        let mut last = None;
        for addr in resolve(&node.inner, &addr)? {
            match Datagrams::bind(node, addr) {
                Ok(datagrams) => {
                    return Ok(UdpSocket { shared: Arc::new(Shared { datagrams, mode: Mode::default() }) });
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("resolve gives at least one address"))
    }

    /// Opens a socket that asks and gets answers: it has an address of the family of `peer`, and any free
    /// port. Where a network allows only some ports, those stay free for services, and strangers cannot reach
    /// it.
    ///
    /// # Errors
    /// `AddrInUse` if no port is left.
    pub fn client_on(node: &Node, peer: IpAddr) -> io::Result<UdpSocket> {
        let datagrams = Datagrams::client(node, peer)?;
        Ok(UdpSocket { shared: Arc::new(Shared { datagrams, mode: Mode::default() }) })
    }

    /// Fixes the peer: datagrams from others are no longer received, and errors it reports are.
    ///
    /// # Errors
    /// `NetworkUnreachable`, `PermissionDenied`.
    pub fn connect(&self, addr: impl ToSocketAddrs) -> io::Result<()> {
        let addrs = resolve(&self.shared.datagrams.node, &addr)?;
        self.shared.datagrams.connect(addrs[0])
    }

    /// Sends one datagram to `addr`.
    ///
    /// # Errors
    /// EMSGSIZE if it is too long, `NetworkUnreachable`, `PermissionDenied`.
    pub fn send_to(&self, buf: &[u8], addr: impl ToSocketAddrs) -> io::Result<usize> {
        let addrs = resolve(&self.shared.datagrams.node, &addr)?;
        self.shared.datagrams.send(buf, Some(addrs[0]))
    }

    /// Sends one datagram to the connected peer.
    ///
    /// # Errors
    /// `NotConnected`, `ConnectionRefused` (the peer said so about an earlier one), and those of
    /// [`UdpSocket::send_to`].
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.shared.datagrams.send(buf, None)
    }

    /// Waits for a datagram.
    ///
    /// # Errors
    /// `WouldBlock` in non-blocking mode or after the read timeout, `ConnectionRefused` on a connected
    /// socket.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.run(|datagrams| datagrams.recv(buf)).map(|received| (received.len, received.source))
    }

    /// As [`UdpSocket::recv_from`], without the source.
    ///
    /// # Errors
    /// See [`UdpSocket::recv_from`].
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.recv_from(buf).map(|(n, _)| n)
    }

    /// As [`UdpSocket::recv_from`]; the datagram stays.
    ///
    /// # Errors
    /// See [`UdpSocket::recv_from`].
    pub fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.run(|datagrams| datagrams.peek(buf)).map(|received| (received.len, received.source))
    }

    /// As [`UdpSocket::recv`]; the datagram stays.
    ///
    /// # Errors
    /// See [`UdpSocket::recv_from`].
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.peek_from(buf).map(|(n, _)| n)
    }

    /// The socket's own address.
    ///
    /// # Errors
    /// None at present.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.shared.datagrams.local_addr())
    }

    /// The connected peer.
    ///
    /// # Errors
    /// `NotConnected`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.shared.datagrams.peer_addr()
    }

    /// Another handle of the same socket.
    ///
    /// # Errors
    /// None at present.
    pub fn try_clone(&self) -> io::Result<UdpSocket> {
        Ok(UdpSocket { shared: Arc::clone(&self.shared) })
    }

    /// Whether receiving returns `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// None at present.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.shared.mode.set_nonblocking(nonblocking);
        Ok(())
    }

    /// The longest wait for a datagram; receiving then fails with `WouldBlock`.
    ///
    /// # Errors
    /// `InvalidInput` for a timeout of zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.shared.mode.set_timeout(Interest::Read, timeout)
    }

    /// See [`UdpSocket::set_read_timeout`].
    ///
    /// # Errors
    /// None at present.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.shared.mode.timeout(Interest::Read))
    }

    /// Takes the pending error (SO_ERROR).
    ///
    /// # Errors
    /// None at present.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(self.shared.datagrams.take_error())
    }

    fn run(&self, mut operation: impl FnMut(&Datagrams) -> io::Result<Received>) -> io::Result<Received> {
        let Shared { datagrams, mode } = &*self.shared;
        mode.run(&datagrams.node, datagrams.waiters(), Interest::Read, || operation(datagrams))
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket").field("local", &self.shared.datagrams.local_addr()).finish()
    }
}
