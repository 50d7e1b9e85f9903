//! `UdpSocket`.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};

use peersock_stack::Received;

use crate::node::{self, Node};
use crate::socket::{Datagrams, TaskUser, ToSocketAddrs, poll_io, resolve};
use peersock_primitives::wait::Interest;

/// UDP socket on the overlay, as `tokio::net::UdpSocket`.
///
/// A datagram longer than the buffer is truncated. One that exceeds the path's size is fragmented, and lost
/// if any fragment is; up to 1124 bytes fit on every path. The largest datagrams are 65,507 bytes over IPv4
/// and 65,527 over IPv6; larger ones fail with EMSGSIZE.
///
/// ```no_run
/// use peersock::UdpSocket;
///
/// # async fn example() -> std::io::Result<()> {
/// let socket = UdpSocket::bind("[::]:5353").await?;
/// let mut buf = [0; 1500];
/// let (n, from) = socket.recv_from(&mut buf).await?;
/// socket.send_to(&buf[..n], from).await?;
/// # Ok(())
/// # }
/// ```
pub struct UdpSocket {
    datagrams: Datagrams,
    _user: TaskUser,
}

impl UdpSocket {
    /// Binds through the process's node: to one of its addresses, or with `[::]` to all. Port 0 lets the node
    /// choose a free one, preferably one that the network allows.
    ///
    /// # Errors
    /// Returns `AddrInUse`, `AddrNotAvailable`, `PermissionDenied`, and the errors of
    /// [`node()`](crate::node()).
    pub async fn bind(addr: impl ToSocketAddrs) -> io::Result<UdpSocket> {
        UdpSocket::bind_on(&node::node()?, addr).await
    }

    /// Binds like [`UdpSocket::bind`], through `node`.
    /// Errors: see [`UdpSocket::bind`].
    pub async fn bind_on(node: &Node, addr: impl ToSocketAddrs) -> io::Result<UdpSocket> {
        let mut last = None;
        for addr in resolve(&node.inner, &addr)? {
            match Datagrams::bind(node, addr) {
                Ok(datagrams) => return Ok(UdpSocket { datagrams, _user: TaskUser::new(&node.inner) }),
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
    pub async fn client_on(node: &Node, peer: IpAddr) -> io::Result<UdpSocket> {
        let datagrams = Datagrams::client(node, peer)?;
        Ok(UdpSocket { datagrams, _user: TaskUser::new(&node.inner) })
    }

    /// Fixes the peer: datagrams from others are dropped, and errors that the peer reports are returned.
    ///
    /// # Errors
    /// Returns `NetworkUnreachable`, `PermissionDenied`.
    pub async fn connect(&self, addr: impl ToSocketAddrs) -> io::Result<()> {
        let addrs = resolve(&self.datagrams.node, &addr)?;
        self.datagrams.connect(addrs[0])
    }

    /// Sends one datagram to `addr`.
    ///
    /// # Errors
    /// Returns EMSGSIZE if it is too long, `NetworkUnreachable`, `PermissionDenied`.
    pub async fn send_to(&self, buf: &[u8], addr: impl ToSocketAddrs) -> io::Result<usize> {
        let addrs = resolve(&self.datagrams.node, &addr)?;
        self.datagrams.send(buf, Some(addrs[0]))
    }

    /// Sends one datagram to the connected peer.
    ///
    /// # Errors
    /// Returns `NotConnected`, `ConnectionRefused` (the peer rejected an earlier datagram), and the errors of
    /// [`UdpSocket::send_to`].
    pub async fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.datagrams.send(buf, None)
    }

    /// Waits for a datagram.
    ///
    /// # Errors
    /// Returns `ConnectionRefused` on a connected socket, `NetworkDown` when the node is shut down.
    pub async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.receive(|datagrams| datagrams.recv(buf)).await.map(|received| (received.len, received.source))
    }

    /// Receives like [`UdpSocket::recv_from`], without the source.
    /// Errors: see [`UdpSocket::recv_from`].
    pub async fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.recv_from(buf).await.map(|(n, _)| n)
    }

    /// Receives like [`UdpSocket::recv_from`], but leaves the datagram in the queue.
    /// Errors: see [`UdpSocket::recv_from`].
    pub async fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.receive(|datagrams| datagrams.peek(buf)).await.map(|received| (received.len, received.source))
    }

    /// Receives a datagram that is available now.
    ///
    /// # Errors
    /// Returns `WouldBlock` if none is.
    pub fn try_recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.datagrams.recv(buf).map(|received| (received.len, received.source))
    }

    /// Returns the local address.
    /// Never fails at present.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.datagrams.local_addr())
    }

    /// Returns the connected peer.
    ///
    /// # Errors
    /// Returns `NotConnected`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.datagrams.peer_addr()
    }

    /// Takes the pending error (SO_ERROR).
    /// Never fails at present.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(self.datagrams.take_error())
    }

    async fn receive(
        &self,
        mut operation: impl FnMut(&Datagrams) -> io::Result<Received>,
    ) -> io::Result<Received> {
        let Datagrams { node, .. } = &self.datagrams;
        poll_fn(|cx| {
            poll_io(node, self.datagrams.waiters(), Interest::Read, cx, || operation(&self.datagrams))
        })
        .await
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket").field("local", &self.datagrams.local_addr()).finish()
    }
}
