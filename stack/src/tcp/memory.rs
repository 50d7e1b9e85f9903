//! What the buffers of connections occupy: of all, and of those with one peer.
//!
//! There are two thresholds, as in Linux's `tcp_mem`. From three quarters of a limit on, memory is *short*:
//! buffers stop growing, new connections offer a small window, and nothing is taken in out of order. At the
//! limit it is *full*: then a connection takes in order what [`LEAST_BUFFER`] holds, so that each goes on as
//! long as its application reads. Shortly before, connections that their application has closed give way.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::chunk_pool::ChunkPool;
use crate::host::clock::{Time, after};

/// Bytes that every connection may hold for its application, however little memory is left.
pub(crate) const LEAST_BUFFER: usize = 4 << 10;

/// While memory is short, a part of the connections is looked through so often.
const RELIEF: Duration = Duration::from_secs(4);

/// The account of a node. Relaxed: it bounds, it does not order.
#[derive(Debug)]
pub(crate) struct Memory {
    used: AtomicUsize,
    limit: usize,
    limit_per_peer: usize,
    /// When connections were last looked through, microseconds.
    relieved: AtomicI64,
    /// Bytes copied because they came out of order, since they were last taken.
    reordered: AtomicU64,
    /// Not part of the account: it is bounded by itself.
    chunks: Arc<ChunkPool>,
}

impl Memory {
    pub(crate) fn new(limit: usize, limit_per_peer: usize) -> Self {
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

    /// Spare chunks of queues.
    pub(crate) fn chunks(&self) -> &Arc<ChunkPool> {
        &self.chunks
    }

    /// Takes the count of bytes that were copied because they came out of order.
    pub(crate) fn take_reordered(&self) -> u64 {
        self.reordered.swap(0, Ordering::Relaxed)
    }

    /// Whether a peer's memory can be nearly used up, or that of all.
    pub(crate) fn can_be_nearly_full(&self) -> bool {
        self.used() >= nearly_full(self.limit_per_peer)
    }

    /// When the next connections are to be looked through; `None` while no peer's memory can be short.
    pub(crate) fn next_relief(&self) -> Option<Time> {
        (self.used() >= short(self.limit_per_peer)).then(|| {
            let last = Time::from_micros(self.relieved.load(Ordering::Relaxed));
            after(last, RELIEF)
        })
    }

    /// Whether it is time to look connections through. Of several threads one does.
    pub(crate) fn begin_relief(&self, now: Time) -> bool {
        let last = self.relieved.load(Ordering::Relaxed);
        let due = self.next_relief().is_some_and(|due| due <= now);
        let exchange = |to: Time| {
            self.relieved.compare_exchange(last, to.total_micros(), Ordering::Relaxed, Ordering::Relaxed)
        };
        due && exchange(now).is_ok()
    }
}

/// The account of one peer, within its node's.
#[derive(Debug)]
pub(crate) struct Share {
    node: Arc<Memory>,
    used: AtomicUsize,
    /// The peer's connections in the flow table.
    flows: AtomicUsize,
}

impl Share {
    pub(crate) fn new(node: &Arc<Memory>) -> Self {
        Self { node: node.clone(), used: AtomicUsize::new(0), flows: AtomicUsize::new(0) }
    }

    /// How many connections the flow table has of the peer.
    pub(crate) fn flows(&self) -> usize {
        self.flows.load(Ordering::Relaxed)
    }

    /// So many connections have come.
    pub(crate) fn add_flows(&self, count: usize) {
        self.flows.fetch_add(count, Ordering::Relaxed);
    }

    /// So many have gone.
    pub(crate) fn remove_flows(&self, count: usize) {
        self.flows.fetch_sub(count, Ordering::Relaxed);
    }

    /// The node's spare chunks of queues.
    pub(crate) fn chunks(&self) -> &Arc<ChunkPool> {
        &self.node.chunks
    }

    /// So many bytes were copied because they came out of order.
    pub(crate) fn note_reordered(&self, bytes: u32) {
        self.node.reordered.fetch_add(bytes.into(), Ordering::Relaxed);
    }

    /// Whether buffers may grow: memory is not short.
    pub(crate) fn has_room(&self) -> bool {
        self.used() < short(self.node.limit_per_peer) && self.node.used() < short(self.node.limit)
    }

    /// Whether nothing is left but what every connection may hold.
    pub(crate) fn is_full(&self) -> bool {
        self.used() >= self.node.limit_per_peer || self.node.used() >= self.node.limit
    }

    /// Whether it is time to do without those connections that nobody waits for.
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.used() >= nearly_full(self.node.limit_per_peer)
            || self.node.used() >= nearly_full(self.node.limit)
    }

    fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// How much of a limit is used when memory is short.
fn short(limit: usize) -> usize {
    limit - limit / 4
}

/// How much of a limit is used when it is nearly used up.
fn nearly_full(limit: usize) -> usize {
    limit - limit / 8
}

/// What one connection has told the accounts, bytes.
#[derive(Debug, Default)]
pub(crate) struct Charge(usize);

impl Charge {
    /// The connection occupies `bytes` now. Changes of less than an eighth, or of [`LEAST_BUFFER`], are not
    /// worth atomic operations on what all connections share.
    pub(crate) fn update(&mut self, share: &Share, bytes: usize) {
        let known = std::mem::replace(&mut self.0, bytes);
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

    /// The connection occupies nothing any more.
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
