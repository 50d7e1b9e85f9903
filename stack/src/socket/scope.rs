//! Interfaces that a socket uses.

use std::sync::{Arc, RwLock};

use peersock_primitives::sync;

use crate::InterfaceId;

/// Interfaces that a socket uses: all of the stack, or those of one program, or a single one.
///
/// ```
/// use peersock_stack::{InterfaceId, Scope, Visible};
///
/// let [one, two] = [InterfaceId(1), InterfaceId(2)];
/// assert!(Scope::default().admits(one), "all interfaces");
/// assert!(!Scope::from(Some(two)).admits(one), "bound to another interface");
/// let visible = Visible::new(&[one]);
/// let program = Scope::default().within(&visible);
/// assert!(program.admits(one) && !program.admits(two));
/// visible.set(&[one, two]);
/// assert!(program.admits(two));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// The interface that the socket is bound to: SO_BINDTODEVICE.
    device: Option<InterfaceId>,
    /// The interfaces that exist for the socket's program; `None` for all.
    visible: Option<Visible>,
}

/// Interfaces that exist for one program, which may join others later. Clones are the same.
#[derive(Debug, Clone)]
pub struct Visible(Arc<RwLock<Arc<[InterfaceId]>>>);

impl Visible {
    /// Returns a new set of interfaces.
    pub fn new(interfaces: &[InterfaceId]) -> Visible {
        Visible(Arc::new(RwLock::new(interfaces.into())))
    }

    /// Replaces the interfaces, also for sockets that are open.
    pub fn set(&self, interfaces: &[InterfaceId]) {
        *sync::write(&self.0) = interfaces.into();
    }

    /// Returns the interfaces.
    pub fn list(&self) -> Arc<[InterfaceId]> {
        Arc::clone(&sync::read(&self.0))
    }

    fn contains(&self, interface: InterfaceId) -> bool {
        sync::read(&self.0).contains(&interface)
    }
}

impl PartialEq for Visible {
    fn eq(&self, other: &Visible) -> bool {
        self.list() == other.list()
    }
}

impl Eq for Visible {}

impl Scope {
    /// Restricts the scope to the interfaces that exist for one program.
    #[must_use]
    pub fn within(self, visible: &Visible) -> Scope {
        Scope { visible: Some(visible.clone()), ..self }
    }

    /// Returns the interface that the socket is bound to.
    pub fn device(&self) -> Option<InterfaceId> {
        self.device
    }

    /// Returns true if the socket may use an interface.
    pub fn admits(&self, interface: InterfaceId) -> bool {
        self.device.is_none_or(|device| device == interface) && self.shows(interface)
    }

    /// Returns true if an interface exists for the socket's program.
    pub(crate) fn shows(&self, interface: InterfaceId) -> bool {
        self.visible.as_ref().is_none_or(|visible| visible.contains(interface))
    }

    /// Returns true if no interface exists for the socket's program yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.visible.as_ref().is_some_and(|visible| visible.list().is_empty())
    }

    /// Returns true if an interface may exist that both scopes admit.
    pub(crate) fn meets(&self, other: &Scope) -> bool {
        let both = |interface: &InterfaceId| self.admits(*interface) && other.admits(*interface);
        match (self.device.or(other.device), self.visible.as_ref().or(other.visible.as_ref())) {
            (Some(device), _) => both(&device),
            (None, Some(visible)) => visible.list().iter().any(both),
            (None, None) => true,
        }
    }
}

impl From<Option<InterfaceId>> for Scope {
    fn from(device: Option<InterfaceId>) -> Scope {
        Scope { device, visible: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_meet_where_both_admit_an_interface() {
        let [one, two, three] = [1, 2, 3].map(InterfaceId);
        let all = Scope::default();
        let bound = |device| Scope::from(Some(device));
        let within = |visible: &[InterfaceId]| Scope::default().within(&Visible::new(visible));
        for (first, second, meet) in [
            (all.clone(), all.clone(), true),
            (all.clone(), bound(one), true),
            (bound(one), bound(one), true),
            (bound(one), bound(two), false),
            (all.clone(), within(&[one]), true),
            (all, within(&[]), false),
            (within(&[one, two]), within(&[two, three]), true),
            (within(&[one]), within(&[two, three]), false),
            (within(&[one, two]), bound(two), true),
            (within(&[one, two]), bound(three), false),
            (bound(three).within(&Visible::new(&[one])), bound(three), false),
            (bound(one).within(&Visible::new(&[one])), within(&[one, two]), true),
        ] {
            assert_eq!(first.meets(&second), meet, "{first:?} {second:?}");
            assert_eq!(second.meets(&first), meet, "{second:?} {first:?}");
        }
    }

    #[test]
    fn a_program_s_open_sockets_follow_its_interfaces() {
        let [one, two] = [1, 2].map(InterfaceId);
        let visible = Visible::new(&[]);
        let scope = Scope::default().within(&visible);
        assert!(scope.is_empty() && !scope.admits(one) && !scope.meets(&Scope::default()));
        visible.set(&[two]);
        assert!(!scope.is_empty() && scope.admits(two) && scope.meets(&Scope::from(Some(two))));
        visible.set(&[one]);
        assert!(!scope.admits(two) && !Scope::default().is_empty());
    }
}
