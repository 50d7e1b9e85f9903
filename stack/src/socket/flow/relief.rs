//! What a connection gives up while memory is short.

use std::time::Instant;

use super::{Flow, Inner};
use crate::Error;
use crate::host::clock::after;

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
}
