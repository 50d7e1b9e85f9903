//! Datagrams that wait for the application, bounded in bytes.

use std::collections::VecDeque;

/// Charge of a datagram in addition to its bytes, which bounds empty ones, too.
const DATAGRAM_CHARGE_BYTES: usize = 64;

/// A FIFO queue of datagrams, each with metadata. Once grown to the needs of its traffic, it allocates
/// nothing.
pub(crate) struct DatagramQueue<T> {
    limit: usize,
    entries: VecDeque<Entry<T>>,
    /// Extension headers and then data of each datagram.
    bytes: VecDeque<u8>,
}

struct Entry<T> {
    about: T,
    headers: u32,
    data: u32,
}

impl<T: Clone> DatagramQueue<T> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, entries: VecDeque::new(), bytes: VecDeque::new() }
    }

    /// Changes the limit. Queued datagrams stay.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Appends a datagram; returns `false` if there is no room. An empty queue accepts any size.
    pub(crate) fn push(&mut self, about: T, headers: &[u8], data: &[u8]) -> bool {
        let used = self.bytes.len() + self.entries.len() * DATAGRAM_CHARGE_BYTES;
        if used + headers.len() + data.len() + DATAGRAM_CHARGE_BYTES > self.limit && !self.entries.is_empty()
        {
            return false;
        }
        // The lengths fit, because no packet is longer.
        self.entries.push_back(Entry { about, headers: headers.len() as u32, data: data.len() as u32 });
        self.bytes.extend(headers);
        self.bytes.extend(data);
        true
    }

    /// Copies the oldest datagram into `buf` as far as it fits; returns its metadata and its full length.
    pub(crate) fn peek(&self, buf: &mut [u8]) -> Option<(T, usize)> {
        let Entry { about, headers, data } = self.entries.front()?;
        let len = *data as usize;
        let copied = len.min(buf.len());
        self.copy(*headers as usize, &mut buf[..copied]);
        Some((about.clone(), len))
    }

    /// Does the same as [`peek`](Self::peek) and removes the datagram; its extension headers are copied if
    /// requested.
    pub(crate) fn pop(&mut self, buf: &mut [u8], headers: Option<&mut Vec<u8>>) -> Option<(T, usize)> {
        let (about, len) = self.peek(buf)?;
        let before = self.entries.pop_front()?.headers as usize;
        if let Some(headers) = headers {
            headers.resize(before, 0);
            self.copy(0, headers);
        }
        self.bytes.drain(..before + len);
        Some((about, len))
    }

    /// Copies the bytes from index `at` on.
    fn copy(&self, at: usize, to: &mut [u8]) {
        let (head, tail) = self.bytes.as_slices();
        let from_head = to.len().min(head.len().saturating_sub(at));
        let (first, second) = to.split_at_mut(from_head);
        if !first.is_empty() {
            first.copy_from_slice(&head[at..at + from_head]);
        }
        if !second.is_empty() {
            let at = at + from_head - head.len();
            second.copy_from_slice(&tail[at..at + second.len()]);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        // New queues instead of clear(), so that a closed socket keeps no memory.
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
            let headers = vec![!round; usize::from(round) % 40];
            assert!(queue.push(round, &headers, &data));
            assert!(queue.push(round, &[], b"second"));
            assert_eq!(queue.peek(&mut buf), Some((round, data.len())));
            assert_eq!(buf[..data.len()], data);
            buf.fill(0);
            // A caller that skips the headers must not get them as data.
            let mut got = vec![7; 50];
            let wanted = (round % 3 > 0).then_some(&mut got);
            assert_eq!(queue.pop(&mut buf, wanted), Some((round, data.len())));
            assert_eq!(buf[..data.len()], data);
            assert!(round % 3 == 0 || got == headers);
            assert_eq!(queue.pop(&mut buf, Some(&mut got)), Some((round, 6)));
            assert_eq!((&buf[..6], &got[..]), (&b"second"[..], &[][..]));
        }
        assert!(queue.is_empty());
    }

    #[test]
    fn the_limit_counts_bytes_and_datagrams() {
        let mut queue = DatagramQueue::new(200);
        assert!(queue.push((), &[0; 50], &[0; 500]), "one of any size");
        assert!(!queue.push((), &[], b""));
        queue.pop(&mut [], None);
        assert!((0..3).all(|_| queue.push((), &[], b"")));
        assert!(!queue.push((), &[], b""));
        queue.pop(&mut [], None);
        assert!(!queue.push((), &[0; 9], b""), "headers count");
    }
}
