//! Subscriptions.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;

use crate::queue::{Buffer, Queue};
use crate::{Message, Pipe, PipeError};

/// A queue of the messages that match a [`Filter`](crate::Filter), from [`Pipe::subscribe`]. It keeps the
/// pipe open; dropping it unsubscribes.
///
/// It is a stream that ends with the pipe, after all earlier messages. A polled stream counts as waiting
/// until it has got a message: see the crate's page on bounds.
///
/// ```
/// use peersock_pipe::{Filter, Pipe, Proto};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), peersock_pipe::PipeError> {
/// let pipe = Pipe::listen(Proto::Udp, "127.0.0.1:0").await?;
/// let mut digits = pipe.subscribe(Filter::pattern("[0-9]")?);
/// for message in ["one", "2"] {
///     pipe.send_to(message, pipe.local_addr()).await?;
/// }
/// assert_eq!(digits.recv().await?.as_deref(), Some(&b"2"[..]));
/// # Ok(())
/// # }
/// ```
pub struct Subscription {
    pipe: Pipe,
    queue: Arc<Queue>,
    /// The waiter number of the stream.
    waiter: Option<u64>,
}

impl Subscription {
    pub(crate) fn new(pipe: Pipe, queue: Arc<Queue>) -> Subscription {
        Subscription { pipe, queue, waiter: None }
    }

    /// Returns the next message; `None` after [`Options::recv_timeout`](crate::Options::recv_timeout). A
    /// cancelled call has taken none.
    ///
    /// # Errors
    /// The reason of the end, if the pipe is closed and the queue is empty.
    pub async fn recv(&mut self) -> Result<Option<Message>, PipeError> {
        self.recv_within(self.pipe.inner().options.recv_timeout).await
    }

    /// Receives as [`recv`](Self::recv) does, with this timeout; `None` waits forever, and zero takes a
    /// queued message.
    ///
    /// # Errors
    /// The errors of [`recv`](Self::recv).
    pub async fn recv_within(
        &mut self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Option<Message>, PipeError> {
        self.give_up();
        self.pipe.inner().take(&self.queue, timeout.into()).await
    }

    /// Returns the number of queued messages.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Returns true if no message is queued.
    pub fn is_empty(&self) -> bool {
        self.queue.len() == 0
    }

    /// Returns the number of messages dropped because the queue was full, the oldest ones first.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// Returns the pipe.
    pub fn pipe(&self) -> &Pipe {
        &self.pipe
    }

    fn give_up(&mut self) {
        if let Some(number) = self.waiter.take() {
            self.queue.forget(number);
        }
    }
}

impl Stream for Subscription {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        let this = &mut *self;
        let inner = this.pipe.inner();
        let taken = this.queue.poll(cx, &mut this.waiter, Buffer::pop, || inner.flow());
        if taken.is_ready() {
            inner.flow();
        }
        taken.map(Result::ok)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.give_up();
        self.pipe.inner().unsubscribe(&self.queue);
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = f.debug_struct("Subscription");
        told.field("len", &self.len()).field("dropped", &self.dropped()).finish_non_exhaustive()
    }
}
