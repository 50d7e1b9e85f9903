//! Application data that has not arrived yet when a node ends.

use std::sync::Arc;
use std::time::Duration;

use peersock::attach::Remaining;
use peersock_stack::{Delivery, Flow};
use serde::{Deserialize, Serialize};

use crate::connection_errors::Losses;

/// Data that applications have written and that has not arrived, see
/// [`FdServer::undelivered`](crate::FdServer::undelivered).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Outstanding {
    /// Number of bytes that wait for acknowledgements.
    pub waiting: u64,
    /// Number of connections that have delivered all bytes and wait until the peer has acknowledged the end.
    pub ends: usize,
    /// Number of connections that have ended since the drain began, or been reset, without delivering
    /// everything.
    pub lost: usize,
    /// Number of unacknowledged bytes of the `lost` connections.
    pub lost_bytes: u64,
    /// Number of connections that broke before that, if no call has told the application. Counts connections
    /// that it had open, and connections that it had made and closed before the peer had every byte.
    pub lost_before: usize,
    /// Number of unacknowledged bytes of the `lost_before` connections.
    pub lost_before_bytes: u64,
    /// Time since any peer with waiting bytes was last heard; zero if nothing waits.
    pub silence: Duration,
    /// The longest smoothed round-trip time of connections that wait for acknowledgements of bytes or of
    /// their ends; zero if none was measured.
    pub round_trip: Duration,
}

impl Outstanding {
    /// Returns the data still to be delivered.
    pub fn remaining(&self) -> Remaining {
        let Self { waiting: bytes, ends, silence, round_trip, .. } = *self;
        Remaining { bytes, ends, silence, round_trip }
    }

    /// Returns the bytes lost so far plus those still waiting, or `None` without loss. Zero is possible, for
    /// example if the peer closed without reading.
    pub fn loss(&self) -> Option<u64> {
        let is_lossless = (self.waiting, self.lost, self.lost_before) == (0, 0, 0);
        (!is_lossless).then_some(self.waiting + self.lost_bytes + self.lost_before_bytes)
    }
}

/// The connections still to be delivered once a drain has begun.
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

    /// Removes the connections that are finished, and counts their losses.
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

    /// Returns the losses of the removed connections.
    pub(crate) fn lost(&self) -> Losses {
        self.lost
    }

    /// Returns the remaining connections.
    pub(crate) fn flows(&self) -> impl Iterator<Item = &Arc<Flow>> {
        self.flows.iter()
    }
}
