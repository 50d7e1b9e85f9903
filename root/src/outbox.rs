//! Queue of outgoing datagrams, and the credit of the datagram that is being answered.

use std::collections::VecDeque;

use crate::{Counters, Source};

/// Limit of queued datagrams. Only a driver that does not drain them after each call reaches it.
const MAX_QUEUED: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<(Source, Vec<u8>)>,
    /// Source of the current datagram, and how many of its bytes are not yet used for answers.
    credit: Option<(Source, usize)>,
}

impl Outbox {
    /// Begins to handle a datagram: at most `len` bytes may go back to its source.
    pub(crate) fn begin(&mut self, source: Source, len: usize) {
        self.credit = Some((source, len));
    }

    /// Ends the handling of the datagram; its remaining credit expires.
    pub(crate) fn end(&mut self) {
        self.credit = None;
    }

    /// Sends to a place that has shown that it receives.
    pub(crate) fn send(&mut self, counters: &Counters, to: Source, datagram: Vec<u8>) {
        if self.queue.len() >= MAX_QUEUED {
            return counters.transmits_dropped.increment();
        }
        self.queue.push_back((to, datagram));
    }

    /// Sends to an unproven place, which gets no more bytes than just came from there.
    pub(crate) fn answer(&mut self, counters: &Counters, to: Source, datagram: Vec<u8>) -> bool {
        let paid = self.credit.as_mut().filter(|(source, left)| *source == to && *left >= datagram.len());
        let Some((_, left)) = paid else {
            counters.unpaid.increment();
            return false;
        };
        *left -= datagram.len();
        self.send(counters, to, datagram);
        true
    }

    pub(crate) fn take(&mut self) -> Option<(Source, Vec<u8>)> {
        self.queue.pop_front()
    }
}
