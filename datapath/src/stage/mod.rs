//! The send stage of a flow.

// Relative, so that the tests can mount this module over locks whose interleavings they choose.
use super::sync::{AtomicBool, Mutex, Ordering, TryLockError};

/// Keeps one flow's segments in order while any thread may send them: one thread at a time works, for all.
///
/// Nobody waits. Who finds the stage taken leaves a note, and the holder looks for notes before and after it
/// leaves.
#[derive(Debug, Default)]
pub(super) struct Stage {
    taken: Mutex<()>,
    note: AtomicBool,
}

impl Stage {
    /// Runs `work` until no thread has asked for it since it last began, unless another thread is already
    /// doing so.
    pub(super) fn run(&self, mut work: impl FnMut()) {
        self.note.store(true, Ordering::SeqCst);
        while self.note.load(Ordering::SeqCst) {
            match self.taken.try_lock() {
                Ok(_held) => {
                    self.note.store(false, Ordering::SeqCst);
                    work();
                }
                // The holder sees the note when it is done.
                Err(TryLockError::WouldBlock) => return,
                Err(TryLockError::Poisoned(_)) => unreachable!("work does not panic"),
            }
        }
    }
}
