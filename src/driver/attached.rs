//! Attachments of the engine thread: descriptors besides the node's UDP sockets.

use std::sync::{Arc, RwLock};
use std::time::Instant;

use crate::sync;
use crate::sys::poller::Event;

/// Object with descriptors and deadlines, run by the engine thread. An example is in
/// [`attach`](crate::attach).
///
/// It adds its descriptors to the driver's [`Poller`](crate::attach::Poller).
///
/// Data for a socket passes from the UDP socket to the application's descriptor, and back, without another
/// thread being woken in between.
pub trait Attached: Send + Sync {
    /// Does the due work. `events` includes the events of its descriptors, by their tokens, and those of
    /// others.
    fn run(&self, events: &[Event]);

    /// Returns the time at which [`Attached::run`] is due without an event, if ever. A time in the past means
    /// at once.
    fn deadline(&self) -> Option<Instant>;
}

/// Attachments of a driver, in the order of attaching.
pub(super) type Attachments = Arc<[Arc<dyn Attached>]>;

/// List of attachments. It is replaced as a whole and read without a lock held.
pub(super) struct List(RwLock<Attachments>);

impl Default for List {
    fn default() -> List {
        List(RwLock::new(Arc::new([])))
    }
}

impl List {
    pub(super) fn add(&self, attached: Arc<dyn Attached>) {
        self.replace(|list| list.iter().cloned().chain([attached]).collect());
    }

    pub(super) fn remove(&self, attached: &Arc<dyn Attached>) {
        // Without the vtables, which may differ for one object.
        let own = Arc::as_ptr(attached).cast::<()>();
        self.replace(|list| {
            list.iter().filter(|other| Arc::as_ptr(other).cast::<()>() != own).cloned().collect()
        });
    }

    fn replace(&self, with: impl FnOnce(&Attachments) -> Attachments) {
        let mut list = sync::write(&self.0);
        let new = with(&list);
        let before = std::mem::replace(&mut *list, new);
        drop(list);
        // Dropped without the lock, because it may be the last owner of sockets.
        drop(before);
    }

    /// Returns true if `list` is the current one.
    pub(super) fn is(&self, list: &Attachments) -> bool {
        Arc::ptr_eq(&sync::read(&self.0), list)
    }

    pub(super) fn get(&self) -> Attachments {
        sync::read(&self.0).clone()
    }
}
