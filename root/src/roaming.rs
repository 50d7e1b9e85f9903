//! Where a node receives: at the place that its session's response went to, and then wherever it answers a
//! challenge (RFC 9000, section 8.2).

use std::time::Instant;

use peersock_overlay::SessionIndex;
use peersock_overlay::wire::Control;

use crate::budget::Nanos;
use crate::clients::Slot;
use crate::{Root, Source};

/// The challenge that a node has not answered yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outstanding {
    source: Source,
    data: [u8; 8],
    first: Nanos,
    last: Nanos,
}

/// An answer counts for so long.
const VALID_FOR: Nanos = 20_000_000_000;
/// The same challenge is repeated no sooner than this.
const REPEAT_AFTER: Nanos = 250_000_000;
/// A challenge to one place makes way for one to another one after this.
const HOLD: Nanos = 1_000_000_000;

/// A node that was not heard from at its place for so long may be elsewhere.
const SILENT_FOR: Nanos = 20_000_000_000;

impl Root {
    /// A node has used a session for the first time: it has the keys, and receives where the response went.
    /// `None` if there is no room for it.
    pub(crate) fn confirm(&mut self, at: Nanos, slot: Slot, index: SessionIndex) -> Option<()> {
        let client = self.clients.get_mut(slot)?;
        let found = client.pending.iter().position(|pending| pending.session.index == index)?;
        let confirmed = client.pending.swap_remove(found);
        // A registered one counts already, though its stream may have ended.
        let is_new = !client.is_node();
        let mut gone = Vec::new();
        if is_new && !self.make_room(at, &confirmed.source) {
            self.counters.nodes_refused.increment();
            self.forget(slot);
            return None;
        }
        let client = self.clients.get_mut(slot)?;
        gone.extend(std::mem::take(&mut client.pending).iter().map(|pending| pending.session.index));
        gone.extend(client.previous.take().map(|session| session.index));
        client.previous = client.current.replace(Box::new(confirmed.session));
        if is_new {
            client.buckets.relay = self.budgets.new_relay(at);
        }
        client.heard_at_path = at;
        self.clients.free_indices(gone);
        self.arrive(slot, confirmed.source);
        self.clients.schedule(slot);
        self.counters.sessions_established.increment();
        Some(())
    }

    /// Makes room for a new node there; false if nobody gives way.
    fn make_room(&mut self, at: Nanos, source: &Source) -> bool {
        let room = &self.clients.room;
        let Some(share) = room.full(source.ip(), &self.config.limits) else { return true };
        let Some(gives_way) = room.first(share, at) else { return false };
        self.counters.nodes_gave_way.increment();
        self.forget(gives_way);
        true
    }

    /// The node receives there. Another one that did does not any more.
    fn arrive(&mut self, slot: Slot, source: Source) {
        if let Some(before) = self.clients.set_path(slot, source) {
            self.let_go(before);
        }
    }

    /// Whether the node is heard from at another place, and not at its own any more, where it would send
    /// something every 25 seconds.
    pub(crate) fn seems_moved(&self, now: Instant, source: Source, slot: Slot) -> bool {
        let at = self.nanos(now);
        self.clients.get(slot).is_some_and(|client| {
            client.path() != Some(source) && at >= client.heard_at_path.saturating_add(SILENT_FOR)
        })
    }

    /// Asks whether the node receives there. What came from there pays for the question.
    pub(crate) fn challenge(&mut self, now: Instant, source: Source, slot: Slot) {
        let (at, Some(fresh)) = (self.nanos(now), self.random()) else { return };
        let Some(client) = self.clients.get_mut(slot) else { return };
        let open = client.challenge.as_deref().filter(|open| at < open.first.saturating_add(VALID_FOR));
        let asked = match open {
            Some(open) if open.source == source => {
                if at < open.last.saturating_add(REPEAT_AFTER) {
                    return;
                }
                Outstanding { last: at, ..*open }
            }
            Some(open) if at < open.last.saturating_add(HOLD) => return,
            _ => Outstanding { source, data: fresh, first: at, last: at },
        };
        if self.answer(slot, source, Control::Challenge { data: asked.data, here: false }) {
            self.counters.challenges_sent.increment();
            if let Some(client) = self.clients.get_mut(slot) {
                client.challenge = Some(Box::new(asked));
            }
        }
    }

    /// A challenge was answered from `source`.
    pub(crate) fn on_answer(&mut self, now: Instant, source: Source, slot: Slot, data: [u8; 8]) {
        let at = self.nanos(now);
        let Some(client) = self.clients.get_mut(slot) else { return };
        let is_right = |open: &mut Box<Outstanding>| {
            open.source == source && open.data == data && at < open.first.saturating_add(VALID_FOR)
        };
        if client.challenge.take_if(is_right).is_none() {
            return self.counters.answers_wrong.increment();
        }
        client.heard_at_path = at;
        tracing::debug!(node = %client.id, to = %source, "a node has moved");
        self.arrive(slot, source);
        self.counters.paths_moved.increment();
        // The voucher that it has is for the old address.
        self.tell_registered(now, slot);
    }
}
