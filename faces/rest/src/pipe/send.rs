//! Sending of data by a pipe.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use peersock_proxy::serving::Writing;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::OwnedMutexGuard;

use super::{Datagrams, End, Half, Pipe, why};
use crate::limits::MAX_DATAGRAM_BYTES;
use crate::problem::{Kind, Problem};

/// The sending side.
pub(super) enum Sender {
    Tcp(Half),
    Udp(Arc<Datagrams>),
}

impl Sender {
    /// Returns true if the sending direction was ended. A half that is in use counts as open.
    pub(super) fn has_ended(&self) -> bool {
        match self {
            Sender::Tcp(half) => half.try_lock().is_ok_and(|half| half.is_none()),
            Sender::Udp(_) => false,
        }
    }

    /// Ends the sending side, with `reset` as a failure. All writers have given up by then.
    pub(super) async fn close(&self, reset: bool) {
        let Sender::Tcp(half) = self else { return };
        let half = half.lock().await.take();
        if reset {
            half.into_iter().for_each(Writing::reset);
        }
    }

    /// Makes a connection fail for the other end, when no other task has the pipe.
    pub(super) fn reset(&mut self) {
        if let Sender::Tcp(half) = self {
            half.get_mut().take().into_iter().for_each(Writing::reset);
        }
    }
}

impl Datagrams {
    async fn send(&self, data: &[u8], to: Option<SocketAddr>) -> io::Result<usize> {
        let Some(to) = to else { return self.sockets[0].try_send(data, None).await };
        let mut failed = io::ErrorKind::AddrNotAvailable.into();
        // With several networks only one of them may lead there.
        for socket in &self.sockets {
            match socket.try_send(data, Some(to)).await {
                Err(error) if socket.local_addr().is_ok_and(|at| at.is_ipv4() == to.is_ipv4()) => {
                    failed = error
                }
                Err(_) => {}
                sent => return sent,
            }
        }
        Err(failed)
    }
}

impl Pipe {
    /// Sends one message: all of a stream's bytes together, or one datagram. It continues when the caller is
    /// cancelled, so that no partial message is sent.
    pub(crate) async fn send(
        self: &Arc<Self>,
        data: Bytes,
        to: Option<SocketAddr>,
    ) -> Result<usize, Problem> {
        // One at a time, so that at most one message is sent for a cancelled caller.
        let (pipe, turn) = (Arc::clone(self), self.turn().await);
        let sending = tokio::spawn(async move {
            let _turn = turn;
            pipe.send_here(&data, to).await
        });
        sending.await.unwrap_or_else(|_| Err(Kind::Internal.because("sending has failed")))
    }

    /// Sends as [`Pipe::send`] does, but stops when the caller is cancelled.
    pub(crate) async fn send_here(&self, data: &[u8], to: Option<SocketAddr>) -> Result<usize, Problem> {
        match &self.sender {
            Sender::Tcp(_) if to.is_some() => Err(Kind::WrongProtocol
                .because(format_args!("pipe {} is a connection: leave the destination out", self.name))),
            Sender::Tcp(half) => {
                let mut half = half.lock().await;
                let ended = || {
                    Kind::Ended
                        .because(format_args!("pipe {} sends no more: its sending side was ended", self.name))
                };
                let writing = half.as_mut().ok_or_else(ended)?;
                self.begin();
                let written = tokio::select! {
                    written = writing.write_all(data) => written,
                    () = self.closed() => {
                        // Reset, because a part may have arrived that the other end must not take for
                        // complete.
                        half.take().into_iter().for_each(Writing::reset);
                        return Err(End::Closed.problem(&self.name));
                    }
                };
                written.map_err(|error| self.broken(&error))?;
                self.whole();
                self.count(data.len())
            }
            Sender::Udp(datagrams) => {
                self.check_datagram(data, datagrams.is_connected, to)?;
                datagrams.send(data, to).await.map_err(|error| match error.raw_os_error() {
                    Some(code) if code == MESSAGE_TOO_LONG => {
                        Kind::TooLarge.because("the datagram is too long for the way to its destination")
                    }
                    _ => Problem::of_io(&error, "the datagram was not sent"),
                })?;
                self.count(data.len())
            }
        }
    }

    fn check_datagram(&self, data: &[u8], is_connected: bool, to: Option<SocketAddr>) -> Result<(), Problem> {
        if data.len() > MAX_DATAGRAM_BYTES {
            return Err(
                Kind::TooLarge.because(format_args!("a datagram has {MAX_DATAGRAM_BYTES} bytes at most"))
            );
        }
        match (is_connected, to) {
            (true, Some(_)) => Err(Kind::WrongProtocol
                .because(format_args!("pipe {} leads to one address: leave the destination out", self.name))),
            (false, None) => Err(Kind::BadRequest.because(format_args!(
                "pipe {} leads nowhere by itself: say where to, as ?to=ADDRESS:PORT",
                self.name
            ))),
            _ => Ok(()),
        }
    }

    /// Waits until no other task sends data that must not be interleaved.
    pub(crate) async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// Waits until the pipe is closed here.
    async fn closed(&self) {
        loop {
            let mut closed = pin!(self.closed.notified());
            closed.as_mut().enable();
            if self.queues().end == Some(End::Closed) {
                return;
            }
            closed.await;
        }
    }

    fn count(&self, bytes: usize) -> Result<usize, Problem> {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    /// Returns the problem of a broken connection, which readers also get once all received data was taken.
    fn broken(&self, error: &io::Error) -> Problem {
        End::Broken(why(error)).problem(&self.name)
    }

    /// Tells the other end that no more data follows. The caller has the [turn](Pipe::turn), so that the end
    /// does not fall into the middle of another task's data.
    pub(crate) async fn finish(&self) -> Result<(), Problem> {
        self.check_stream()?;
        if let Sender::Tcp(half) = &self.sender
            && let Some(mut half) = half.lock().await.take()
        {
            half.shutdown().await.map_err(|error| self.broken(&error))?;
        }
        Ok(())
    }
}

/// The error number EMSGSIZE.
const MESSAGE_TOO_LONG: i32 = 90;
