//! Frames on a stream of bytes.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::{Arrived, BatchSize, BoxedStream, Flushed, Source};
use crate::connection::Closed;
use crate::framing::{self, FrameReader};
use crate::turn_messages::{self, TurnReader};

pub(crate) struct Framed {
    stream: BoxedStream,
    framing: Framing,
    /// Bytes that were read before the stream was known to carry frames.
    early: Vec<u8>,
    /// Encoded frames; `written` bytes of them have left.
    batch: Vec<u8>,
    written: usize,
    /// Bytes that the stream has taken since it began.
    taken: u64,
    size: BatchSize,
    keepalive: bool,
}

/// The encoding that separates datagrams in a stream of bytes.
pub(crate) enum Framing {
    /// Each datagram follows its length.
    Lengths(FrameReader),
    /// TURN messages, which contain their lengths. There are no keepalives.
    Turn(TurnReader),
}

impl Framing {
    pub(crate) fn lengths() -> Self {
        Self::Lengths(FrameReader::default())
    }

    pub(crate) fn turn() -> Self {
        Self::Turn(TurnReader::default())
    }

    fn read(&mut self, bytes: &[u8], frame: &mut dyn FnMut(&[u8])) -> Result<(), Closed> {
        match self {
            Self::Lengths(reader) => reader.read(bytes, frame).map_err(|e| Closed::Malformed(e.to_string())),
            Self::Turn(reader) => reader.read(bytes, frame).map_err(|e| Closed::Malformed(e.to_string())),
        }
    }

    fn write(&self, datagram: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Lengths(_) => framing::write(datagram, out),
            Self::Turn(_) => turn_messages::write(datagram, out),
        }
    }
}

/// Largest number of bytes that one system call reads.
const READ: usize = 64 << 10;

thread_local! {
    /// Read buffer shared by all connections of a thread, so an idle connection needs no buffer.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

impl Framed {
    /// Makes a carrier for a stream of which `early` was already read.
    pub(crate) fn new(stream: BoxedStream, early: Vec<u8>, framing: Framing) -> Self {
        Self {
            stream,
            framing,
            early,
            batch: Vec::new(),
            written: 0,
            taken: 0,
            size: BatchSize::default(),
            keepalive: false,
        }
    }

    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        arrived: &mut dyn FnMut(Arrived),
    ) -> Poll<Result<(), Closed>> {
        let mut frame = |frame: &[u8]| {
            arrived(match frame {
                [] => Arrived::Keepalive,
                // A copy, so that a waiting datagram does not keep everything read with it in memory.
                datagram => Arrived::Datagram(Bytes::copy_from_slice(datagram)),
            });
        };
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            return Poll::Ready(self.framing.read(&early, &mut frame));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Err(Closed::There));
            }
            Poll::Ready(self.framing.read(buffer.filled(), &mut frame))
        })
    }

    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Source<'_>,
        batches: &mut u64,
    ) -> Poll<Result<Flushed, Closed>> {
        loop {
            let mut waited = false;
            while self.written < self.batch.len() {
                match Pin::new(&mut self.stream).poll_write(cx, &self.batch[self.written..])? {
                    Poll::Ready(0) => return Poll::Ready(Err(Closed::There)),
                    Poll::Ready(taken) => {
                        self.taken += taken as u64;
                        self.written += taken;
                        waited |= self.written < self.batch.len();
                    }
                    Poll::Pending => {
                        self.size.blocked();
                        return Poll::Pending;
                    }
                }
            }
            if !self.batch.is_empty() {
                *batches += 1;
                if !waited {
                    self.size.left();
                }
                self.batch.clear();
                self.written = 0;
            }
            let ended = self.fill(cx, source);
            if self.batch.is_empty() {
                // TLS may hold records that the socket has not taken.
                ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
                self.batch = Vec::new();
                return Poll::Ready(Ok(if ended { Flushed::Ended } else { Flushed::Idle }));
            }
        }
    }

    /// Encodes datagrams of the source, up to one batch. Returns true if the source has ended.
    fn fill(&mut self, cx: &mut Context<'_>, source: &mut Source<'_>) -> bool {
        if std::mem::take(&mut self.keepalive) {
            self.framing.write(&[], &mut self.batch);
        }
        while self.batch.len() < self.size.bytes() {
            match source(cx) {
                Poll::Ready(Some(datagram)) => self.framing.write(&datagram, &mut self.batch),
                Poll::Ready(None) => return true,
                Poll::Pending => return false,
            }
        }
        false
    }

    pub(crate) fn keepalive(&mut self) {
        // A second pending keepalive would add nothing.
        self.keepalive = true;
    }

    /// Returns the number of bytes that the stream has taken.
    pub(crate) fn written(&self) -> u64 {
        self.taken
    }

    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        Pin::new(&mut self.stream).poll_shutdown(cx).map_err(Closed::from)
    }
}
