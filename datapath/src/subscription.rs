//! Queues of the overlay's events, one per subscriber.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::task::Waker;
use std::time::Duration;

use peersock_overlay::Event;

use crate::Datapath;
use peersock_primitives::sync;

/// Limit of events queued for a subscriber that does not read; the oldest are dropped first.
const MAX_QUEUED_EVENTS: usize = 1024;

impl Datapath {
    /// Returns a queue of the events from now on.
    pub fn subscribe(&self) -> Arc<Subscription> {
        self.subscribers.add(Subscription::default())
    }

    /// Returns a subscription without events, for [`Subscription::wait_root_change`].
    pub fn subscribe_to_roots(&self) -> Arc<Subscription> {
        self.subscribers.add(Subscription { is_for_roots: true, ..Subscription::default() })
    }

    /// Wakes the callers of [`Subscription::next_or_change`]: interfaces or addresses have changed, or the
    /// machine was suspended.
    pub fn note_network_change(&self) {
        self.subscribers.note_network_change();
    }

    /// Ends all subscriptions, including later ones, because no more events happen.
    pub fn end_subscriptions(&self) {
        self.subscribers.end();
    }
}

/// All subscribers to events.
#[derive(Default)]
pub(super) struct Subscribers {
    list: Mutex<Vec<Weak<Subscription>>>,
    ended: AtomicBool,
}

impl Subscribers {
    fn add(&self, subscription: Subscription) -> Arc<Subscription> {
        let subscription = Arc::new(subscription);
        let mut list = sync::lock(&self.list);
        list.retain(|known| known.strong_count() > 0);
        list.push(Arc::downgrade(&subscription));
        // Checked under the lock: either `end` finds the subscription in the list, or this check sees
        // `ended`.
        if self.ended.load(Ordering::SeqCst) {
            subscription.end();
        }
        subscription
    }

    fn end(&self) {
        let list = {
            let list = sync::lock(&self.list);
            self.ended.store(true, Ordering::SeqCst);
            list.clone()
        };
        for subscription in list.iter().filter_map(Weak::upgrade) {
            subscription.end();
        }
    }

    fn note_network_change(&self) {
        self.note(|queue| queue.network_changed = true);
    }

    pub(super) fn note_root_change(&self) {
        self.note(|queue| queue.roots_changed = true);
    }

    fn note(&self, change: impl Fn(&mut Queue)) {
        // A copy, so that wakers run without the list's lock.
        let list = sync::lock(&self.list).clone();
        for subscription in list.iter().filter_map(Weak::upgrade) {
            change(&mut subscription.lock());
            subscription.filled.notify_all();
        }
    }

    pub(super) fn publish(&self, event: &Event) {
        // A copy, so that wakers run without the list's lock.
        let list = sync::lock(&self.list).clone();
        let all = list.iter().filter_map(Weak::upgrade);
        for subscription in all.filter(|subscription| !subscription.is_for_roots) {
            subscription.push(event.clone());
        }
    }
}

/// Event queue of one listener.
#[derive(Default)]
pub struct Subscription {
    /// True if the subscription gets no events.
    is_for_roots: bool,
    queue: Mutex<Queue>,
    filled: Condvar,
}

/// Result of a wait.
#[derive(Debug)]
pub enum Heard {
    /// An event.
    Event(Event),
    /// Change of the machine's network since the last call.
    NetworkChange,
    /// Change of a root's state since the last call; roots may also be added or removed.
    RootChange,
    /// Timeout.
    Nothing,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    network_changed: bool,
    roots_changed: bool,
    waker: Option<Waker>,
    closed: bool,
    /// Set if the next call must not wait.
    woken: bool,
}

impl Subscription {
    /// Returns the next event, if any.
    pub fn try_next(&self) -> Option<Event> {
        self.lock().events.pop_front()
    }

    /// Returns true if the queue is empty and no event will come.
    pub fn is_over(&self) -> bool {
        let queue = self.lock();
        queue.closed && queue.events.is_empty()
    }

    /// Waits up to `timeout` for an event. Does not wait once the node is shut down, nor after
    /// [`Subscription::wake`].
    pub fn next_timeout(&self, timeout: Duration) -> Option<Event> {
        let waits = |queue: &mut Queue| queue.events.is_empty() && !queue.closed && !queue.woken;
        let mut queue = sync::wait_timeout_while(&self.filled, self.lock(), timeout, waits);
        let event = queue.events.pop_front();
        // An event arrived instead, so the wake-up is still owed.
        queue.woken &= event.is_some();
        event
    }

    /// Makes the current call, or else the next one that would wait, return without an event.
    pub fn wake(&self) {
        self.lock().woken = true;
        self.filled.notify_all();
    }

    /// Waits until a root has another state than at the last call, has come, or is gone. Returns false at the
    /// end of the subscription.
    pub fn wait_root_change(&self) -> bool {
        let mut queue = self.lock();
        while !queue.roots_changed && !queue.closed {
            queue = sync::wait(&self.filled, queue);
        }
        queue.roots_changed = false;
        !queue.closed
    }

    /// Waits like [`Subscription::next_timeout`], and also returns when the network or a root has changed.
    pub fn next_or_change(&self, timeout: Duration) -> Heard {
        let waits = |queue: &mut Queue| {
            let has_changed = queue.network_changed || queue.roots_changed;
            queue.events.is_empty() && !queue.closed && !queue.woken && !has_changed
        };
        let mut queue = sync::wait_timeout_while(&self.filled, self.lock(), timeout, waits);
        if std::mem::take(&mut queue.network_changed) {
            return Heard::NetworkChange;
        }
        if std::mem::take(&mut queue.roots_changed) {
            return Heard::RootChange;
        }
        let event = queue.events.pop_front();
        queue.woken &= event.is_some();
        event.map_or(Heard::Nothing, Heard::Event)
    }

    /// Returns an event like [`Subscription::try_next`]; if there is none, the next event wakes `waker`.
    pub fn poll_next(&self, waker: &Waker) -> Option<Event> {
        let mut queue = self.lock();
        let event = queue.events.pop_front();
        if event.is_none() {
            queue.waker = Some(waker.clone());
        }
        event
    }

    /// Ends the subscription: no more events come.
    pub fn end(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        let waker = queue.waker.take();
        drop(queue);
        self.filled.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn push(&self, event: Event) {
        let mut queue = self.lock();
        if queue.events.len() == MAX_QUEUED_EVENTS {
            queue.events.pop_front();
        }
        queue.events.push_back(event);
        let waker = queue.waker.take();
        // The waker runs without the lock because it may poll at once.
        drop(queue);
        self.filled.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        sync::lock(&self.queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_network_wakes_those_who_want_to_know() {
        const HOUR: Duration = Duration::from_secs(3600);
        let subscribers = Subscribers::default();
        let subscription = subscribers.add(Subscription::default());
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| subscription.next_or_change(HOUR));
            subscribers.note_network_change();
            assert!(matches!(waits.join().expect("no panic"), Heard::NetworkChange));
        });
        assert!(matches!(subscription.next_or_change(Duration::ZERO), Heard::Nothing), "it was told");
        subscribers.end();
        assert!(matches!(subscription.next_or_change(HOUR), Heard::Nothing));
    }

    #[test]
    fn a_change_of_a_root_wakes_those_who_want_to_know_and_events_of_peers_do_not() {
        let subscribers = Subscribers::default();
        let only = subscribers.add(Subscription { is_for_roots: true, ..Subscription::default() });
        let both = subscribers.add(Subscription::default());
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| only.wait_root_change());
            subscribers.note_root_change();
            assert!(waits.join().expect("no panic"));
        });
        assert!(matches!(both.next_or_change(Duration::ZERO), Heard::RootChange));
        assert!(matches!(both.next_or_change(Duration::ZERO), Heard::Nothing), "it was told");
        subscribers.end();
        assert!(!only.wait_root_change());
    }
}
