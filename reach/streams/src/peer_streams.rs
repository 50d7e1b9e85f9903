//! Connections between two nodes: both listen and connect on one port, and exchange the same frames as on
//! streams to roots.
//!
//! Behind NAT, two nodes get a connection when both connect at the same time (RFC 9293, 3.5). So each node
//! uses the port that others have seen for listening and for all its connections. SO_REUSEADDR and
//! SO_REUSEPORT let the sockets of one user share a port. There is no client and no server: each side sends
//! keepalives and answers none. The accepting side sends no keepalive for the first ten seconds.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::carrier::{Carrier, Framed, Framing, Role};
use crate::client::{ConnectOptions, start};
use crate::connection::{Connection, Ends};
use crate::dial::{Way, bind_device, prepare};

/// Number of connections that may wait for accept(2).
const BACKLOG: u32 = 8;

/// The TCP port by which a node connects to others, and at which others connect to it.
///
/// ```
/// use peersock_streams::{PeerPort, Way};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let port = PeerPort::new(0, Way::default());
/// let listener = port.listen(true)?;
/// let there = ([127, 0, 0, 1], listener.local_addr()?.port());
/// let mut near = port.connect(there.into()).await?;
/// let mut far = listener.accept().await?;
/// near.send(&b"a datagram"[..]).expect("it is open");
/// assert_eq!(far.recv().await.expect("it is open"), &b"a datagram"[..]);
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PeerPort {
    port: u16,
    options: ConnectOptions,
}

/// A socket that accepts connections from other nodes.
#[derive(Debug)]
pub struct PeerListener {
    listener: TcpListener,
    options: ConnectOptions,
}

impl PeerPort {
    /// Makes a port with the given way out; with 0 the system chooses a port for each connection.
    pub fn new(port: u16, way: Way) -> Self {
        Self { port, options: ConnectOptions { way, ..ConnectOptions::default() } }
    }

    /// Connects from this port, without a timeout beside the system's. Dropping the future ends the attempt.
    ///
    /// # Errors
    /// The errors of bind(2) and connect(2): refused, unreachable, or the two ports already have a
    /// connection.
    ///
    /// # Panics
    /// Outside a tokio runtime that has I/O and time.
    pub async fn connect(&self, remote: SocketAddr) -> io::Result<Connection> {
        let socket = self.bind(remote.is_ipv4())?;
        let stream = socket.connect(remote).await?;
        carry(stream, Role::Client, &self.options)
    }

    /// Listens at this port, for one of the two families.
    ///
    /// # Errors
    /// The errors of bind(2) and listen(2): a socket of another user, or one that does not share, has the
    /// port.
    ///
    /// # Panics
    /// Outside a tokio runtime that has I/O.
    pub fn listen(&self, ipv4: bool) -> io::Result<PeerListener> {
        let listener = self.bind(ipv4)?.listen(BACKLOG)?;
        Ok(PeerListener { listener, options: self.options.clone() })
    }

    fn bind(&self, ipv4: bool) -> io::Result<TcpSocket> {
        let socket = if ipv4 { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        share_port(&socket)?;
        if !ipv4 {
            // IPv4 uses a separate socket.
            SockRef::from(&socket).set_only_v6(true)?;
        }
        if let Some(interface) = &self.options.way.interface {
            bind_device(&socket, interface)?;
        }
        let any: IpAddr = if ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        socket.bind(SocketAddr::new(any, self.port))?;
        Ok(socket)
    }
}

impl PeerListener {
    /// Returns the address of the listener; if the port was 0, with the port that the system has chosen.
    /// Fails with the errors of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Waits for a connection. Dropping the future while it waits loses no connection.
    /// Fails with the errors of accept(2).
    ///
    /// # Panics
    /// Outside a tokio runtime that has I/O and time.
    pub async fn accept(&self) -> io::Result<Connection> {
        let (stream, _) = self.listener.accept().await?;
        carry(stream, Role::Accepted, &self.options)
    }
}

/// Lets other sockets of the same user share the socket's port for other connections.
#[cfg(unix)]
pub(crate) fn share_port(socket: &TcpSocket) -> io::Result<()> {
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)
}

#[cfg(not(unix))]
pub(crate) fn share_port(_: &TcpSocket) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "sockets cannot share a port here"))
}

fn carry(stream: TcpStream, role: Role, options: &ConnectOptions) -> io::Result<Connection> {
    prepare(&stream)?;
    let ends = Ends { local: stream.local_addr()?, remote: stream.peer_addr()? };
    let carrier = Carrier::Framed(Framed::new(Box::new(stream), Vec::new(), Framing::lengths()));
    Ok(start(options, carrier, role, ends, None))
}
