//! What of the applications' data has not arrived yet, at the end of a node.

use std::sync::Arc;
use std::time::Duration;

use peersock::attach::Remaining;
use peersock_stack::{Delivery, Flow};

use crate::connection_errors::Losses;

/// What applications have written and what has not arrived, see
/// [`FdServer::undelivered`](crate::FdServer::undelivered).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Outstanding {
    /// Bytes that wait for acknowledgements.
    pub waiting: u64,
    /// Connections that have delivered all bytes and wait until the peer knows that there are no more.
    pub ends: usize,
    /// Connections that have ended since the drain began, or been reset, without delivering everything.
    pub lost: usize,
    /// Bytes of those that were not acknowledged.
    pub lost_bytes: u64,
    /// Connections that were reset before that, if no call has told the application: those that it had open,
    /// and those that it had connected itself and closed before the peer had every byte.
    pub lost_before: usize,
    /// Bytes of those that were not acknowledged.
    pub lost_before_bytes: u64,
    /// For how long none of the peers that bytes wait for has been heard; zero if nothing waits.
    pub silence: Duration,
    /// The longest smoothed round-trip time of connections that wait for acknowledgements of bytes or of
    /// their ends; zero if none was measured.
    pub round_trip: Duration,
}

impl Outstanding {
    /// What is still to be delivered.
    pub fn remaining(&self) -> Remaining {
        let Self { waiting: bytes, ends, silence, round_trip, .. } = *self;
        Remaining { bytes, ends, silence, round_trip }
    }

    /// The bytes that were lost, or are if nothing more is delivered. `None` if nothing is; they may be 0, as
    /// of a peer that closes without reading.
    pub(crate) fn loss(&self) -> Option<u64> {
        let is_lossless = (self.waiting, self.lost, self.lost_before) == (0, 0, 0);
        (!is_lossless).then_some(self.waiting + self.lost_bytes + self.lost_before_bytes)
    }
}

/// The connections that are to be delivered once a drain has begun.
#[derive(Default)]
pub(crate) struct Delivering {
    flows: Vec<Arc<Flow>>,
    lost: Losses,
}

impl Delivering {
    pub(crate) fn add(&mut self, flow: Arc<Flow>) {
        if !self.flows.iter().any(|known| Arc::ptr_eq(known, &flow)) {
            self.flows.push(flow);
        }
    }

    /// Looks at what has become of them.
    pub(crate) fn look(&mut self) {
        let Self { flows, lost } = self;
        flows.retain(|flow| match flow.delivery() {
            Delivery::Lost(loss) => {
                lost.add(loss.unacked);
                false
            }
            Delivery::Done => false,
            _ => true,
        });
    }

    /// What those have lost that were looked at.
    pub(crate) fn lost(&self) -> Losses {
        self.lost
    }

    /// The others.
    pub(crate) fn flows(&self) -> impl Iterator<Item = &Arc<Flow>> {
        self.flows.iter()
    }
}
