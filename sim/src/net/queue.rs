use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::Time;

/// Things that happen later, in order of time; what is due at one time happens in the order of entry.
///
/// ```
/// use std::time::Duration;
/// use peersock_sim::net::Queue;
///
/// let mut queue = Queue::default();
/// queue.push(Duration::from_secs(2), "later");
/// queue.push(Duration::from_secs(1), "first");
/// queue.push(Duration::from_secs(1), "second");
/// assert_eq!(queue.pop_due(Duration::from_secs(1)), Some((Duration::from_secs(1), "first")));
/// assert_eq!(queue.pop_due(Duration::from_secs(1)), Some((Duration::from_secs(1), "second")));
/// assert_eq!(queue.pop_due(Duration::from_secs(1)), None);
/// ```
#[derive(Debug)]
pub struct Queue<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    entered: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: Time,
    number: u64,
    item: T,
}

impl<T> Queue<T> {
    /// Enters something that happens at `at`.
    pub fn push(&mut self, at: Time, item: T) {
        self.heap.push(Reverse(Entry { at, number: self.entered, item }));
        self.entered += 1;
    }

    /// When the next thing happens.
    pub fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// Takes the next thing that has happened by `now`, and its time.
    pub fn pop_due(&mut self, now: Time) -> Option<(Time, T)> {
        self.next_at().filter(|&at| at <= now)?;
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.item))
    }

    /// How much is still to happen.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing will happen any more.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), entered: 0 }
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
