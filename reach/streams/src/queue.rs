//! A queue of datagrams that is short in bytes and in time.
//!
//! The consumer may be slow: a TCP connection that recovers from a loss, or a program that does not read.
//! Long queues would only harm. The senders' congestion control needs to see a loss soon, and old datagrams
//! have been retransmitted by then. So the oldest ones are dropped first.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use peersock_primitives::sync::{self, Mutex};
use tokio::time::Instant;

/// Limits of a queue of datagrams, in bytes and in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Bytes of datagrams, each with [`QueueLimits::OVERHEAD`]. Default: 512 KiB. One datagram always fits.
    pub bytes: usize,
    /// Maximum age: a datagram that has waited longer is dropped instead of sent. Default: 200 ms.
    pub age: Duration,
}

impl QueueLimits {
    /// Bytes that one datagram counts beside its length, for its memory overhead.
    pub const OVERHEAD: usize = 64;
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { bytes: 512 << 10, age: Duration::from_millis(200) }
    }
}

/// Number of datagrams that one call dropped.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped(pub(crate) u64);

#[derive(Debug)]
pub(crate) struct Queue {
    limits: QueueLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Datagrams that leave before all others, regardless of their age.
    urgent: VecDeque<Bytes>,
    datagrams: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    closed: bool,
    consumer: Option<Waker>,
}

impl Queue {
    pub(crate) fn new(limits: QueueLimits) -> Self {
        Self { limits, state: Mutex::default() }
    }

    /// Adds a datagram, and drops the oldest ones to make room. Returns `None` if the queue is closed.
    pub(crate) fn push(&self, datagram: Bytes, now: Instant) -> Option<Dropped> {
        let mut state = sync::lock(&self.state);
        if state.closed {
            return None;
        }
        let mut dropped = 0;
        while state.bytes + cost(&datagram) > self.limits.bytes && state.take().is_some() {
            dropped += 1;
        }
        state.bytes += cost(&datagram);
        state.datagrams.push_back((now, datagram));
        let consumer = state.consumer.take();
        // Unlock first, because the consumer needs the lock at once.
        drop(state);
        consumer.inspect(Waker::wake_by_ref);
        Some(Dropped(dropped))
    }

    /// Adds a datagram that is taken before all others and never dropped for later ones. Returns false,
    /// without adding it, if the queue is closed or holds [`MAX_URGENT`] such datagrams.
    pub(crate) fn push_urgent(&self, datagram: Bytes) -> bool {
        let mut state = sync::lock(&self.state);
        if state.closed || state.urgent.len() == MAX_URGENT {
            return false;
        }
        state.bytes += cost(&datagram);
        state.urgent.push_back(datagram);
        let consumer = state.consumer.take();
        drop(state);
        consumer.inspect(Waker::wake_by_ref);
        true
    }

    /// Takes the oldest datagram that is not too old. `None` means that the queue is empty and closed.
    pub(crate) fn poll_pop(&self, cx: &mut Context<'_>, now: Instant) -> (Poll<Option<Bytes>>, Dropped) {
        let mut state = sync::lock(&self.state);
        if let Some(datagram) = state.urgent.pop_front() {
            state.bytes -= cost(&datagram);
            return (Poll::Ready(Some(datagram)), Dropped(0));
        }
        let mut dropped = 0;
        while let Some((since, datagram)) = state.take() {
            if now.saturating_duration_since(since) <= self.limits.age {
                return (Poll::Ready(Some(datagram)), Dropped(dropped));
            }
            dropped += 1;
        }
        let end = if state.closed { Poll::Ready(None) } else { Poll::Pending };
        if end.is_pending() && !state.consumer.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.consumer = Some(cx.waker().clone());
        }
        (end, Dropped(dropped))
    }

    /// Closes the queue for new datagrams; those queued can still be taken.
    pub(crate) fn close(&self) {
        let consumer = {
            let mut state = sync::lock(&self.state);
            state.closed = true;
            state.consumer.take()
        };
        consumer.inspect(Waker::wake_by_ref);
    }

    /// Returns the bytes of the queued datagrams, with their overhead.
    pub(crate) fn bytes(&self) -> usize {
        sync::lock(&self.state).bytes
    }
}

impl State {
    fn take(&mut self) -> Option<(Instant, Bytes)> {
        let (since, datagram) = self.datagrams.pop_front()?;
        self.bytes -= cost(&datagram);
        if self.datagrams.is_empty() && self.datagrams.capacity() > KEPT_CAPACITY {
            // Frees the memory of a burst, so an idle connection keeps little.
            self.datagrams = VecDeque::new();
        }
        Some((since, datagram))
    }
}

fn cost(datagram: &Bytes) -> usize {
    datagram.len() + QueueLimits::OVERHEAD
}

/// Limit of queued urgent datagrams; their senders have few requests in flight.
const MAX_URGENT: usize = 128;

/// Capacity in datagrams that an empty queue keeps.
const KEPT_CAPACITY: usize = 64;

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    const LIMITS: QueueLimits =
        QueueLimits { bytes: 3 * (100 + QueueLimits::OVERHEAD), age: Duration::from_millis(200) };

    fn datagram(number: u8) -> Bytes {
        Bytes::from(vec![number; 100])
    }

    fn pop(queue: &Queue, now: Instant) -> (Poll<Option<u8>>, u64) {
        let (popped, dropped) = queue.poll_pop(&mut Context::from_waker(Waker::noop()), now);
        (popped.map(|datagram| datagram.map(|datagram| datagram[0])), dropped.0)
    }

    #[test]
    fn the_oldest_make_room() {
        let (queue, now) = (Queue::new(LIMITS), Instant::now());
        let dropped: Vec<_> =
            (0..5).map(|number| queue.push(datagram(number), now).expect("open").0).collect();
        assert_eq!(dropped, [0, 0, 0, 1, 1]);
        let left: Vec<_> = (0..4).map(|_| pop(&queue, now).0).collect();
        assert_eq!(left, [Poll::Ready(Some(2)), Poll::Ready(Some(3)), Poll::Ready(Some(4)), Poll::Pending]);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn what_has_waited_too_long_is_dropped() {
        let (queue, now) = (Queue::new(LIMITS), Instant::now());
        queue.push(datagram(0), now);
        queue.push(datagram(1), now + Duration::from_millis(150));
        assert_eq!(pop(&queue, now + Duration::from_millis(201)), (Poll::Ready(Some(1)), 1));
    }

    #[test]
    fn what_is_urgent_is_taken_first_and_never_dropped_but_bounded() {
        let (queue, now) = (Queue::new(LIMITS), Instant::now());
        queue.push(datagram(1), now);
        for _ in 0..MAX_URGENT {
            assert!(queue.push_urgent(datagram(0)));
        }
        assert!(!queue.push_urgent(datagram(0)));
        queue.push(datagram(2), now);
        let late = now + 2 * LIMITS.age;
        for _ in 0..MAX_URGENT {
            assert_eq!(pop(&queue, late), (Poll::Ready(Some(0)), 0));
        }
        assert_eq!((pop(&queue, late), queue.bytes()), ((Poll::Pending, 1), 0), "it was too old");
        queue.close();
        assert!(!queue.push_urgent(datagram(0)));
    }

    #[test]
    fn one_datagram_has_room_whatever_the_limit() {
        let queue = Queue::new(QueueLimits { bytes: 1, ..LIMITS });
        let now = Instant::now();
        assert_eq!(queue.push(datagram(0), now), Some(Dropped(0)));
        assert_eq!(queue.push(datagram(1), now), Some(Dropped(1)));
        assert_eq!(pop(&queue, now), (Poll::Ready(Some(1)), 0));
    }

    #[test]
    fn a_closed_queue_ends_after_what_it_holds() {
        let (queue, now) = (Queue::new(LIMITS), Instant::now());
        queue.push(datagram(0), now);
        queue.close();
        assert_eq!(queue.push(datagram(1), now), None);
        assert_eq!(pop(&queue, now), (Poll::Ready(Some(0)), 0));
        assert_eq!(pop(&queue, now), (Poll::Ready(None), 0));
    }
}
