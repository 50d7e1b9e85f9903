//! What is to be sent, and the account of the datagram that is being answered.

use std::collections::VecDeque;

use crate::{Counters, Source};

/// Datagrams that wait for the driver. It drains them after each call, so this is reached only by one that
/// does not.
const MAX_QUEUED: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<(Source, Vec<u8>)>,
    /// Where the datagram in hand came from, and how many of its bytes are not answered yet.
    credit: Option<(Source, usize)>,
}

impl Outbox {
    /// A datagram came in: so much may go back to where it came from.
    pub(crate) fn begin(&mut self, source: Source, len: usize) {
        self.credit = Some((source, len));
    }

    /// The datagram has been dealt with; what is left of its credit is gone.
    pub(crate) fn end(&mut self) {
        self.credit = None;
    }

    /// To a place that has shown that it receives.
    pub(crate) fn send(&mut self, counters: &Counters, to: Source, datagram: Vec<u8>) {
        if self.queue.len() >= MAX_QUEUED {
            return counters.transmits_dropped.increment();
        }
        self.queue.push_back((to, datagram));
    }

    /// To a place that has not: no more than came from there just now.
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
