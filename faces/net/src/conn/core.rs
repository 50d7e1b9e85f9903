//! The core shared by all kinds of connections.

use std::io;
use std::net::Shutdown;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use peersock::PeerIdentity;
use peersock::overlay::PeerDescription;
use peersock_primitives::sync;
use tokio::io::ReadBuf;

use crate::socket::{Socket, TcpOption};
use crate::wait::{Direction, Endpoint};
use crate::{Addr, Network, SocketError};

/// Maximum number of bytes one read returns; no datagram is longer.
const MAX_READ: usize = 1 << 16;
/// Number of bytes read ahead to find the end of a line.
const READ_AHEAD: usize = 1 << 12;

/// A connection.
pub(crate) struct Core {
    endpoint: Endpoint<dyn Socket>,
    network: Network,
    remote: Option<Addr>,
    /// Local address; set from the start if the socket is connected.
    local: Option<Addr>,
    /// Member at the other end, which stays when the connection has ended.
    peer: Option<Arc<PeerDescription>>,
    /// Bytes that were read beyond the end of a line while searching for it.
    ahead: Mutex<Vec<u8>>,
    reads_nothing: AtomicBool,
    unlink: Unlink,
}

impl Core {
    pub(crate) fn new(network: Network, socket: Box<dyn Socket>, remote: Option<Addr>) -> Core {
        Core {
            network,
            local: remote.as_ref().and_then(|_| socket.local().ok()),
            remote,
            peer: socket.peer(),
            endpoint: Endpoint::new(socket),
            ahead: Mutex::default(),
            reads_nothing: AtomicBool::new(false),
            unlink: Unlink::default(),
        }
    }

    pub(crate) fn network(&self) -> Network {
        self.network
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.endpoint.is_closed()
    }

    pub(crate) fn close(&self) {
        if !self.endpoint.is_closed() {
            self.unlink.run();
        }
        self.endpoint.close();
    }

    pub(crate) fn remote(&self) -> Option<&Addr> {
        self.remote.as_ref()
    }

    pub(crate) fn local(&self) -> Result<Addr, SocketError> {
        match &self.local {
            Some(local) => Ok(local.clone()),
            None => self.with("local address", |socket| socket.local()),
        }
    }

    pub(crate) fn peer(&self) -> Option<PeerIdentity> {
        self.peer.as_deref().map(PeerIdentity::from)
    }

    pub(crate) fn set(&self, operation: &str, option: TcpOption) -> Result<(), SocketError> {
        self.with(operation, |socket| socket.set(option))
    }

    pub(crate) fn set_broadcast(&self, flag: bool) -> Result<(), SocketError> {
        self.with("set broadcast", |socket| socket.set_broadcast(flag))
    }

    pub(crate) fn set_unlink_on_close(&self, unlink: bool) -> Result<(), SocketError> {
        let local = self.with("set unlink on close", |socket| socket.local())?;
        self.unlink.set(&local, unlink)
    }

    pub(crate) fn set_deadline(
        &self,
        directions: &[Direction],
        deadline: Option<Instant>,
    ) -> Result<(), SocketError> {
        let is_open = self.endpoint.set_deadline(directions, deadline);
        if is_open { Ok(()) } else { Err(SocketError::closed("set deadline")) }
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> Result<(), SocketError> {
        self.with("shutdown", |socket| socket.shutdown(how))?;
        if how != Shutdown::Write {
            self.reads_nothing.store(true, Ordering::SeqCst);
            self.endpoint.wake(Direction::Read);
        }
        Ok(())
    }

    pub(crate) async fn read(&self, n: usize) -> Result<Vec<u8>, SocketError> {
        Ok(self.read_from(n).await?.0)
    }

    pub(crate) async fn read_from(&self, n: usize) -> Result<(Vec<u8>, Option<Addr>), SocketError> {
        let mut data = vec![0; n.min(MAX_READ)];
        let (len, sender) = self.read_into(&mut data).await?;
        data.truncate(len);
        // Shrinks the buffer, so that a caller who keeps a few bytes does not hold the whole allocation.
        data.shrink_to(2 * len);
        Ok((data, sender))
    }

    pub(crate) async fn read_into(&self, room: &mut [u8]) -> Result<(usize, Option<Addr>), SocketError> {
        let read = self.endpoint.wait(Direction::Read, |socket, cx| self.poll_take(socket, cx, room));
        read.await.map_err(|failure| failure.during("read"))
    }

    pub(crate) async fn read_line(&self, limit: usize) -> Result<Vec<u8>, SocketError> {
        if !self.network.is_stream() {
            // Datagrams have no lines: they would be cut, and an empty one would look like the end.
            return Err(SocketError::errno("read", libc::EOPNOTSUPP));
        }
        let read = self.endpoint.wait(Direction::Read, |socket, cx| self.poll_line(socket, cx, limit));
        read.await.map_err(|failure| failure.during("read"))
    }

    pub(crate) async fn write(&self, data: &[u8]) -> Result<usize, SocketError> {
        let mut written = 0;
        let write = self.endpoint.wait(Direction::Write, |socket, cx| {
            if !self.network.is_stream() {
                return socket.poll_write(cx, data, None);
            }
            while let rest @ [_, ..] = &data[written..] {
                match ready!(socket.poll_write(cx, rest, None))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    n => written += n,
                }
            }
            Poll::Ready(Ok(data.len()))
        });
        let done = write.await;
        done.map_err(|failure| failure.during("write").after(written))
    }

    pub(crate) async fn write_to(&self, data: &[u8], to: &Addr) -> Result<usize, SocketError> {
        let operation = format!("write {} {to}", self.network);
        if self.is_closed() {
            return Err(SocketError::closed(operation));
        }
        if self.network.is_stream() || self.remote.is_some() {
            return Err(SocketError::errno(operation, libc::EISCONN));
        }
        to.check(self.network)?;
        let place = to.place()?;
        let write =
            self.endpoint.wait(Direction::Write, |socket, cx| socket.poll_write(cx, data, Some(&place)));
        write.await.map_err(|failure| failure.during(&operation))
    }

    /// Reads with the semantics of tokio's `AsyncRead`.
    pub(crate) fn poll_read(&self, cx: &Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let room = buf.initialize_unfilled();
        let read = self.endpoint.poll(Direction::Read, cx, |socket, cx| self.poll_take(socket, cx, room));
        let (n, _) = ready!(read).map_err(|failure| failure.during("read"))?;
        buf.advance(n);
        Poll::Ready(Ok(()))
    }

    /// Writes with the semantics of tokio's `AsyncWrite`.
    pub(crate) fn poll_write(&self, cx: &Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let write = self.endpoint.poll(Direction::Write, cx, |socket, cx| socket.poll_write(cx, data, None));
        write.map_err(|failure| failure.during("write").into())
    }

    /// Shuts down writing with the semantics of tokio's `AsyncWrite`.
    pub(crate) fn poll_shutdown(&self) -> Poll<io::Result<()>> {
        match self.shutdown(Shutdown::Write) {
            // An unconnected socket has nothing to shut down.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done.map_err(io::Error::from)),
        }
    }

    /// Takes bytes that were read ahead, or else reads from the socket.
    fn poll_take(
        &self,
        socket: &dyn Socket,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<(usize, Option<Addr>)>> {
        let mut ahead = sync::lock(&self.ahead);
        if !ahead.is_empty() {
            let n = room.len().min(ahead.len());
            room[..n].copy_from_slice(&ahead[..n]);
            ahead.drain(..n);
            return Poll::Ready(Ok((n, self.remote.clone())));
        }
        if self.reads_nothing() || (room.is_empty() && self.network.is_stream()) {
            return Poll::Ready(Ok((0, self.remote.clone())));
        }
        let (n, sender) = ready!(socket.poll_read(cx, room))?;
        Poll::Ready(Ok((n, sender.or_else(|| self.remote.clone()))))
    }

    fn poll_line(
        &self,
        socket: &dyn Socket,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<io::Result<Vec<u8>>> {
        let mut ahead = sync::lock(&self.ahead);
        let mut searched = 0;
        let end = loop {
            let seen = &ahead[..ahead.len().min(limit)];
            if let Some(at) = seen[searched..].iter().position(|byte| *byte == b'\n') {
                break searched + at + 1;
            }
            if ahead.len() >= limit {
                return Poll::Ready(Err(io::Error::from_raw_os_error(libc::EMSGSIZE)));
            }
            searched = ahead.len();
            let mut piece = [0; READ_AHEAD];
            let n = match self.reads_nothing() {
                true => 0,
                false => ready!(socket.poll_read(cx, &mut piece))?.0,
            };
            if n == 0 {
                break searched;
            }
            ahead.extend_from_slice(&piece[..n]);
        };
        Poll::Ready(Ok(ahead.drain(..end).collect()))
    }

    fn reads_nothing(&self) -> bool {
        self.reads_nothing.load(Ordering::SeqCst)
    }

    fn with<T>(
        &self,
        operation: &str,
        look: impl FnOnce(&(dyn Socket + 'static)) -> io::Result<T>,
    ) -> Result<T, SocketError> {
        let found = self.endpoint.with(look).ok_or_else(|| SocketError::closed(operation))?;
        found.map_err(|error| SocketError::of_system(operation, error))
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.close();
    }
}

/// The path that is removed when the socket is closed.
pub(crate) struct Unlink {
    path: Mutex<Option<PathBuf>>,
    /// Process that created the path. A forked child's copy must not remove it.
    process: u32,
}

impl Default for Unlink {
    fn default() -> Unlink {
        Unlink { path: Mutex::default(), process: std::process::id() }
    }
}

impl Unlink {
    pub(crate) fn set(&self, local: &Addr, unlink: bool) -> Result<(), SocketError> {
        let path = match local {
            Addr::Unix(addr) if unlink => addr.path(),
            _ => None,
        };
        // Makes the path absolute, because the working directory may change before the socket is closed.
        let path = path.map(std::path::absolute).transpose();
        let path = path.map_err(|error| SocketError::of_system("set unlink on close", error))?;
        *sync::lock(&self.path) = path;
        Ok(())
    }

    pub(crate) fn run(&self) {
        let path = sync::lock(&self.path).take();
        if let Some(path) = path.filter(|_| self.process == std::process::id()) {
            // The path may be gone already; a failure cannot be handled here.
            let _ = std::fs::remove_file(path);
        }
    }
}
