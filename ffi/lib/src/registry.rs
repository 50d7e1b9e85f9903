//! The nodes of this process, by handle.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::Duration;

use peersock::{IdentitySource, Node, NodeBuilder};
use peersock_attach::ProgramNode;
use peersock_bsd::{Client, Socket};

use crate::events::Callback;
use crate::result::{Answer, Failure, PEERSOCK_E_EXISTS};

/// Handle of a node: 0 is the default node of the process; `peersock_start()` returns others. Handles are
/// never reused.
pub type peersock_node = u32;

/// Default node of the process. The first call that needs it starts it with the default settings, unless
/// `peersock_start()` has started it before.
pub const PEERSOCK_DEFAULT: peersock_node = 0;

/// Time for which a forked child tries to take a lock, milliseconds.
const CHILD_TRIES: u32 = 100;

static NODES: RwLock<BTreeMap<peersock_node, Arc<Running>>> = RwLock::new(BTreeMap::new());
/// Held while a node starts.
static STARTING: Mutex<()> = Mutex::new(());
/// The process that used this first; any other process is its child.
static PROCESS: OnceLock<u32> = OnceLock::new();
static LAST: AtomicU32 = AtomicU32::new(0);
/// Set once the default node was stopped, so that it does not start by itself again.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// A running node.
pub(crate) struct Running {
    pub(crate) node: ProgramNode,
    pub(crate) client: Arc<Client>,
    pub(crate) callback: Mutex<Option<Callback>>,
}

impl Running {
    fn start(settings: NodeBuilder) -> Answer<Arc<Running>> {
        let node = ProgramNode::start_with_unseen_calls(settings)?;
        let client = Client::new(node.tag(), node.token());
        Ok(Arc::new(Running { node, client, callback: Mutex::default() }))
    }
}

/// Returns the default settings.
pub(crate) fn defaults() -> NodeBuilder {
    Node::builder().identity(IdentitySource::Default)
}

/// Returns the node with this handle. Starts the default node if needed.
pub(crate) fn find(handle: peersock_node) -> Answer<Arc<Running>> {
    match known(handle)? {
        Some(running) if running.node.is_lost() => return Err(Failure::down()),
        Some(running) => return Ok(running),
        None => {}
    }
    if handle != PEERSOCK_DEFAULT || STOPPED.load(Ordering::SeqCst) {
        return Err(Failure::down());
    }
    let _starting = attempt(|| STARTING.try_lock())?;
    match known(handle)? {
        Some(node) => Ok(node),
        None => insert(handle, defaults()),
    }
}

/// Starts the default node.
pub(crate) fn start_default(settings: NodeBuilder) -> Answer {
    let _starting = attempt(|| STARTING.try_lock())?;
    // A node of a parent process does not count, and neither does a shared one that has ended.
    if known(PEERSOCK_DEFAULT)?.is_some_and(|running| running.node.is_here() && !running.node.is_lost()) {
        return Err(Failure::new(PEERSOCK_E_EXISTS, "the default node runs already"));
    }
    insert(PEERSOCK_DEFAULT, settings)?;
    STOPPED.store(false, Ordering::SeqCst);
    Ok(())
}

/// Starts one more node.
pub(crate) fn start(settings: NodeBuilder) -> Answer<peersock_node> {
    let handle = LAST.fetch_add(1, Ordering::SeqCst) + 1;
    insert(handle, settings)?;
    Ok(handle)
}

/// Removes a node, so that later calls do not find it.
pub(crate) fn take(handle: peersock_node) -> Answer<Arc<Running>> {
    let mut nodes = nodes_mut()?;
    let node = nodes.remove(&handle).ok_or_else(Failure::down)?;
    if handle == PEERSOCK_DEFAULT {
        STOPPED.store(true, Ordering::SeqCst);
    }
    Ok(node)
}

/// Returns the node that has a socket.
pub(crate) fn node_of(socket: &Socket<'_>) -> Answer<Option<Arc<Running>>> {
    Ok(nodes()?.values().find(|node| node.client.tag() == socket.tag()).cloned())
}

/// Returns a node that was started.
pub(crate) fn known(handle: peersock_node) -> Answer<Option<Arc<Running>>> {
    Ok(nodes()?.get(&handle).cloned())
}

fn insert(handle: peersock_node, settings: NodeBuilder) -> Answer<Arc<Running>> {
    let node = Running::start(settings)?;
    let replaced = nodes_mut()?.insert(handle, Arc::clone(&node));
    // Without the lock, because a node that has ended still waits for its threads.
    drop(replaced);
    Ok(node)
}

fn nodes() -> Answer<RwLockReadGuard<'static, BTreeMap<peersock_node, Arc<Running>>>> {
    attempt(|| NODES.try_read())
}

fn nodes_mut() -> Answer<RwLockWriteGuard<'static, BTreeMap<peersock_node, Arc<Running>>>> {
    attempt(|| NODES.try_write())
}

/// Takes a lock. A child that was forked while another thread held it gives up after a time.
fn attempt<G>(mut take: impl FnMut() -> Result<G, TryLockError<G>>) -> Answer<G> {
    let (first, own) = (*PROCESS.get_or_init(std::process::id), std::process::id());
    let mut tries = 0;
    loop {
        match take() {
            Ok(guard) => return Ok(guard),
            // Data behind these locks is never half modified.
            Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if own != first && tries == CHILD_TRIES => {
                return Err(Failure::down());
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
        tries += 1;
    }
}
