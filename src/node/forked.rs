//! Node in a forked child, which must leave the parent's files, undelivered data and threads alone.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::Inner;

impl Inner {
    /// Ends the copy, without effect on the parent's node.
    pub(super) fn leave_to_parent(&self) {
        self.down.store(true, Ordering::SeqCst);
        // A lock that another thread held at the fork can never be taken.
        if let Ok(mut management) = self.management.try_lock() {
            std::mem::forget(management.take());
        }
    }

    /// Keeps the drop of the copy from removing the parent's socket, and from waiting for its thread.
    pub(super) fn forget_management(&mut self) {
        let management = self.management.get_mut().unwrap_or_else(PoisonError::into_inner);
        std::mem::forget(management.take());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::state::StateDir;
    use crate::sys::process::in_child;
    use crate::{IdentitySource, Interfaces, Node};

    #[test]
    fn a_forked_child_leaves_the_node_to_its_parent() {
        let folder = tempfile::tempdir().expect("a folder");
        let start = |name: &str| {
            let state = folder.path().join(name);
            let socket = StateDir::management_socket(&state);
            let builder = Node::builder().identity(IdentitySource::StateDir(state));
            (builder.interfaces(Interfaces::Loopback).start().expect("a node"), socket)
        };
        let (node, socket) = start("a");
        assert!(in_child(|| node.shutdown(Duration::from_secs(3600)) && socket.exists()));
        assert!(socket.exists() && !node.inner.is_down());
        let (other, its_socket) = start("b");
        assert!(in_child(move || {
            drop(other);
            its_socket.exists()
        }));
        assert!(node.shutdown(Duration::ZERO) && !socket.exists());
    }
}
