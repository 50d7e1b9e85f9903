//! Roots of a shared node: each is used while a program names it.

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
        node.add_roots(roots.iter().cloned())
    }

    /// Removes a program's roots that no other program names.
    pub(super) fn leave(&mut self, node: &Node, roots: &[RootSource]) {
        for root in roots {
            if let Some((_, users)) = self.0.iter_mut().find(|(known, _)| known == root) {
                *users -= 1;
            }
        }
        let unused: Vec<_> = self.0.extract_if(.., |(_, users)| *users == 0).map(|(root, _)| root).collect();
        node.remove_roots(&unused);
    }
}
