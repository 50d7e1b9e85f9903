//! Roots of a shared node: each is used while a program names it. A node that waits for another program keeps
//! the ones of the last.

use peersock::{Node, RootSource};

/// The named roots, with the number of their users.
#[derive(Default)]
pub(super) struct Roots(Vec<(RootSource, usize)>);

impl Roots {
    /// Adds a program's roots. Returns false if a node uses fewer.
    pub(super) fn enter(&mut self, node: &Node, roots: &[RootSource]) -> bool {
        for root in roots {
            match self.0.iter_mut().find(|(known, _)| known == root) {
                Some((_, users)) => *users += 1,
                None => self.0.push((root.clone(), 1)),
            }
        }
        // First, because a node uses few.
        self.leave_unused(node);
        node.add_roots(roots.iter().cloned())
    }

    /// Removes a program's roots that no other program names, unless they are kept for the next one.
    pub(super) fn leave(&mut self, node: &Node, roots: &[RootSource], are_kept: bool) {
        for root in roots {
            if let Some((_, users)) = self.0.iter_mut().find(|(known, _)| known == root) {
                *users -= 1;
            }
        }
        if !are_kept {
            self.leave_unused(node);
        }
    }

    /// Removes the roots that no program names.
    fn leave_unused(&mut self, node: &Node) {
        let unused: Vec<_> = self.0.extract_if(.., |(_, users)| *users == 0).map(|(root, _)| root).collect();
        node.remove_roots(&unused);
    }
}
