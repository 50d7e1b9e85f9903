//! How many connections are served at once: so many of all clients, fewer of those that are elsewhere, and
//! fewer of one of these.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use crate::owner::Owner;

/// Room for connections, or for flows of datagrams.
#[derive(Debug, Clone)]
pub struct Slots(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    most_elsewhere: usize,
    most_of_one: usize,
    taken: Mutex<Taken>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    elsewhere: usize,
    /// Of each client that is not on this machine.
    of: HashMap<Owner, usize>,
}

/// One connection's place, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Slots,
    client: Option<Owner>,
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

    fn with(most: usize, most_elsewhere: usize) -> Slots {
        let most_of_one = most.div_ceil(2);
        let (taken, changed) = (Mutex::default(), Condvar::new());
        Slots(Arc::new(Shared { most, most_elsewhere, most_of_one, taken, changed }))
    }

    /// Returns a place for a client, who is nobody's if it is on this machine; `None` if there is none left.
    pub fn take(&self, client: Option<Owner>) -> Option<Slot> {
        let mut taken = self.lock();
        let own = client.map_or(0, |client| taken.of.get(&client).copied().unwrap_or(0));
        let is_kept = client.is_some() && taken.elsewhere >= self.0.most_elsewhere;
        if taken.all >= self.0.most || own >= self.0.most_of_one || is_kept {
            return None;
        }
        taken.all += 1;
        if let Some(client) = client {
            taken.elsewhere += 1;
            taken.of.insert(client, own + 1);
        }
        Some(Slot { slots: self.clone(), client })
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.lock().all
    }

    /// Waits until none is taken; returns how many still are.
    pub(crate) fn wait_empty(&self, until: Instant) -> usize {
        let left = until.saturating_duration_since(Instant::now());
        let is_busy = |taken: &mut Taken| taken.all > 0;
        let waited = self.0.changed.wait_timeout_while(self.lock(), left, is_busy);
        waited.expect("no panic under this lock").0.all
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().expect("no panic under this lock")
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        taken.all -= 1;
        if let Some(client) = self.client
            && let Some(own) = taken.of.get_mut(&client)
        {
            *own -= 1;
            if *own == 0 {
                taken.of.remove(&client);
            }
            taken.elsewhere -= 1;
        }
        self.slots.0.changed.notify_all();
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
        assert!(slots.lock().of.is_empty());
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
    fn clients_of_this_machine_share_all() {
        let slots = Slots::new(4);
        let held: Vec<_> = (0..4).map(|_| slots.take(None).expect("there is room")).collect();
        assert!(slots.take(None).is_none());
        drop(held);
    }
}
