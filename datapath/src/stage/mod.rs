//! Send stage of a flow.

// A relative path, so that the tests can mount this module over locks whose interleavings they choose.
use super::sync::{AtomicBool, Mutex, Ordering, TryLockError};

/// Order of one flow's segments while any thread may send them: one thread at a time works, for all.
///
/// No thread waits. A thread that finds the stage taken leaves a note. The holder checks for notes before and
/// after it leaves.
#[derive(Debug, Default)]
pub(super) struct Stage {
    taken: Mutex<()>,
    note: AtomicBool,
}

impl Stage {
    /// Runs `work` until no thread has requested it since it last began. Returns at once if another thread is
    /// already doing so.
    pub(super) fn run(&self, mut work: impl FnMut()) {
        self.note.store(true, Ordering::SeqCst);
        // A note that arrived after `work` began may concern data that `work` has not seen.
        while self.note.load(Ordering::SeqCst) {
            match self.taken.try_lock() {
                Ok(_held) => {
                    self.note.store(false, Ordering::SeqCst);
                    work();
                }
                // The holder sees the note when `work` returns.
                Err(TryLockError::WouldBlock) => return,
                Err(TryLockError::Poisoned(_)) => unreachable!("work does not panic"),
            }
        }
    }
}
