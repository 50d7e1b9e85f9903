//! What carries datagrams: a stream of bytes with frames, or a WebSocket.

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

/// Any such stream. The call through a pointer costs little beside the system call.
pub(crate) type BoxedStream = Box<dyn Stream>;

/// Which side of a connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Asks whether the other side is still there.
    Client,
    /// The same, after the other side, which has connected.
    Accepted,
    /// Answers.
    Server,
    /// Neither: what is carried has questions of its own, and there are no keepalives.
    TurnClient,
}

impl Role {
    /// Whether it asks whether the other side is still there.
    pub(crate) fn asks(self) -> bool {
        matches!(self, Self::Client | Self::Accepted)
    }
}

/// What has arrived.
#[derive(Debug)]
pub(crate) enum Arrived {
    Datagram(Bytes),
    /// A keepalive, or the answer to one.
    Keepalive,
}

/// How the sending side stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// All has left, and the source had nothing more.
    Idle,
    /// All has left, and the source has ended.
    Ended,
}

/// Where datagrams to send come from: the queue, with what is counted.
pub(crate) type Source<'a> = dyn FnMut(&mut Context<'_>) -> Poll<Option<Bytes>> + Send + 'a;

/// What carries the datagrams of one connection.
pub(crate) enum Carrier {
    Framed(Framed),
    // It is several times as large as the other.
    WebSocket(Box<WebSocket>),
}

impl Carrier {
    /// Hands over what has arrived. Ready means that something has, complete or not.
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

    /// Sends what the source has, in batches, and counts those that were handed down in whole.
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

    /// Bytes that the stream has taken.
    pub(crate) fn written(&self) -> u64 {
        match self {
            Self::Framed(framed) => framed.written(),
            Self::WebSocket(websocket) => websocket.written(),
        }
    }

    /// Says that no more datagrams come.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        match self {
            Self::Framed(framed) => framed.poll_close(cx),
            Self::WebSocket(websocket) => websocket.poll_close(cx),
        }
    }
}

/// How many bytes are encoded at once. What is encoded is sent however old it gets, so a slow connection has
/// small batches; a fast one has large ones, because each is a system call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchSize(usize);

impl BatchSize {
    const SMALL: usize = 8 << 10;
    const LARGE: usize = 64 << 10;

    pub(crate) fn bytes(self) -> usize {
        self.0
    }

    /// The stream had to be waited for in the middle of a batch.
    pub(crate) fn blocked(&mut self) {
        self.0 = Self::SMALL;
    }

    /// A batch left without waiting.
    pub(crate) fn left(&mut self) {
        self.0 = (self.0 * 2).min(Self::LARGE);
    }
}

impl Default for BatchSize {
    fn default() -> Self {
        Self(Self::SMALL)
    }
}
