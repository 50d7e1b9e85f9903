//! Wake-ups of an allocation's thread, with the reason.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::sys::poll::Wakeup;

/// Wake-up of one allocation's thread. Senders wake it often, for its timers. Only network changes may end
/// the allocation, so they are kept separate.
pub(super) struct Bell {
    wakeup: Wakeup,
    /// Wake-up for a task in a runtime.
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

    /// Makes the thread check its timers, and whether it should end.
    pub(super) fn wake(&self) {
        self.wakeup.wake();
        self.notify.notify_one();
    }

    /// Waits for a wake-up, or returns at once if one came since the last call.
    pub(super) async fn rung(&self) {
        self.notify.notified().await;
        self.wakeup.clear();
    }

    /// Reports that an interface or an address may have come or gone.
    pub(super) fn note_interfaces(&self) {
        self.interfaces_changed.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Reports that the machine was suspended.
    pub(super) fn note_suspended(&self) {
        self.was_suspended.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Returns true if a network change is pending.
    pub(super) fn has_news(&self) -> bool {
        self.interfaces_changed.load(Ordering::SeqCst) || self.was_suspended.load(Ordering::SeqCst)
    }

    pub(super) fn take_interfaces(&self) -> bool {
        self.interfaces_changed.swap(false, Ordering::SeqCst)
    }

    pub(super) fn take_suspended(&self) -> bool {
        self.was_suspended.swap(false, Ordering::SeqCst)
    }

    /// Clears the wake-up. Call it when the descriptor is readable, before the changes are taken.
    pub(super) fn clear(&self) {
        self.wakeup.clear();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wakeup.as_fd()
    }
}
