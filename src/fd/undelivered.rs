//! What of the applications' data has not arrived yet, at the end of a node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_stack::{Delivery, Flow};

use super::connection_errors::Losses;
use super::state::{Entry, ServerState};

/// What applications have written and what has not arrived, see
/// [`FdServer::undelivered`](super::FdServer::undelivered).
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
    /// Connections that were reset before that while the application had them open, if no call has told it.
    pub lost_before: usize,
    /// Bytes of those that were not acknowledged.
    pub lost_before_bytes: u64,
    /// For how long none of the peers that bytes wait for has been heard; zero if nothing waits.
    pub silence: Duration,
    /// The longest smoothed round-trip time of connections that wait for acknowledgements of bytes or of
    /// their ends; zero if none was measured.
    pub round_trip: Duration,
}

/// The connections that are to be delivered once a drain has begun.
#[derive(Default)]
pub(super) struct Delivering {
    flows: Vec<Arc<Flow>>,
    lost: Losses,
}

impl Delivering {
    pub(super) fn add(&mut self, flow: Arc<Flow>) {
        if !self.flows.iter().any(|known| Arc::ptr_eq(known, &flow)) {
            self.flows.push(flow);
        }
    }

    /// Looks at what has become of them.
    fn look(&mut self) {
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
}

impl ServerState {
    /// Notes what closed connections still have to deliver.
    pub(super) fn note_closing(&mut self) {
        let closing = self.context.node().map(|node| node.closing()).unwrap_or_default();
        closing.into_iter().for_each(|flow| self.delivering.add(flow));
    }

    /// What has not arrived now.
    pub(super) fn undelivered(&mut self) -> Outstanding {
        self.delivering.look();
        let now = Instant::now();
        let (closed, broken) = (self.delivering.lost, self.endings.lost_at_drain());
        let before = self.endings.lost_while_open();
        let mut found = Outstanding {
            lost: closed.connections + broken.connections,
            lost_bytes: closed.bytes + broken.bytes,
            lost_before: before.connections,
            lost_before_bytes: before.bytes,
            ..Outstanding::default()
        };
        let mut silence = None;
        let streams = self.entries.values().filter_map(|entry| match entry {
            Entry::Stream(stream) => Some((stream.connection.flow(), stream.not_taken())),
            _ => None,
        });
        // The application was told that it is connected. It may have closed its descriptor before it came
        // here.
        let coming = |entry: &&Entry| matches!(entry, Entry::Connecting(one) if one.is_standing());
        found.ends = self.entries.values().filter(coming).count();
        for (flow, not_taken) in streams.chain(self.delivering.flows.iter().map(|flow| (flow, 0))) {
            let bytes = (flow.unacked() + not_taken) as u64;
            let round_trip = flow.info().and_then(|info| info.rtt).unwrap_or_default();
            found.round_trip = found.round_trip.max(round_trip);
            if bytes == 0 {
                found.ends += 1;
                continue;
            }
            found.waiting += bytes;
            let heard = flow.silence(now).unwrap_or_default();
            silence = Some(silence.map_or(heard, |least: Duration| least.min(heard)));
        }
        found.silence = silence.unwrap_or_default();
        found
    }
}
