//! Place where a node receives: the destination of its session's response, and then any place from which it
//! answers a challenge (RFC 9000, section 8.2).

use std::time::Instant;

use peersock_overlay::SessionIndex;
use peersock_overlay::wire::Control;

use crate::budget::Nanos;
use crate::clients::Slot;
use crate::{Root, Source};

/// Challenge that a node has not answered yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outstanding {
    source: Source,
    data: [u8; 8],
    first: Nanos,
    last: Nanos,
}

/// Time in which an answer counts.
const ANSWER_TIMEOUT: Nanos = 20_000_000_000;
/// Minimum interval between repetitions of a challenge.
const MIN_REPEAT_INTERVAL: Nanos = 250_000_000;
/// Time after which a challenge to one place gives way to one to another place.
const PLACE_HOLD_TIME: Nanos = 1_000_000_000;

/// Silence at its place after which a node may be elsewhere.
const SILENT_FOR: Nanos = 20_000_000_000;

impl Root {
    /// Confirms a session at its first use: the node has the keys, and receives at the response's
    /// destination. Returns `None` if there is no room for it.
    pub(crate) fn confirm(&mut self, at: Nanos, slot: Slot, index: SessionIndex) -> Option<()> {
        let client = self.clients.get_mut(slot)?;
        let found = client.pending.iter().position(|pending| pending.session.index == index)?;
        let confirmed = client.pending.swap_remove(found);
        // A registered node counts already, although its stream may have ended.
        let is_new = !client.is_node();
        let mut gone = Vec::new();
        if is_new && !self.make_room(at, &confirmed.source) {
            self.counters.nodes_refused.increment();
            self.forget(slot);
            return None;
        }
        let client = self.clients.get_mut(slot)?;
        // The other answers are obsolete once the node uses one of them.
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

    /// Makes room for a new node; returns false if no node can be evicted.
    fn make_room(&mut self, at: Nanos, source: &Source) -> bool {
        let room = &self.clients.room;
        let Some(share) = room.full(source.ip(), &self.config.limits) else { return true };
        let Some(gives_way) = room.first(share, at) else { return false };
        self.counters.nodes_gave_way.increment();
        self.forget(gives_way);
        true
    }

    /// Sets the node's place. Another node at that place loses it.
    fn arrive(&mut self, slot: Slot, source: Source) {
        if let Some(before) = self.clients.set_path(slot, source) {
            self.let_go(before);
        }
    }

    /// Returns true if the node is heard at another place, and no longer at its own, where it would send
    /// something every 25 seconds.
    pub(crate) fn seems_moved(&self, now: Instant, source: Source, slot: Slot) -> bool {
        let at = self.nanos(now);
        self.clients.get(slot).is_some_and(|client| {
            client.path() != Some(source) && at >= client.heard_at_path.saturating_add(SILENT_FOR)
        })
    }

    /// Challenges the node to show that it receives there. The datagram from there pays for the challenge.
    pub(crate) fn challenge(&mut self, now: Instant, source: Source, slot: Slot) {
        // Random data, so that only a receiver at that place can answer.
        let (at, Some(fresh)) = (self.nanos(now), self.random()) else { return };
        let Some(client) = self.clients.get_mut(slot) else { return };
        let open = client.challenge.as_deref().filter(|open| at < open.first.saturating_add(ANSWER_TIMEOUT));
        let asked = match open {
            Some(open) if open.source == source => {
                if at < open.last.saturating_add(MIN_REPEAT_INTERVAL) {
                    return;
                }
                // A repetition keeps the data, so that an answer to either copy counts.
                Outstanding { last: at, ..*open }
            }
            Some(open) if at < open.last.saturating_add(PLACE_HOLD_TIME) => return,
            _ => Outstanding { source, data: fresh, first: at, last: at },
        };
        if self.answer(slot, source, Control::Challenge { data: asked.data, here: false }) {
            self.counters.challenges_sent.increment();
            if let Some(client) = self.clients.get_mut(slot) {
                client.challenge = Some(Box::new(asked));
            }
        }
    }

    /// Handles the answer to a challenge from `source`.
    pub(crate) fn on_answer(&mut self, now: Instant, source: Source, slot: Slot, data: [u8; 8]) {
        let at = self.nanos(now);
        let Some(client) = self.clients.get_mut(slot) else { return };
        let is_right = |open: &mut Box<Outstanding>| {
            open.source == source && open.data == data && at < open.first.saturating_add(ANSWER_TIMEOUT)
        };
        if client.challenge.take_if(is_right).is_none() {
            return self.counters.answers_wrong.increment();
        }
        client.heard_at_path = at;
        tracing::debug!(node = %client.id, to = %source, "a node has moved");
        self.arrive(slot, source);
        self.counters.paths_moved.increment();
        // Its voucher is for the old address.
        self.tell_registered(now, slot);
    }
}
