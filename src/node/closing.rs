//! Closed connections: what they have still to deliver, and what they have lost.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::sync;
use peersock_stack::{Delivery, Flow, Stack, State};

/// What connections had to deliver and their peers did not get, see
/// [`Node::undelivered`](super::Node::undelivered).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undelivered {
    /// How many connections have lost something.
    pub connections: u64,
    /// How many bytes no peer has acknowledged. It may be 0 although something was lost: a peer that closes
    /// without reading has acknowledged what it throws away.
    pub bytes: u64,
}

impl Undelivered {
    /// Whether nothing was lost.
    pub fn is_empty(&self) -> bool {
        self.connections == 0
    }
}

/// The connections that the application has closed and that may still fail.
#[derive(Default)]
pub(super) struct Closing(Mutex<Known>);

#[derive(Default)]
struct Known {
    flows: Vec<Arc<Flow>>,
    /// What others, which are over, have lost.
    lost: Undelivered,
}

impl Closing {
    /// Remembers a closed flow until it can lose nothing any more.
    pub(super) fn add(&self, flow: &Arc<Flow>) {
        let mut known = self.lock();
        // Only now and then, so that each flow is looked at a few times however many there are.
        if known.flows.len() == known.flows.capacity() {
            known.sort_out();
        }
        known.flows.push(Arc::clone(flow));
    }

    /// Those that can still fail.
    pub(super) fn flows(&self) -> Vec<Arc<Flow>> {
        let mut known = self.lock();
        known.sort_out();
        known.flows.clone()
    }

    /// What was lost so far.
    pub(super) fn lost(&self) -> Undelivered {
        let mut known = self.lock();
        known.sort_out();
        known.lost
    }

    /// Whether nothing waits for an acknowledgement: no closed flow, and no other with data.
    pub(super) fn is_drained(&self, stack: &Stack) -> bool {
        let mut known = self.lock();
        known.sort_out();
        let waits = |flow: &Arc<Flow>| flow.delivery() == Delivery::Pending;
        !known.flows.iter().any(waits) && stack.undelivered().0 == 0
    }

    /// The end: what waits now is lost.
    pub(super) fn give_up(&self, stack: &Stack) {
        let mut known = self.lock();
        known.sort_out();
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
