//! A connection as its user sees it: datagrams in, datagrams out.

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
    /// What has passed through a connection, or through all those of a server.
    ///
    /// ```
    /// let counters = peersock_streams::Counters::default();
    /// assert!(counters.snapshot().contains(&("send_dropped_old", 0)));
    /// ```
    pub struct Counters {
        /// Datagrams that were given to the connection's TCP, TLS or WebSocket.
        pub sent,
        /// Bytes of these datagrams.
        pub sent_bytes,
        /// Datagrams that were dropped before they were sent, because newer ones needed their room.
        pub send_dropped_full,
        /// Datagrams that were dropped before they were sent, because they had waited too long.
        pub send_dropped_old,
        /// Datagrams that arrived.
        pub received,
        /// Bytes of these datagrams.
        pub received_bytes,
        /// Datagrams that arrived and were dropped because nobody took them: newer ones needed their room.
        pub receive_dropped_full,
        /// Datagrams that arrived and were dropped because nobody took them in time.
        pub receive_dropped_old,
        /// Keepalives that were sent, answers among them.
        pub keepalives_sent,
        /// Keepalives that arrived, answers among them.
        pub keepalives_received,
        /// System calls' worth of datagrams: how often a batch of them was handed down.
        pub batches_sent,
    }
}

/// Why a connection has ended.
///
/// ```
/// use peersock_streams::Closed;
///
/// assert_eq!(Closed::Here.to_string(), "this side has closed the connection");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Closed {
    /// This side has closed it.
    #[error("this side has closed the connection")]
    Here,
    /// The other side has closed it in order.
    #[error("the other side has closed the connection")]
    There,
    /// Nothing was heard from the other side for so long, though it was asked.
    #[error("nothing was heard for {} s", .0.as_secs())]
    Silent(Duration),
    /// The other side has taken no byte for so long.
    #[error("the other side has read nothing for {} s", .0.as_secs())]
    Stalled(Duration),
    /// The other side sends what is no frame, or a WebSocket message that is no datagram.
    #[error("the other side breaks the protocol: {0}")]
    Malformed(String),
    /// TCP or TLS failed.
    #[error("the connection failed: {text}")]
    Io {
        /// What kind of error it was.
        kind: io::ErrorKind,
        /// The error, as a text.
        text: String,
    },
    /// The server did not [admit](crate::ServerHandle::admit) it in time.
    #[error("the client did not begin a session in time")]
    NotAdmitted,
}

impl From<io::Error> for Closed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // A peer that is gone without TLS's close_notify, as most are.
            io::ErrorKind::UnexpectedEof => Self::There,
            kind => Self::Io { kind, text: error.to_string() },
        }
    }
}

/// Why a datagram was not taken.
///
/// ```
/// use peersock_streams::{MAX_DATAGRAM, SendError};
///
/// let error = SendError::TooLong { length: MAX_DATAGRAM + 1 };
/// assert_eq!(error.to_string(), "a datagram of 16385 bytes; at most 16384 are allowed");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// It is empty: on a stream that would be a keepalive.
    #[error("the datagram is empty")]
    Empty,
    /// It is longer than [`MAX_DATAGRAM`].
    #[error("a datagram of {length} bytes; at most {MAX_DATAGRAM} are allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The connection has ended, or there is none with this number.
    #[error("the connection has ended")]
    Closed,
}

/// What both halves of a connection and its task have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) outgoing: Queue,
    pub(crate) counters: Arc<Counters>,
    /// Why the task has ended, or is to end.
    reason: OnceLock<Closed>,
    closing: AtomicBool,
    close: Notify,
    /// Something whole has arrived from the other side, or the connection has ended.
    answered: AtomicBool,
    answer: Notify,
    /// The other side is to be asked at once, and has so long to answer.
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

    /// Has the task ask the other side at once.
    fn probe(&self, patience: Duration) {
        *sync::lock(&self.probe) = Some(patience);
        self.probed.notify_one();
    }

    /// How long an answer is to be waited for, if the other side is to be asked.
    pub(crate) fn take_probe(&self) -> Option<Duration> {
        sync::lock(&self.probe).take()
    }

    /// The other side speaks the protocol: a datagram or a keepalive has arrived.
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

    /// Has the task end; only the first reason counts.
    pub(crate) fn close(&self, reason: Closed) {
        let _ = self.reason.set(reason);
        self.outgoing.close();
        self.closing.store(true, Ordering::Release);
        self.close.notify_one();
        self.answer.notify_one();
    }

    /// Waits until somebody wants it closed.
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

/// A connection to a root that carries datagrams, as [`Connector::connect`](crate::Connector::connect) makes
/// it.
///
/// A task of the tokio runtime reads and writes it. Neither side ever waits for the other: what cannot leave
/// soon is dropped, the oldest first, and counted. Dropping the connection closes it; what was sent just
/// before still leaves within a second.
///
/// ```
/// use peersock_streams::{Closed, Connection};
///
/// async fn first_of_two(mut a: Connection, mut b: Connection) -> Result<bytes::Bytes, Closed> {
///     tokio::select! {
///         datagram = a.recv() => datagram,
///         datagram = b.recv() => datagram,
///     }
/// }
/// ```
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

/// The half of a connection that sends. Clones send on the same connection.
///
/// ```
/// use peersock_streams::{SendError, Sender};
///
/// /// To be called from any thread, also from one without a runtime.
/// fn send_all(sender: &Sender, datagrams: Vec<Vec<u8>>) -> Result<(), SendError> {
///     datagrams.into_iter().try_for_each(|datagram| sender.send(datagram))
/// }
/// ```
#[derive(Clone)]
pub struct Sender {
    shared: Arc<Shared>,
}

/// The half of a connection that receives. The connection ends when this is dropped.
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

    /// The address that it leaves from.
    pub fn local_addr(&self) -> SocketAddr {
        self.ends.local
    }

    /// The address that TCP leads to: that of the server, or of the proxy if there is one.
    pub fn remote_addr(&self) -> SocketAddr {
        self.ends.remote
    }

    /// The proxy that it goes through, without user name and password; `None` if there is none.
    pub fn proxy(&self) -> Option<&str> {
        self.proxy.as_deref()
    }

    /// Waits until something has arrived: a root answers the keepalive that every connection begins with, so
    /// this shows that one is there.
    ///
    /// # Errors
    /// When the connection ends before that: why.
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
    ///
    /// # Errors
    /// When it is empty or too long, or the connection has ended.
    pub fn send(&self, datagram: impl Into<Bytes>) -> Result<(), SendError> {
        self.sender.send(datagram)
    }

    /// Waits for the next datagram.
    ///
    /// # Errors
    /// When the connection has ended: why.
    pub async fn recv(&mut self) -> Result<Bytes, Closed> {
        self.receiver.recv().await
    }

    /// The halves, for a task each.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// What has passed through it.
    pub fn counters(&self) -> &Counters {
        self.sender.counters()
    }
}

impl Sender {
    /// Sends a datagram of 1 to [`MAX_DATAGRAM`] bytes, without waiting. If the queue is full, its oldest
    /// datagrams are dropped. It may be called from any thread.
    ///
    /// # Errors
    /// When the datagram is empty or too long, or the connection has ended.
    pub fn send(&self, datagram: impl Into<Bytes>) -> Result<(), SendError> {
        self.shared.send(datagram.into(), Instant::now())
    }

    /// Sends a datagram as [`Sender::send`] does, but before all that wait, and without dropping it for its
    /// age: for requests that nobody repeats, because TCP does (RFC 8489, 6.2.2). If 128 of them wait, the
    /// stream is stuck, and this one is dropped.
    ///
    /// # Errors
    /// When the datagram is empty or too long, or the connection has ended.
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

    /// Asks at once whether the other side is still there, by a keepalive. If nothing arrives from it within
    /// `patience`, the connection ends with [`Closed::Silent`]. This is for whoever has reason to doubt, such
    /// as a change of the machine's network: TCP alone would notice only after minutes. While an answer is
    /// waited for already, that goes on. Only clients ask; on a server's end this does nothing.
    pub fn probe(&self, patience: Duration) {
        self.shared.probe(patience);
    }

    /// Bytes that wait to be sent, [`QueueLimits::OVERHEAD`] for each datagram included.
    pub fn queued(&self) -> usize {
        self.shared.outgoing.bytes()
    }

    /// What has passed through the connection.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}

impl Receiver {
    /// Waits for the next datagram. If this is dropped while it waits, no datagram is lost.
    ///
    /// # Errors
    /// When the connection has ended: why. What had arrived before that is returned first.
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

    /// Waits for a datagram, and takes up to `limit` that are there, which are added to `into`. Returns how
    /// many it took.
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    ///
    /// # Panics
    /// When `limit` is 0.
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
