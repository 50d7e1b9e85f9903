//! Events of the shared node, as the program reads them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use peersock::{Event, Events};
use peersock_socket_server::EventSource;

/// Limit of events that wait to be read, as for [`Events`].
const MAX_WAITING: usize = 1024;

/// Events of a program's node, in order. A reader that falls more than 1024 events behind misses the oldest.
#[derive(Debug)]
pub struct ProgramEvents(pub(crate) Source);

#[derive(Debug)]
pub(crate) enum Source {
    Own(Events),
    Shared(Arc<EventQueue>),
}

impl ProgramEvents {
    /// Waits for an event up to `timeout`; does not wait once the node has ended.
    pub fn next_timeout(&self, timeout: Duration) -> Option<Event> {
        match &self.0 {
            Source::Own(events) => events.next_timeout(timeout),
            Source::Shared(queue) => queue.next_timeout(timeout),
        }
    }

    /// Returns true if the node has ended and all events were read.
    pub fn is_over(&self) -> bool {
        match &self.0 {
            Source::Own(events) => events.is_over(),
            Source::Shared(queue) => queue.is_over(),
        }
    }

    /// Ends these events, as the node's end does: waiting threads return.
    pub fn end(&self) {
        match &self.0 {
            Source::Own(events) => events.end(),
            Source::Shared(queue) => queue.end(),
        }
    }
}

/// The readers of an attachment's events.
#[derive(Default)]
pub(crate) struct EventReaders(Mutex<Readers>);

/// Receiver of events, until it returns false.
pub(crate) type Take = Box<dyn FnMut(&Event) -> bool + Send>;

#[derive(Default)]
struct Readers {
    queues: Vec<Weak<EventQueue>>,
    takers: Vec<Take>,
    /// Set once the node passes events.
    are_asked_for: bool,
    /// Set once the attachment has ended.
    are_over: bool,
}

impl EventReaders {
    /// Adds a reader. Returns true if the node has to be asked for events.
    pub(crate) fn add(&self) -> (Arc<EventQueue>, bool) {
        let queue = Arc::<EventQueue>::default();
        let mut readers = lock(&self.0);
        if readers.are_over {
            queue.end();
        }
        readers.queues.retain(|known| known.strong_count() > 0);
        readers.queues.push(Arc::downgrade(&queue));
        (queue, !std::mem::replace(&mut readers.are_asked_for, true))
    }

    /// Adds a receiver. Returns true if the node has to be asked for events; `None` if it has ended.
    pub(crate) fn add_taker(&self, take: Take) -> Option<bool> {
        let mut readers = lock(&self.0);
        if readers.are_over {
            return None;
        }
        readers.takers.push(take);
        Some(!std::mem::replace(&mut readers.are_asked_for, true))
    }

    pub(crate) fn pass(&self, event: &Event) {
        let mut readers = lock(&self.0);
        readers.queues.iter().filter_map(Weak::upgrade).for_each(|queue| queue.push(event.clone()));
        readers.takers.retain_mut(|take| take(event));
    }

    /// Ends all events, with the attachment.
    pub(crate) fn end(&self) {
        let mut readers = lock(&self.0);
        readers.are_over = true;
        readers.queues.iter().filter_map(Weak::upgrade).for_each(|queue| queue.end());
        readers.takers.clear();
    }
}

impl fmt::Debug for EventReaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventReaders").finish_non_exhaustive()
    }
}

/// Events for one reader.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Event>,
    is_over: bool,
    waker: Option<Waker>,
}

impl EventQueue {
    fn push(&self, event: Event) {
        let mut waiting = lock(&self.waiting);
        if waiting.events.len() == MAX_WAITING {
            waiting.events.pop_front();
        }
        waiting.events.push_back(event);
        self.wake(waiting);
    }

    fn end(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.is_over = true;
        self.wake(waiting);
    }

    fn wake(&self, mut waiting: MutexGuard<'_, Waiting>) {
        let waker = waiting.waker.take();
        drop(waiting);
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn next_timeout(&self, timeout: Duration) -> Option<Event> {
        let begun = Instant::now();
        let mut waiting = lock(&self.waiting);
        loop {
            let left = timeout.saturating_sub(begun.elapsed());
            if !waiting.events.is_empty() || waiting.is_over || left.is_zero() {
                return waiting.events.pop_front();
            }
            waiting = self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl EventSource for EventQueue {
    fn poll_next(&self, waker: &Waker) -> Option<Event> {
        let mut waiting = lock(&self.waiting);
        let event = waiting.events.pop_front();
        if event.is_none() {
            waiting.waker = Some(waker.clone());
        }
        event
    }

    fn is_over(&self) -> bool {
        let waiting = lock(&self.waiting);
        waiting.is_over && waiting.events.is_empty()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u8) -> Event {
        let id = format!("{number:064x}").parse().expect("an ID");
        Event::PeerReachable { id, relayed: number.is_multiple_of(2), turn: true }
    }

    #[test]
    fn events_pass_as_they_are() {
        let id = *match &event(7) {
            Event::PeerReachable { id, .. } => id,
            _ => unreachable!("as made above"),
        };
        let all = [
            Event::PeerFound { id },
            event(7),
            event(8),
            Event::PathChanged { id, relayed: true, turn: false },
            Event::PeerLost { id },
            Event::PeerUnreachable { id },
        ];
        for event in all {
            let text = serde_json::to_string(&event).expect("JSON");
            assert_eq!(serde_json::from_str::<Event>(&text).expect("JSON"), event);
        }
    }

    #[test]
    fn a_receiver_has_events_until_it_wants_no_more() {
        let readers = EventReaders::default();
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut left = 2;
        let take = move |event: &Event| {
            left -= 1;
            sender.send(event.clone()).is_ok() && left > 0
        };
        assert_eq!(readers.add_taker(Box::new(take)), Some(true));
        (1..=3).for_each(|number| readers.pass(&event(number)));
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [event(1), event(2)]);
        readers.end();
        assert_eq!(readers.add_taker(Box::new(|_| true)), None);
    }

    #[test]
    fn each_reader_has_all_events_and_then_the_end() {
        let readers = EventReaders::default();
        let (first, has_to_ask) = readers.add();
        assert!(has_to_ask);
        let (second, has_to_ask) = readers.add();
        assert!(!has_to_ask);
        readers.pass(&event(1));
        drop(second);
        (2..=3).for_each(|number| readers.pass(&event(number)));
        readers.end();
        let waker = Waker::noop();
        assert_eq!(first.next_timeout(Duration::ZERO), Some(event(1)));
        assert_eq!(first.poll_next(waker), Some(event(2)));
        assert!(!first.is_over());
        assert_eq!(first.next_timeout(Duration::MAX), Some(event(3)));
        assert!(first.is_over());
        assert_eq!(first.next_timeout(Duration::MAX), None);
        assert!(readers.add().0.is_over(), "a late reader does not wait");
    }

    #[test]
    fn a_reader_that_is_late_misses_the_oldest() {
        let queue = EventQueue::default();
        (0..=MAX_WAITING).for_each(|_| queue.push(event(1)));
        queue.push(event(2));
        let read: Vec<_> = std::iter::from_fn(|| queue.next_timeout(Duration::ZERO)).collect();
        assert_eq!((read.len(), read.last()), (MAX_WAITING, Some(&event(2))));
    }

    #[test]
    fn the_end_wakes_a_reader() {
        let queue = Arc::<EventQueue>::default();
        let theirs = Arc::clone(&queue);
        let reader = std::thread::spawn(move || theirs.next_timeout(Duration::from_secs(600)));
        queue.end();
        assert_eq!(reader.join().expect("no panic"), None);
    }
}
