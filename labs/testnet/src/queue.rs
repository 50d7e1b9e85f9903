use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Events in order of time. Events due at the same time come in order of entry. The user of the queue defines
/// `Time`.
#[derive(Debug)]
pub struct Queue<Time, T> {
    heap: BinaryHeap<Reverse<Entry<Time, T>>>,
    entered: u64,
}

#[derive(Debug)]
struct Entry<Time, T> {
    at: Time,
    number: u64,
    item: T,
}

impl<Time: Copy + Ord, T> Queue<Time, T> {
    /// Enters an event due at `at`.
    pub fn push(&mut self, at: Time, item: T) {
        self.heap.push(Reverse(Entry { at, number: self.entered, item }));
        self.entered += 1;
    }

    /// Returns the time of the next event.
    pub fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// Takes the next event due by `now`, with its time.
    pub fn pop_due(&mut self, now: Time) -> Option<(Time, T)> {
        self.next_at().filter(|&at| at <= now)?;
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.item))
    }

    /// Returns the number of events in the queue.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Returns true if the queue has no event.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<Time: Ord, T> Default for Queue<Time, T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), entered: 0 }
    }
}

impl<Time: Ord, T> PartialEq for Entry<Time, T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<Time: Ord, T> Eq for Entry<Time, T> {}

impl<Time: Ord, T> PartialOrd for Entry<Time, T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<Time: Ord, T> Ord for Entry<Time, T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at).then(self.number.cmp(&other.number))
    }
}
