//! Carriers of datagrams: a stream of bytes with frames, or a WebSocket.

mod framed;
#[cfg_attr(not(feature = "tls"), path = "no_websocket.rs")]
mod websocket;

use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use framed::{Framed, Framing};
pub(crate) use websocket::WebSocket;

use crate::connection::Closed;

/// A stream of bytes: TCP, TLS over TCP, or TLS over TLS to a proxy.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Any such stream. The call through a pointer costs little compared with the system call.
pub(crate) type BoxedStream = Box<dyn Stream>;

/// The role of this side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Sends keepalives to check that the other side is alive.
    Client,
    /// Sends keepalives as a client does, on a connection that the other side has made.
    Accepted,
    /// Answers keepalives.
    Server,
    /// Sends no keepalives, because the carried protocol has its own checks.
    TurnClient,
}

impl Role {
    /// Returns true if this side sends keepalives to check the other side.
    pub(crate) fn asks(self) -> bool {
        matches!(self, Self::Client | Self::Accepted)
    }
}

/// Something that has arrived.
#[derive(Debug)]
pub(crate) enum Arrived {
    Datagram(Bytes),
    /// A keepalive, or the answer to one.
    Keepalive,
}

/// State of the sending side after a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// All has left, and the source had nothing more.
    Idle,
    /// All has left, and the source has ended.
    Ended,
}

/// Source of the datagrams to send: the queue, together with its counters.
pub(crate) type Source<'a> = dyn FnMut(&mut Context<'_>) -> Poll<Option<Bytes>> + Send + 'a;

/// Carrier of the datagrams of one connection.
pub(crate) enum Carrier {
    Framed(Framed),
    // Boxed, because it is several times as large as the other variant.
    WebSocket(Box<WebSocket>),
}

impl Carrier {
    /// Hands over what has arrived. Ready means that bytes have arrived, whether or not they complete a
    /// datagram.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        arrived: &mut dyn FnMut(Arrived),
    ) -> Poll<Result<(), Closed>> {
        match self {
            Self::Framed(framed) => framed.poll_receive(cx, arrived),
            Self::WebSocket(websocket) => websocket.poll_receive(cx, arrived),
        }
    }

    /// Sends the datagrams of the source in batches, and counts the batches that were handed down completely.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Source<'_>,
        batches: &mut u64,
    ) -> Poll<Result<Flushed, Closed>> {
        match self {
            Self::Framed(framed) => framed.poll_send(cx, source, batches),
            Self::WebSocket(websocket) => websocket.poll_send(cx, source, batches),
        }
    }

    /// Sends a keepalive with the next batch.
    pub(crate) fn keepalive(&mut self) {
        match self {
            Self::Framed(framed) => framed.keepalive(),
            Self::WebSocket(websocket) => websocket.keepalive(),
        }
    }

    /// Returns the number of bytes that the stream has taken.
    pub(crate) fn written(&self) -> u64 {
        match self {
            Self::Framed(framed) => framed.written(),
            Self::WebSocket(websocket) => websocket.written(),
        }
    }

    /// Tells the other side that no more datagrams follow.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        match self {
            Self::Framed(framed) => framed.poll_close(cx),
            Self::WebSocket(websocket) => websocket.poll_close(cx),
        }
    }
}

/// Number of bytes that are encoded at once. A slow connection has small batches, because encoded datagrams
/// are sent at any age. A fast connection has large ones, because each batch is a system call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchSize(usize);

impl BatchSize {
    const SMALL_BUFFER_BYTES: usize = 8 << 10;
    const LARGE_BUFFER_BYTES: usize = 64 << 10;

    pub(crate) fn bytes(self) -> usize {
        self.0
    }

    /// Shrinks the batch, because the stream blocked in the middle of one.
    pub(crate) fn blocked(&mut self) {
        self.0 = Self::SMALL_BUFFER_BYTES;
    }

    /// Grows the batch, because one left without waiting.
    pub(crate) fn left(&mut self) {
        self.0 = (self.0 * 2).min(Self::LARGE_BUFFER_BYTES);
    }
}

impl Default for BatchSize {
    fn default() -> Self {
        Self(Self::SMALL_BUFFER_BYTES)
    }
}
