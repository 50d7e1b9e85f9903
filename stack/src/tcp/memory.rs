//! Memory accounts for the buffers of connections: one for the node, and one per peer.
//!
//! There are two thresholds, as in Linux's `tcp_mem`. From three quarters of a limit on, memory is *short*:
//! buffers stop growing, new connections offer a small window, and out-of-order data is refused. At the limit
//! memory is *full*. Each connection then still accepts [`LEAST_BUFFER`] bytes in order, so that it continues
//! as long as its application reads. Shortly before the limit, connections closed by their applications are
//! given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::chunk_pool::ChunkPool;
use crate::host::clock::{Time, after};

/// Bytes that every connection may hold for its application, even when memory is full.
pub(crate) const LEAST_BUFFER: usize = 4 << 10;

/// Interval of relief while memory is short. Each time, a part of the connections is examined.
const RELIEF_INTERVAL: Duration = Duration::from_secs(4);

/// Memory account of a node. Its atomics are relaxed, because they bound memory and order nothing.
#[derive(Debug)]
pub(crate) struct Memory {
    used: AtomicUsize,
    limit: usize,
    limit_per_peer: usize,
    /// Time of the last relief, microseconds.
    relieved: AtomicI64,
    /// Bytes copied because of reordering since the last [`take_reordered`](Self::take_reordered).
    reordered: AtomicU64,
    /// Spare chunks, not part of the account, because the pool has a bound.
    chunks: Arc<ChunkPool>,
}

impl Memory {
    pub(crate) fn new(limit: usize, limit_per_peer: usize) -> Self {
        // Checks that come before a look at each peer compare with the smaller limit alone.
        let limit_per_peer = limit_per_peer.min(limit);
        Self {
            used: AtomicUsize::new(0),
            limit,
            limit_per_peer,
            relieved: AtomicI64::new(0),
            reordered: AtomicU64::new(0),
            chunks: Arc::default(),
        }
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns the pool of spare chunks.
    pub(crate) fn chunks(&self) -> &Arc<ChunkPool> {
        &self.chunks
    }

    /// Returns the number of bytes copied because of reordering, and resets it.
    pub(crate) fn take_reordered(&self) -> u64 {
        self.reordered.swap(0, Ordering::Relaxed)
    }

    /// Returns true if the memory of the node or of any peer can be nearly full.
    pub(crate) fn can_be_nearly_full(&self) -> bool {
        self.used() >= nearly_full(self.limit_per_peer)
    }

    /// Returns the time of the next relief; `None` while no peer's memory can be short.
    pub(crate) fn next_relief(&self) -> Option<Time> {
        // The limit of a peer is the smaller one, so below its threshold no account is short.
        (self.used() >= short(self.limit_per_peer)).then(|| {
            let last = Time::from_micros(self.relieved.load(Ordering::Relaxed));
            after(last, RELIEF_INTERVAL)
        })
    }

    /// Returns true if relief is due. Among concurrent threads, only one gets true.
    pub(crate) fn begin_relief(&self, now: Time) -> bool {
        let last = self.relieved.load(Ordering::Relaxed);
        // `last` is read before, so of two threads that both see a due relief only one exchanges it.
        let due = self.next_relief().is_some_and(|due| due <= now);
        let exchange = |to: Time| {
            self.relieved.compare_exchange(last, to.total_micros(), Ordering::Relaxed, Ordering::Relaxed)
        };
        due && exchange(now).is_ok()
    }
}

/// Memory account of one peer, within the node's account.
#[derive(Debug)]
pub(crate) struct Share {
    node: Arc<Memory>,
    used: AtomicUsize,
    /// Number of the peer's connections in the flow table.
    flows: AtomicUsize,
}

impl Share {
    pub(crate) fn new(node: &Arc<Memory>) -> Self {
        Self { node: node.clone(), used: AtomicUsize::new(0), flows: AtomicUsize::new(0) }
    }

    /// Returns the number of the peer's connections in the flow table.
    pub(crate) fn flows(&self) -> usize {
        self.flows.load(Ordering::Relaxed)
    }

    /// Adds `count` connections.
    pub(crate) fn add_flows(&self, count: usize) {
        self.flows.fetch_add(count, Ordering::Relaxed);
    }

    /// Removes `count` connections.
    pub(crate) fn remove_flows(&self, count: usize) {
        self.flows.fetch_sub(count, Ordering::Relaxed);
    }

    /// Returns the node's pool of spare chunks.
    pub(crate) fn chunks(&self) -> &Arc<ChunkPool> {
        &self.node.chunks
    }

    /// Counts bytes that were copied because of reordering.
    pub(crate) fn note_reordered(&self, bytes: u32) {
        self.node.reordered.fetch_add(bytes.into(), Ordering::Relaxed);
    }

    /// Returns true if buffers may grow, that is, memory is not short.
    pub(crate) fn has_room(&self) -> bool {
        self.used() < short(self.node.limit_per_peer) && self.node.used() < short(self.node.limit)
    }

    /// Returns true if every connection is restricted to [`LEAST_BUFFER`].
    pub(crate) fn is_full(&self) -> bool {
        self.used() >= self.node.limit_per_peer || self.node.used() >= self.node.limit
    }

    /// Returns true if connections closed by their applications should be given up.
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.used() >= nearly_full(self.node.limit_per_peer)
            || self.node.used() >= nearly_full(self.node.limit)
    }

    fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// Returns the use from which memory with this limit is short.
fn short(limit: usize) -> usize {
    limit - limit / 4
}

/// Returns the use from which memory with this limit is nearly full.
fn nearly_full(limit: usize) -> usize {
    limit - limit / 8
}

/// Bytes of one connection that the accounts include.
#[derive(Debug, Default)]
pub(crate) struct Charge(usize);

impl Charge {
    /// Charges `bytes` as the connection's present use.
    pub(crate) fn update(&mut self, share: &Share, bytes: usize) {
        let known = std::mem::replace(&mut self.0, bytes);
        // It ignores changes of less than an eighth or less than `LEAST_BUFFER`, because atomic operations
        // on shared counters are expensive.
        if bytes.abs_diff(known) < LEAST_BUFFER.max(known / 8) {
            self.0 = known;
        } else if bytes > known {
            share.used.fetch_add(bytes - known, Ordering::Relaxed);
            share.node.used.fetch_add(bytes - known, Ordering::Relaxed);
        } else {
            share.used.fetch_sub(known - bytes, Ordering::Relaxed);
            share.node.used.fetch_sub(known - bytes, Ordering::Relaxed);
        }
    }

    /// Removes the connection from the accounts.
    pub(crate) fn end(&mut self, share: &Share) {
        let known = std::mem::take(&mut self.0);
        share.used.fetch_sub(known, Ordering::Relaxed);
        share.node.used.fetch_sub(known, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    #[test]
    fn the_accounts_follow_their_connections() {
        let memory = Arc::new(Memory::new(100 * KIB, 60 * KIB));
        let (share, other) = (Share::new(&memory), Share::new(&memory));
        let mut charges: [Charge; 3] = Default::default();
        charges[0].update(&share, 40 * KIB);
        charges[1].update(&share, LEAST_BUFFER - 1);
        assert_eq!((memory.used(), share.used()), (40 * KIB, 40 * KIB), "little is not worth the while");
        assert!(share.has_room() && other.has_room());
        charges[1].update(&share, 10 * KIB);
        assert!(!share.has_room() && !share.is_full() && other.has_room(), "45 KiB are three quarters");
        charges[1].update(&share, 20 * KIB);
        assert!(share.is_full() && !other.is_full());
        charges[2].update(&other, 16 * KIB);
        assert!(!other.has_room() && !other.is_full(), "75 KiB are");
        charges[2].update(&other, 41 * KIB);
        assert!(other.is_full());
        charges[0].update(&share, 36 * KIB);
        assert_eq!(share.used(), 60 * KIB, "a change of a tenth");
        for (charge, share) in charges.iter_mut().zip([&share, &share, &other]) {
            charge.end(share);
        }
        assert_eq!((memory.used(), share.used(), other.used()), (0, 0, 0));
    }

    #[test]
    fn connections_are_looked_through_only_while_memory_is_short() {
        let memory = Arc::new(Memory::new(100 * KIB, 50 * KIB));
        let share = Share::new(&memory);
        let mut charge = Charge::default();
        let at = Time::from_secs;
        charge.update(&share, 37 * KIB);
        assert!(memory.next_relief().is_none() && !memory.begin_relief(at(100)));
        charge.update(&share, 45 * KIB);
        assert!(memory.next_relief().is_some_and(|due| due < at(100)));
        assert!(memory.begin_relief(at(100)));
        assert!(!memory.begin_relief(at(100)), "one thread is enough");
        assert_eq!(memory.next_relief(), Some(at(104)));
        assert!(memory.begin_relief(at(104)));
        charge.end(&share);
        assert_eq!(memory.next_relief(), None);
    }
}
