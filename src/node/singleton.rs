//! The per-process node.

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use super::{Node, NodeBuilder, StartError};
use crate::sync;

static NODE: Mutex<Option<Node>> = Mutex::new(None);

/// How long the process's exit waits for what was sent to be acknowledged.
const EXIT_LINGER: Duration = Duration::from_secs(5);

/// The process's node. The first call starts it with the defaults, unless [`NodeBuilder::install`] did
/// before.
///
/// When the process returns from `main` or calls `exit`, the node waits up to five seconds for what closed
/// sockets still have to deliver.
///
/// # Errors
/// Those of [`NodeBuilder::start`], as an [`io::Error`].
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

/// The process's node if there is one already: nothing is started.
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

/// Statics are not dropped, so the exit handler shuts the node down.
extern "C" fn drain() {
    let node = match NODE.try_lock() {
        Ok(mut slot) => slot.take(),
        Err(_) => None,
    };
    if let Some(node) = node {
        node.shutdown(EXIT_LINGER);
    }
}
