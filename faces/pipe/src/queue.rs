//! Bounded queues of messages, from which a cancelled wait takes nothing.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use peersock_primitives::sync;

use crate::{Message, Options, PipeError};

/// Messages within the limits of number and size. One message always fits.
pub(crate) struct Buffer {
    items: VecDeque<Message>,
    bytes: usize,
    dropped: u64,
    most: usize,
    most_bytes: usize,
    what: &'static str,
}

impl Buffer {
    pub(crate) fn new(options: &Options, what: &'static str) -> Buffer {
        Buffer {
            items: VecDeque::new(),
            bytes: 0,
            dropped: 0,
            most: options.max_qsize,
            most_bytes: options.max_qbytes,
            what,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        !self.items.is_empty() && (self.items.len() >= self.most || self.bytes >= self.most_bytes)
    }

    /// Returns the number of messages dropped for lack of room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Adds a message; if it `drops` and there is no room, the oldest messages are dropped.
    pub(crate) fn put(&mut self, message: Message, drops: bool) {
        while drops
            && !self.items.is_empty()
            && (self.is_full() || self.bytes + message.len() > self.most_bytes)
        {
            self.pop();
            self.dropped += 1;
            // Log the 1st, 2nd, 4th, 8th…, so that a flood does not fill the log.
            if self.dropped.is_power_of_two() {
                let (what, dropped) = (self.what, self.dropped);
                tracing::warn!(dropped, "{what} is full, and drops its oldest messages");
            }
        }
        self.bytes += message.len();
        self.items.push_back(message);
    }

    pub(crate) fn pop(&mut self) -> Option<Message> {
        let message = self.items.pop_front()?;
        self.bytes -= message.len();
        Some(message)
    }

    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.bytes = 0;
    }
}

/// The queue of a subscription.
///
/// A message leaves the queue in the poll that returns it, so a cancelled call has taken none. A wake-up is
/// passed on to the next waiter if the woken one is gone.
pub(crate) struct Queue(Mutex<Waiting>);

struct Waiting {
    buffer: Buffer,
    end: Option<PipeError>,
    waiters: VecDeque<(u64, Waker)>,
    next: u64,
}

impl Queue {
    pub(crate) fn new(options: &Options) -> Queue {
        let buffer = Buffer::new(options, "the queue of a subscription");
        Queue(Mutex::new(Waiting { buffer, end: None, waiters: VecDeque::new(), next: 0 }))
    }

    pub(crate) fn is_full(&self) -> bool {
        sync::lock(&self.0).buffer.is_full()
    }

    pub(crate) fn dropped(&self) -> u64 {
        sync::lock(&self.0).buffer.dropped()
    }

    pub(crate) fn len(&self) -> usize {
        sync::lock(&self.0).buffer.items.len()
    }

    /// Returns true if a receiver waits and the queue is empty. A receiver that was woken has yet to take its
    /// message.
    pub(crate) fn is_awaited(&self) -> bool {
        let queue = sync::lock(&self.0);
        queue.buffer.is_empty() && !queue.waiters.is_empty()
    }

    pub(crate) fn put(&self, message: Message, drops: bool) {
        let mut queue = sync::lock(&self.0);
        queue.buffer.put(message, drops);
        queue.wake_next();
    }

    /// Takes a message without waiting.
    pub(crate) fn pop(&self) -> Option<Message> {
        sync::lock(&self.0).buffer.pop()
    }

    /// Makes receivers fail once the queue is empty.
    pub(crate) fn end(&self, why: PipeError) {
        let mut queue = sync::lock(&self.0);
        queue.end.get_or_insert(why);
        queue.waiters.drain(..).for_each(|(_, waker)| waker.wake());
    }

    /// Waits for the next message. Calls `began` when it has to wait.
    pub(crate) async fn take(&self, began: impl Fn()) -> Result<Message, PipeError> {
        let mut waiter = Waiter { queue: self, number: None };
        poll_fn(|cx| self.poll_take(cx, &mut waiter.number, &began)).await
    }

    /// Polls for the next message. `number` identifies the waiter while it waits; a cancelled waiter must be
    /// forgotten.
    pub(crate) fn poll_take(
        &self,
        cx: &Context<'_>,
        number: &mut Option<u64>,
        began: impl Fn(),
    ) -> Poll<Result<Message, PipeError>> {
        let mut queue = sync::lock(&self.0);
        let done = match queue.buffer.pop() {
            Some(message) => Some(Ok(message)),
            None => queue.end.clone().map(Err),
        };
        if let Some(done) = done {
            if let Some(number) = number.take() {
                queue.waiters.retain(|(other, _)| *other != number);
            }
            return Poll::Ready(done);
        }
        let own = *number.get_or_insert_with(|| {
            queue.next += 1;
            queue.next
        });
        match queue.waiters.iter_mut().find(|(other, _)| *other == own) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => {
                queue.waiters.push_back((own, cx.waker().clone()));
                drop(queue);
                began();
            }
        }
        Poll::Pending
    }

    /// Removes a waiter. Its wake-up may be meant for the next one.
    pub(crate) fn forget(&self, number: u64) {
        let mut queue = sync::lock(&self.0);
        queue.waiters.retain(|(other, _)| *other != number);
        if !queue.buffer.is_empty() {
            queue.wake_next();
        }
    }
}

impl Waiting {
    fn wake_next(&mut self) {
        if let Some((_, waker)) = self.waiters.pop_front() {
            waker.wake();
        }
    }
}

struct Waiter<'a> {
    queue: &'a Queue,
    number: Option<u64>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.queue.forget(number);
        }
    }
}

#[cfg(test)]
mod tests;
