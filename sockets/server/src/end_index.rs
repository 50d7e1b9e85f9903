//! Owners of the node's ends of datagram sockets, to route an end's events to its socket.

use std::collections::HashMap;

use crate::wakers::Key;

/// Owners of the ends of all sockets.
#[derive(Default)]
pub(crate) struct EndIndex {
    owners: HashMap<Key, Key>,
    /// Counter of uses, which orders the ends by last use.
    uses: u64,
}

impl EndIndex {
    /// Returns the datagram socket that an end belongs to.
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

    /// Returns the number of the next use.
    pub(crate) fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }
}
