//! Datagrams as binary messages of a WebSocket (RFC 6455), one each. Keepalives are pings and pongs.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::{Arrived, BatchSize, BoxedStream, Flushed, Role, Source};
use crate::client::PATH;
use crate::connection::Closed;
use crate::error::ConnectError;
use crate::framing::MAX_DATAGRAM;
use crate::target::Target;

/// Largest batch: one TLS record. Batches are small, because the library keeps its buffers for the life of
/// the connection.
const BATCH: usize = 16 << 10;

/// Bytes of a frame's header: 2, a length of at most 8, a mask of 4.
const HEADER: usize = 14;

/// Bytes that one call reads.
const READ: usize = 16 << 10;

pub(crate) struct WebSocket {
    stream: WebSocketStream<Counted>,
    role: Role,
    size: BatchSize,
    /// Set while messages were written that may not have left.
    unflushed: bool,
    ping: bool,
}

/// Returns the library's settings: small buffers, and no message longer than a datagram.
fn settings() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ)
        // The library writes nothing before the batch is flushed.
        .write_buffer_size(BATCH + MAX_DATAGRAM + HEADER)
        .max_write_buffer_size(4 * (BATCH + MAX_DATAGRAM + HEADER))
        .max_message_size(Some(MAX_DATAGRAM))
        .max_frame_size(Some(MAX_DATAGRAM))
}

impl WebSocket {
    /// Opens a client's WebSocket by the HTTP part of its handshake (RFC 6455, 4.1).
    pub(crate) async fn connect(stream: BoxedStream, target: &Target) -> Result<Self, ConnectError> {
        let request = format!("wss://{}{PATH}", target.authority()).into_client_request();
        let mut request = request.map_err(|_| ConnectError::Host(target.host.clone()))?;
        request.headers_mut().insert("user-agent", HeaderValue::from_static("peersock"));
        let no_root = |reason: String| ConnectError::NoRoot { host: target.host.clone(), reason };
        match client_async_with_config(request, Counted::new(stream), Some(settings())).await {
            Ok((stream, _)) => Ok(Self::new(stream, Role::Client)),
            Err(Error::Http(response)) => {
                Err(no_root(format!("it answers {} to a WebSocket", response.status())))
            }
            Err(Error::Io(error)) => Err(ConnectError::Broken { to: target.host.clone(), error }),
            Err(error) => Err(no_root(error.to_string())),
        }
    }

    /// Makes a server's WebSocket; `early` holds the bytes that were read after the request.
    #[cfg(feature = "server")]
    pub(crate) async fn of_server(stream: BoxedStream, early: Vec<u8>) -> Self {
        let stream = Counted::new(stream);
        let side = tokio_tungstenite::tungstenite::protocol::Role::Server;
        let stream = WebSocketStream::from_partially_read(stream, early, side, Some(settings())).await;
        Self::new(stream, Role::Server)
    }

    fn new(stream: WebSocketStream<Counted>, role: Role) -> Self {
        Self { stream, role, size: BatchSize::default(), unflushed: false, ping: false }
    }

    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        arrived: &mut dyn FnMut(Arrived),
    ) -> Poll<Result<(), Closed>> {
        let message = match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
            Some(message) => message.map_err(closed)?,
            None => return Poll::Ready(Err(Closed::There)),
        };
        match message {
            Message::Binary(datagram) if !datagram.is_empty() => {
                // A copy, because the library cuts messages from its read buffer and the copy frees that
                // buffer.
                arrived(Arrived::Datagram(Bytes::copy_from_slice(&datagram)));
            }
            Message::Ping(_) | Message::Pong(_) => arrived(Arrived::Keepalive),
            Message::Close(_) => return Poll::Ready(Err(Closed::There)),
            Message::Binary(_) => return Poll::Ready(Err(Closed::Malformed("an empty message".to_owned()))),
            Message::Text(_) | Message::Frame(_) => {
                return Poll::Ready(Err(Closed::Malformed("a message of text".to_owned())));
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Source<'_>,
        batches: &mut u64,
    ) -> Poll<Result<Flushed, Closed>> {
        loop {
            // Flush in any case: the library may have queued an answer to a ping.
            if Pin::new(&mut self.stream).poll_flush(cx).map_err(closed)?.is_pending() {
                self.size.blocked();
                return Poll::Pending;
            }
            if std::mem::take(&mut self.unflushed) {
                *batches += 1;
                self.size.left();
            }
            let ended = self.fill(cx, source)?;
            if !self.unflushed {
                return Poll::Ready(Ok(if ended { Flushed::Ended } else { Flushed::Idle }));
            }
        }
    }

    /// Writes one batch of messages into the library's buffer. Returns whether the source has ended.
    fn fill(&mut self, cx: &mut Context<'_>, source: &mut Source<'_>) -> Result<bool, Closed> {
        if std::mem::take(&mut self.ping) {
            self.write(Message::Ping(Bytes::new()))?;
        }
        let mut filled = 0;
        while filled < self.size.bytes().min(BATCH) {
            match source(cx) {
                Poll::Ready(Some(datagram)) => {
                    filled += HEADER + datagram.len();
                    self.write(Message::Binary(datagram))?;
                }
                Poll::Ready(None) => return Ok(true),
                Poll::Pending => return Ok(false),
            }
        }
        Ok(false)
    }

    fn write(&mut self, message: Message) -> Result<(), Closed> {
        self.unflushed = true;
        // The stream is ready: everything before this batch is flushed, and the batch fits in the buffer.
        Pin::new(&mut self.stream).start_send(message).map_err(closed)
    }

    pub(crate) fn keepalive(&mut self) {
        // The library answers pings by itself.
        self.ping |= self.role == Role::Client;
    }

    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        ready!(Pin::new(&mut self.stream).poll_close(cx)).map_err(closed)?;
        Pin::new(self.stream.get_mut()).poll_shutdown(cx).map_err(Closed::from)
    }

    /// Returns the number of bytes that the stream below has taken.
    pub(crate) fn written(&self) -> u64 {
        self.stream.get_ref().written
    }
}

fn closed(error: Error) -> Closed {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => Closed::There,
        Error::Io(error) => error.into(),
        Error::Capacity(CapacityError::MessageTooLong { size, .. }) => {
            Closed::Malformed(format!("a message of {size} bytes; at most {MAX_DATAGRAM} are allowed"))
        }
        // Most other implementations end without the closing handshake, too.
        Error::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => Closed::There,
        error => Closed::Malformed(error.to_string()),
    }
}

/// A stream that counts the bytes it takes, because the library does not report progress.
struct Counted {
    stream: BoxedStream,
    written: u64,
}

impl Counted {
    fn new(stream: BoxedStream) -> Self {
        Self { stream, written: 0 }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let taken = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.written += taken as u64;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
