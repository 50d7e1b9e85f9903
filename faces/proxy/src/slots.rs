//! How many connections are served at once: so many of all clients, fewer of those that are elsewhere, and
//! fewer of one of these.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use peersock_primitives::admission::{Admission, Permit, Places};

use crate::owner::Owner;

/// The standing of a connection whose client may not have shown yet that it may use the server.
pub type Standing = peersock_primitives::admission::Standing<Owner>;

/// Room for connections, or for flows of datagrams.
#[derive(Debug, Clone)]
pub struct Slots {
    admission: Admission<Owner>,
    held: Arc<Held>,
}

/// The number of slots that are held, those that have lost their place among them.
#[derive(Debug, Default)]
struct Held {
    count: Mutex<usize>,
    changed: Condvar,
}

/// One connection's place, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    permit: Permit<Owner>,
    held: Arc<Held>,
}

impl Slots {
    /// `most` in all; half of them of one client that is not on this machine.
    pub fn new(most: usize) -> Slots {
        Slots::with(most, most)
    }

    /// The same, but the last eighth is kept for programs of this machine, which however many clients
    /// elsewhere do not shut out.
    pub fn with_reserve(most: usize) -> Slots {
        Slots::with(most, most - most / 8)
    }

    fn with(all: usize, of_sources: usize) -> Slots {
        let places = Places { all, of_sources, of_one: all.div_ceil(2), unproven: all };
        Slots { admission: Admission::new(places), held: Arc::default() }
    }

    /// Returns a place that is kept, for a client, who is nobody's if it is on this machine; `None` if there
    /// is none left.
    pub fn take(&self, client: Option<Owner>) -> Option<Slot> {
        self.take_unproven(client).filter(|slot| slot.standing().prove())
    }

    /// The same, but the place is lost to whoever comes next while all are taken, until the client has proven
    /// that it may use the server: see [`Standing`].
    pub fn take_unproven(&self, client: Option<Owner>) -> Option<Slot> {
        let permit = self.admission.admit(client).ok()?;
        *self.held.lock() += 1;
        Some(Slot { permit, held: Arc::clone(&self.held) })
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        *self.held.lock()
    }

    /// Waits until none is taken; returns how many still are.
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
