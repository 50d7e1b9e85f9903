//! Closed connections: their undelivered data, and their losses.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::patience::Remaining;
use crate::sync;
use peersock_stack::{Delivery, Flow, Stack, State};

/// Data that connections had to deliver and their peers did not get, see
/// [`Node::undelivered`](super::Node::undelivered).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undelivered {
    /// Number of connections that have lost something.
    pub connections: u64,
    /// Number of bytes without an acknowledgement. It may be 0 although something was lost, because a peer
    /// that closes without reading has acknowledged the data that it throws away.
    pub bytes: u64,
}

impl Undelivered {
    /// Returns true if nothing was lost.
    pub fn is_empty(&self) -> bool {
        self.connections == 0
    }
}

/// Connections that the application has closed and that may still fail.
#[derive(Default)]
pub(crate) struct Closing(Mutex<Known>);

#[derive(Default)]
struct Known {
    flows: Vec<Arc<Flow>>,
    /// Losses of connections that are over.
    lost: Undelivered,
}

impl Closing {
    /// Remembers a closed flow until it can lose nothing more.
    pub(crate) fn add(&self, flow: &Arc<Flow>) {
        let mut known = self.lock();
        // Only when full, so that each flow is checked a few times, however many there are.
        if known.flows.len() == known.flows.capacity() {
            known.sort_out();
        }
        known.flows.push(Arc::clone(flow));
    }

    /// Returns the flows that can still fail.
    pub(crate) fn flows(&self) -> Vec<Arc<Flow>> {
        let mut known = self.lock();
        known.sort_out();
        known.flows.clone()
    }

    /// Returns the losses so far.
    pub(super) fn lost(&self) -> Undelivered {
        let mut known = self.lock();
        known.sort_out();
        known.lost
    }

    /// Returns the data and ends that wait for acknowledgements: data of all flows, and ends of closed ones.
    pub(super) fn remaining(&self, stack: &Stack, now: Instant) -> Remaining {
        let mut known = self.lock();
        known.sort_out();
        let waits = |flow: &&Arc<Flow>| flow.delivery() == Delivery::Pending && flow.unacked() == 0;
        let ends: Vec<_> = known.flows.iter().filter(waits).cloned().collect();
        drop(known);
        let mut found = Remaining { ends: ends.len(), ..Remaining::default() };
        let mut silence = None;
        for flow in stack.waiting_flows() {
            found.bytes += flow.unacked() as u64;
            let heard = flow.silence(now).unwrap_or_default();
            silence = Some(silence.map_or(heard, |least: Duration| least.min(heard)));
            found.round_trip = found.round_trip.max(round_trip(&flow));
        }
        found.silence = silence.unwrap_or_default();
        found.round_trip = ends.iter().map(round_trip).fold(found.round_trip, Duration::max);
        found
    }

    /// Counts all pending data as lost, at the end of the node.
    pub(super) fn give_up(&self, stack: &Stack) {
        let mut known = self.lock();
        known.sort_out();
        // The stack counts their losses below.
        known.flows.clear();
        let (connections, bytes) = stack.undelivered();
        known.lose(connections, bytes);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        sync::lock(&self.0)
    }
}

impl Known {
    fn sort_out(&mut self) {
        let mut flows = std::mem::take(&mut self.flows);
        flows.retain(|flow| match flow.delivery() {
            Delivery::Lost(loss) => {
                self.lose(1, loss.unacked);
                false
            }
            // In FIN-WAIT-2 a reset may still come.
            Delivery::Done => flow.state() == State::FinWait2,
            _ => true,
        });
        self.flows = flows;
    }

    fn lose(&mut self, connections: u64, bytes: u64) {
        self.lost.connections += connections;
        self.lost.bytes += bytes;
    }
}

fn round_trip(flow: &Arc<Flow>) -> Duration {
    flow.info().and_then(|info| info.rtt).unwrap_or_default()
}

/// Reports on stderr that a program has ended before all sent data was delivered, because a process that ends
/// has no caller to tell.
pub fn say_loss(bytes: u64) {
    crate::sys::process::say(&format!("peersock: {}\n", loss_text(bytes)));
}

/// Returns the text of [`say_loss`].
pub fn loss_text(bytes: u64) -> String {
    match bytes {
        0 => "a peer may not have read everything that the program has sent".to_owned(),
        1 => "1 byte that the program has sent was not delivered".to_owned(),
        _ => format!("{bytes} bytes that the program has sent were not delivered"),
    }
}
