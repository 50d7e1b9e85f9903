//! Queues of messages that wait to be taken, limited in number and size.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use regex::bytes::Regex;
use tokio::sync::Notify;

use crate::limits::{MESSAGE_COST, MOST_MESSAGES, MOST_QUEUED, MOST_QUEUED_IN_ALL};

/// A received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// Counted from 1 in each pipe.
    pub(crate) number: u64,
    pub(crate) from: SocketAddr,
    pub(crate) data: Bytes,
}

impl Message {
    fn cost(&self) -> usize {
        self.data.len() + MESSAGE_COST
    }
}

/// The memory budget of the queues of all pipes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Budget(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    used: AtomicUsize,
    freed: Notify,
}

impl Budget {
    fn is_used_up(&self) -> bool {
        self.0.used.load(Ordering::Relaxed) >= MOST_QUEUED_IN_ALL
    }

    fn take(&self, bytes: usize) {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        let before = self.0.used.fetch_sub(bytes, Ordering::Relaxed);
        if before >= MOST_QUEUED_IN_ALL {
            self.0.freed.notify_waiters();
        }
    }

    /// Returns a notifier that fires when there is room again after there was none.
    pub(crate) fn freed(&self) -> &Notify {
        &self.0.freed
    }

    #[cfg(test)]
    fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }
}

/// A queue of the messages in which a pattern is found, or of all messages.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) pattern: Option<Regex>,
    messages: VecDeque<Message>,
    bytes: usize,
    /// Number of messages dropped for lack of room.
    pub(crate) dropped: u64,
    /// Number of clients that wait for a message.
    pub(crate) waiting: usize,
    budget: Budget,
}

impl Queue {
    pub(crate) fn new(pattern: Option<Regex>, budget: Budget) -> Queue {
        Queue { pattern, messages: VecDeque::new(), bytes: 0, dropped: 0, waiting: 0, budget }
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns true if there is no room. One message always fits.
    pub(crate) fn is_full(&self) -> bool {
        let is_at_bound = self.messages.len() >= MOST_MESSAGES || self.bytes >= MOST_QUEUED;
        is_at_bound || !self.messages.is_empty() && self.budget.is_used_up()
    }

    /// Returns true if a client waits for a message and the queue is empty.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiting > 0 && self.messages.is_empty()
    }

    pub(crate) fn is_for(&self, message: &Message) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(&message.data))
    }

    /// Adds a message; without room the oldest ones are dropped.
    pub(crate) fn push(&mut self, message: Message) {
        while self.is_full() {
            self.pop();
            self.dropped += 1;
        }
        self.bytes += message.cost();
        self.budget.take(message.cost());
        self.messages.push_back(message);
    }

    pub(crate) fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.cost();
        self.budget.give_back(message.cost());
        Some(message)
    }

    pub(crate) fn first(&self) -> Option<&Message> {
        self.messages.front()
    }

    /// Puts an undelivered message back at its position.
    pub(crate) fn put_back(&mut self, message: Message) {
        self.bytes += message.cost();
        self.budget.take(message.cost());
        // Several messages may come back, in any order.
        let at = self.messages.partition_point(|waiting| waiting.number < message.number);
        self.messages.insert(at, message);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u64, length: usize) -> Message {
        let from = "192.0.2.1:1".parse().expect("an address");
        Message { number, from, data: vec![b'x'; length].into() }
    }

    #[test]
    fn the_oldest_messages_go_when_there_is_no_room() {
        let budget = Budget::default();
        let mut queue = Queue::new(None, budget.clone());
        for number in 0..MOST_MESSAGES as u64 + 3 {
            queue.push(message(number, 1));
        }
        assert_eq!((queue.len(), queue.dropped), (MOST_MESSAGES, 3));
        assert_eq!(queue.first().map(|first| first.number), Some(3));
        drop(queue);
        let mut queue = Queue::new(None, budget.clone());
        for number in 0..3 {
            queue.push(message(number, MOST_QUEUED));
        }
        assert_eq!((queue.len(), queue.dropped), (1, 2));
        drop(queue);
        assert_eq!(budget.used(), 0, "what is dropped is given back");
    }

    #[test]
    fn messages_that_come_back_are_in_their_order() {
        let mut queue = Queue::new(None, Budget::default());
        (1..=4).for_each(|number| queue.push(message(number, 1)));
        let taken: Vec<_> = (1..=3).filter_map(|_| queue.pop()).collect();
        for at in [0, 2, 1] {
            queue.put_back(taken[at].clone());
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|message| message.number).collect();
        assert_eq!(order, [1, 2, 3, 4]);
    }

    #[test]
    fn all_queues_share_what_there_is_and_each_may_have_one_message() {
        let budget = Budget::default();
        budget.take(MOST_QUEUED_IN_ALL);
        let mut queue = Queue::new(None, budget.clone());
        assert!(!queue.is_full());
        queue.push(message(1, 10));
        assert!(queue.is_full());
        queue.push(message(2, 10));
        assert_eq!((queue.len(), queue.dropped), (1, 1));
        let taken = queue.pop().expect("it is there");
        queue.put_back(taken.clone());
        assert_eq!(queue.pop(), Some(taken));
        assert_eq!(budget.used(), MOST_QUEUED_IN_ALL);
    }
}
