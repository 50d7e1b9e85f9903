//! Sockets for tasks of tokio. All must be made within a runtime with I/O.
//!
//! Requests to the node are calls that block. A node that runs answers at once, but one that is stopped makes
//! them wait for up to 30 seconds. So they leave the threads of the tasks to other tasks, see [`in_place`].

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use peersock_fd::{RecvFlags, SendFlags};
use peersock_primitives::blocking;
use rustix::io::ioctl_fionbio;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::member::Member;

/// Interval and number of attempts to send a datagram.
const RETRY: Duration = Duration::from_millis(1);
const MAX_TRIES: u32 = 50;

/// A TCP connection.
#[derive(Debug)]
pub struct TcpStream(AsyncFd<crate::TcpStream>);

/// A listener for TCP connections.
#[derive(Debug)]
pub struct TcpListener(AsyncFd<crate::TcpListener>);

/// A UDP socket.
#[derive(Debug)]
pub struct UdpSocket(AsyncFd<crate::UdpSocket>);

impl TcpStream {
    /// Connects to the first of these addresses that accepts.
    ///
    /// # Errors
    /// The error of the last address, as of [`connect`](crate::TcpStream::connect).
    pub async fn connect(member: &Member, addresses: &[SocketAddr]) -> io::Result<TcpStream> {
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for remote in addresses {
            let attempt = async {
                let (member, remote) = (member.clone(), *remote);
                let begin = move || crate::TcpStream::begin(&member, remote);
                let stream = TcpStream::new(apart(begin).await?)?;
                stream.0.writable().await?.retain_ready();
                let connected = stream.0.get_ref().clone();
                apart(move || connected.finish_connecting()).await?;
                Ok(stream)
            };
            match attempt.await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn new(stream: crate::TcpStream) -> io::Result<TcpStream> {
        registered(stream).map(TcpStream)
    }

    /// Returns the blocking connection, for its options.
    pub fn get_ref(&self) -> &crate::TcpStream {
        self.0.get_ref()
    }

    /// Reads as [`AsyncRead`] does, for a task that shares the stream with one that writes.
    ///
    /// # Errors
    /// Errors of recv(2), and those that have ended the connection.
    pub fn poll_receive(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let room = buf.initialize_unfilled();
            if let Ok(read) = ready.try_io(|stream| stream.get_ref().receive(room, RecvFlags::DONTWAIT)) {
                return Poll::Ready(read.map(|count| buf.advance(count)));
            }
        }
    }

    /// Writes as [`AsyncWrite`] does, for a task that shares the stream with one that reads.
    ///
    /// # Errors
    /// Errors of send(2), and those that have ended the connection.
    pub fn poll_send(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(sent) = ready.try_io(|stream| stream.get_ref().send(data, SendFlags::DONTWAIT)) {
                return Poll::Ready(sent);
            }
        }
    }

    /// Ends sending.
    ///
    /// # Errors
    /// As of [`shutdown`](crate::TcpStream::shutdown).
    pub fn end_sending(&self) -> io::Result<()> {
        in_place(|| self.0.get_ref().shutdown(Shutdown::Write))
    }
}

impl TcpListener {
    /// Listens as [`bind`](crate::TcpListener::bind) does.
    ///
    /// # Errors
    /// Like that.
    pub fn bind(member: &Member, local: SocketAddr) -> io::Result<TcpListener> {
        registered(in_place(|| crate::TcpListener::bind(member, local))?).map(TcpListener)
    }

    /// Waits for a connection. Returns it with the peer's address.
    ///
    /// # Errors
    /// `NetworkDown` if the node has ended, errors of accept(2).
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(accepted) = ready.try_io(|listener| listener.get_ref().accept()) {
                let (stream, peer) = accepted?;
                return Ok((TcpStream::new(stream)?, peer));
            }
        }
    }

    /// Returns its address.
    ///
    /// # Errors
    /// `NetworkDown`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }
}

impl UdpSocket {
    /// Binds a socket as [`bind`](crate::UdpSocket::bind) does.
    ///
    /// # Errors
    /// Like that.
    pub fn bind(member: &Member, local: SocketAddr) -> io::Result<UdpSocket> {
        registered(in_place(|| crate::UdpSocket::bind(member, local))?).map(UdpSocket)
    }

    /// Makes a socket as [`client`](crate::UdpSocket::client) does.
    ///
    /// # Errors
    /// Like that.
    pub fn client(member: &Member, like: IpAddr) -> io::Result<UdpSocket> {
        registered(in_place(|| crate::UdpSocket::client(member, like))?).map(UdpSocket)
    }

    /// Connects as [`connect`](crate::UdpSocket::connect) does.
    ///
    /// # Errors
    /// Like that.
    pub fn connect(&self, remote: SocketAddr) -> io::Result<()> {
        in_place(|| self.0.get_ref().connect(remote))
    }

    /// Sends as [`send`](crate::UdpSocket::send) does, or to an address.
    ///
    /// # Errors
    /// Like that; `WouldBlock` if the node takes no datagram for 50 ms.
    pub async fn send(&self, data: &[u8], to: Option<SocketAddr>) -> io::Result<usize> {
        // The kernel does not report that another socket has room again (unix(7)).
        for _ in 0..MAX_TRIES {
            let sent = match to {
                Some(to) => self.0.get_ref().send_to_with(data, to, SendFlags::DONTWAIT),
                None => self.0.get_ref().send_with(data, SendFlags::DONTWAIT),
            };
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(RETRY).await,
                sent => return sent,
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Receives as [`recv_from`](crate::UdpSocket::recv_from) does.
    ///
    /// # Errors
    /// Like that.
    pub fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let received = ready.try_io(|socket| socket.get_ref().recv_from_with(buf, RecvFlags::DONTWAIT));
            if let Ok(received) = received {
                return Poll::Ready(received);
            }
        }
    }

    /// Returns its address.
    ///
    /// # Errors
    /// `NetworkDown`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }
}

/// Does a call that may wait for the node. Tasks of other threads go on meanwhile, and so do those of this
/// thread if the runtime has several.
pub fn in_place<T>(call: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(call),
        _ => call(),
    }
}

/// Does a call that may wait for the node, in a separate thread. The caller may give up.
async fn apart<T: Send + 'static>(call: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    blocking(call).await?
}

/// Registers a socket with the runtime.
#[allow(unsafe_code)]
fn registered<T: AsFd + AsRawFd>(socket: T) -> io::Result<AsyncFd<T>> {
    ioctl_fionbio(&socket, true)?;
    // SAFETY: the sockets of this crate keep one descriptor as long as they live.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_receive(cx, buf)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.end_sending())
    }
}
