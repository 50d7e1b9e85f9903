//! Queues of messages with a bound, from which waiting takes nothing if it is given up.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use peersock_primitives::sync;

use crate::{Message, Options, PipeError};

/// Messages, as many and as large as the bounds allow. One is held in any case.
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

    /// Messages that were dropped for want of room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Adds a message; if there is no room and it `drops`, the oldest ones go.
    pub(crate) fn put(&mut self, message: Message, drops: bool) {
        while drops
            && !self.items.is_empty()
            && (self.is_full() || self.bytes + message.len() > self.most_bytes)
        {
            self.pop();
            self.dropped += 1;
            // The 1st, 2nd, 4th, 8th…: a flood does not fill the log.
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
/// A message leaves it in the poll in which it is returned, so that a call which is given up has taken none.
/// What wakes one waiter is passed on to the next if that one is gone.
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

    /// Whether somebody waits for a message that is not there. One that was woken has yet to take it.
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

    /// Has those fail who want more messages than there are.
    pub(crate) fn end(&self, why: PipeError) {
        let mut queue = sync::lock(&self.0);
        queue.end.get_or_insert(why);
        queue.waiters.drain(..).for_each(|(_, waker)| waker.wake());
    }

    /// Waits for the next message. `began` is called once it has to wait.
    pub(crate) async fn take(&self, began: impl Fn()) -> Result<Message, PipeError> {
        let mut waiter = Waiter { queue: self, number: None };
        poll_fn(|cx| self.poll_take(cx, &mut waiter.number, &began)).await
    }

    /// The next message. `number` is the waiter's, as long as it waits; it must be forgotten when it is given
    /// up.
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

    /// A waiter is gone. What it was woken for may be for the next.
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
