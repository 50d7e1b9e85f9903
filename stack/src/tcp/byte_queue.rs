//! A queue of stream bytes in chunks. It grows without moving its content and frees memory as it is emptied.

use std::collections::VecDeque;
use std::sync::Arc;

use super::chunk_pool::{CHUNK, ChunkPool};

/// Sizes in bytes of the smallest and the largest chunk. The smallest is under 1 KiB because allocators serve
/// such sizes from their caches.
const MIN_CHUNK_BYTES: usize = 1000;
const MAX_CHUNK_BYTES: usize = CHUNK;

/// Bytes of a stream from one offset to another.
#[derive(Debug, Default)]
pub(crate) struct ByteQueue {
    chunks: VecDeque<Chunk>,
    start: u64,
    /// Bytes allocated.
    allocated: usize,
    /// Pool that supplies and takes back the largest chunks.
    pool: Option<Arc<ChunkPool>>,
}

#[derive(Debug)]
struct Chunk {
    /// Offset of the first byte.
    start: u64,
    bytes: Vec<u8>,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ByteQueue {
    /// Returns an empty queue whose next byte has this offset.
    pub(crate) fn new(offset: u64) -> Self {
        Self { start: offset, ..Self::default() }
    }

    /// Takes the largest chunks from `pool` and gives them back there.
    pub(crate) fn set_pool(&mut self, pool: &Arc<ChunkPool>) {
        self.pool = Some(Arc::clone(pool));
    }

    /// Returns the offset of the first byte.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Returns the offset after the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.chunks.back().map_or(self.start, Chunk::end)
    }

    pub(crate) fn len(&self) -> usize {
        (self.end() - self.start) as usize
    }

    /// Returns the number of bytes allocated, without bookkeeping.
    pub(crate) fn allocated(&self) -> usize {
        self.allocated
    }

    /// Appends a copy of `bytes`.
    pub(crate) fn append(&mut self, mut bytes: &[u8]) {
        if let Some(last) = self.chunks.back_mut() {
            let room = last.bytes.capacity() - last.bytes.len();
            let (fits, rest) = bytes.split_at(room.min(bytes.len()));
            last.bytes.extend_from_slice(fits);
            bytes = rest;
        }
        while !bytes.is_empty() {
            // Each chunk doubles the one before, so that little data takes little memory and much data few
            // chunks.
            let before = self.chunks.back().map_or(0, |last| last.bytes.capacity());
            let size = bytes.len().max(2 * before).clamp(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES);
            let (fits, rest) = bytes.split_at(size.min(bytes.len()));
            let mut chunk = match &self.pool {
                Some(pool) if size == MAX_CHUNK_BYTES => pool.take(),
                _ => Vec::with_capacity(size),
            };
            chunk.extend_from_slice(fits);
            self.push(chunk);
            bytes = rest;
        }
    }

    /// Appends a chunk without copying it.
    pub(crate) fn push(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        // The capacity counts, not the length, because the memory limits bound what the process occupies.
        self.allocated += bytes.capacity();
        if self.chunks.capacity() == 0 {
            // Most queues have one chunk only; VecDeque would reserve four.
            self.chunks.reserve_exact(1);
        }
        let start = self.end();
        self.chunks.push_back(Chunk { start, bytes });
    }

    /// Copies bytes from `offset` on into `buf`, as many as fit; returns the number.
    pub(crate) fn copy(&self, offset: u64, buf: &mut [u8]) -> usize {
        let offset = offset.max(self.start);
        let mut copied = 0;
        // A retransmission may begin anywhere in a long queue, so bisection finds the chunk.
        let first = self.chunks.partition_point(|chunk| chunk.end() <= offset);
        for chunk in self.chunks.range(first..) {
            let from = (offset + copied as u64 - chunk.start) as usize;
            let part = &chunk.bytes[from..];
            let len = part.len().min(buf.len() - copied);
            buf[copied..copied + len].copy_from_slice(&part[..len]);
            copied += len;
            if copied == buf.len() {
                break;
            }
        }
        copied
    }

    /// Returns the bytes from the front on, one slice per chunk.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks.iter().map(|chunk| &chunk.bytes[self.start.saturating_sub(chunk.start) as usize..])
    }

    /// Takes bytes from the front; returns the number.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> usize {
        let len = self.copy(self.start, buf);
        self.drop_until(self.start + len as u64);
        len
    }

    /// Drops the bytes before `offset`.
    pub(crate) fn drop_until(&mut self, offset: u64) {
        self.start = offset.clamp(self.start, self.end());
        while let Some(first) = self.chunks.front()
            // A chunk is freed as a whole, because a partly read one still occupies all of its memory.
            && first.end() <= self.start
        {
            self.allocated -= first.bytes.capacity();
            if let (Some(chunk), Some(pool)) = (self.chunks.pop_front(), &self.pool) {
                pool.give(chunk.bytes);
            }
        }
        // A queue that once was long must not keep its ring for the rest of the connection.
        if self.chunks.is_empty() && self.chunks.capacity() > 8 {
            self.chunks = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Compares the queue with a plain vector.
        #[test]
        fn it_holds_what_was_put_in(
            steps in prop::collection::vec((0usize..100_000, 0usize..100_000, any::<bool>()), 1..40),
        ) {
            let mut queue = ByteQueue::new(7);
            let mut model: VecDeque<u8> = VecDeque::new();
            let mut next = 0u8;
            for (add, take, whole) in steps {
                let bytes: Vec<u8> = (0..add).map(|_| { next = next.wrapping_mul(13).wrapping_add(1); next }).collect();
                model.extend(&bytes);
                if whole { queue.push(bytes) } else { queue.append(&bytes) }
                let middle = queue.start() + (take as u64).min(queue.len() as u64) / 2;
                let mut copy = vec![0; 5000];
                let copied = queue.copy(middle, &mut copy);
                let skipped = (middle - queue.start()) as usize;
                prop_assert_eq!(copied, 5000.min(model.len() - skipped));
                prop_assert!(model.iter().skip(skipped).zip(&copy[..copied]).all(|(a, b)| a == b));
                let pieces: Vec<u8> = queue.pieces().flatten().copied().collect();
                prop_assert!(model.iter().eq(&pieces));
                let mut out = vec![0; take];
                let read = queue.read(&mut out);
                prop_assert_eq!(read, take.min(model.len()));
                prop_assert!(model.drain(..read).zip(&out).all(|(a, &b)| a == b));
                prop_assert_eq!(queue.len(), model.len());
                prop_assert!(queue.allocated() >= queue.len());
            }
            queue.drop_until(u64::MAX);
            prop_assert_eq!((queue.len(), queue.allocated()), (0, 0));
        }
    }

    #[test]
    fn little_data_takes_little_memory() {
        let mut queue = ByteQueue::new(0);
        queue.append(&[1; 100]);
        assert_eq!(queue.allocated(), MIN_CHUNK_BYTES);
        queue.append(&[2; 1_000_000]);
        assert!(queue.allocated() < 1_000_100 + MAX_CHUNK_BYTES);
    }
}
