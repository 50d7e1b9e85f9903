//! Taking messages: a message that its taker drops becomes the next one again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use peersock_pipe::queue::Buffer;
use tokio::time::{Instant, timeout_at};

use super::{ALL_MESSAGES, Message, Pipe, Queue, no_subscription};
use crate::problem::{Kind, Problem};

/// A taken message, which goes back into its queue unless it is delivered.
pub(crate) struct Taken {
    pipe: Arc<Pipe>,
    queue: Arc<Queue>,
    message: Option<Message>,
}

impl std::fmt::Debug for Pipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipe").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Taken {
    pub(crate) fn message(&self) -> &Message {
        self.message.as_ref().expect("it is there until somebody has got it")
    }

    /// Marks the message as delivered, and returns its data.
    pub(crate) fn done(mut self) -> Bytes {
        let message = self.message.take();
        self.pipe.room.notify_waiters();
        message.map(|message| message.data).unwrap_or_default()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(message) = self.message.take() {
            self.queue.put_back(message, |message| message.number);
        }
    }
}

impl Pipe {
    /// Takes the next message of a queue; `None` if there is none by the deadline.
    ///
    /// # Errors
    /// If there is no such queue, or no more messages come.
    pub(crate) async fn take(
        self: &Arc<Self>,
        queue: &str,
        deadline: Option<Instant>,
    ) -> Result<Option<Taken>, Problem> {
        let taken = self.next(queue, deadline, Buffer::pop).await?;
        Ok(taken.map(|(queue, message)| Taken { pipe: Arc::clone(self), queue, message: Some(message) }))
    }

    /// Returns the next message, which stays in the queue.
    pub(crate) async fn peek(
        &self,
        queue: &str,
        deadline: Option<Instant>,
    ) -> Result<Option<Message>, Problem> {
        // The message never leaves the queue, so others can take it at any time.
        let found = self.next(queue, deadline, |queue| queue.first().cloned()).await?;
        Ok(found.map(|(_, message)| message))
    }

    /// Waits until `get` finds a message in a queue, and returns both.
    async fn next(
        &self,
        name: &str,
        deadline: Option<Instant>,
        get: impl Fn(&mut Buffer<Message>) -> Option<Message>,
    ) -> Result<Option<(Arc<Queue>, Message)>, Problem> {
        let queue = self.queue(name)?;
        // Full queues of others make room for a waiting client.
        let waiting = queue.wait(get, || self.room.notify_waiters());
        let found = match deadline {
            None => waiting.await,
            Some(deadline) => match timeout_at(deadline, waiting).await {
                Ok(found) => found,
                Err(_) => return Ok(None),
            },
        };
        match found {
            Ok(message) => Ok(Some((queue, message))),
            // Either the pipe has ended, or the subscription.
            Err(()) => Err(match (self.queue(name), &self.queues().end) {
                (Ok(_), Some(end)) => end.problem(&self.name),
                _ => no_subscription(&self.name, name),
            }),
        }
    }

    fn queue(&self, name: &str) -> Result<Arc<Queue>, Problem> {
        let found = self.queues().by_name.get(name).map(|one| Arc::clone(&one.queue));
        found.ok_or_else(|| no_subscription(&self.name, name))
    }

    /// Removes the next message if it has this number.
    pub(crate) fn remove(&self, queue: &str, number: u64) -> Result<(), Problem> {
        if !self.queue(queue)?.remove_first(|first| first.number == number) {
            return Err(Kind::NoMessage.because(format_args!(
                "message {number} is not the next of pipe {}: look which is",
                self.name
            )));
        }
        self.room.notify_waiters();
        Ok(())
    }

    /// Returns the number of messages that a queue has dropped for lack of room.
    pub(crate) fn dropped(&self, queue: &str) -> u64 {
        self.queue(queue).map_or(0, |queue| queue.dropped())
    }
}

/// The exclusive right to read a pipe, until dropped.
#[derive(Debug)]
pub(crate) struct Reading(Arc<Pipe>);

impl Reading {
    /// # Errors
    /// If another client reads.
    pub(crate) fn begin(pipe: &Arc<Pipe>) -> Result<Reading, Problem> {
        if pipe.is_read.swap(true, Ordering::SeqCst) {
            return Err(Kind::Busy.because(format_args!(
                "another client reads pipe {} as a stream, a tunnel or a WebSocket: wait until it ends",
                pipe.name
            )));
        }
        Ok(Reading(Arc::clone(pipe)))
    }

    pub(crate) fn pipe(&self) -> &Arc<Pipe> {
        &self.0
    }

    /// Returns the next message of the queue of all messages; `None` at a clean end.
    pub(crate) async fn next(&self) -> Result<Option<Taken>, Problem> {
        match self.0.take(ALL_MESSAGES, None).await {
            Err(problem) if self.0.queues().end == Some(super::End::Complete) => {
                tracing::trace!(error = %problem, "a stream has ended");
                Ok(None)
            }
            taken => taken,
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.is_read.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use futures_util::FutureExt as _;
    use tokio::sync::Mutex as AsyncMutex;

    use super::super::send::Sender;
    use super::super::{Datagrams, Pipes, Subscription};
    use super::*;
    use crate::limits::MAX_QUEUED_BYTES_OF_ALL;

    /// Makes a pipe without any socket.
    fn pipe(pipes: &Pipes, sender: Sender) -> Arc<Pipe> {
        let at = "192.0.2.1:1".parse().expect("an address");
        let reserved = pipes.reserve("one").expect("it is free");
        Arc::new(Pipe::new(&reserved, sender, (at, None), None))
    }

    #[test]
    fn a_stream_loses_nothing_to_pipes_that_use_up_the_memory_of_all() {
        let pipes = Pipes::new(1);
        let pipe = pipe(&pipes, Sender::Tcp(AsyncMutex::default()));
        pipe.deliver(pipe.local, Bytes::from_static(b"x"));
        // Others do so while the task of this pipe waits for data.
        let other = Subscription::new(None, &pipes.budget);
        let data = vec![0; MAX_QUEUED_BYTES_OF_ALL].into();
        other.queue.put(Message { number: 1, from: pipe.local, data }, true);
        pipe.deliver(pipe.local, Bytes::from_static(b"y"));
        assert_eq!((pipe.dropped(ALL_MESSAGES), pipe.queues().by_name[ALL_MESSAGES].queue.len()), (0, 2));
    }

    #[test]
    fn a_message_that_is_only_looked_at_never_leaves_its_queue() {
        let datagrams = Arc::new(Datagrams { sockets: Vec::new(), is_connected: false });
        let pipe = pipe(&Pipes::new(1), Sender::Udp(datagrams));
        pipe.deliver(pipe.local, Bytes::from_static(b"x"));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..100_000 {
                    let kept = pipe.peek(ALL_MESSAGES, None).now_or_never().expect("it is there");
                    assert_eq!(kept.expect("no end").map(|message| message.number), Some(1));
                }
                is_over.store(true, Ordering::SeqCst);
            });
            let mut missing = 0;
            while !is_over.load(Ordering::SeqCst) {
                missing += usize::from(pipe.queues().by_name[ALL_MESSAGES].queue.len() != 1);
            }
            assert_eq!(missing, 0);
        });
    }
}
