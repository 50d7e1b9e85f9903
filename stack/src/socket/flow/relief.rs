//! Memory that a connection releases while memory is short.

use std::time::Instant;

use super::{Flow, Inner};
use crate::host::clock::after;
use crate::tcp::LEAST_BUFFER;
use crate::{Error, State};

impl Flow {
    /// Drops out-of-order data if memory is short for this flow's peer. The connection is reset and its data
    /// dropped if the application has not read available data for
    /// [`Config::user_timeout`](crate::Config::user_timeout). Returns `true` after a reset.
    ///
    /// A flow in TIME-WAIT is left alone, because it will be among the [ended](Self::note_ended) ones.
    pub(crate) fn relieve(&self, now: Instant) -> bool {
        let (mut inner, time) = self.lock_at(now);
        if inner.time_wait.is_some() {
            return false;
        }
        let patience = inner.user_timeout().unwrap_or(self.shared.config.user_timeout);
        let Some(connection) = inner.connection.as_mut().filter(|one| one.lacks_memory()) else {
            return false;
        };
        if connection.prune() {
            self.shared.counters.tcp_memory_pruned.increment();
        }
        if connection.unread_since().is_none_or(|since| after(since, patience) > time) {
            return false;
        }
        inner.discard();
        self.shared.counters.tcp_memory_resets.increment();
        self.reset(&mut inner);
        // The reader must learn that its data is incomplete, even if the peer's FIN has come.
        inner.ended = false;
        inner.error = Some(Error::OutOfMemory);
        self.refresh(&mut inner, time);
        true
    }

    /// Lists an ended connection with unread data, so that the data can be dropped while memory is short.
    pub(super) fn note_ended(&self, inner: &mut Inner) {
        if let Some(connection) = &mut inner.connection {
            // Out-of-order data is dropped at once, because the gap will never be filled.
            connection.prune();
        }
        if !inner.orphaned && inner.readable() > 0 {
            self.shared.ended.push(self.this.clone());
        }
    }

    /// Returns true if the connection has ended with unread data.
    pub(crate) fn is_left_to_read(&self) -> bool {
        let inner = self.lock();
        !inner.linked && inner.readable() > 0
    }

    /// Lists a connection closed by the application with undelivered data, so that it can give way when
    /// memory is nearly full. Less than the guaranteed buffer is not worth it.
    pub(super) fn note_orphan(&self, inner: &mut Inner) {
        if inner.live().is_some_and(|connection| connection.unacked() > LEAST_BUFFER) {
            self.shared.orphans.push(self.this.clone());
        }
    }

    /// Resets a connection closed by the application and drops its undelivered data, if memory is nearly full
    /// for its peer.
    pub(crate) fn give_way(&self, now: Instant) -> Orphan {
        let (mut inner, time) = self.lock_at(now);
        let Some(connection) = inner.live().filter(|connection| connection.unacked() > LEAST_BUFFER) else {
            return Orphan::Done;
        };
        if connection.state() == State::Closed {
            return Orphan::Done;
        }
        if !connection.wants_memory() {
            return Orphan::Stays;
        }
        // A peer that takes a byte now and then could otherwise keep the queue for ever.
        inner.lose_to_shortage();
        // Not by `reset`, because the shortage, not the application, causes the loss.
        let is_read = inner.is_read();
        if let Some(connection) = inner.live() {
            connection.abort(is_read);
            connection.give_up_queue();
        }
        self.shared.counters.tcp_memory_orphans.increment();
        self.shared.counters.tcp_resets_sent.increment();
        self.refresh(&mut inner, time);
        Orphan::GivesWay
    }
}

/// Result for a connection closed by its application, while memory is nearly full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Orphan {
    /// Little or nothing is left to deliver.
    Done,
    /// Memory of its peer is sufficient.
    Stays,
    /// The connection gives way and has a reset to send.
    GivesWay,
}
