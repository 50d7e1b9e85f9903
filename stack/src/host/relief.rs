//! What is done while TCP's memory is short, see [`Config::tcp_memory`](crate::Config::tcp_memory).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::host::clock::Time;
use crate::socket::flow::Orphan;
use crate::{Batch, Stack};

/// So many ended connections are looked at in one turn.
const ENDED_PER_TURN: usize = 4096;

impl Stack {
    /// While memory is short each call looks through a part of the flows.
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

    /// As in Linux (`tcp_out_of_memory`), what nobody waits for gives way when memory is nearly used up: the
    /// oldest first, and no more than it takes.
    fn relieve_of_orphans(&self, now: Instant, batch: &mut Batch) {
        let memory = &self.shared.memory;
        if !memory.can_be_nearly_full() {
            return;
        }
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

    /// Connections that have ended are in no table, and would keep what nobody reads for ever: peers could
    /// use up memory with them.
    fn relieve_ended(&self, now: Instant, batch: &mut Batch) {
        for flow in self.shared.ended.take(ENDED_PER_TURN) {
            if flow.relieve(now) {
                batch.touch_flow(&self.shared.rounds, flow);
            } else if flow.is_left_to_read() {
                self.shared.ended.push(Arc::downgrade(&flow));
            }
        }
    }
}
