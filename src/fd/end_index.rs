//! Whose the node's ends of datagram sockets are: events of an end are its socket's.

use std::collections::HashMap;

use super::wakers::Key;

/// Whose the ends of all sockets are.
#[derive(Default)]
pub(super) struct EndIndex {
    owners: HashMap<Key, Key>,
    /// Counts their uses, to tell which was not used for longest.
    uses: u64,
}

impl EndIndex {
    /// The datagram socket that an end belongs to.
    pub(super) fn owner(&self, end: Key) -> Option<Key> {
        self.owners.get(&end).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }

    pub(super) fn insert(&mut self, end: Key, owner: Key) {
        self.owners.insert(end, owner);
    }

    pub(super) fn remove(&mut self, end: Key) {
        self.owners.remove(&end);
    }

    /// The number of one more use.
    pub(super) fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }
}
