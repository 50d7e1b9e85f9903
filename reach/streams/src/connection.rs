//! A connection as its user sees it: it sends and receives datagrams.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use peersock_primitives::sync::{self, AtomicBool, Mutex, Ordering};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::framing::MAX_DATAGRAM;
use crate::queue::{Dropped, Queue, QueueLimits};

peersock_primitives::counters! {
    /// Traffic of one connection, or of all connections of a server.
    pub struct Counters {
        /// Datagrams given to the connection's TCP, TLS or WebSocket.
        pub sent,
        /// Bytes of these datagrams.
        pub sent_bytes,
        /// Datagrams dropped before they were sent, because newer datagrams needed their room.
        pub send_dropped_full,
        /// Datagrams dropped before they were sent, because they had waited too long.
        pub send_dropped_old,
        /// Datagrams that arrived.
        pub received,
        /// Bytes of these datagrams.
        pub received_bytes,
        /// Datagrams that arrived and were dropped because newer datagrams needed their room in the queue.
        pub receive_dropped_full,
        /// Datagrams that arrived and were dropped because they were not taken from the queue in time.
        pub receive_dropped_old,
        /// Keepalives sent, answers included.
        pub keepalives_sent,
        /// Keepalives received, answers included.
        pub keepalives_received,
        /// Batches of datagrams handed to the system, one system call each.
        pub batches_sent,
    }
}

/// Reasons for the end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Closed {
    /// This side closed the connection.
    #[error("this side has closed the connection")]
    Here,
    /// The other side closed the connection in an orderly way.
    #[error("the other side has closed the connection")]
    There,
    /// Nothing was heard from the other side for this time, though a keepalive was sent.
    #[error("nothing was heard for {} s", .0.as_secs())]
    Silent(Duration),
    /// The other side has taken no byte for this time.
    #[error("the other side has read nothing for {} s", .0.as_secs())]
    Stalled(Duration),
    /// The other side sent something that is no frame, or a WebSocket message that is no datagram.
    #[error("the other side breaks the protocol: {0}")]
    Malformed(String),
    /// TCP or TLS failed.
    #[error("the connection failed: {text}")]
    Io {
        /// The kind of the error.
        kind: io::ErrorKind,
        /// The text of the error.
        text: String,
    },
    /// The server did not [admit](crate::ServerHandle::admit) the connection in time.
    #[error("the client did not begin a session in time")]
    NotAdmitted,
}

impl From<io::Error> for Closed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // The peer is gone without TLS's close_notify, which most peers omit.
            io::ErrorKind::UnexpectedEof => Self::There,
            kind => Self::Io { kind, text: error.to_string() },
        }
    }
}

/// Reasons for refusing a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// The datagram is empty, which on a stream would be a keepalive.
    #[error("the datagram is empty")]
    Empty,
    /// The datagram is longer than [`MAX_DATAGRAM`].
    #[error("a datagram of {length} bytes; at most {MAX_DATAGRAM} are allowed")]
    TooLong {
        /// The datagram's length in bytes.
        length: usize,
    },
    /// The connection has ended, or no connection has this number.
    #[error("the connection has ended")]
    Closed,
}

/// State shared by both halves of a connection and its task.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) outgoing: Queue,
    pub(crate) counters: Arc<Counters>,
    /// The reason for which the task has ended, or ends soon.
    reason: OnceLock<Closed>,
    closing: AtomicBool,
    close: Notify,
    /// Set once something complete has arrived from the other side; waiters also wake when the connection
    /// ends.
    answered: AtomicBool,
    answer: Notify,
    /// Set when a keepalive must be sent at once; the value is the time the other side has to answer.
    probe: Mutex<Option<Duration>>,
    pub(crate) probed: Notify,
}

impl Shared {
    pub(crate) fn new(send_queue: QueueLimits, counters: Arc<Counters>) -> Self {
        Self {
            outgoing: Queue::new(send_queue),
            counters,
            reason: OnceLock::new(),
            closing: AtomicBool::new(false),
            close: Notify::new(),
            answered: AtomicBool::new(false),
            answer: Notify::new(),
            probe: Mutex::new(None),
            probed: Notify::new(),
        }
    }

    /// Makes the task send a keepalive at once.
    fn probe(&self, patience: Duration) {
        *sync::lock(&self.probe) = Some(patience);
        self.probed.notify_one();
    }

    /// Returns the timeout of the answer if a probe was requested, and clears the request.
    pub(crate) fn take_probe(&self) -> Option<Duration> {
        sync::lock(&self.probe).take()
    }

    /// Records that the other side speaks the protocol: a datagram or a keepalive has arrived.
    pub(crate) fn note_answer(&self) {
        if !self.answered.swap(true, Ordering::AcqRel) {
            self.answer.notify_one();
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(crate) fn send(&self, datagram: Bytes, now: Instant) -> Result<(), SendError> {
        check(&datagram)?;
        let Dropped(dropped) = self.outgoing.push(datagram, now).ok_or(SendError::Closed)?;
        self.counters.send_dropped_full.add(dropped);
        Ok(())
    }

    /// Makes the task end; only the first reason counts.
    pub(crate) fn close(&self, reason: Closed) {
        let _ = self.reason.set(reason);
        self.outgoing.close();
        self.closing.store(true, Ordering::Release);
        self.close.notify_one();
        self.answer.notify_one();
    }

    /// Waits until this side requests the close.
    pub(crate) async fn closing(&self) {
        while !self.closing.load(Ordering::Acquire) {
            self.close.notified().await;
        }
    }

    pub(crate) fn reason(&self) -> Closed {
        self.reason.get().cloned().unwrap_or(Closed::Here)
    }
}

fn check(datagram: &Bytes) -> Result<(), SendError> {
    match datagram.len() {
        0 => Err(SendError::Empty),
        length if length > MAX_DATAGRAM => Err(SendError::TooLong { length }),
        _ => Ok(()),
    }
}

/// A connection that carries datagrams to a root, made by [`Connector::connect`](crate::Connector::connect).
///
/// A tokio task reads and writes it. Neither side ever waits for the other: datagrams that cannot leave soon
/// are dropped, the oldest first, and counted. Dropping the connection closes it; datagrams sent just before
/// still leave within a second.
pub struct Connection {
    sender: Sender,
    receiver: Receiver,
    proxy: Option<String>,
    ends: Ends,
}

/// The addresses of both ends of a TCP connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

/// The sending half of a connection. Clones send on the same connection.
#[derive(Clone)]
pub struct Sender {
    shared: Arc<Shared>,
}

/// The receiving half of a connection. Dropping it ends the connection.
///
/// ```
/// use peersock_streams::{Closed, Receiver};
///
/// async fn count(mut receiver: Receiver) -> (usize, Closed) {
///     let (mut total, mut batch) = (0, Vec::new());
///     loop {
///         match receiver.recv_many(&mut batch, 64).await {
///             Ok(taken) => total += taken,
///             Err(reason) => return (total, reason),
///         }
///         batch.clear();
///     }
/// }
/// ```
pub struct Receiver {
    shared: Arc<Shared>,
    incoming: Arc<Queue>,
}

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>, incoming: Arc<Queue>, proxy: Option<String>, ends: Ends) -> Self {
        let (sender, receiver) = (Sender { shared: shared.clone() }, Receiver { shared, incoming });
        Self { sender, receiver, proxy, ends }
    }

    /// Returns the local address of the TCP connection.
    pub fn local_addr(&self) -> SocketAddr {
        self.ends.local
    }

    /// Returns the remote address of the TCP connection: the server's, or the proxy's if there is one.
    pub fn remote_addr(&self) -> SocketAddr {
        self.ends.remote
    }

    /// Returns the proxy of the connection, without user name and password; `None` if there is none.
    pub fn proxy(&self) -> Option<&str> {
        self.proxy.as_deref()
    }

    /// Waits until something has arrived. A root answers the keepalive that begins every connection, so this
    /// shows that a root is there.
    /// Fails with the reason of the end, if the connection ends before that.
    pub async fn answered(&mut self) -> Result<(), Closed> {
        let shared = &self.sender.shared;
        while !shared.answered.load(Ordering::Acquire) {
            if shared.is_closing() {
                return Err(shared.reason());
            }
            shared.answer.notified().await;
        }
        Ok(())
    }

    /// Sends a datagram; see [`Sender::send`].
    /// Fails if the datagram is empty or too long, or the connection has ended.
    pub fn send(&self, datagram: impl Into<Bytes>) -> Result<(), SendError> {
        self.sender.send(datagram)
    }

    /// Waits for the next datagram.
    /// Fails with the reason of the end, once the connection has ended.
    pub async fn recv(&mut self) -> Result<Bytes, Closed> {
        self.receiver.recv().await
    }

    /// Splits the connection into halves, for separate tasks.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// Returns the traffic counters of the connection.
    pub fn counters(&self) -> &Counters {
        self.sender.counters()
    }
}

impl Sender {
    /// Sends a datagram of 1 to [`MAX_DATAGRAM`] bytes, without waiting. If the queue is full, its oldest
    /// datagrams are dropped. Any thread may call this.
    /// Fails if the datagram is empty or too long, or the connection has ended.
    pub fn send(&self, datagram: impl Into<Bytes>) -> Result<(), SendError> {
        self.shared.send(datagram.into(), Instant::now())
    }

    /// Sends a datagram as [`Sender::send`] does, but ahead of all queued ones, and never drops it for its
    /// age. This is for requests that are not repeated, because TCP repeats them (RFC 8489, 6.2.2). If 128
    /// such datagrams wait, the stream is stuck, and this one is dropped.
    /// Fails if the datagram is empty or too long, or the connection has ended.
    pub fn send_urgent(&self, datagram: impl Into<Bytes>) -> Result<(), SendError> {
        let datagram = datagram.into();
        check(&datagram)?;
        if !self.shared.outgoing.push_urgent(datagram) {
            if self.shared.is_closing() {
                return Err(SendError::Closed);
            }
            self.shared.counters.send_dropped_full.increment();
        }
        Ok(())
    }

    /// Sends a keepalive at once. If nothing arrives within `patience`, the connection ends with
    /// [`Closed::Silent`]. Call this after an event such as a change of the machine's network, which TCP
    /// alone would notice only after minutes. A probe that already waits for its answer continues unchanged.
    /// Only clients probe; on a server's end this does nothing.
    pub fn probe(&self, patience: Duration) {
        self.shared.probe(patience);
    }

    /// Returns the number of bytes queued for sending, [`QueueLimits::OVERHEAD`] for each datagram included.
    pub fn queued(&self) -> usize {
        self.shared.outgoing.bytes()
    }

    /// Returns the traffic counters of the connection.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}

impl Receiver {
    /// Waits for the next datagram. Dropping the future while it waits loses no datagram.
    /// Fails with the reason of the end. Datagrams that arrived before the end are returned first.
    pub async fn recv(&mut self) -> Result<Bytes, Closed> {
        std::future::poll_fn(|cx| {
            let (popped, Dropped(dropped)) = self.incoming.poll_pop(cx, Instant::now());
            self.shared.counters.receive_dropped_old.add(dropped);
            match popped {
                Poll::Ready(Some(datagram)) => Poll::Ready(Ok(datagram)),
                Poll::Ready(None) => Poll::Ready(Err(self.shared.reason())),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Waits for a datagram, then takes up to `limit` that are there and adds them to `into`. Returns the
    /// number taken.
    /// Errors: as [`Receiver::recv`].
    ///
    /// # Panics
    /// If `limit` is 0.
    pub async fn recv_many(&mut self, into: &mut Vec<Bytes>, limit: usize) -> Result<usize, Closed> {
        assert!(limit > 0, "nothing would ever be taken");
        into.push(self.recv().await?);
        let mut taken = 1;
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        while taken < limit {
            let (popped, Dropped(dropped)) = self.incoming.poll_pop(&mut cx, Instant::now());
            self.shared.counters.receive_dropped_old.add(dropped);
            let Poll::Ready(Some(datagram)) = popped else { break };
            into.push(datagram);
            taken += 1;
        }
        Ok(taken)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.close(Closed::Here);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("counters", self.counters()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("counters", self.counters()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("counters", &self.shared.counters).finish_non_exhaustive()
    }
}
