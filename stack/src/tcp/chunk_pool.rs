//! Spare chunks of the queues of a node's connections.
//!
//! An allocator gives large memory back to the system as soon as it is freed, and the next use of it faults
//! it in again page by page. While bytes flow, each chunk is soon wanted again. So what becomes free is kept,
//! up to a bound, and what nobody has wanted for a while goes back.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::host::clock::{Time, after};

/// The capacity of a chunk that is kept, bytes.
pub(crate) const CHUNK: usize = 64 << 10;

/// Chunks that are kept at most: 4 MiB.
const MOST: usize = 64;

/// What nobody has wanted for so long is given back.
const PATIENCE: Duration = Duration::from_secs(1);

/// Keeps spare chunks for the queues of one node's connections.
#[derive(Debug, Default)]
pub(crate) struct ChunkPool {
    spare: Mutex<Spare>,
    /// There are spare chunks. A hint, so that who asks for the deadline takes no lock.
    has_spare: AtomicBool,
    /// When chunks were given back last, microseconds.
    trimmed: AtomicI64,
}

#[derive(Debug, Default)]
struct Spare {
    chunks: Vec<Vec<u8>>,
    /// The fewest that there were since some were given back last: so many nobody has wanted.
    fewest: usize,
}

impl ChunkPool {
    /// An empty chunk.
    pub(crate) fn take(&self) -> Vec<u8> {
        let kept = self.try_lock().and_then(|mut spare| {
            let chunk = spare.chunks.pop();
            spare.fewest = spare.fewest.min(spare.chunks.len());
            chunk
        });
        kept.unwrap_or_else(|| Vec::with_capacity(CHUNK))
    }

    /// Keeps a chunk that is free now, if it is one of these and there is room.
    pub(crate) fn give(&self, mut chunk: Vec<u8>) {
        if chunk.capacity() != CHUNK {
            return;
        }
        if let Some(mut spare) = self.try_lock()
            && spare.chunks.len() < MOST
        {
            chunk.clear();
            spare.chunks.push(chunk);
            self.has_spare.store(true, Ordering::Relaxed);
        }
    }

    /// When some may have to be given back; `None` while there are none.
    pub(crate) fn next_trim(&self) -> Option<Time> {
        let trimmed = Time::from_micros(self.trimmed.load(Ordering::Relaxed));
        self.has_spare.load(Ordering::Relaxed).then(|| after(trimmed, PATIENCE))
    }

    /// Gives back what nobody has wanted since the last time, if that is long enough ago.
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
        // Freed without the lock.
        drop(unwanted);
    }

    /// Nobody waits: the allocator serves, too.
    fn try_lock(&self) -> Option<MutexGuard<'_, Spare>> {
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
        (0..2 * MOST).for_each(|_| pool.give(Vec::with_capacity(CHUNK)));
        assert_eq!(kept(&pool), MOST);
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
