use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use super::Session;
use crate::sync;
use crate::wire::SessionIndex;

/// All sessions that packets can arrive on, by our index. Control and the data path share it.
///
/// Control reserves an index when a handshake begins and inserts the session when it is done. The number of
/// entries is bounded; with a full table no handshake begins.
pub struct SessionTable {
    /// `None` marks an index that a handshake has reserved.
    entries: RwLock<HashMap<SessionIndex, Option<Arc<Session>>, BuildHasherDefault<IndexHasher>>>,
    limit: AtomicUsize,
}

impl SessionTable {
    /// Creates an empty table of at most `limit` entries.
    pub(crate) fn new(limit: usize) -> Self {
        let table = Self { entries: RwLock::default(), limit: AtomicUsize::default() };
        table.set_limit(limit);
        table
    }

    /// Changes the maximum number of entries, to at most 2^20 so that a random index is soon found free.
    /// Existing entries stay.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.store(limit.min(1 << 20), Ordering::Relaxed);
    }

    /// Returns the maximum number of concurrent sessions and handshakes.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Returns the session with this index. A driver keeps the last one it asked for and compares its index
    /// first.
    pub fn get(&self, index: SessionIndex) -> Option<Arc<Session>> {
        sync::read(&self.entries).get(&index)?.clone()
    }

    /// Returns the number of sessions and handshakes.
    pub fn len(&self) -> usize {
        sync::read(&self.entries).len()
    }

    /// Returns true if there are neither sessions nor handshakes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reserves a free index, drawn by `random`. Returns `None` if the table is full.
    pub(crate) fn reserve(&self, mut random: impl FnMut() -> u32) -> Option<SessionIndex> {
        let mut entries = sync::write(&self.entries);
        if entries.len() >= self.limit() {
            return None;
        }
        // At most 1/16 of all indices are in use, so this ends soon unless `random` is stuck.
        let index = (0..MAX_DRAWS)
            .map(|_| SessionIndex::from_bits(random()))
            // An index in use would send the packets of one session to another, where none is authentic.
            .find(|index| !entries.contains_key(index))?;
        // Occupied without a session: a second handshake cannot draw the index, and a packet with it finds
        // nothing.
        entries.insert(index, None);
        Some(index)
    }

    /// Inserts a session at the index reserved for it.
    pub(crate) fn insert(&self, session: Arc<Session>) {
        sync::write(&self.entries).insert(session.index(), Some(session));
    }

    /// Frees an index, reserved or in use.
    pub(crate) fn remove(&self, index: SessionIndex) -> Option<Arc<Session>> {
        sync::write(&self.entries).remove(&index)?
    }
}

impl fmt::Debug for SessionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionTable").field("len", &self.len()).field("limit", &self.limit()).finish()
    }
}

const MAX_DRAWS: usize = 64;

/// Hasher of indices. They are random and our own, so it only has to spread their bits.
#[derive(Default)]
struct IndexHasher(u64);

impl Hasher for IndexHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u32((*b).into()));
    }

    fn write_u32(&mut self, n: u32) {
        self.0 = (self.0 ^ u64::from(n)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
