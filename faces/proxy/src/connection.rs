//! Connections with members, by a node in this process or by the one that programs share.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use peersock::PeerIdentity;
use peersock::net::{OwnedReadHalf, OwnedWriteHalf};
use peersock_attached::tokio as attached;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Interval of keepalive probes to a silent peer. A connection fails after eight or nine unanswered probes.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(15);

/// A connection with a member.
#[derive(Debug)]
pub enum Connection {
    /// Of a node in this process.
    Own(peersock::TcpStream),
    /// Of the node that programs share.
    Shared(attached::TcpStream),
}

impl Connection {
    /// Sets options: small writes leave at once, and a vanished peer is noticed.
    pub fn prepare(&self) {
        match self {
            Connection::Own(stream) => {
                let _ = stream.set_nodelay(true);
                let _ = stream.set_keepalive(Some(KEEPALIVE));
            }
            Connection::Shared(stream) => {
                let stream = stream.get_ref();
                // Also if this process is killed: the node lives on.
                let set = || stream.reset_on_close(true).and_then(|()| stream.set_nodelay(true));
                // Fails if the connection has ended.
                let _ = attached::in_place(|| set().and_then(|()| stream.set_keepalive(KEEPALIVE)));
            }
        }
    }

    /// Makes the connection reset when it is dropped.
    pub fn reset_when_dropped(&self) {
        let _ = match self {
            Connection::Own(stream) => stream.set_linger(Some(Duration::ZERO)),
            Connection::Shared(stream) => attached::in_place(|| stream.get_ref().reset_on_close(true)),
        };
    }

    /// Returns the peer's address.
    ///
    /// # Errors
    /// `NotConnected` if the connection has ended.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Connection::Own(stream) => stream.peer_addr(),
            Connection::Shared(stream) => Ok(stream.get_ref().peer_addr()),
        }
    }

    /// Returns the local address.
    ///
    /// # Errors
    /// `NotConnected` if the connection has ended, `NetworkDown` if the node has.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Connection::Own(stream) => stream.local_addr(),
            Connection::Shared(stream) => attached::in_place(|| stream.get_ref().local_addr()),
        }
    }

    /// Returns the member at the other end.
    pub fn peer(&self) -> Option<PeerIdentity> {
        match self {
            Connection::Own(stream) => stream.peer(),
            Connection::Shared(stream) => attached::in_place(|| stream.get_ref().peer().ok()),
        }
    }

    /// Splits the connection. Dropping the writing half ends sending.
    pub fn into_split(self) -> (Reading, Writing) {
        match self {
            Connection::Own(stream) => {
                let (reading, writing) = stream.into_split();
                (Reading::Own(reading), Writing(Some(Sending::Own(writing))))
            }
            Connection::Shared(stream) => {
                let stream = Arc::new(stream);
                (Reading::Shared(Arc::clone(&stream)), Writing(Some(Sending::Shared(stream))))
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Own(stream) => Pin::new(stream).poll_read(cx, buf),
            Connection::Shared(stream) => stream.poll_receive(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Own(stream) => Pin::new(stream).poll_write(cx, data),
            Connection::Shared(stream) => stream.poll_send(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Own(stream) => Pin::new(stream).poll_shutdown(cx),
            Connection::Shared(stream) => Poll::Ready(stream.end_sending()),
        }
    }
}

/// The reading half of a connection.
#[derive(Debug)]
pub enum Reading {
    /// Of a node in this process.
    Own(OwnedReadHalf),
    /// Of the node that programs share.
    Shared(Arc<attached::TcpStream>),
}

impl AsyncRead for Reading {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Reading::Own(half) => Pin::new(half).poll_read(cx, buf),
            Reading::Shared(stream) => stream.poll_receive(cx, buf),
        }
    }
}

/// The writing half of a connection, which ends sending when it is dropped.
#[derive(Debug)]
pub struct Writing(Option<Sending>);

#[derive(Debug)]
enum Sending {
    Own(OwnedWriteHalf),
    Shared(Arc<attached::TcpStream>),
}

impl Writing {
    /// Makes the connection reset once the reading half is dropped, too.
    pub fn reset(mut self) {
        match self.0.take() {
            Some(Sending::Own(half)) => {
                let _ = half.as_ref().set_linger(Some(Duration::ZERO));
                half.forget();
            }
            Some(Sending::Shared(stream)) => {
                let _ = attached::in_place(|| stream.get_ref().reset_on_close(true));
            }
            None => {}
        }
    }

    fn sending(&mut self) -> &mut Sending {
        self.0.as_mut().expect("only `reset` and `drop` take it")
    }
}

impl AsyncWrite for Writing {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut().sending() {
            Sending::Own(half) => Pin::new(half).poll_write(cx, data),
            Sending::Shared(stream) => stream.poll_send(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().sending() {
            Sending::Own(half) => Pin::new(half).poll_shutdown(cx),
            Sending::Shared(stream) => Poll::Ready(stream.end_sending()),
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some(Sending::Shared(stream)) = &self.0 {
            // The connection may have ended already, which is no error of a drop.
            let _ = stream.end_sending();
        }
    }
}
