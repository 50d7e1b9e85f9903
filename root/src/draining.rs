//! Shutdown of a root: it notifies its nodes, they go elsewhere, and only then it stops.

use std::time::{Duration, Instant};

use peersock_overlay::wire::{Channel, Control, NoticeCode, RootMessage};

use crate::Root;
use crate::budget::Nanos;
use crate::clients::Slot;

/// Progress of the notifications.
#[derive(Debug)]
pub(crate) struct Draining {
    /// Kind of the notification.
    what: What,
    /// Next slot, and when; `None` once all nodes were notified.
    next: Option<(usize, Nanos)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Drains,
    Close,
}

/// Number of nodes notified at once, and the interval between batches: 25,600 nodes a second.
const BATCH: usize = 256;
const STEP_INTERVAL: Duration = Duration::from_millis(10);

impl Draining {
    /// Returns the time at which the next nodes are notified.
    pub(crate) fn next(&self) -> Option<Nanos> {
        self.next.map(|(_, at)| at)
    }
}

impl Root {
    /// Begins to drain, because the root will end soon: it notifies all nodes, registers no new ones, and
    /// keeps serving the others.
    pub fn drain(&mut self, now: Instant) {
        if self.draining.is_none() {
            self.begin(now, What::Drains);
        }
    }

    /// Closes the root: it says goodbye to all reachable nodes. The driver sends that and stops.
    pub fn close(&mut self, now: Instant) {
        self.begin(now, What::Close);
    }

    /// Returns true if all nodes have been notified, after [`Self::drain`] or [`Self::close`].
    pub fn has_told_all(&self) -> bool {
        self.draining.as_ref().is_some_and(|draining| draining.next.is_none())
    }

    fn begin(&mut self, now: Instant, what: What) {
        self.draining = Some(Draining { what, next: Some((0, self.nanos(now))) });
        self.drain_some(now);
    }

    pub(crate) fn drain_some(&mut self, now: Instant) {
        let at = self.nanos(now);
        let Some(Draining { what, next: Some((mut from, due)) }) = self.draining else { return };
        // Called by every timeout, of which most are due to other timers.
        if at < due {
            return;
        }
        for _ in 0..BATCH {
            let Some((next, slot)) = self.clients.next_from(from) else {
                self.draining = Some(Draining { what, next: None });
                return;
            };
            from = next;
            match what {
                What::Drains => {
                    self.tell(slot, &RootMessage::Notice { code: NoticeCode::Drains, channel: Channel(0) })
                }
                What::Close => self.say_goodbye(slot),
            }
        }
        self.draining = Some(Draining { what, next: Some((from, at + STEP_INTERVAL.as_nanos() as Nanos)) });
    }

    /// Says goodbye to the node, and removes it from the shared directory.
    fn say_goodbye(&mut self, slot: Slot) {
        let Some(client) = self.clients.get(slot) else { return };
        let (id, path, is_registered) = (client.id, client.path(), client.registered.is_some());
        if let Some(path) = path {
            self.answer(slot, path, Control::Close { reason: 0 });
        }
        if is_registered {
            self.tell_gone(&id);
        }
    }
}
