//! Listeners.

use std::fmt;
use std::time::Instant;

use crate::conn::{Core, Unlink};
use crate::socket::{Acceptance, Accepted};
use crate::wait::{Direction, Endpoint};
use crate::{Addr, Conn, Network, SocketError, TcpAddr, TcpConn, UnixAddr, UnixConn};

/// A TCP listener.
///
/// ```
/// use peersock_net as net;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), net::SocketError> {
/// let listener = net::listen_tcp(Some(&"127.0.0.1:0".parse()?), "tcp").await?;
/// println!("listening at {}", listener.addr());
/// listener.close();
/// assert!(listener.accept().await.is_err_and(|error| error.is_closed()));
/// # Ok(())
/// # }
/// ```
pub struct TcpListener(Listening);

/// A listener at the path of a Unix domain socket; closing it removes the path.
///
/// ```
/// use peersock_net as net;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("socket");
/// let listener = net::listen_unix(&net::UnixAddr::stream(&path)?, "unix").await?;
/// assert!(path.exists());
/// drop(listener);
/// assert!(!path.exists());
/// # Ok(())
/// # }
/// ```
pub struct UnixListener(Listening);

/// A listener of any network, as [`listen`](crate::listen()) returns it. It can accept, return its address,
/// and be closed.
///
/// ```
/// use peersock_net as net;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), net::SocketError> {
/// let listener = net::listen("[::1]:0", "tcp").await?;
/// let _client = net::dial(&listener.addr().to_string(), "tcp").await?;
/// let conn = listener.accept().await?;
/// assert_eq!(conn.local_addr()?, listener.addr());
/// # Ok(())
/// # }
/// ```
pub enum Listener {
    /// A TCP listener.
    Tcp(TcpListener),
    /// A Unix domain socket's listener.
    Unix(UnixListener),
}

/// State that both kinds of listeners share.
struct Listening {
    endpoint: Endpoint<dyn Acceptance>,
    network: Network,
    own: Addr,
    unlink: Unlink,
}

impl Listening {
    fn new(network: Network, socket: Box<dyn Acceptance>) -> Result<Listening, SocketError> {
        let own = socket.local().map_err(|error| SocketError::of_system("local address", error))?;
        Ok(Listening { endpoint: Endpoint::new(socket), network, own, unlink: Unlink::default() })
    }

    async fn accept(&self) -> Result<Core, SocketError> {
        let accepted = self.endpoint.wait(Direction::Read, |socket, cx| socket.poll_accept(cx)).await;
        let (socket, remote): Accepted = accepted.map_err(|failure| failure.during("accept"))?;
        Ok(Core::new(self.network, socket, Some(remote)))
    }

    fn set_deadline(&self, deadline: Option<Instant>) -> Result<(), SocketError> {
        let is_open = self.endpoint.set_deadline(&[Direction::Read], deadline);
        if is_open { Ok(()) } else { Err(SocketError::closed("set deadline")) }
    }

    fn close(&self) {
        if !self.endpoint.is_closed() {
            self.unlink.run();
        }
        self.endpoint.close();
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.close();
    }
}

impl TcpListener {
    pub(crate) fn new(network: Network, socket: Box<dyn Acceptance>) -> Result<TcpListener, SocketError> {
        Listening::new(network, socket).map(TcpListener)
    }

    /// Waits for the next connection. If several tasks wait, each gets a different connection.
    ///
    /// # Errors
    /// [`SocketError::Closed`] if the listener is closed before or during the call,
    /// [`SocketError::Deadline`], and system errors such as EMFILE and ENOBUFS.
    pub async fn accept(&self) -> Result<TcpConn, SocketError> {
        Ok(TcpConn::new(self.0.accept().await?))
    }

    /// Returns the local address, also after closing.
    pub fn addr(&self) -> TcpAddr {
        match &self.0.own {
            Addr::Tcp(addr) => addr.clone(),
            _ => TcpAddr::default(),
        }
    }

    /// Closes the listener, as dropping it does. Accepted connections stay open; pending `accept` calls fail
    /// with [`SocketError::Closed`]. A second call does nothing.
    pub fn close(&self) {
        self.0.close();
    }

    /// Sets the deadline of [`accept`](Self::accept); `None`, the default, disables it. Takes effect at once.
    ///
    /// # Errors
    /// [`SocketError::Closed`].
    pub fn set_deadline(&self, deadline: impl Into<Option<Instant>>) -> Result<(), SocketError> {
        self.0.set_deadline(deadline.into())
    }
}

impl UnixListener {
    pub(crate) fn new(network: Network, socket: Box<dyn Acceptance>) -> Result<UnixListener, SocketError> {
        let listener = UnixListener(Listening::new(network, socket)?);
        listener.set_unlink_on_close(true)?;
        Ok(listener)
    }

    /// Waits for the next connection. If several tasks wait, each gets a different connection.
    /// Errors: see [`TcpListener::accept`].
    pub async fn accept(&self) -> Result<UnixConn, SocketError> {
        Ok(UnixConn::new(self.0.accept().await?))
    }

    /// Returns the local address, also after closing.
    pub fn addr(&self) -> UnixAddr {
        match &self.0.own {
            Addr::Unix(addr) => addr.clone(),
            _ => UnixAddr::unnamed(true),
        }
    }

    /// Closes the listener, as [`TcpListener::close`] does.
    pub fn close(&self) {
        self.0.close();
    }

    /// Sets the deadline of [`accept`](Self::accept); `None`, the default, disables it. Takes effect at once.
    ///
    /// # Errors
    /// [`SocketError::Closed`].
    pub fn set_deadline(&self, deadline: impl Into<Option<Instant>>) -> Result<(), SocketError> {
        self.0.set_deadline(deadline.into())
    }

    /// Sets whether closing removes the path. Default: true.
    ///
    /// # Errors
    /// [`SocketError::Closed`].
    pub fn set_unlink_on_close(&self, unlink: bool) -> Result<(), SocketError> {
        if self.0.endpoint.is_closed() {
            return Err(SocketError::closed("set unlink on close"));
        }
        self.0.unlink.set(&self.0.own, unlink)
    }
}

impl Listener {
    /// Waits for the next connection. If several tasks wait, each gets a different connection.
    /// Errors: see [`TcpListener::accept`].
    pub async fn accept(&self) -> Result<Conn, SocketError> {
        match self {
            Listener::Tcp(listener) => Ok(listener.accept().await?.into()),
            Listener::Unix(listener) => Ok(listener.accept().await?.into()),
        }
    }

    /// Returns the local address, also after closing.
    pub fn addr(&self) -> Addr {
        match self {
            Listener::Tcp(listener) => listener.addr().into(),
            Listener::Unix(listener) => listener.addr().into(),
        }
    }

    /// Closes the listener, as [`TcpListener::close`] does.
    pub fn close(&self) {
        match self {
            Listener::Tcp(listener) => listener.close(),
            Listener::Unix(listener) => listener.close(),
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Listener {
        Listener::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Listener {
        Listener::Unix(listener)
    }
}

macro_rules! debug {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.addr())
            }
        }
    )*};
}

debug!(TcpListener, UnixListener, Listener);
