//! Pipes, as programs hold them.

mod inner;
mod outlets;
mod server;
mod state;
mod tcp;
mod udp;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use peersock::PeerIdentity;
use peersock_net::Conn;
use peersock_primitives::sync;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

pub(crate) use self::inner::Inner;
use self::inner::{Kind, Phase};
pub(crate) use self::tcp::Wire;
pub(crate) use self::{
    server::start as start_server, tcp::start as start_stream, udp::start as start_datagrams,
};
use crate::callbacks;
use crate::{Message, Opening, Options, PipeError};

/// Time that closing waits for sent data to leave, and for the callbacks of the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A protocol.
///
/// ```
/// use peersock_pipe::{Pipe, Proto};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), peersock_pipe::PipeError> {
/// for proto in [Proto::Tcp, Proto::Udp] {
///     assert_eq!(Pipe::listen(proto, "127.0.0.1:0").await?.proto(), proto);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Proto {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A connection, a server of connections, or a datagram socket. This is a handle, cheap to clone; the pipe is
/// closed when the last handle is dropped.
///
/// ```
/// use peersock_pipe::{Pipe, Proto};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), peersock_pipe::PipeError> {
/// let server = Pipe::listen(Proto::Tcp, "127.0.0.1:0").await?;
/// let client = Pipe::connect(Proto::Tcp, server.local_addr()).await?;
/// client.send("ping").await?;
/// let accepted = server.accept().await?;
/// assert_eq!(accepted.recv().await?.as_deref(), Some(&b"ping"[..]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Pipe(Arc<User>);

/// The part that all handles of a pipe share, and its tasks do not.
struct User(Arc<Inner>);

impl Drop for User {
    fn drop(&mut self) {
        self.0.shut();
        if let Kind::Server(server) = &self.0.kind {
            server.abandon();
        }
    }
}

impl Pipe {
    /// Opens a client's pipe when awaited. The destination is a text as [`peersock_net::dial`] takes it,
    /// `HOST:PORT`, or a value with such a text: a `SocketAddr`, an [`Address`](crate::Address).
    pub fn connect(proto: Proto, dest: impl fmt::Display) -> Opening {
        Opening::to(proto, dest.to_string())
    }

    /// Opens a server's pipe when awaited, or a pipe for datagrams from all sources. The address is
    /// `HOST:PORT` on this machine or its node; without a host, as `":0"`, it is all addresses.
    pub fn listen(proto: Proto, at: impl fmt::Display) -> Opening {
        Opening::at(proto, at.to_string())
    }

    /// Makes a pipe, with its own queue, of a TCP connection or a UDP socket, connected or not.
    ///
    /// # Errors
    /// If the socket belongs to another network (EPROTONOSUPPORT), or is closed.
    pub fn of_conn(conn: impl Into<Conn>, options: Options) -> Result<Pipe, PipeError> {
        Opening::of_conn(conn.into(), options)
    }

    /// Makes a pipe, with its own queue, of any stream, such as TLS after its handshake. The pipe reports the
    /// given addresses.
    pub fn of_stream(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        local: SocketAddr,
        remote: SocketAddr,
        options: Options,
    ) -> Pipe {
        Opening::of_stream(Wire::of_stream(Box::new(stream)), local, remote, options)
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.0.0
    }

    // Properties.

    /// Returns the protocol.
    pub fn proto(&self) -> Proto {
        self.inner().proto
    }

    /// Returns the local address, even after the end.
    pub fn local_addr(&self) -> SocketAddr {
        self.inner().local
    }

    /// Returns the other end, which is the default destination of messages. `None` for servers.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.inner().remote
    }

    /// Returns who is at the other end of a connection over the overlay, also after the end. `None` for all
    /// others, for servers and for datagrams.
    pub fn peer(&self) -> Option<PeerIdentity> {
        self.inner().peer.clone()
    }

    /// Returns true if messages can be sent.
    pub fn is_running(&self) -> bool {
        self.inner().phase() == Phase::Open
    }

    /// Returns the reason for which the pipe has ended; `None` if it has not.
    pub fn error(&self) -> Option<PipeError> {
        sync::lock(&self.inner().state).ended.clone()
    }

    /// Returns the pipes of the clients that are connected to a TCP server. Other pipes have none.
    pub fn clients(&self) -> Vec<Pipe> {
        match &self.inner().kind {
            Kind::Server(server) => server.clients(),
            _ => Vec::new(),
        }
    }

    /// Returns the number of messages dropped for lack of room. Each full queue drops its oldest ones.
    pub fn dropped(&self) -> u64 {
        sync::lock(&self.inner().state).dropped()
    }

    /// Returns the number of datagrams dropped as repetitions: see [`Options::enable_msg_ids`].
    pub fn repeated(&self) -> u64 {
        self.inner().repeated.load(Ordering::Relaxed)
    }

    // Sending and receiving.

    /// Sends a message to the other end. Returns its length in bytes.
    ///
    /// The call waits until earlier messages have left; for TCP in the order of the calls. A cancelled call
    /// has sent nothing or, once its turn had come, the whole message.
    ///
    /// # Errors
    /// If the pipe is closed, [`PipeError::NoDestination`], or the network does not accept the message.
    pub async fn send(&self, data: impl AsRef<[u8]>) -> Result<usize, PipeError> {
        let inner = self.inner();
        if !self.is_running() {
            return Err(inner.closed());
        }
        let dest = inner.remote.ok_or(PipeError::NoDestination)?;
        match &inner.kind {
            Kind::Stream(outgoing) => tcp::send(inner, outgoing, data.as_ref()).await,
            Kind::Datagrams(socket) => udp::send(inner, socket, data.as_ref(), dest).await,
            Kind::Server(_) => Err(PipeError::NoDestination),
        }
    }

    /// Sends a message to an address: for a server, one of its clients; for a connection or a connected UDP
    /// socket, its other end.
    ///
    /// # Errors
    /// The errors of [`send`](Self::send), [`PipeError::Elsewhere`], [`PipeError::NoClient`].
    pub async fn send_to(&self, data: impl AsRef<[u8]>, dest: SocketAddr) -> Result<usize, PipeError> {
        let inner = self.inner();
        if !self.is_running() {
            return Err(inner.closed());
        }
        match &inner.kind {
            Kind::Datagrams(socket) => udp::send(inner, socket, data.as_ref(), dest).await,
            Kind::Server(server) => {
                let client = server.client_at(dest).ok_or(PipeError::NoClient(dest))?;
                // Recursion ends here, because a client is no server.
                Box::pin(client.send(data)).await
            }
            Kind::Stream(_) => match inner.remote {
                Some(remote) if remote != dest => Err(PipeError::Elsewhere { dest: remote, asked: dest }),
                _ => self.send(data).await,
            },
        }
    }

    /// Returns the next message of the pipe's own queue; `None` after [`Options::recv_timeout`]. A cancelled
    /// call has taken none. Messages that arrived before the end can still be received after it.
    ///
    /// A pipe has such a queue if it was opened without callbacks for messages; it ends with
    /// [`unsubscribe`](Self::unsubscribe) and [`add_pipe`](Self::add_pipe). A TCP server's messages are in
    /// the pipes of its clients.
    ///
    /// # Errors
    /// [`PipeError::NotSubscribed`], or the pipe is closed and its queue is empty.
    pub async fn recv(&self) -> Result<Option<Message>, PipeError> {
        self.recv_within(self.inner().options.recv_timeout).await
    }

    /// Receives as [`recv`](Self::recv) does, with this timeout; `None` waits forever, and zero takes a
    /// queued message.
    ///
    /// # Errors
    /// The errors of [`recv`](Self::recv).
    pub async fn recv_within(
        &self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Option<Message>, PipeError> {
        let own = sync::lock(&self.inner().state).own.clone().ok_or(PipeError::NotSubscribed)?;
        self.inner().take(&own, timeout.into()).await
    }

    /// Sends a request and returns the next message of the pipe's own queue, or `None` if none arrives.
    ///
    /// An unanswered datagram is sent again, up to [`Options::send_retry`] times. A stream loses nothing, so
    /// its answer is awaited once. Each attempt takes [`Options::recv_timeout`].
    ///
    /// # Errors
    /// The errors of [`send`](Self::send) and [`recv`](Self::recv).
    pub async fn request(&self, data: impl AsRef<[u8]>) -> Result<Option<Message>, PipeError> {
        let again = if self.proto() == Proto::Udp { self.inner().options.send_retry } else { 0 };
        for _ in 0..=again {
            self.send(&data).await?;
            if let Some(answer) = self.recv().await? {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    /// Returns the next client of a TCP server; for another pipe, the pipe itself, which serves all peers. A
    /// cancelled call has taken no client. A client that has already ended is returned as well, with its
    /// messages, unless the server has subscriptions, or callbacks for messages or clients.
    ///
    /// # Errors
    /// If the server is closed.
    pub async fn accept(&self) -> Result<Pipe, PipeError> {
        match &self.inner().kind {
            Kind::Server(server) => server.accept(self.inner()).await,
            _ => Ok(self.clone()),
        }
    }

    // The end.

    /// Closes the pipe, and a server's clients. Sent data is delivered first, for up to five seconds; then
    /// the connection is reset. The call also awaits the callbacks of the end for up to five seconds, unless
    /// it is made in a callback.
    ///
    /// Messages that callbacks have not started with are dropped. Calling it again is harmless.
    pub async fn close(&self) {
        let inner = self.inner();
        inner.shut();
        inner.reached(Phase::Gone).await;
        if !callbacks::is_within() {
            let _ = timeout(CLOSE_TIMEOUT, inner.reached(Phase::Over)).await;
        }
    }

    /// Waits until either end has ended the pipe.
    pub async fn ended(&self) {
        self.inner().reached(Phase::Gone).await;
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = f.debug_struct("Pipe");
        told.field("proto", &self.proto()).field("is_running", &self.is_running()).finish_non_exhaustive()
    }
}
