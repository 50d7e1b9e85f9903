//! Connection attempts of sockets that no process has open any more.
//!
//! While an attempt of a non-blocking socket goes on, the node has a copy of the application's descriptor. So
//! the kernel reports neither its end nor its last close when the application closes it. The node searches
//! proc(5) for other copies instead, for all attempts together.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use peersock_fd::{Errno, SocketId};

use crate::process::retain_closed;
use crate::requester::failed;
use crate::searches::Searches;
use crate::state::{Entry, ServerState};
use crate::wakers::Key;

/// Time from the arrival of the copy to the first search, and from one search to the next.
pub(crate) const SEARCH_INTERVAL: Duration = Duration::from_secs(1);

/// Budget of these searches.
static SEARCHES: Searches = Searches::new();

impl ServerState {
    /// Ends the attempts whose sockets are closed, if the attempt `key` is due for a search.
    pub(crate) fn end_abandoned(&mut self, key: Key, now: Instant) {
        let Some(Entry::Connecting(attempt)) = self.entries.get(&key) else { return };
        if attempt.search_at().is_none_or(|at| at > now) {
            return;
        }
        let (mut attempts, mut inodes, mut copies) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        for (key, entry) in &self.entries {
            if let Entry::Connecting(attempt) = entry
                && let Some((copy, owner)) = attempt.held()
                && let Ok(stat) = rustix::fs::fstat(copy)
            {
                attempts.insert(*key, stat.st_ino);
                inodes.insert(stat.st_ino, owner);
                copies.insert(copy.as_raw_fd());
            }
        }
        match SEARCHES.begin(now) {
            Some(search) => {
                // There may be no other descriptor left for the search.
                self.without_spare(|| retain_closed(&mut inodes, &copies));
                SEARCHES.end(search, Instant::now());
            }
            None => inodes.clear(),
        }
        for (key, inode) in attempts {
            let Some(Entry::Connecting(attempt)) = self.entries.get_mut(&key) else { continue };
            // A search can miss a descriptor that moves meanwhile, so one alone decides nothing.
            if attempt.note_search(inodes.contains_key(&inode)) {
                let id = attempt.id();
                self.abandon(key, id);
            } else {
                attempt.search_later(now, key, &mut self.context);
            }
        }
    }

    /// Ends an attempt whose socket is closed. As in Linux, the peer hears nothing more of it.
    pub(crate) fn abandon(&mut self, key: Key, id: SocketId) {
        self.remove_socket(id);
        let Some(Entry::Connecting(attempt)) = self.remove(key) else { return };
        attempt.reset();
        // Another thread may have closed the descriptor of a call that waits.
        for asker in attempt.askers() {
            self.reply(asker, &failed(Errno::BADF));
        }
    }
}
