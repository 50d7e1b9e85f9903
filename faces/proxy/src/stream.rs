//! Connections of the overlay and of the system, with one interface.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use peersock::PeerIdentity;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use crate::connection::{Connection, KEEPALIVE};
use crate::slots::Slot;

/// Idle time of a system connection before its first probe.
const SYSTEM_KEEPALIVE: Duration = Duration::from_secs(60);

/// Timeout, and limit of pieces read, for closing a connection to which everything was written. Unread data
/// would make the close a reset, and the other end might lose the last bytes.
const LAST_WORDS: Duration = Duration::from_secs(2);
const LAST_PIECES: usize = 64;

/// Limit in bytes of one read before the destination is known.
const MAX_READ_AHEAD_BYTES: usize = 4 << 10;

/// A stream that can be relayed.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes the connection reset when it is dropped, if its kind supports that.
    fn reset_when_dropped(&self);

    /// Sets options: small writes leave at once, and a vanished peer is noticed.
    fn prepare(&self);

    /// Returns a probe that detects a gone client, for a system connection.
    fn probe(&self) -> Option<Probe> {
        None
    }

    /// Returns the member at the other end, for a connection of the overlay. That may ask the node.
    fn peer(&self) -> Option<PeerIdentity> {
        None
    }
}

/// Detects that a client has gone, while another task has its connection.
#[derive(Debug)]
pub struct Probe(socket2::Socket);

impl Probe {
    /// Returns true if the client sends no more, or has failed, as the system knows at this moment.
    pub fn is_gone(&self) -> bool {
        match self.0.peek(&mut [MaybeUninit::uninit()]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

impl Stream for Connection {
    fn reset_when_dropped(&self) {
        Connection::reset_when_dropped(self);
    }

    fn prepare(&self) {
        Connection::prepare(self);
    }

    fn peer(&self) -> Option<PeerIdentity> {
        Connection::peer(self)
    }
}

impl Stream for tokio::net::TcpStream {
    fn reset_when_dropped(&self) {
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }

    fn prepare(&self) {
        let _ = self.set_nodelay(true);
        let keepalive = TcpKeepalive::new().with_time(SYSTEM_KEEPALIVE).with_interval(KEEPALIVE);
        let _ = SockRef::from(self).set_tcp_keepalive(&keepalive);
    }

    fn probe(&self) -> Option<Probe> {
        SockRef::from(self).try_clone().ok().map(Probe)
    }
}

impl Stream for UnixStream {
    fn reset_when_dropped(&self) {}

    fn prepare(&self) {}

    fn probe(&self) -> Option<Probe> {
        SockRef::from(self).try_clone().ok().map(Probe)
    }
}

impl Stream for peersock_net::TcpConn {
    fn reset_when_dropped(&self) {
        let _ = self.set_linger(Duration::ZERO);
    }

    fn prepare(&self) {
        let _ = self.set_no_delay(true);
        let _ = self.set_keep_alive(true);
    }
}

/// A connection that is reset when it is dropped before its writing side was ended, because the other end
/// must not take its data for complete.
pub struct Link {
    /// The stream, present until drop.
    stream: Option<Box<dyn Stream>>,
    /// Bytes that were read and not used yet.
    early: BytesMut,
    /// True if everything was written.
    is_ended: bool,
    /// True if everything was read.
    is_read: bool,
    /// The connection's place among those served.
    slot: Option<Slot>,
    /// True if it keeps the place once data has passed.
    proves_by_bytes: bool,
}

impl Link {
    pub(crate) fn new(stream: impl Stream + 'static) -> Link {
        stream.prepare();
        let stream: Option<Box<dyn Stream>> = Some(Box::new(stream));
        Link {
            stream,
            early: BytesMut::new(),
            is_ended: false,
            is_read: false,
            slot: None,
            proves_by_bytes: false,
        }
    }

    /// Returns a probe that detects a gone client, for a system connection. The connection stays open as long
    /// as the probe lives.
    pub fn probe(&self) -> Option<Probe> {
        self.stream.as_ref().and_then(|stream| stream.probe())
    }

    /// Returns the member at the other end, for a connection of the overlay.
    pub(crate) fn peer(&self) -> Option<PeerIdentity> {
        self.stream.as_ref().and_then(|stream| stream.peer())
    }

    /// Makes the connection hold a place until it is closed.
    pub(crate) fn hold(&mut self, slot: Slot) {
        self.slot = Some(slot);
    }

    /// Makes the connection keep its place once data has passed in either direction, because its client has
    /// no other way to prove itself.
    pub(crate) fn prove_by_bytes(&mut self) {
        self.proves_by_bytes = true;
    }

    /// Proves the client because data passes. Fails if the connection has lost its place.
    fn pass(&mut self) -> io::Result<()> {
        if let Some(slot) = self.slot.as_ref().filter(|_| self.proves_by_bytes) {
            if !slot.standing().prove() {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            self.proves_by_bytes = false;
        }
        Ok(())
    }

    fn stream(&mut self) -> Pin<&mut Box<dyn Stream>> {
        Pin::new(self.stream.as_mut().expect("it is there until it is dropped"))
    }

    /// Returns the bytes that were read ahead and not used yet.
    pub(crate) fn early(&self) -> &[u8] {
        &self.early
    }

    /// Removes the first bytes of the data read ahead, which have been used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.early.advance(count);
    }

    /// Puts bytes that another reader has taken in front of the data read ahead.
    pub fn put_back(&mut self, bytes: &[u8]) {
        let behind = self.early.split();
        self.early.extend_from_slice(bytes);
        self.early.extend_from_slice(&behind);
    }

    /// Reads ahead at least one byte; returns false at the end.
    pub(crate) async fn fill(&mut self) -> io::Result<bool> {
        self.early.reserve(MAX_READ_AHEAD_BYTES);
        let stream = self.stream.as_mut().expect("it is there until it is dropped");
        let mut limited = bytes::BufMut::limit(&mut self.early, MAX_READ_AHEAD_BYTES);
        let is_there = stream.read_buf(&mut limited).await? > 0;
        self.is_read |= !is_there;
        Ok(is_there)
    }

    /// Resets the connection.
    pub fn reset(mut self) {
        self.is_ended = false;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take() else { return };
        match tokio::runtime::Handle::try_current() {
            _ if !self.is_ended => stream.reset_when_dropped(),
            Ok(runtime) if !self.is_read => {
                let closing = close(stream, self.slot.take());
                runtime.spawn(tokio::time::timeout(LAST_WORDS, closing));
            }
            _ => {}
        }
    }
}

/// Reads until the other end has closed, too.
async fn close(mut stream: Box<dyn Stream>, slot: Option<Slot>) {
    let reading = async {
        let mut piece = [0; MAX_READ_AHEAD_BYTES];
        for _ in 0..LAST_PIECES {
            if !matches!(stream.read(&mut piece).await, Ok(1..)) {
                return;
            }
        }
    };
    let Some(slot) = &slot else { return reading.await };
    tokio::select! {
        () = reading => {}
        () = slot.standing().evicted() => {}
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let count = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early[..count]);
            self.early.advance(count);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(self.stream().poll_read(cx, buf))?;
        let is_data = buf.filled().len() > before;
        self.is_read |= !is_data && buf.remaining() > 0;
        // The end of an empty stream proves nothing.
        Poll::Ready(if is_data { self.pass() } else { Ok(()) })
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        // Before the write, because a client that has read the data must not lose its place.
        self.pass()?;
        self.stream().poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream().poll_shutdown(cx))?;
        self.is_ended = true;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;
    use crate::owner::Owner;
    use crate::slots::{Slots, Standing};

    const CLIENT: Option<Owner> =
        Some(Owner::Address(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1))));

    /// A stream that checks at each write that its client is proven.
    struct Checked(DuplexStream, Standing);

    impl AsyncRead for Checked {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Checked {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            assert!(self.1.is_proven(), "the client could see the data and lose its place");
            Pin::new(&mut self.0).poll_write(cx, data)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    impl Stream for Checked {
        fn reset_when_dropped(&self) {}

        fn prepare(&self) {}
    }

    /// Returns a connection that takes a place and proves itself by bytes, and its client's end.
    fn link(slots: &Slots) -> (Link, Standing, DuplexStream) {
        let slot = slots.take_unproven(CLIENT).expect("there is a place");
        let standing = slot.standing().clone();
        let (served, client) = duplex(100);
        let mut link = Link::new(Checked(served, standing.clone()));
        link.hold(slot);
        link.prove_by_bytes();
        (link, standing, client)
    }

    #[tokio::test]
    async fn data_proves_a_client_before_it_can_see_them() {
        let (mut link, standing, mut client) = link(&Slots::new(2));
        link.write_all(b"hello").await.unwrap();
        assert!(standing.is_proven());
        assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 5);
    }

    #[tokio::test]
    async fn a_client_that_has_lost_its_place_gets_no_data() {
        let slots = Slots::new(2);
        let (mut link, standing, mut client) = link(&slots);
        let _new = slots.take_unproven(CLIENT).expect("the first one makes room");
        assert!(standing.is_evicted());
        for _ in 0..2 {
            let refused = link.write_all(b"hello").await.expect_err("it has lost its place");
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionReset);
        }
        drop(link);
        assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn the_end_of_an_empty_stream_proves_nothing() {
        let (mut link, standing, mut client) = link(&Slots::new(2));
        client.shutdown().await.unwrap();
        assert_eq!(link.read(&mut [0; 9]).await.unwrap(), 0);
        assert!(!standing.is_proven());
    }
}
