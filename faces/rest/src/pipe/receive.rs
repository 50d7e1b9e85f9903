//! Receiving: incoming data goes into the queues of a pipe.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use peersock_proxy::Protocol;
use peersock_proxy::serving::Reading;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Datagrams, End, Message, Pipe, Subscription, why};
use crate::limits::{DISCARD_TIMEOUT, MAX_STREAM_MESSAGE_BYTES};

/// Limit of consecutive errors of a UDP socket. An error may mean only that an earlier datagram found no
/// receiver.
const MAX_CONSECUTIVE_ERRORS: u32 = 64;

thread_local! {
    /// Read buffer shared by all pipes of a thread, so that a waiting pipe needs no buffer.
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_STREAM_MESSAGE_BYTES].into_boxed_slice());
}

/// Receives until the other end sends no more. If the pipe is closed earlier, it reads and discards data for
/// a while. Closing with unread data would reset the connection, and the other end might lose the last bytes
/// sent to it.
pub(super) async fn connection(
    pipe: Weak<Pipe>,
    mut half: Reading,
    from: SocketAddr,
    closed: oneshot::Receiver<Infallible>,
) {
    let is_over = tokio::select! {
        is_over = fill(&pipe, &mut half, from) => is_over,
        _ = closed => false,
    };
    if !is_over {
        let discard = async {
            while poll_fn(|cx| poll_read(cx, &mut half)).await.is_ok_and(|data| !data.is_empty()) {}
        };
        let _ = timeout(DISCARD_TIMEOUT, discard).await;
    }
}

/// Fills the queues until the other end sends no more; returns false if the pipe is dropped earlier.
async fn fill(pipe: &Weak<Pipe>, half: &mut Reading, from: SocketAddr) -> bool {
    loop {
        has_room(pipe).await;
        let read = poll_fn(|cx| poll_read(cx, half)).await;
        let Some(pipe) = pipe.upgrade() else { return false };
        match read {
            Ok(data) if !data.is_empty() => pipe.deliver(from, data),
            Ok(_) => {
                pipe.end(End::Complete);
                return true;
            }
            Err(error) => {
                pipe.end(End::Broken(why(&error)));
                return true;
            }
        }
    }
}

fn poll_read(cx: &mut Context<'_>, half: &mut Reading) -> Poll<io::Result<Bytes>> {
    READ_BUFFER.with_borrow_mut(|scratch| {
        let mut piece = ReadBuf::new(scratch);
        ready!(Pin::new(half).poll_read(cx, &mut piece))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(piece.filled())))
    })
}

/// Waits until each queue has room, or a client waits for a queue that a full one would block, or the pipe is
/// dropped.
async fn has_room(pipe: &Weak<Pipe>) {
    loop {
        let Some(pipe) = pipe.upgrade() else { return };
        let budget = pipe.queues().budget.clone();
        let (mut taken, mut freed) = (pin!(pipe.room.notified()), pin!(budget.freed().notified()));
        taken.as_mut().enable();
        freed.as_mut().enable();
        {
            let queues = pipe.queues();
            let mut all = queues.by_name.values();
            if !all.clone().any(|one| one.queue.is_full()) || all.any(|one| one.queue.is_awaited()) {
                return;
            }
        }
        tokio::select! {
            () = taken => {}
            () = freed => {}
        }
    }
}

/// Receives datagrams until the socket fails permanently.
pub(super) async fn datagrams(pipe: Weak<Pipe>, datagrams: Arc<Datagrams>, socket: usize) {
    let mut errors = 0;
    loop {
        let received = poll_fn(|cx| datagrams.sockets[socket].poll_receive(cx)).await;
        let Some(pipe) = pipe.upgrade() else { return };
        match received {
            Ok((data, from)) => {
                errors = 0;
                pipe.deliver(from, data.into());
            }
            Err(error) if error.kind() != io::ErrorKind::NetworkDown && errors < MAX_CONSECUTIVE_ERRORS => {
                tracing::debug!(%error, "a datagram was not received");
                errors += 1;
            }
            Err(error) => return pipe.end(End::Broken(why(&error))),
        }
    }
}

impl Pipe {
    /// Puts a message into each queue that matches it.
    pub(super) fn deliver(&self, from: SocketAddr, data: Bytes) {
        self.received.fetch_add(data.len() as u64, Ordering::Relaxed);
        let mut queues = self.queues();
        queues.count += 1;
        let message = Message { number: queues.count, from, data };
        // A stream loses nothing, unless a full queue would stop one at which a client waits.
        let is_datagram = self.protocol() == Protocol::Udp;
        let drops = is_datagram || queues.by_name.values().any(|one| one.queue.is_awaited());
        for Subscription { queue, .. } in queues.by_name.values().filter(|one| one.is_for(&message)) {
            queue.put(message.clone(), drops && (is_datagram || queue.is_full()));
        }
    }
}
