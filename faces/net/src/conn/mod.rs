//! Connections.

mod core;
mod methods;

use std::time::Duration;

use peersock::overlay::NodeId;

pub(crate) use self::core::{Core, Unlink};
use self::methods::{connection_methods, stream_methods};
use crate::socket::TcpOption;
use crate::{Addr, SocketError, TcpAddr, UdpAddr, UnixAddr};

/// A TCP connection. Several tasks may use it at once: reads wait for each other, as writes do, so that what
/// is written stays together.
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

/// A Unix domain socket: a stream of the network `unix`, or one for datagrams (`unixgram`), connected or not.
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

/// A connection of any network, as [`dial`](crate::dial()) gives it.
///
/// As `AsyncRead` and `AsyncWrite` it is for streams: datagrams have no end.
///
/// ```
/// use peersock_net as net;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), net::SocketError> {
/// let listener = net::listen("127.0.0.1:0", "tcp").await?;
/// let conn = net::dial(&listener.addr().to_string(), "tcp").await?;
/// assert_eq!(conn.remote_addr(), Some(listener.addr()));
/// # Ok(())
/// # }
/// ```
pub enum Conn {
    /// Of TCP.
    Tcp(TcpConn),
    /// Of UDP.
    Udp(UdpConn),
    /// Of Unix domain sockets.
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

    /// The own address, also when it is closed.
    pub fn local_addr(&self) -> TcpAddr {
        match self.0.local() {
            Ok(Addr::Tcp(addr)) => addr,
            // It was reset before it was asked for the first time.
            _ => TcpAddr::default(),
        }
    }

    /// The other end's address, also when it is closed.
    pub fn remote_addr(&self) -> TcpAddr {
        match self.0.remote() {
            Some(Addr::Tcp(addr)) => addr.clone(),
            _ => TcpAddr::default(),
        }
    }

    /// The member at the other end, as long as the connection is open and the node knows it. None of what is
    /// not over the overlay.
    pub fn member(&self) -> Option<NodeId> {
        self.0.member()
    }

    /// TCP_NODELAY: whether small writes are sent at once. Default: yes.
    ///
    /// # Errors
    /// [`SocketError::Closed`], and what the system says.
    pub fn set_no_delay(&self, flag: bool) -> Result<(), SocketError> {
        self.0.set("set no delay", TcpOption::NoDelay(flag))
    }

    /// SO_KEEPALIVE: whether the other end is asked now and then if it is there, on the overlay after two
    /// hours of silence, elsewhere as the system is set up. Default: no.
    ///
    /// # Errors
    /// [`SocketError::Closed`], and what the system says.
    pub fn set_keep_alive(&self, flag: bool) -> Result<(), SocketError> {
        self.0.set("set keep alive", TcpOption::KeepAlive(flag))
    }

    /// SO_LINGER: what closing does with what was not sent yet. `None`, the default: it goes on in the
    /// background. Zero: it is dropped and the connection reset. Otherwise closing waits so long for it,
    /// blocking the thread; the kernel takes whole seconds.
    ///
    /// # Errors
    /// [`SocketError::Closed`], and what the system says.
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

    /// The own address.
    ///
    /// # Errors
    /// [`SocketError::Closed`], unless it is connected.
    pub fn local_addr(&self) -> Result<UdpAddr, SocketError> {
        match self.0.local()? {
            Addr::Udp(addr) => Ok(addr),
            _ => Ok(UdpAddr::default()),
        }
    }

    /// The other end's address; `None` if it is not connected.
    pub fn remote_addr(&self) -> Option<UdpAddr> {
        match self.0.remote()? {
            Addr::Udp(addr) => Some(addr.clone()),
            _ => None,
        }
    }

    /// Reads one datagram, up to `n` bytes of it, and its sender's address.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub async fn read_from(&self, n: usize) -> Result<(Vec<u8>, UdpAddr), SocketError> {
        match self.0.read_from(n).await? {
            (data, Some(Addr::Udp(sender))) => Ok((data, sender)),
            (data, _) => Ok((data, UdpAddr::default())),
        }
    }

    /// Sends one datagram to an address. Returns the number of bytes.
    ///
    /// # Errors
    /// Those of [`write`](Self::write); it is connected (EISCONN), or the address does not fit.
    pub async fn write_to(&self, data: &[u8], addr: &UdpAddr) -> Result<usize, SocketError> {
        self.0.write_to(data, &Addr::Udp(addr.clone())).await
    }

    /// SO_BROADCAST: whether datagrams to broadcast addresses of IPv4 may be sent, by the kernel. The overlay
    /// has no broadcast. Default: no.
    ///
    /// # Errors
    /// [`SocketError::Closed`], and what the system says.
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

    /// The own address; its name is empty if it has none.
    ///
    /// # Errors
    /// [`SocketError::Closed`], unless it is connected.
    pub fn local_addr(&self) -> Result<UnixAddr, SocketError> {
        match self.0.local()? {
            Addr::Unix(addr) => Ok(addr),
            _ => Err(SocketError::errno("local address", libc::EAFNOSUPPORT)),
        }
    }

    /// The other end's address; `None` if it is not connected.
    pub fn remote_addr(&self) -> Option<UnixAddr> {
        match self.0.remote()? {
            Addr::Unix(addr) => Some(addr.clone()),
            _ => None,
        }
    }

    /// Reads one datagram, up to `n` bytes of it, and its sender's address, which has an empty name if the
    /// sender has none. Of a stream it is what [`read`](Self::read) gives and the other end.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub async fn read_from(&self, n: usize) -> Result<(Vec<u8>, UnixAddr), SocketError> {
        match self.0.read_from(n).await? {
            (data, Some(Addr::Unix(sender))) => Ok((data, sender)),
            _ => Err(SocketError::errno("read", libc::EAFNOSUPPORT)),
        }
    }

    /// Sends one datagram to an address; waits for room there. Returns the number of bytes.
    ///
    /// # Errors
    /// Those of [`write`](Self::write); it is a stream or connected (EISCONN), or the address does not fit.
    pub async fn write_to(&self, data: &[u8], addr: &UnixAddr) -> Result<usize, SocketError> {
        self.0.write_to(data, &Addr::Unix(addr.clone())).await
    }

    /// Whether closing removes the path to which it is bound. Default: no; listeners do.
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

    /// The own address.
    ///
    /// # Errors
    /// [`SocketError::Closed`], unless it is connected.
    pub fn local_addr(&self) -> Result<Addr, SocketError> {
        self.core().local()
    }

    /// The other end's address; `None` if it is not connected.
    pub fn remote_addr(&self) -> Option<Addr> {
        self.core().remote().cloned()
    }

    /// Reads one datagram, up to `n` bytes of it, and its sender's address. Of a stream it is what
    /// [`read`](Self::read) gives and the other end.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub async fn read_from(&self, n: usize) -> Result<(Vec<u8>, Addr), SocketError> {
        let (data, sender) = self.core().read_from(n).await?;
        let sender = sender.or_else(|| self.remote_addr());
        Ok((data, sender.ok_or_else(|| SocketError::errno("read", libc::ENOTCONN))?))
    }

    /// Sends one datagram to an address. Returns the number of bytes.
    ///
    /// # Errors
    /// Those of [`write`](Self::write); it is a stream or connected (EISCONN), or the address does not fit.
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
