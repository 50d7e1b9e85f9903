//! What a connection gives up while memory is short.

use std::time::Instant;

use super::{Flow, Inner};
use crate::host::clock::after;
use crate::tcp::LEAST_BUFFER;
use crate::{Error, State};

impl Flow {
    /// Memory may be short: if it is for this flow's peer, what has come out of order is dropped. If the
    /// application has not read for [`Config::user_timeout`](crate::Config::user_timeout) what it could, the
    /// connection is reset and that dropped too. `true` if it was.
    ///
    /// One in TIME-WAIT is left alone: it will be among the [ended](Self::note_ended) ones.
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
        // The reader learns that its data is not whole, even if the peer's end has come.
        inner.ended = false;
        inner.error = Some(Error::OutOfMemory);
        self.refresh(&mut inner, time);
        true
    }

    /// The connection has ended. What the application can still read of it is listed, so that it can be
    /// given up while memory is short; what has come out of order is of no use to anybody.
    pub(super) fn note_ended(&self, inner: &mut Inner) {
        if let Some(connection) = &mut inner.connection {
            connection.prune();
        }
        if !inner.orphaned && inner.readable() > 0 {
            self.shared.ended.push(self.this.clone());
        }
    }

    /// Whether it has ended, and its application can read something.
    pub(crate) fn is_left_to_read(&self) -> bool {
        let inner = self.lock();
        !inner.linked && inner.readable() > 0
    }

    /// The application has closed the connection. What is left to deliver is listed, so that it can give way
    /// when memory is nearly used up. Less than every connection may hold is not worth the while.
    pub(super) fn note_orphan(&self, inner: &mut Inner) {
        if inner.live().is_some_and(|connection| connection.unacked() > LEAST_BUFFER) {
            self.shared.orphans.push(self.this.clone());
        }
    }

    /// Resets a connection that the application has closed, and forgets what it had left to deliver, if
    /// memory is nearly used up for its peer.
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
        inner.lose_to_shortage();
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

/// What becomes of a connection that its application has closed, while memory is nearly used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Orphan {
    /// It has little or nothing left to deliver.
    Done,
    /// Its peer has memory left.
    Stays,
    /// It has a reset to send.
    GivesWay,
}
