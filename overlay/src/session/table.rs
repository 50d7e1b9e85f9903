use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use super::Session;
use crate::sync;
use crate::wire::SessionIndex;

/// All sessions that packets can arrive on, by our index. Shared between control and the data path.
///
/// Control reserves an index when a handshake begins and puts the session there when it is done. The number
/// of entries is bounded; with a full table no handshake begins.
pub struct SessionTable {
    /// `None` is an index that a handshake has reserved.
    entries: RwLock<HashMap<SessionIndex, Option<Arc<Session>>, BuildHasherDefault<IndexHasher>>>,
    limit: AtomicUsize,
}

impl SessionTable {
    /// An empty table of at most `limit` entries.
    pub(crate) fn new(limit: usize) -> Self {
        let table = Self { entries: RwLock::default(), limit: AtomicUsize::default() };
        table.set_limit(limit);
        table
    }

    /// Changes how many entries there are at most, itself at most 2^20 so that a random index is soon free.
    /// What is in the table stays.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.store(limit.min(1 << 20), Ordering::Relaxed);
    }

    /// The number of sessions and handshakes that there can be at a time.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// The session of that index. A driver keeps the last one it asked for and compares its index first.
    pub fn get(&self, index: SessionIndex) -> Option<Arc<Session>> {
        sync::read(&self.entries).get(&index)?.clone()
    }

    /// The number of sessions and handshakes.
    pub fn len(&self) -> usize {
        sync::read(&self.entries).len()
    }

    /// Whether there are neither sessions nor handshakes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reserves an index that is free, made from the numbers that `random` draws. `None` if the table is
    /// full.
    pub(crate) fn reserve(&self, mut random: impl FnMut() -> u32) -> Option<SessionIndex> {
        let mut entries = sync::write(&self.entries);
        if entries.len() >= self.limit() {
            return None;
        }
        // At most 1/16 of all indices are taken, so this ends soon unless `random` is no generator at all.
        let index = (0..MAX_DRAWS)
            .map(|_| SessionIndex::from_bits(random()))
            .find(|index| !entries.contains_key(index))?;
        entries.insert(index, None);
        Some(index)
    }

    /// Puts a session at its index, which has been reserved for it.
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

/// The indices are random and our own, so spreading their bits is all that hashing must do.
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
