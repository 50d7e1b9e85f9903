//! Limits of simultaneous connections: in total, of clients on other machines, and of each such client.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use peersock_primitives::admission::{Admission, Permit, Places};

use crate::owner::Owner;

/// The standing of a connection whose client may not have proven yet that it may use the server.
pub type Standing = peersock_primitives::admission::Standing<Owner>;

/// Places for connections, or for flows of datagrams.
#[derive(Debug, Clone)]
pub struct Slots {
    admission: Admission<Owner>,
    held: Arc<Held>,
}

/// Number of slots held, including those that have lost their place.
#[derive(Debug, Default)]
struct Held {
    count: Mutex<usize>,
    changed: Condvar,
}

/// The place of one connection, until dropped.
#[derive(Debug)]
pub struct Slot {
    permit: Permit<Owner>,
    held: Arc<Held>,
}

impl Slots {
    /// Makes `most` places in total; one client on another machine gets half of them.
    pub fn new(most: usize) -> Slots {
        Slots::with(most, most)
    }

    /// Makes places as [`Slots::new`] does, but reserves the last eighth for programs of this machine, so
    /// that clients on other machines cannot exclude these.
    pub fn with_reserve(most: usize) -> Slots {
        Slots::with(most, most - most / 8)
    }

    fn with(all: usize, of_sources: usize) -> Slots {
        let places = Places { all, of_sources, of_one: all.div_ceil(2), unproven: all };
        Slots { admission: Admission::new(places), held: Arc::default() }
    }

    /// Takes a permanent place for a client; `client` is `None` for a program of this machine. Returns `None`
    /// if no place is left.
    pub fn take(&self, client: Option<Owner>) -> Option<Slot> {
        self.take_unproven(client).filter(|slot| slot.standing().prove())
    }

    /// Takes a place that a new client can take over while all are taken, until this client has proven that
    /// it may use the server: see [`Standing`].
    pub fn take_unproven(&self, client: Option<Owner>) -> Option<Slot> {
        let permit = self.admission.admit(client).ok()?;
        *self.held.lock() += 1;
        Some(Slot { permit, held: Arc::clone(&self.held) })
    }

    /// Returns the number of places taken.
    pub fn taken(&self) -> usize {
        *self.held.lock()
    }

    /// Waits until no place is taken. Returns the number still taken.
    pub(crate) fn wait_empty(&self, until: Instant) -> usize {
        let left = until.saturating_duration_since(Instant::now());
        let is_busy = |count: &mut usize| *count > 0;
        let waited = self.held.changed.wait_timeout_while(self.held.lock(), left, is_busy);
        *waited.expect("no panic under this lock").0
    }
}

impl Slot {
    /// Returns the standing of the place.
    pub fn standing(&self) -> &Standing {
        self.permit.standing()
    }
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.count.lock().expect("no panic under this lock")
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.held.lock() -= 1;
        self.held.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_elsewhere_leaves_room_for_others() {
        let slots = Slots::new(4);
        let [one, other] = ["fd00::1", "fd00::2"].map(|text| Owner::Address(text.parse().unwrap()));
        let held = [slots.take(Some(one)), slots.take(Some(one))];
        assert!(held.iter().all(Option::is_some));
        assert!(slots.take(Some(one)).is_none());
        let others = [slots.take(Some(other)), slots.take(None)];
        assert!(others.iter().all(Option::is_some));
        assert!(slots.take(None).is_none(), "all are taken");
        drop(held);
        assert_eq!(slots.taken(), 2);
        assert!(slots.take(Some(one)).is_some());
        drop(others);
        assert_eq!(slots.wait_empty(Instant::now()), 0);
    }

    #[test]
    fn clients_elsewhere_leave_room_for_this_machine() {
        let slots = Slots::with_reserve(16);
        let clients = (1..).map(|id| Some(Owner::Address([10, 0, 0, id].into())));
        let held: Vec<_> = clients.map_while(|client| slots.take(client)).collect();
        assert_eq!(held.len(), 14);
        assert!(slots.take(None).is_some());
        drop(held);
        assert!(slots.take(Some(Owner::Address([10, 0, 0, 1].into()))).is_some());
    }

    #[test]
    fn who_has_shown_nothing_makes_room() {
        let slots = Slots::with_reserve(4);
        let silent: Vec<_> = (0..4).map(|_| slots.take_unproven(None).expect("there is room")).collect();
        let user = slots.take(None).expect("the oldest makes room");
        assert!(silent[0].standing().is_evicted() && !silent[1].standing().is_evicted());
        assert_eq!(slots.taken(), 5, "who ends the program waits for all of them");
        drop(silent);
        assert!(!user.standing().is_evicted());
        assert_eq!(slots.taken(), 1);
    }

    #[test]
    fn clients_of_this_machine_share_all() {
        let slots = Slots::new(4);
        let held: Vec<_> = (0..4).map(|_| slots.take(None).expect("there is room")).collect();
        assert!(slots.take(None).is_none());
        drop(held);
    }
}
