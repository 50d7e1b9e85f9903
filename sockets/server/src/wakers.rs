//! Events of entities: readiness reported by the kernel, and wakers for the data path.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Wake, Waker};
use std::thread::ThreadId;

use peersock::attach::{EventFlags, NodeHandle, WeakNodeHandle};
use peersock_primitives::sync;

/// Identifier of one entity of a server.
pub(crate) type Key = u64;

/// Events that led to an entry.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Readiness {
    /// Set if its descriptor can be read from.
    pub(crate) readable: bool,
    /// Set if its descriptor can be written to.
    pub(crate) writable: bool,
    /// Set if its descriptor's other end sends no more.
    pub(crate) ended: bool,
    /// Set if its descriptor's other end is closed.
    pub(crate) hung_up: bool,
    /// Set if the readable data contains an urgent byte.
    pub(crate) urgent: bool,
}

impl From<EventFlags> for Readiness {
    fn from(flags: EventFlags) -> Self {
        let hung_up = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        Self {
            readable: hung_up || flags.intersects(EventFlags::IN | EventFlags::RDHUP),
            ended: hung_up || flags.contains(EventFlags::RDHUP),
            writable: hung_up || flags.contains(EventFlags::OUT),
            hung_up,
            urgent: flags.contains(EventFlags::PRI),
        }
    }
}

/// Queue of the sockets that were woken and not handled since.
pub(crate) struct ReadyQueue {
    keys: Mutex<Vec<Key>>,
    node: WeakNodeHandle,
    /// The thread that processes the queue, once it has begun.
    worker: OnceLock<ThreadId>,
}

impl ReadyQueue {
    pub(crate) fn new(node: &NodeHandle) -> Arc<Self> {
        Arc::new(Self { keys: Mutex::default(), node: node.downgrade(), worker: OnceLock::new() })
    }

    /// Returns a waker that queues `key`, at most once until the key is taken.
    pub(crate) fn waker(self: &Arc<Self>, key: Key) -> (Waker, Arc<Entry>) {
        let entry = Arc::new(Entry { key, queued: AtomicBool::new(false), queue: Arc::clone(self) });
        (Waker::from(Arc::clone(&entry)), entry)
    }

    /// Takes all keys.
    pub(crate) fn take(&self, keys: &mut Vec<Key>) {
        self.worker.get_or_init(|| std::thread::current().id());
        std::mem::swap(&mut *sync::lock(&self.keys), keys);
    }

    pub(crate) fn is_empty(&self) -> bool {
        sync::lock(&self.keys).is_empty()
    }

    fn push(&self, key: Key) {
        let first = {
            let mut keys = sync::lock(&self.keys);
            keys.push(key);
            keys.len() == 1
        };
        // The worker checks the queue before it sleeps.
        if first
            && self.worker.get() != Some(&std::thread::current().id())
            && let Some(node) = self.node.upgrade()
        {
            node.kick();
        }
    }
}

/// Target of a waker of a [`ReadyQueue`].
pub(crate) struct Entry {
    key: Key,
    queued: AtomicBool,
    queue: Arc<ReadyQueue>,
}

impl Entry {
    /// Marks the start of handling; later wakes queue the key again.
    pub(crate) fn begin(&self) {
        self.queued.store(false, Ordering::SeqCst);
    }
}

impl Wake for Entry {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::SeqCst) {
            self.queue.push(self.key);
        }
    }
}
