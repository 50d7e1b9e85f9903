//! Datagrams that wait for the application, bounded in bytes.

use std::collections::VecDeque;

/// What a datagram is charged besides its bytes, so that empty ones are bounded too.
const CHARGE: usize = 64;

/// A first-in first-out queue of datagrams, each with a description. Once it has grown to what its
/// traffic needs, it allocates nothing.
pub(crate) struct DatagramQueue<T> {
    limit: usize,
    entries: VecDeque<(T, usize)>,
    bytes: VecDeque<u8>,
}

impl<T: Clone> DatagramQueue<T> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, entries: VecDeque::new(), bytes: VecDeque::new() }
    }

    /// Changes the limit. What is there stays.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Appends a datagram; `false` if there is no room. An empty queue takes one of any size.
    pub(crate) fn push(&mut self, about: T, data: &[u8]) -> bool {
        let used = self.bytes.len() + self.entries.len() * CHARGE;
        if used + data.len() + CHARGE > self.limit && !self.entries.is_empty() {
            return false;
        }
        self.entries.push_back((about, data.len()));
        self.bytes.extend(data);
        true
    }

    /// Copies the oldest datagram as far as `buf` holds, and gives its description and its length.
    pub(crate) fn peek(&self, buf: &mut [u8]) -> Option<(T, usize)> {
        let (about, len) = self.entries.front()?;
        let copied = (*len).min(buf.len());
        let (head, tail) = self.bytes.as_slices();
        let from_head = copied.min(head.len());
        buf[..from_head].copy_from_slice(&head[..from_head]);
        buf[from_head..copied].copy_from_slice(&tail[..copied - from_head]);
        Some((about.clone(), *len))
    }

    /// [`peek`](Self::peek), and takes the datagram out.
    pub(crate) fn pop(&mut self, buf: &mut [u8]) -> Option<(T, usize)> {
        let (about, len) = self.peek(buf)?;
        self.entries.pop_front();
        self.bytes.drain(..len);
        Some((about, len))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.entries = VecDeque::new();
        self.bytes = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_keep_their_bounds_across_the_ring_s_end() {
        let mut queue = DatagramQueue::new(1000);
        let mut buf = [0; 100];
        for round in 0..200u8 {
            let data = vec![round; usize::from(round) % 90];
            assert!(queue.push(round, &data));
            assert!(queue.push(round, b"second"));
            assert_eq!(queue.pop(&mut buf), Some((round, data.len())));
            assert_eq!(buf[..data.len()], data);
            assert_eq!(queue.pop(&mut buf), Some((round, 6)));
            assert_eq!(&buf[..6], b"second");
        }
        assert!(queue.is_empty());
    }

    #[test]
    fn the_limit_counts_bytes_and_datagrams() {
        let mut queue = DatagramQueue::new(200);
        assert!(queue.push((), &[0; 500]), "one of any size");
        assert!(!queue.push((), b""));
        queue.pop(&mut []);
        assert!((0..3).all(|_| queue.push((), b"")));
        assert!(!queue.push((), b""));
    }
}
