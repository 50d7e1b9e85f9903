//! Bounded queues of messages, from which a cancelled wait takes nothing. They also serve other faces of this
//! project. Not a stable interface.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use peersock_primitives::sync;
use tokio::sync::Notify;

use crate::{Message, PipeError};

/// A message in a queue.
pub trait Queued {
    /// Returns the number of bytes that it counts.
    fn cost(&self) -> usize;
}

impl Queued for Message {
    fn cost(&self) -> usize {
        self.len()
    }
}

/// The limits of a queue. One message always fits.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Limit of messages.
    pub messages: usize,
    /// Limit of bytes.
    pub bytes: usize,
    /// A limit that several queues share.
    pub budget: Option<Budget>,
    /// Name of the queue in logs.
    pub what: &'static str,
}

/// A limit in bytes of several queues together.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    used: AtomicUsize,
    freed: Notify,
}

impl Budget {
    /// Makes a budget of this many bytes.
    pub fn new(most: usize) -> Budget {
        Budget(Arc::new(Shared { most, used: AtomicUsize::new(0), freed: Notify::new() }))
    }

    fn is_used_up(&self) -> bool {
        self.0.used.load(Ordering::Relaxed) >= self.0.most
    }

    fn take(&self, bytes: usize) {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        if self.0.used.fetch_sub(bytes, Ordering::Relaxed) >= self.0.most {
            self.0.freed.notify_waiters();
        }
    }

    /// Returns a notifier that fires when there is room again after there was none.
    pub fn freed(&self) -> &Notify {
        &self.0.freed
    }
}

/// Messages within limits.
pub struct Buffer<M: Queued> {
    items: VecDeque<M>,
    bytes: usize,
    dropped: u64,
    limits: Limits,
}

impl<M: Queued> Buffer<M> {
    pub(crate) fn new(limits: Limits) -> Buffer<M> {
        Buffer { items: VecDeque::new(), bytes: 0, dropped: 0, limits }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        let Limits { messages, bytes, budget, .. } = &self.limits;
        let is_at_limit = self.items.len() >= *messages || self.bytes >= *bytes;
        !self.is_empty() && (is_at_limit || budget.as_ref().is_some_and(Budget::is_used_up))
    }

    /// Returns the number of messages dropped for lack of room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Adds a message; if it `drops` and there is no room, the oldest messages are dropped.
    pub(crate) fn put(&mut self, message: M, drops: bool) {
        let cost = message.cost();
        while drops && !self.is_empty() && (self.is_full() || self.bytes + cost > self.limits.bytes) {
            self.pop();
            self.dropped += 1;
            // Log the 1st, 2nd, 4th, 8th…, so that a flood does not fill the log.
            if self.dropped.is_power_of_two() {
                let (what, dropped) = (self.limits.what, self.dropped);
                tracing::warn!(dropped, "{what} is full, and drops its oldest messages");
            }
        }
        self.insert(self.items.len(), message);
    }

    fn insert(&mut self, at: usize, message: M) {
        self.bytes += message.cost();
        self.limits.budget.iter().for_each(|budget| budget.take(message.cost()));
        self.items.insert(at, message);
    }

    /// Takes the next message.
    pub fn pop(&mut self) -> Option<M> {
        let message = self.items.pop_front()?;
        self.bytes -= message.cost();
        self.limits.budget.iter().for_each(|budget| budget.give_back(message.cost()));
        Some(message)
    }

    /// Returns the next message, which stays.
    pub fn first(&self) -> Option<&M> {
        self.items.front()
    }

    pub(crate) fn clear(&mut self) {
        while self.pop().is_some() {}
    }
}

impl<M: Queued> Drop for Buffer<M> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A queue with receivers that wait, such as that of a subscription.
///
/// A message leaves the queue in the poll that returns it, so a cancelled call has taken none. A wake-up is
/// passed on to the next waiter if the woken one is gone, or leaves the message.
pub struct Queue<M: Queued = Message, E: Clone = PipeError>(Mutex<Waiting<M, E>>);

struct Waiting<M: Queued, E> {
    buffer: Buffer<M>,
    end: Option<E>,
    waiters: VecDeque<(u64, Waker)>,
    next: u64,
}

impl<M: Queued, E: Clone> Queue<M, E> {
    /// Makes an empty queue.
    pub fn new(limits: Limits) -> Queue<M, E> {
        let buffer = Buffer::new(limits);
        Queue(Mutex::new(Waiting { buffer, end: None, waiters: VecDeque::new(), next: 0 }))
    }

    /// Returns true if there is no room.
    pub fn is_full(&self) -> bool {
        sync::lock(&self.0).buffer.is_full()
    }

    /// Returns the number of messages dropped for lack of room.
    pub fn dropped(&self) -> u64 {
        sync::lock(&self.0).buffer.dropped()
    }

    /// Returns the number of messages.
    pub fn len(&self) -> usize {
        sync::lock(&self.0).buffer.items.len()
    }

    /// Returns true if there is no message.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of bytes that the messages count.
    pub fn bytes(&self) -> usize {
        sync::lock(&self.0).buffer.bytes
    }

    /// Returns the number of receivers that wait.
    pub fn waiting(&self) -> usize {
        sync::lock(&self.0).waiters.len()
    }

    /// Returns true if a receiver waits and the queue is empty. A receiver that was woken has yet to take its
    /// message.
    pub fn is_awaited(&self) -> bool {
        let queue = sync::lock(&self.0);
        queue.buffer.is_empty() && !queue.waiters.is_empty()
    }

    /// Adds a message; if it `drops` and there is no room, the oldest messages are dropped.
    pub fn put(&self, message: M, drops: bool) {
        let mut queue = sync::lock(&self.0);
        queue.buffer.put(message, drops);
        queue.wake_next();
    }

    /// Puts a message that was taken back at its position by `number`, although there may be no room.
    pub fn put_back(&self, message: M, number: impl Fn(&M) -> u64) {
        let mut queue = sync::lock(&self.0);
        // Several messages may come back, in any order.
        let at = queue.buffer.items.partition_point(|waiting| number(waiting) < number(&message));
        queue.buffer.insert(at, message);
        queue.wake_next();
    }

    /// Takes a message without waiting.
    pub(crate) fn pop(&self) -> Option<M> {
        sync::lock(&self.0).buffer.pop()
    }

    /// Removes the next message if it `is_meant`. Returns false if it is not.
    pub fn remove_first(&self, is_meant: impl Fn(&M) -> bool) -> bool {
        let mut queue = sync::lock(&self.0);
        queue.buffer.first().is_some_and(is_meant) && queue.buffer.pop().is_some()
    }

    /// Drops all messages.
    pub fn clear(&self) {
        sync::lock(&self.0).buffer.clear();
    }

    /// Makes receivers fail once the queue is empty.
    pub fn end(&self, why: E) {
        let mut queue = sync::lock(&self.0);
        queue.end.get_or_insert(why);
        queue.waiters.drain(..).for_each(|(_, waker)| waker.wake());
    }

    /// Waits until `get` finds a message, which it takes or leaves. Calls `began` when it has to wait.
    ///
    /// # Errors
    /// The reason of the end, once the queue is empty.
    pub async fn wait<T>(&self, get: impl Fn(&mut Buffer<M>) -> Option<T>, began: impl Fn()) -> Result<T, E> {
        let mut waiter = Waiter { queue: self, number: None };
        poll_fn(|cx| self.poll(cx, &mut waiter.number, &get, &began)).await
    }

    /// Polls as [`wait`](Self::wait) does. `number` identifies the waiter while it waits; a cancelled waiter
    /// must be forgotten.
    pub(crate) fn poll<T>(
        &self,
        cx: &Context<'_>,
        number: &mut Option<u64>,
        get: impl Fn(&mut Buffer<M>) -> Option<T>,
        began: impl Fn(),
    ) -> Poll<Result<T, E>> {
        let mut queue = sync::lock(&self.0);
        let done = match get(&mut queue.buffer) {
            Some(found) => Some(Ok(found)),
            None => queue.end.clone().map(Err),
        };
        if let Some(done) = done {
            if let Some(number) = number.take() {
                queue.waiters.retain(|(other, _)| *other != number);
            }
            if !queue.buffer.is_empty() {
                queue.wake_next();
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

impl<M: Queued, E> Waiting<M, E> {
    fn wake_next(&mut self) {
        if let Some((_, waker)) = self.waiters.pop_front() {
            waker.wake();
        }
    }
}

struct Waiter<'a, M: Queued, E: Clone> {
    queue: &'a Queue<M, E>,
    number: Option<u64>,
}

impl<M: Queued, E: Clone> Drop for Waiter<'_, M, E> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.queue.forget(number);
        }
    }
}

#[cfg(test)]
mod tests;
