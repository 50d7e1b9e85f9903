//! Spare chunks for the queues of a node's connections.
//!
//! An allocator returns large blocks to the system as soon as they are freed, and the next use faults them in
//! again page by page. While bytes flow, each chunk is soon needed again. So the pool keeps free chunks, up
//! to a bound, and frees chunks that were not needed for a while.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::host::clock::{Time, after};

/// Capacity of a pooled chunk, bytes.
pub(crate) const CHUNK: usize = 64 << 10;

/// Maximum number of pooled chunks: 4 MiB in total.
const MAX_POOLED_CHUNKS: usize = 64;

/// Interval of trimming: chunks unused for this long are freed.
const TRIM_INTERVAL: Duration = Duration::from_secs(1);

/// Pool of spare chunks for the queues of one node's connections.
#[derive(Debug, Default)]
pub(crate) struct ChunkPool {
    spare: Mutex<Spare>,
    /// True if there are spare chunks. It is only a hint, so that asking for the deadline takes no lock.
    has_spare: AtomicBool,
    /// Time of the last trimming, microseconds.
    trimmed: AtomicI64,
}

#[derive(Debug, Default)]
struct Spare {
    chunks: Vec<Vec<u8>>,
    /// Smallest number of spare chunks since the last trimming. This number of chunks was not needed.
    fewest: usize,
}

impl ChunkPool {
    /// Returns an empty chunk, a spare one if possible.
    pub(crate) fn take(&self) -> Vec<u8> {
        let kept = self.try_lock().and_then(|mut spare| {
            let chunk = spare.chunks.pop();
            spare.fewest = spare.fewest.min(spare.chunks.len());
            chunk
        });
        kept.unwrap_or_else(|| Vec::with_capacity(CHUNK))
    }

    /// Keeps a freed chunk if it has the pool's size and there is room.
    pub(crate) fn give(&self, mut chunk: Vec<u8>) {
        // `take` promises the full capacity, so other chunks go back to the allocator.
        if chunk.capacity() != CHUNK {
            return;
        }
        if let Some(mut spare) = self.try_lock()
            && spare.chunks.len() < MAX_POOLED_CHUNKS
        {
            chunk.clear();
            spare.chunks.push(chunk);
            self.has_spare.store(true, Ordering::Relaxed);
        }
    }

    /// Returns the time of the next trimming; `None` while the pool is empty.
    pub(crate) fn next_trim(&self) -> Option<Time> {
        let trimmed = Time::from_micros(self.trimmed.load(Ordering::Relaxed));
        self.has_spare.load(Ordering::Relaxed).then(|| after(trimmed, TRIM_INTERVAL))
    }

    /// Frees the chunks that were not needed since the last trimming, if [`TRIM_INTERVAL`] has passed.
    pub(crate) fn trim(&self, now: Time) {
        if self.next_trim().is_none_or(|due| due > now) {
            return;
        }
        self.trimmed.store(now.total_micros(), Ordering::Relaxed);
        let unwanted = self.try_lock().map(|mut spare| {
            let keep = spare.chunks.len() - spare.fewest;
            let unwanted = spare.chunks.split_off(keep);
            spare.fewest = keep;
            self.has_spare.store(keep > 0, Ordering::Relaxed);
            unwanted
        });
        // Freed outside the lock, because freeing large blocks takes system calls.
        drop(unwanted);
    }

    /// Locks the pool if it is free.
    fn try_lock(&self) -> Option<MutexGuard<'_, Spare>> {
        // No thread waits for this lock, because the allocator can serve the request, too.
        self.spare.try_lock().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(pool: &ChunkPool) -> usize {
        pool.try_lock().expect("one thread").chunks.len()
    }

    #[test]
    fn what_was_given_is_taken_again_empty_and_within_bounds() {
        let pool = ChunkPool::default();
        let mut chunk = pool.take();
        chunk.extend_from_slice(&[7; 100]);
        let place = chunk.as_ptr();
        pool.give(chunk);
        pool.give(Vec::with_capacity(CHUNK / 2));
        let again = pool.take();
        assert_eq!((again.as_ptr(), again.len(), again.capacity()), (place, 0, CHUNK));
        (0..2 * MAX_POOLED_CHUNKS).for_each(|_| pool.give(Vec::with_capacity(CHUNK)));
        assert_eq!(kept(&pool), MAX_POOLED_CHUNKS);
    }

    #[test]
    fn what_nobody_wants_goes_back() {
        let pool = ChunkPool::default();
        let at = Time::from_secs;
        assert_eq!(pool.next_trim(), None);
        let chunks: Vec<_> = (0..10).map(|_| pool.take()).collect();
        chunks.into_iter().for_each(|chunk| pool.give(chunk));
        assert_eq!(pool.next_trim(), Some(at(1)));
        pool.trim(at(100));
        assert_eq!(kept(&pool), 10, "all were wanted until now");
        let (one, other) = (pool.take(), pool.take());
        pool.give(one);
        pool.give(other);
        pool.trim(at(100));
        assert_eq!(kept(&pool), 10, "not yet");
        pool.trim(at(101));
        assert_eq!(kept(&pool), 2);
        pool.trim(at(102));
        assert_eq!((kept(&pool), pool.next_trim()), (0, None));
    }
}
