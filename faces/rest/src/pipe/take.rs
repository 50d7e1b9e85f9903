//! Taking messages: a message that its taker drops becomes the next one again.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::{ALL, Message, Pipe, Queue, no_subscription};
use crate::problem::{Kind, Problem};

/// A taken message, which goes back into its queue unless it is delivered.
#[derive(Debug)]
pub(crate) struct Taken {
    pipe: Arc<Pipe>,
    queue: String,
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
        let Some(message) = self.message.take() else { return };
        if let Some(queue) = self.pipe.queues().by_name.get_mut(&self.queue) {
            queue.put_back(message);
        }
        self.pipe.changed.notify_waiters();
    }
}

/// Counts the clients that wait in a queue.
struct Waiting<'a>(&'a Pipe, &'a str);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(queue) = self.0.queues().by_name.get_mut(self.1) {
            // A subscription of the same name may have been recreated in the meantime.
            queue.waiting = queue.waiting.saturating_sub(1);
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
        let message = self.next(queue, deadline, Queue::pop).await?;
        let (pipe, queue) = (Arc::clone(self), queue.to_owned());
        Ok(message.map(|message| Taken { pipe, queue, message: Some(message) }))
    }

    /// Returns the next message, which stays in the queue.
    pub(crate) async fn peek(
        &self,
        queue: &str,
        deadline: Option<Instant>,
    ) -> Result<Option<Message>, Problem> {
        // The message never leaves the queue, so others can take it at any time.
        self.next(queue, deadline, |queue| queue.first().cloned()).await
    }

    /// Waits until `get` finds a message in a queue, and returns it.
    async fn next(
        &self,
        queue: &str,
        deadline: Option<Instant>,
        get: impl Fn(&mut Queue) -> Option<Message>,
    ) -> Result<Option<Message>, Problem> {
        let mut waiting = None;
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut queues = self.queues();
                let end = queues.end.clone();
                let missing = || no_subscription(&self.name, queue);
                let found = queues.by_name.get_mut(queue).ok_or_else(missing)?;
                if let Some(message) = get(found) {
                    return Ok(Some(message));
                }
                if let Some(end) = end {
                    return Err(end.problem(&self.name));
                }
                if waiting.is_none() {
                    found.waiting += 1;
                    waiting = Some(Waiting(self, queue));
                }
            }
            // Full queues of others make room for a waiting client.
            self.room.notify_waiters();
            match deadline {
                None => changed.await,
                Some(deadline) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(deadline) => return Ok(None),
                },
            }
        }
    }

    /// Removes the next message if it has this number.
    pub(crate) fn remove(&self, queue: &str, number: u64) -> Result<(), Problem> {
        let mut queues = self.queues();
        let found = queues.by_name.get_mut(queue).ok_or_else(|| no_subscription(&self.name, queue))?;
        if found.first().is_none_or(|first| first.number != number) {
            return Err(Kind::NoMessage.because(format_args!(
                "message {number} is not the next of pipe {}: look which is",
                self.name
            )));
        }
        found.pop();
        drop(queues);
        self.room.notify_waiters();
        Ok(())
    }

    /// Returns the number of messages that a queue has dropped for lack of room.
    pub(crate) fn dropped(&self, queue: &str) -> u64 {
        self.queues().by_name.get(queue).map_or(0, |queue| queue.dropped)
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
        match self.0.take(ALL, None).await {
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

    use super::super::send::Sender;
    use super::super::{Datagrams, Pipes};
    use super::*;

    /// Makes a pipe without any socket.
    fn pipe() -> Arc<Pipe> {
        let datagrams = Arc::new(Datagrams { sockets: Vec::new(), is_connected: false });
        let at = "192.0.2.1:1".parse().expect("an address");
        let reserved = Pipes::new(1).reserve("one").expect("it is free");
        Arc::new(Pipe::new(&reserved, Sender::Udp(datagrams), (at, None)))
    }

    #[test]
    fn a_message_that_is_only_looked_at_never_leaves_its_queue() {
        let pipe = pipe();
        pipe.deliver(pipe.local, Bytes::from_static(b"x"));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..100_000 {
                    let kept = pipe.peek(ALL, None).now_or_never().expect("it is there");
                    assert_eq!(kept.expect("no end").map(|message| message.number), Some(1));
                }
                is_over.store(true, Ordering::SeqCst);
            });
            let mut missing = 0;
            while !is_over.load(Ordering::SeqCst) {
                missing += usize::from(pipe.queues().by_name[ALL].len() != 1);
            }
            assert_eq!(missing, 0);
        });
    }
}
