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

/// UDP socket on the overlay, as [`std::net::UdpSocket`].
///
/// A datagram longer than the buffer is truncated. One that exceeds the path's size is fragmented, and lost
/// if any fragment is; up to 1124 bytes fit on every path. The largest datagrams are 65,507 bytes over IPv4
/// and 65,527 over IPv6; larger ones fail with EMSGSIZE.
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
    /// Binds through the process's node: to one of its addresses, or with `[::]` to all. Port 0 lets the node
    /// choose a free one, preferably one that the network allows.
    ///
    /// # Errors
    /// Returns `AddrInUse`, `AddrNotAvailable`, `PermissionDenied`, and the errors of
    /// [`node()`](crate::node()).
    pub fn bind(addr: impl ToSocketAddrs) -> io::Result<UdpSocket> {
        UdpSocket::bind_on(&node::node()?, addr)
    }

    /// Binds like [`UdpSocket::bind`], through `node`.
    /// Errors: see [`UdpSocket::bind`].
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

    /// Opens a client socket, which sends requests and gets answers. It has an address of the family of
    /// `peer`, and any free port. If a network allows only some ports, the socket uses none of those. So they
    /// stay free for services, and strangers cannot reach it.
    ///
    /// # Errors
    /// Returns `AddrInUse` if no port is left.
    pub fn client_on(node: &Node, peer: IpAddr) -> io::Result<UdpSocket> {
        let datagrams = Datagrams::client(node, peer)?;
        Ok(UdpSocket { shared: Arc::new(Shared { datagrams, mode: Mode::default() }) })
    }

    /// Fixes the peer: datagrams from others are dropped, and errors that the peer reports are returned.
    ///
    /// # Errors
    /// Returns `NetworkUnreachable`, `PermissionDenied`.
    pub fn connect(&self, addr: impl ToSocketAddrs) -> io::Result<()> {
        let addrs = resolve(&self.shared.datagrams.node, &addr)?;
        self.shared.datagrams.connect(addrs[0])
    }

    /// Sends one datagram to `addr`.
    ///
    /// # Errors
    /// Returns EMSGSIZE if it is too long, `NetworkUnreachable`, `PermissionDenied`.
    pub fn send_to(&self, buf: &[u8], addr: impl ToSocketAddrs) -> io::Result<usize> {
        let addrs = resolve(&self.shared.datagrams.node, &addr)?;
        self.shared.datagrams.send(buf, Some(addrs[0]))
    }

    /// Sends one datagram to the connected peer.
    ///
    /// # Errors
    /// Returns `NotConnected`, `ConnectionRefused` (the peer rejected an earlier datagram), and the errors of
    /// [`UdpSocket::send_to`].
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.shared.datagrams.send(buf, None)
    }

    /// Waits for a datagram.
    ///
    /// # Errors
    /// Returns `WouldBlock` in non-blocking mode or after the read timeout, `ConnectionRefused` on a
    /// connected socket.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.run(|datagrams| datagrams.recv(buf)).map(|received| (received.len, received.source))
    }

    /// Receives like [`UdpSocket::recv_from`], without the source.
    /// Errors: see [`UdpSocket::recv_from`].
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.recv_from(buf).map(|(n, _)| n)
    }

    /// Receives like [`UdpSocket::recv_from`], but leaves the datagram in the queue.
    /// Errors: see [`UdpSocket::recv_from`].
    pub fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.run(|datagrams| datagrams.peek(buf)).map(|received| (received.len, received.source))
    }

    /// Receives like [`UdpSocket::recv`], but leaves the datagram in the queue.
    /// Errors: see [`UdpSocket::recv_from`].
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.peek_from(buf).map(|(n, _)| n)
    }

    /// Returns the local address.
    /// Never fails at present.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.shared.datagrams.local_addr())
    }

    /// Returns the connected peer.
    ///
    /// # Errors
    /// Returns `NotConnected`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.shared.datagrams.peer_addr()
    }

    /// Returns another handle of the same socket.
    /// Never fails at present.
    pub fn try_clone(&self) -> io::Result<UdpSocket> {
        Ok(UdpSocket { shared: Arc::clone(&self.shared) })
    }

    /// Sets whether receiving returns `WouldBlock` instead of waiting.
    /// Never fails at present.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.shared.mode.set_nonblocking(nonblocking);
        Ok(())
    }

    /// Sets the timeout of receiving, which then fails with `WouldBlock`.
    ///
    /// # Errors
    /// Returns `InvalidInput` for a timeout of zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.shared.mode.set_timeout(Interest::Read, timeout)
    }

    /// Returns the timeout, see [`UdpSocket::set_read_timeout`].
    /// Never fails at present.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.shared.mode.timeout(Interest::Read))
    }

    /// Takes the pending error (SO_ERROR).
    /// Never fails at present.
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
