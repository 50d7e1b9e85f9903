//! Connection attempts of sockets that no process has open any more.
//!
//! While an attempt of a non-blocking socket goes on, the node has a copy of the application's descriptor. So
//! the kernel reports neither its end nor its last close when the application closes it. The node searches
//! proc(5) for other copies instead, for all attempts together.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use peersock_fd::{Errno, SocketId};

use crate::process::{Search, retain_closed};
use crate::requester::failed;
use crate::searches::Searches;
use crate::state::{Entry, ServerState};
use crate::wakers::Key;

/// Time from the arrival of the copy to the first search, and from one search to the next.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// Budget of these searches.
static SEARCHES: Searches = Searches::new();

impl ServerState {
    /// Ends the attempts whose sockets are closed, if the attempt `key` is due for a search.
    pub(crate) fn end_abandoned(&mut self, key: Key, now: Instant) {
        let is_due = |attempt: Option<&Entry>| match attempt {
            Some(Entry::Connecting(attempt)) => attempt.search_at().is_some_and(|at| at <= now),
            _ => false,
        };
        if !is_due(self.entries.get(&key)) {
            return;
        }
        let (mut inodes, mut copies, mut owners) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        for (key, entry) in &self.entries {
            if let Entry::Connecting(attempt) = entry
                && let Some((copy, owner)) = attempt.held()
                && let Ok(stat) = rustix::fs::fstat(copy)
            {
                inodes.insert(stat.st_ino, *key);
                copies.insert(copy.as_raw_fd());
                owners.insert(owner);
            }
        }
        let closed = SEARCHES.begin(now).map(|search| {
            let closed = retain_closed(inodes.keys().copied().collect(), &owners, &copies);
            SEARCHES.end(search, Instant::now());
            closed
        });
        for (inode, key) in inodes {
            let Some(Entry::Connecting(attempt)) = self.entries.get_mut(&key) else { continue };
            match &closed {
                Some(Search::Complete(closed)) if closed.contains(&inode) => {
                    let id = attempt.id();
                    self.abandon(key, id);
                }
                _ => attempt.search_later(now, key, &mut self.context),
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
