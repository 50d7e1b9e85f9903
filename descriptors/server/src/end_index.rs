//! Whose the node's ends of datagram sockets are: events of an end are its socket's.

use std::collections::HashMap;

use crate::wakers::Key;

/// Whose the ends of all sockets are.
#[derive(Default)]
pub(crate) struct EndIndex {
    owners: HashMap<Key, Key>,
    /// Counts their uses, to tell which was not used for longest.
    uses: u64,
}

impl EndIndex {
    /// The datagram socket that an end belongs to.
    pub(crate) fn owner(&self, end: Key) -> Option<Key> {
        self.owners.get(&end).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.owners.len()
    }

    pub(crate) fn insert(&mut self, end: Key, owner: Key) {
        self.owners.insert(end, owner);
    }

    pub(crate) fn remove(&mut self, end: Key) {
        self.owners.remove(&end);
    }

    /// The number of one more use.
    pub(crate) fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }
}
