//! Connections.

mod core;
mod methods;

use std::time::Duration;

use peersock::PeerIdentity;

pub(crate) use self::core::{Core, Unlink};
use self::methods::{connection_methods, stream_methods};
use crate::socket::TcpOption;
use crate::{Addr, SocketError, TcpAddr, UdpAddr, UnixAddr};

/// A TCP connection. Several tasks may use it at once: reads wait for each other, and so do writes, so that
/// each write stays contiguous.
///
/// ```
/// use peersock_net as net;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), net::SocketError> {
/// let listener = net::listen_tcp(Some(&"127.0.0.1:0".parse()?), "tcp").await?;
/// let client = net::dial_tcp(None, &listener.addr(), "tcp").await?;
/// let server = listener.accept().await?;
/// client.write(b"hello").await?;
/// assert_eq!(server.read(100).await?, b"hello");
/// assert_eq!(server.remote_addr(), client.local_addr());
/// # Ok(())
/// # }
/// ```
pub struct TcpConn(Core);

/// A UDP socket, connected or not.
///
/// ```
/// use peersock_net as net;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), net::SocketError> {
/// let server = net::listen_udp(Some(&"[::1]:0".parse()?), "udp6").await?;
/// let client = net::dial_udp(None, Some(&server.local_addr()?), "udp").await?;
/// client.write(b"ping").await?;
/// let (data, sender) = server.read_from(1500).await?;
/// server.write_to(&data, &sender).await?;
/// assert_eq!(client.read(1500).await?, b"ping");
/// # Ok(())
/// # }
/// ```
pub struct UdpConn(Core);

/// A Unix domain socket: a stream (`unix`), or a datagram socket (`unixgram`), connected or not.
///
/// ```
/// use peersock_net as net;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let there = net::UnixAddr::stream(folder.path().join("socket"))?;
/// let listener = net::listen_unix(&there, "unix").await?;
/// let client = net::dial_unix(None, Some(&there), "unix").await?;
/// client.write(b"a line\n").await?;
/// assert_eq!(listener.accept().await?.read_line(100).await?, b"a line\n");
/// # Ok(())
/// # }
/// ```
pub struct UnixConn(Core);

/// A connection of any network, as [`dial`](crate::dial()) returns it.
///
/// Use `AsyncRead` and `AsyncWrite` on streams only, because datagram sockets have no end.
pub enum Conn {
    /// A TCP connection.
    Tcp(TcpConn),
    /// A UDP socket.
    Udp(UdpConn),
    /// A Unix domain socket.
    Unix(UnixConn),
}

connection_methods!(TcpConn);
connection_methods!(UdpConn);
connection_methods!(UnixConn);
connection_methods!(Conn);
stream_methods!(TcpConn);
stream_methods!(UnixConn);
stream_methods!(Conn);

impl TcpConn {
    pub(crate) fn new(core: Core) -> TcpConn {
        TcpConn(core)
    }

    fn core(&self) -> &Core {
        &self.0
    }

    /// Returns the local address, also after closing.
    pub fn local_addr(&self) -> TcpAddr {
        match self.0.local() {
            Ok(Addr::Tcp(addr)) => addr,
            // The connection was reset before its address was first queried.
            _ => TcpAddr::default(),
        }
    }

    /// Returns the peer's address, also after closing.
    pub fn remote_addr(&self) -> TcpAddr {
        match self.0.remote() {
            Some(Addr::Tcp(addr)) => addr.clone(),
            _ => TcpAddr::default(),
        }
    }

    /// Returns who is at the other end, as of when the connection was established, also after closing. `None`
    /// if the connection is not over the overlay.
    pub fn peer(&self) -> Option<PeerIdentity> {
        self.0.peer()
    }

    /// Sets TCP_NODELAY: if true, small writes are sent at once. Default: true.
    ///
    /// # Errors
    /// [`SocketError::Closed`], and system errors.
    pub fn set_no_delay(&self, flag: bool) -> Result<(), SocketError> {
        self.0.set("set no delay", TcpOption::NoDelay(flag))
    }

    /// Sets SO_KEEPALIVE: if true, probes check that the peer is alive, on the overlay after two hours of
    /// silence, elsewhere as the system is configured. Default: false.
    ///
    /// # Errors
    /// [`SocketError::Closed`], and system errors.
    pub fn set_keep_alive(&self, flag: bool) -> Result<(), SocketError> {
        self.0.set("set keep alive", TcpOption::KeepAlive(flag))
    }

    /// Sets SO_LINGER, the fate of unsent data on close. `None`, the default, sends it in the background.
    /// Zero drops it and resets the connection. Otherwise close blocks the thread for up to this time; the
    /// kernel uses whole seconds.
    ///
    /// # Errors
    /// [`SocketError::Closed`], and system errors.
    pub fn set_linger(&self, linger: impl Into<Option<Duration>>) -> Result<(), SocketError> {
        self.0.set("set linger", TcpOption::Linger(linger.into()))
    }
}

impl UdpConn {
    pub(crate) fn new(core: Core) -> UdpConn {
        UdpConn(core)
    }

    fn core(&self) -> &Core {
        &self.0
    }

    /// Returns the local address.
    ///
    /// # Errors
    /// [`SocketError::Closed`], unless the socket is connected.
    pub fn local_addr(&self) -> Result<UdpAddr, SocketError> {
        match self.0.local()? {
            Addr::Udp(addr) => Ok(addr),
            _ => Ok(UdpAddr::default()),
        }
    }

    /// Returns the peer's address; `None` if the socket is not connected.
    pub fn remote_addr(&self) -> Option<UdpAddr> {
        match self.0.remote()? {
            Addr::Udp(addr) => Some(addr.clone()),
            _ => None,
        }
    }

    /// Reads one datagram, up to `n` bytes of it, and returns it with its sender's address.
    /// Errors: see [`read`](Self::read).
    pub async fn read_from(&self, n: usize) -> Result<(Vec<u8>, UdpAddr), SocketError> {
        match self.0.read_from(n).await? {
            (data, Some(Addr::Udp(sender))) => Ok((data, sender)),
            (data, _) => Ok((data, UdpAddr::default())),
        }
    }

    /// Sends one datagram to an address. Returns the number of bytes.
    ///
    /// # Errors
    /// See [`write`](Self::write). EISCONN if the socket is connected, or an error if the address does not
    /// fit.
    pub async fn write_to(&self, data: &[u8], addr: &UdpAddr) -> Result<usize, SocketError> {
        self.0.write_to(data, &Addr::Udp(addr.clone())).await
    }

    /// Sets SO_BROADCAST: if true, the kernel may send datagrams to IPv4 broadcast addresses. The overlay has
    /// no broadcast. Default: false.
    ///
    /// # Errors
    /// [`SocketError::Closed`], and system errors.
    pub fn set_broadcast(&self, flag: bool) -> Result<(), SocketError> {
        self.0.set_broadcast(flag)
    }
}

impl UnixConn {
    pub(crate) fn new(core: Core) -> UnixConn {
        UnixConn(core)
    }

    fn core(&self) -> &Core {
        &self.0
    }

    /// Returns the local address; its name is empty if the socket has none.
    ///
    /// # Errors
    /// [`SocketError::Closed`], unless the socket is connected.
    pub fn local_addr(&self) -> Result<UnixAddr, SocketError> {
        match self.0.local()? {
            Addr::Unix(addr) => Ok(addr),
            _ => Err(SocketError::errno("local address", libc::EAFNOSUPPORT)),
        }
    }

    /// Returns the peer's address; `None` if the socket is not connected.
    pub fn remote_addr(&self) -> Option<UnixAddr> {
        match self.0.remote()? {
            Addr::Unix(addr) => Some(addr.clone()),
            _ => None,
        }
    }

    /// Reads one datagram, up to `n` bytes of it, and returns it with its sender's address (empty if the
    /// sender has no name). On a stream, returns the data of [`read`](Self::read) and the peer's address.
    /// Errors: see [`read`](Self::read).
    pub async fn read_from(&self, n: usize) -> Result<(Vec<u8>, UnixAddr), SocketError> {
        match self.0.read_from(n).await? {
            (data, Some(Addr::Unix(sender))) => Ok((data, sender)),
            _ => Err(SocketError::errno("read", libc::EAFNOSUPPORT)),
        }
    }

    /// Sends one datagram to an address, waiting until the receiver has room. Returns the number of bytes.
    ///
    /// # Errors
    /// See [`write`](Self::write). EISCONN if the socket is a stream or connected, or an error if the address
    /// does not fit.
    pub async fn write_to(&self, data: &[u8], addr: &UnixAddr) -> Result<usize, SocketError> {
        self.0.write_to(data, &Addr::Unix(addr.clone())).await
    }

    /// Sets whether closing removes the path of the socket. Default: false; listeners: true.
    ///
    /// # Errors
    /// [`SocketError::Closed`].
    pub fn set_unlink_on_close(&self, unlink: bool) -> Result<(), SocketError> {
        self.0.set_unlink_on_close(unlink)
    }
}

impl Conn {
    fn core(&self) -> &Core {
        match self {
            Conn::Tcp(conn) => conn.core(),
            Conn::Udp(conn) => conn.core(),
            Conn::Unix(conn) => conn.core(),
        }
    }

    /// Returns the local address.
    ///
    /// # Errors
    /// [`SocketError::Closed`], unless the socket is connected.
    pub fn local_addr(&self) -> Result<Addr, SocketError> {
        self.core().local()
    }

    /// Returns the peer's address; `None` if the socket is not connected.
    pub fn remote_addr(&self) -> Option<Addr> {
        self.core().remote().cloned()
    }

    /// Reads one datagram, up to `n` bytes of it, and returns it with its sender's address. On a stream,
    /// returns the data of [`read`](Self::read) and the peer's address.
    /// Errors: see [`read`](Self::read).
    pub async fn read_from(&self, n: usize) -> Result<(Vec<u8>, Addr), SocketError> {
        let (data, sender) = self.core().read_from(n).await?;
        let sender = sender.or_else(|| self.remote_addr());
        Ok((data, sender.ok_or_else(|| SocketError::errno("read", libc::ENOTCONN))?))
    }

    /// Sends one datagram to an address. Returns the number of bytes.
    ///
    /// # Errors
    /// See [`write`](Self::write). EISCONN if the socket is a stream or connected, or an error if the address
    /// does not fit.
    pub async fn write_to(&self, data: &[u8], addr: &Addr) -> Result<usize, SocketError> {
        self.core().write_to(data, addr).await
    }
}

macro_rules! conn_of {
    ($($kind:ident: $name:ty),*) => {$(
        impl From<$name> for Conn {
            fn from(conn: $name) -> Conn {
                Conn::$kind(conn)
            }
        }
    )*};
}

conn_of!(Tcp: TcpConn, Udp: UdpConn, Unix: UnixConn);
