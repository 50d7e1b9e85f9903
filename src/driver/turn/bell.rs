//! What wakes the thread of an allocation, with the reason.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::sys::poll::Wakeup;

/// Wakes the thread of one allocation. Senders wake it often, for its timers; only news of the network may
/// cost the allocation, so they are told apart.
pub(super) struct Bell {
    wakeup: Wakeup,
    /// The same for who waits in a runtime.
    notify: Notify,
    interfaces_changed: AtomicBool,
    was_suspended: AtomicBool,
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            wakeup: Wakeup::new()?,
            notify: Notify::new(),
            interfaces_changed: AtomicBool::new(false),
            was_suspended: AtomicBool::new(false),
        })
    }

    /// Has the thread look at its timers, and whether it should end.
    pub(super) fn wake(&self) {
        self.wakeup.wake();
        self.notify.notify_one();
    }

    /// Waits until somebody wakes the thread, or has done so since the last call.
    pub(super) async fn rung(&self) {
        self.notify.notified().await;
        self.wakeup.clear();
    }

    /// An interface or an address may have come or gone.
    pub(super) fn note_interfaces(&self) {
        self.interfaces_changed.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// The machine was suspended.
    pub(super) fn note_suspended(&self) {
        self.was_suspended.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Whether there is news of the network that nobody has taken.
    pub(super) fn has_news(&self) -> bool {
        self.interfaces_changed.load(Ordering::SeqCst) || self.was_suspended.load(Ordering::SeqCst)
    }

    pub(super) fn take_interfaces(&self) -> bool {
        self.interfaces_changed.swap(false, Ordering::SeqCst)
    }

    pub(super) fn take_suspended(&self) -> bool {
        self.was_suspended.swap(false, Ordering::SeqCst)
    }

    /// To be called when the descriptor is readable, before the news is taken.
    pub(super) fn clear(&self) {
        self.wakeup.clear();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wakeup.as_fd()
    }
}
