//! What entities are looked at for: news from the kernel, and wakers for those from the data path.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Wake, Waker};
use std::thread::ThreadId;

use peersock::attach::{EventFlags, NodeHandle, WeakNodeHandle};
use peersock_primitives::sync;

/// Names one thing that a server has to do with.
pub(crate) type Key = u64;

/// Why an entry is looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Readiness {
    /// Its descriptor can be read from.
    pub(crate) readable: bool,
    /// Its descriptor can be written to.
    pub(crate) writable: bool,
    /// Its descriptor's other end sends no more.
    pub(crate) ended: bool,
    /// Its descriptor's other end is closed.
    pub(crate) hung_up: bool,
    /// Among what can be read is an urgent byte.
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

/// The sockets that were told of news and not looked at since.
pub(crate) struct ReadyQueue {
    keys: Mutex<Vec<Key>>,
    node: WeakNodeHandle,
    /// The thread that works the queue off, once it has begun.
    worker: OnceLock<ThreadId>,
}

impl ReadyQueue {
    pub(crate) fn new(node: &NodeHandle) -> Arc<Self> {
        Arc::new(Self { keys: Mutex::default(), node: node.downgrade(), worker: OnceLock::new() })
    }

    /// A waker that puts `key` into the queue, at most once until it is taken out.
    pub(crate) fn waker(self: &Arc<Self>, key: Key) -> (Waker, Arc<Entry>) {
        let entry = Arc::new(Entry { key, queued: AtomicBool::new(false), queue: Arc::clone(self) });
        (Waker::from(Arc::clone(&entry)), entry)
    }

    /// Takes out everything.
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
        // The worker looks before it sleeps.
        if first
            && self.worker.get() != Some(&std::thread::current().id())
            && let Some(node) = self.node.upgrade()
        {
            node.kick();
        }
    }
}

/// What a waker of a [`ReadyQueue`] is.
pub(crate) struct Entry {
    key: Key,
    queued: AtomicBool,
    queue: Arc<ReadyQueue>,
}

impl Entry {
    /// Whoever handles the key says so first: what happens from then on puts it into the queue again.
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
