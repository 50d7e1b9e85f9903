//! Inbox of a server: events and datagrams that the application has not taken yet.
//!
//! Events are never dropped: each connection has two, and while too many wait, no more connections are
//! accepted. Datagrams are dropped if they get old, or if their connection has too many, so that it takes no
//! room from the others.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use peersock_primitives::sync::{self, Mutex, Ordering};
use tokio::time::Instant;

use super::limits::{Limits, Peer};
use super::{ConnectionId, ServerCounters, ServerEvent};
use crate::queue::QueueLimits;

pub(super) struct Inbox {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Number of entries that are events.
    events: usize,
    consumer: Option<Waker>,
}

enum Entry {
    Event(ServerEvent),
    Datagram { since: Instant, id: ConnectionId, peer: Arc<Peer>, datagram: Bytes },
}

impl Inbox {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, state: Mutex::default() }
    }

    pub(super) fn push_event(&self, event: ServerEvent) {
        let mut state = sync::lock(&self.state);
        state.events += 1;
        state.entries.push_back(Entry::Event(event));
        wake(state);
    }

    /// Returns true if the application takes events more slowly than connections come and go.
    pub(super) fn is_overrun(&self) -> bool {
        sync::lock(&self.state).events >= EVENTS * self.limits.connections.max(1)
    }

    /// Adds a datagram, unless its connection or the inbox is full.
    pub(super) fn push(
        &self,
        id: ConnectionId,
        peer: &Arc<Peer>,
        datagram: Bytes,
        now: Instant,
        counters: &ServerCounters,
    ) {
        let cost = cost(&datagram);
        let share =
            if peer.is_admitted() { self.limits.inbox_per_connection } else { self.limits.inbox_unadmitted };
        let mut state = sync::lock(&self.state);
        // `queued` changes only while the state is locked.
        let queued = peer.queued.load(Ordering::Relaxed);
        if (queued > 0 && queued + cost > share) || state.bytes + cost > self.limits.inbox {
            counters.inbox_dropped_full.increment();
            return;
        }
        peer.queued.store(queued + cost, Ordering::Relaxed);
        state.bytes += cost;
        state.entries.push_back(Entry::Datagram { since: now, id, peer: peer.clone(), datagram });
        wake(state);
    }

    pub(super) fn poll_pop(
        &self,
        cx: &mut Context<'_>,
        now: Instant,
        counters: &ServerCounters,
    ) -> Poll<ServerEvent> {
        let mut state = sync::lock(&self.state);
        while let Some(entry) = state.entries.pop_front() {
            match entry {
                Entry::Event(event) => {
                    state.events -= 1;
                    return Poll::Ready(event);
                }
                Entry::Datagram { since, id, peer, datagram } => {
                    let cost = cost(&datagram);
                    state.bytes -= cost;
                    peer.queued.fetch_sub(cost, Ordering::Relaxed);
                    if now.saturating_duration_since(since) <= self.limits.inbox_age {
                        return Poll::Ready(ServerEvent::Datagram { id, datagram });
                    }
                    counters.inbox_dropped_old.increment();
                }
            }
        }
        if !state.consumer.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.consumer = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// Number of waiting events allowed per possible connection.
const EVENTS: usize = 2;

/// Wakes the consumer, after unlocking.
fn wake(mut state: sync::MutexGuard<'_, State>) {
    let consumer = state.consumer.take();
    drop(state);
    consumer.inspect(Waker::wake_by_ref);
}

fn cost(datagram: &Bytes) -> usize {
    datagram.len() + QueueLimits::OVERHEAD
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::limits::Ledger;
    use super::*;
    use crate::connection::Shared;

    const COST: usize = 100 + QueueLimits::OVERHEAD;

    struct Bench {
        inbox: Inbox,
        counters: ServerCounters,
        ledger: Ledger,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let limits = Limits {
                inbox: 5 * COST,
                inbox_per_connection: 3 * COST,
                inbox_unadmitted: COST,
                ..Limits::default()
            };
            let ledger = Ledger::new(limits);
            Self {
                inbox: Inbox::new(limits),
                counters: ServerCounters::default(),
                ledger,
                now: Instant::now(),
            }
        }

        fn peer(&self) -> Arc<Peer> {
            let source = "192.0.2.1".parse().expect("an address");
            let permit = self.ledger.permit(source, &self.counters).expect("room");
            Arc::new(Peer::new(Arc::new(Shared::new(QueueLimits::default(), Arc::default())), permit))
        }

        fn push(&self, id: u64, peer: &Arc<Peer>) {
            self.inbox.push(ConnectionId(id), peer, Bytes::from(vec![0; 100]), self.now, &self.counters);
        }

        fn pop(&self, at: Instant) -> Option<ServerEvent> {
            match self.inbox.poll_pop(&mut Context::from_waker(Waker::noop()), at, &self.counters) {
                Poll::Ready(event) => Some(event),
                Poll::Pending => None,
            }
        }

        fn drain(&self) -> Vec<u64> {
            std::iter::from_fn(|| self.pop(self.now))
                .map(|event| match event {
                    ServerEvent::Datagram { id, .. } => id.0,
                    event => panic!("{event:?}"),
                })
                .collect()
        }
    }

    #[test]
    fn one_connection_takes_nothing_from_the_others() {
        let bench = Bench::new();
        let (greedy, stranger, modest) = (bench.peer(), bench.peer(), bench.peer());
        greedy.admit();
        modest.admit();
        (0..9).for_each(|_| bench.push(1, &greedy));
        (0..9).for_each(|_| bench.push(2, &stranger));
        bench.push(3, &modest);
        assert_eq!(bench.counters.inbox_dropped_full.get(), 14);
        assert_eq!(bench.drain(), [1, 1, 1, 2, 3]);
        bench.push(2, &stranger);
        assert_eq!(bench.drain(), [2], "there is room again");
    }

    #[test]
    fn all_together_have_a_limit() {
        let bench = Bench::new();
        let peers: Vec<_> = (0..9).map(|_| bench.peer()).collect();
        (0..).zip(&peers).for_each(|(id, peer)| bench.push(id, peer));
        assert_eq!(bench.drain(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn old_datagrams_are_dropped_and_events_are_not() {
        let bench = Bench::new();
        let peer = bench.peer();
        bench.push(1, &peer);
        let closed = ServerEvent::Closed { id: ConnectionId(1), reason: crate::Closed::There };
        bench.inbox.push_event(closed.clone());
        assert_eq!(bench.pop(bench.now + Duration::from_millis(1001)), Some(closed));
        assert_eq!(bench.counters.inbox_dropped_old.get(), 1);
    }
}
