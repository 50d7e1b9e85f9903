//! `TcpStream`.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::split::{self, OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
use crate::node::{self, Node};
use crate::socket::{Connection, TaskUser, ToSocketAddrs, poll_io, resolve, tcp_options};
use peersock_primitives::wait::Interest;

/// TCP connection through the overlay, as `tokio::net::TcpStream`.
///
/// Dropping it closes the connection; written data is still delivered.
///
/// ```no_run
/// use peersock::TcpStream;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # async fn example() -> std::io::Result<()> {
/// let mut stream = TcpStream::connect("[fd12:3456:789a::1]:80").await?;
/// stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
/// let mut answer = String::new();
/// stream.read_to_string(&mut answer).await?;
/// # Ok(())
/// # }
/// ```
pub struct TcpStream {
    pub(super) shared: Arc<Shared>,
}

/// State shared by the halves of a split stream.
pub(super) struct Shared {
    pub(super) connection: Connection,
    _user: TaskUser,
}

impl TcpStream {
    /// Connects through the process's node. Uses the first of several addresses that answers.
    ///
    /// # Errors
    /// Returns `ConnectionRefused`, `TimedOut`, `HostUnreachable` (the peer cannot be found),
    /// `NetworkUnreachable` (no joined network has such an address), `PermissionDenied` (the network does not
    /// allow the port), and the errors of [`node()`](crate::node()).
    pub async fn connect(addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
        TcpStream::connect_on(&node::node()?, addr).await
    }

    /// Connects like [`TcpStream::connect`], through `node`.
    /// Errors: see [`TcpStream::connect`].
    pub async fn connect_on(node: &Node, addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
        let mut last = None;
        for addr in resolve(&node.inner, &addr)? {
            match TcpStream::connect_one(node, addr).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("resolve gives at least one address"))
    }

    async fn connect_one(node: &Node, addr: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::new(Connection::start(node, addr)?);
        poll_fn(|cx| stream.shared.poll(cx, Interest::Write, Connection::check_connected)).await?;
        Ok(stream)
    }

    pub(super) fn new(connection: Connection) -> TcpStream {
        let user = TaskUser::new(&connection.node);
        TcpStream { shared: Arc::new(Shared { connection, _user: user }) }
    }

    /// Waits for data and copies it without consuming it.
    /// Fails with the errors of reading.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.shared.poll(cx, Interest::Read, |connection| connection.peek(buf))).await
    }

    /// Waits until a read would not block.
    ///
    /// # Errors
    /// Returns `NetworkDown` when the node is shut down.
    pub async fn readable(&self) -> io::Result<()> {
        self.shared.ready(Interest::Read).await
    }

    /// Waits until a write would not block.
    ///
    /// # Errors
    /// Returns `NetworkDown` when the node is shut down.
    pub async fn writable(&self) -> io::Result<()> {
        self.shared.ready(Interest::Write).await
    }

    /// Reads the data that is available now.
    ///
    /// # Errors
    /// Returns `WouldBlock` if none is.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.shared.connection.read(buf)
    }

    /// Writes as much as fits into the send queue now.
    ///
    /// # Errors
    /// Returns `WouldBlock` if the queue is full.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.shared.connection.write(buf)
    }

    /// Waits until the peer has acknowledged everything that was written so far and, after
    /// `AsyncWriteExt::shutdown` of sending, the end too; see
    /// [`blocking::TcpStream::wait_delivered`](crate::blocking::TcpStream::wait_delivered).
    ///
    /// ```
    /// # async fn example(mut stream: peersock::TcpStream) -> std::io::Result<()> {
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// stream.write_all(b"all of it").await?;
    /// stream.shutdown().await?;
    /// stream.read_to_end(&mut Vec::new()).await?;
    /// stream.wait_delivered().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns the error that ended the connection before that, on each call.
    pub async fn wait_delivered(&self) -> io::Result<()> {
        poll_fn(|cx| self.shared.poll(cx, Interest::Write, Connection::check_delivered)).await
    }

    /// Borrows a reading and a writing half.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        split::borrowed(self)
    }

    /// Splits the stream into an owned reading and writing half. Dropping the writing half ends sending.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        split::owned(self)
    }
}

tcp_options!(TcpStream);

impl Shared {
    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
        mut operation: impl FnMut(&Connection) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let connection = &self.connection;
        poll_io(&connection.node, connection.waiters(), interest, cx, || operation(connection))
    }

    async fn ready(&self, interest: Interest) -> io::Result<()> {
        let ready = |connection: &Connection| {
            connection.check_up()?;
            match interest {
                Interest::Read => connection.check_readable(),
                Interest::Write | Interest::Error => connection.is_ready(interest),
            }
        };
        poll_fn(|cx| self.poll(cx, interest, ready)).await
    }

    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // The stack copies into initialized memory only.
        let unfilled = buf.initialize_unfilled();
        let n = std::task::ready!(self.poll(cx, Interest::Read, |connection| connection.read(unfilled)))?;
        buf.advance(n);
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(cx, Interest::Write, |connection| connection.write(data))
    }

    pub(super) fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(cx, Interest::Write, |connection| connection.write_vectored(buffers))
    }

    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        match self.connection.shutdown(Shutdown::Write) {
            // Like tokio, ending a connection that is over is no error. But a loss must not go unnoticed.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                self.connection.take_error().map_or_else(|| self.connection.check_lost(), Err)
            }
            result => result,
        }
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.shared.poll_read(cx, buf)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.poll_write(cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.shared.poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shared.shutdown_write())
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpStream")
            .field("local", &self.shared.connection.local_addr())
            .field("peer", &self.shared.connection.peer_addr().ok())
            .finish()
    }
}
