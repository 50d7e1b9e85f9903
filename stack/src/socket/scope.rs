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
/// visible.set(&[two]);
/// assert!(!program.admits(one) && !program.admits(two), "the program has left the first one");
/// assert!(Scope::default().within(&visible).admits(two), "for sockets from now on");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// The interface that the socket is bound to: SO_BINDTODEVICE.
    device: Option<InterfaceId>,
    /// The interfaces that exist for the socket's program; `None` for all.
    visible: Option<Visible>,
    /// Those that existed for it when the socket got its scope. Others would not have been asked whether its
    /// port is free.
    first: Option<Arc<[InterfaceId]>>,
}

/// Interfaces that exist for one program, which may join others later. Clones are the same.
#[derive(Debug, Clone)]
pub struct Visible(Arc<RwLock<Arc<[InterfaceId]>>>);

impl Visible {
    /// Returns a new set of interfaces.
    pub fn new(interfaces: &[InterfaceId]) -> Visible {
        Visible(Arc::new(RwLock::new(interfaces.into())))
    }

    /// Replaces the interfaces. Open sockets lose those that are left out, and get no further ones.
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
    /// Restricts the scope to the interfaces that exist for one program now, while they do.
    #[must_use]
    pub fn within(self, visible: &Visible) -> Scope {
        Scope { visible: Some(visible.clone()), first: Some(visible.list()), ..self }
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
            && self.first.as_ref().is_none_or(|first| first.contains(&interface))
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
        Scope { device, visible: None, first: None }
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
    fn a_program_s_open_sockets_lose_interfaces_and_get_no_others() {
        let [one, two] = [1, 2].map(InterfaceId);
        let visible = Visible::new(&[one]);
        let scope = Scope::default().within(&visible);
        assert!(!scope.is_empty() && scope.admits(one) && scope.meets(&Scope::default()));
        // Another program may have its port there.
        visible.set(&[one, two]);
        assert!(scope.admits(one) && !scope.admits(two) && !scope.meets(&Scope::from(Some(two))));
        assert!(Scope::default().within(&visible).admits(two));
        visible.set(&[two]);
        assert!(!scope.admits(one) && !scope.admits(two) && !scope.meets(&Scope::default()));
        visible.set(&[]);
        assert!(scope.is_empty() && !Scope::default().is_empty());
    }
}
