//! Relay between two connections: bytes of each are written to the other.
//!
//! The end of one direction is passed on and leaves the other one open. If one connection fails, both are
//! reset.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use crate::stop::Stop;
use crate::stream::Link;

/// Limit in bytes of one read, and of the data that waits to be written in each direction. It is large, so
/// that a whole batch of packets leaves together.
const PIECE: usize = 128 << 10;

/// Number of pieces that are moved before other tasks get their turn.
const PIECES_PER_TURN: usize = 16;

thread_local! {
    /// Read buffer shared by all relays of a thread; only a relay that waits for room has a separate buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; PIECE].into_boxed_slice());
}

/// Relays until both directions have ended. If a connection fails earlier, or the time that `stop` leaves is
/// over, both are reset.
pub(crate) async fn relay(mut one: Link, mut other: Link, stop: &Stop) {
    let (mut there, mut back) = (Direction::default(), Direction::default());
    let done = poll_fn(|cx| {
        let there = there.poll(cx, &mut one, &mut other)?;
        let back = back.poll(cx, &mut other, &mut one)?;
        if there.is_ready() && back.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    });
    let done: io::Result<()> = tokio::select! {
        done = done => done,
        () = stop.cut() => Err(io::ErrorKind::ConnectionAborted.into()),
    };
    if let Err(error) = done {
        tracing::debug!(%error, "a connection has broken");
        // Reset the client last, because a program that is ending waits for it.
        other.reset();
        one.reset();
    }
}

/// One direction of a relay.
#[derive(Default)]
struct Direction {
    /// Bytes that were read and could not be written yet.
    waiting: Vec<u8>,
    written: usize,
    state: State,
}

#[derive(Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The end was read, and must be passed on.
    Ending,
    Ended,
}

impl Direction {
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut Link, to: &mut Link) -> Poll<io::Result<()>> {
        for _ in 0..PIECES_PER_TURN {
            ready!(self.poll_waiting(cx, to))?;
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = State::Ended;
                    return Poll::Ready(Ok(()));
                }
                State::Open => ready!(self.poll_piece(cx, from, to))?,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes the waiting bytes.
    fn poll_waiting(&mut self, cx: &mut Context<'_>, to: &mut Link) -> Poll<io::Result<()>> {
        while self.written < self.waiting.len() {
            self.written += ready!(poll_write(cx, to, &self.waiting[self.written..]))?;
        }
        if self.written > 0 {
            (self.waiting, self.written) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads a piece and writes it; keeps the bytes that cannot be written yet.
    fn poll_piece(&mut self, cx: &mut Context<'_>, from: &mut Link, to: &mut Link) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut piece = ReadBuf::new(scratch);
            ready!(Pin::new(from).poll_read(cx, &mut piece))?;
            let mut rest = piece.filled();
            if rest.is_empty() {
                self.state = State::Ending;
            }
            while !rest.is_empty() {
                match poll_write(cx, to, rest) {
                    Poll::Ready(count) => rest = &rest[count?..],
                    Poll::Pending => {
                        self.waiting = rest.to_vec();
                        break;
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
    }
}

fn poll_write(cx: &mut Context<'_>, to: &mut Link, data: &[u8]) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(to).poll_write(cx, data))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        count => Poll::Ready(Ok(count)),
    }
}
