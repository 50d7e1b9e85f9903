//! Relief while TCP's memory is short, see [`Config::tcp_memory`](crate::Config::tcp_memory).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::host::clock::Time;
use crate::socket::flow::Orphan;
use crate::{Batch, Stack};

/// Maximum number of ended connections examined per turn.
const ENDED_PER_TURN: usize = 4096;

impl Stack {
    /// Examines a part of the flows while memory is short.
    pub(super) fn relieve_memory(&self, now: Instant, time: Time, batch: &mut Batch) {
        if !self.shared.memory.begin_relief(time) {
            return;
        }
        let turn = self.shared.relieved.fetch_add(1, Ordering::Relaxed);
        for flow in self.shared.flows.part(turn) {
            if flow.relieve(now) {
                batch.touch_flow(&self.shared.rounds, flow);
            }
        }
        self.relieve_ended(now, batch);
        self.relieve_of_orphans(now, batch);
    }

    /// Resets connections closed by their applications when memory is nearly full, as Linux does
    /// (`tcp_out_of_memory`). The oldest come first, and no more than necessary.
    fn relieve_of_orphans(&self, now: Instant, batch: &mut Batch) {
        let memory = &self.shared.memory;
        if !memory.can_be_nearly_full() {
            return;
        }
        // The list is emptied first, because no flow may be locked while the list is.
        let mut left = self.shared.orphans.take(usize::MAX);
        left.retain(|flow| {
            if !memory.can_be_nearly_full() {
                return true;
            }
            let orphan = flow.give_way(now);
            if orphan == Orphan::GivesWay {
                batch.touch_flow(&self.shared.rounds, flow.clone());
            }
            orphan == Orphan::Stays
        });
        self.shared.orphans.give_back(&left);
    }

    /// Examines ended connections with unread data.
    fn relieve_ended(&self, now: Instant, batch: &mut Batch) {
        // They are in no table and would keep their data for ever, so peers could exhaust memory with them.
        for flow in self.shared.ended.take(ENDED_PER_TURN) {
            if flow.relieve(now) {
                batch.touch_flow(&self.shared.rounds, flow);
            } else if flow.is_left_to_read() {
                self.shared.ended.push(Arc::downgrade(&flow));
            }
        }
    }
}
