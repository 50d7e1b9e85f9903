//! Singleton node of the process.

use std::io;
use std::sync::Mutex;
use std::time::Instant;

use super::{Linger, Node, NodeBuilder, Patience, StartError, say_loss};
use crate::sync;

static NODE: Mutex<Option<Node>> = Mutex::new(None);

/// Returns the process's node. The first call starts it with the defaults, unless [`NodeBuilder::install`]
/// did before.
///
/// When the process returns from `main`, or calls [`exit`](std::process::exit) or `quick_exit(3)`, the node
/// delivers written data as long as peers take it. A peer that takes nothing has 30 seconds, a silent one ten
/// and a round trip, and all together have ten minutes. A loss is then reported on stderr; the exit status
/// stays. Call [`Node::shutdown`] before to wait otherwise, and to get the result. A process that is killed,
/// calls `_exit(2)`, or executes another program in its place
/// ([`exec`](std::os::unix::process::CommandExt::exec)) delivers nothing more, and its peers see a reset.
///
/// # Errors
/// Returns the errors of [`NodeBuilder::start`], as an [`io::Error`].
///
/// ```no_run
/// let node = peersock::node()?;
/// println!("{}", node.id());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn node() -> io::Result<Node> {
    let mut slot = sync::lock(&NODE);
    match &*slot {
        Some(node) => Ok(node.clone()),
        None => Ok(fill(&mut slot, Node::builder())?),
    }
}

/// Returns the process's node if it exists; does not start one.
///
/// ```standalone_crate
/// use peersock::{IdentitySource, Interfaces, Node, current_node};
///
/// assert!(current_node().is_none());
/// let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
/// let node = builder.install()?;
/// assert_eq!(current_node().map(|node| node.id()), Some(node.id()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn current_node() -> Option<Node> {
    sync::lock(&NODE).clone()
}

pub(super) fn install(builder: NodeBuilder) -> Result<Node, StartError> {
    let mut slot = sync::lock(&NODE);
    match &*slot {
        Some(_) => Err(StartError::AlreadyInstalled),
        None => fill(&mut slot, builder),
    }
}

fn fill(slot: &mut Option<Node>, builder: NodeBuilder) -> Result<Node, StartError> {
    let node = builder.start()?;
    crate::sys::process::at_exit(drain);
    Ok(slot.insert(node).clone())
}

/// Shuts the node down in the exit handler, because statics are not dropped.
extern "C" fn drain() {
    // Another thread may hold the lock for ever, because exit(3) stops no thread.
    let node = match NODE.try_lock() {
        Ok(mut slot) => slot.take(),
        Err(_) => None,
    };
    let Some(node) = node else { return };
    if node.inner.process.is_forked() {
        // The node belongs to the parent process.
        return std::mem::forget(node);
    }
    // The caller of an earlier shutdown already got the result.
    let was_up = !node.inner.is_down();
    if !node.inner.shutdown(&mut Patience::new(Linger::Exit, Instant::now())) && was_up {
        say_loss(node.inner.lost().bytes);
    }
}
