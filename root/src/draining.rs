//! The end of a root: nodes are told, go elsewhere, and only then it stops.

use std::time::{Duration, Instant};

use peersock_overlay::wire::{Channel, Control, NoticeCode, RootMessage};

use crate::Root;
use crate::budget::Nanos;
use crate::clients::Slot;

/// How far the telling has come.
#[derive(Debug)]
pub(crate) struct Draining {
    /// What is told.
    what: What,
    /// The next slot to look at, and when; nothing if all have been told.
    next: Option<(usize, Nanos)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Drains,
    Close,
}

/// So many nodes are told at once, and how long after the next ones are: 25,600 nodes a second.
const BATCH: usize = 256;
const INTERVAL: Duration = Duration::from_millis(10);

impl Draining {
    /// When the next nodes are to be told.
    pub(crate) fn next(&self) -> Option<Nanos> {
        self.next.map(|(_, at)| at)
    }
}

impl Root {
    /// The root will end soon: it tells all nodes, registers no new ones, and goes on with what there is.
    pub fn drain(&mut self, now: Instant) {
        if self.draining.is_none() {
            self.begin(now, What::Drains);
        }
    }

    /// The root ends now: it tells all nodes, as far as they are there. The driver sends that and stops.
    pub fn close(&mut self, now: Instant) {
        self.begin(now, What::Close);
    }

    /// Whether all nodes have been told, after [`Self::drain`] or [`Self::close`].
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
        self.draining = Some(Draining { what, next: Some((from, at + INTERVAL.as_nanos() as Nanos)) });
    }

    /// Tells the node, and other roots that it is not to be found here any more.
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
