//! Attachment of the engine thread: descriptors besides the node's UDP sockets.

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
    /// Does the due work. `events` includes the events of its descriptors, by their tokens.
    fn run(&self, events: &[Event]);

    /// Returns the time at which [`Attached::run`] is due without an event, if ever. A time in the past means
    /// at once.
    fn deadline(&self) -> Option<Instant>;
}

/// Slot for the one attachment that a driver may have.
#[derive(Default)]
pub(super) struct Slot {
    attached: RwLock<Option<Arc<dyn Attached>>>,
}

impl Slot {
    pub(super) fn set(&self, attached: Option<Arc<dyn Attached>>) {
        let before = std::mem::replace(&mut *sync::write(&self.attached), attached);
        // Dropped without the lock, because it may be the last owner of sockets.
        drop(before);
    }

    /// Returns true if `other` is still attached.
    pub(super) fn is(&self, other: Option<&Arc<dyn Attached>>) -> bool {
        let attached = sync::read(&self.attached);
        // Without the vtables, which may differ for one object.
        attached.as_ref().map(Arc::as_ptr).map(<*const _>::cast::<()>)
            == other.map(Arc::as_ptr).map(<*const _>::cast)
    }

    pub(super) fn get(&self) -> Option<Arc<dyn Attached>> {
        sync::read(&self.attached).clone()
    }
}
