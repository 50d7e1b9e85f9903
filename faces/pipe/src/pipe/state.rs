//! State of a pipe, behind one lock.

use std::sync::{Arc, Weak};

use super::Pipe;
use super::inner::Inner;
use crate::callbacks::{MessageCallbacks, StateCallbacks};
use crate::queue::{Buffer, Queue};
use crate::{Filter, Message, Options, PipeError, Proto};

/// Limit of datagrams that asynchronous callbacks of one pipe work on at the same time.
const MAX_CONCURRENT_DATAGRAMS: usize = 64;

/// The callbacks, subscriptions and relays of a pipe, and the messages that wait for callbacks.
pub(crate) struct State {
    pub(crate) msg_cbs: MessageCallbacks,
    pub(crate) up_cbs: StateCallbacks,
    pub(crate) end_cbs: StateCallbacks,
    /// The pipes to which messages are forwarded.
    pub(crate) relays: Vec<Pipe>,
    /// The pipes that forward messages to this one.
    pub(crate) feeders: Vec<Weak<Inner>>,
    /// Filters are shared, because a cloned regular expression starts with empty caches.
    subscriptions: Vec<(Arc<Filter>, Arc<Queue>)>,
    /// The queue of the pipe itself.
    pub(crate) own: Option<Arc<Queue>>,
    /// True if the pipe's own queue returns after the last relay's end.
    pub(crate) has_own_by_default: bool,
    /// Number of messages dropped by queues that no longer exist.
    dropped: u64,
    pub(crate) waiting: Buffer<Message>,
    /// Number of messages that callbacks work on.
    pub(crate) running: usize,
    at_once: usize,
    pub(crate) ended: Option<PipeError>,
    /// Set once the end's callbacks were called.
    pub(crate) is_over: bool,
}

/// Destinations of messages.
pub(crate) struct Outlets {
    /// True if there are callbacks or relays.
    pub(crate) pushes: bool,
    /// The queues with their filters; without a filter a queue gets all messages.
    pub(crate) queues: Vec<(Option<Arc<Filter>>, Arc<Queue>)>,
}

impl State {
    pub(crate) fn new(proto: Proto, options: &Options) -> State {
        State {
            msg_cbs: Vec::new(),
            up_cbs: Vec::new(),
            end_cbs: Vec::new(),
            relays: Vec::new(),
            feeders: Vec::new(),
            subscriptions: Vec::new(),
            own: None,
            has_own_by_default: false,
            dropped: 0,
            waiting: Buffer::new(options.limits("the queue of the callbacks")),
            running: 0,
            at_once: if proto == Proto::Udp { MAX_CONCURRENT_DATAGRAMS } else { 1 },
            ended: None,
            is_over: false,
        }
    }

    pub(crate) fn queues(&self) -> impl Iterator<Item = &Arc<Queue>> {
        self.own.iter().chain(self.subscriptions.iter().map(|(_, queue)| queue))
    }

    pub(crate) fn outlets(&self) -> Outlets {
        let own = self.own.iter().map(|queue| (None, Arc::clone(queue)));
        let subscribed =
            self.subscriptions.iter().map(|(filter, queue)| (Some(Arc::clone(filter)), Arc::clone(queue)));
        Outlets {
            pushes: !self.msg_cbs.is_empty() || !self.relays.is_empty(),
            queues: own.chain(subscribed).collect(),
        }
    }

    /// Adds a queue, which gets no message if the pipe has ended.
    pub(crate) fn subscribe(&mut self, filter: Filter, options: &Options) -> Arc<Queue> {
        let queue = self.new_queue(options);
        self.subscriptions.push((Arc::new(filter), Arc::clone(&queue)));
        queue
    }

    pub(crate) fn queue_by_default(&mut self, options: &Options) {
        self.own = Some(self.new_queue(options));
        self.has_own_by_default = true;
    }

    fn new_queue(&self, options: &Options) -> Arc<Queue> {
        let queue = Queue::new(options.limits("the queue of a subscription"));
        if let Some(ended) = &self.ended {
            queue.end(ended.clone());
        }
        Arc::new(queue)
    }

    pub(crate) fn unsubscribe(&mut self, queue: &Arc<Queue>) {
        self.subscriptions.retain(|(_, other)| !Arc::ptr_eq(other, queue));
        self.dropped += queue.dropped();
    }

    /// Ends and returns the pipe's own queue. Waiting receivers get an error.
    pub(crate) fn remove_own(&mut self) -> Option<Arc<Queue>> {
        let own = self.own.take()?;
        own.end(PipeError::NotSubscribed);
        self.dropped += own.dropped();
        Some(own)
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped + self.waiting.dropped() + self.queues().map(|queue| queue.dropped()).sum::<u64>()
    }

    /// Removes and returns all callbacks, so that they are never called again.
    pub(crate) fn take_callbacks(&mut self) -> (MessageCallbacks, StateCallbacks, StateCallbacks) {
        let states = (std::mem::take(&mut self.up_cbs), std::mem::take(&mut self.end_cbs));
        (std::mem::take(&mut self.msg_cbs), states.0, states.1)
    }

    /// Returns true if messages are forwarded to that pipe. Fails if this pipe has ended.
    pub(crate) fn leads_to(&self, pipe: &Pipe) -> Result<bool, PipeError> {
        match &self.ended {
            Some(ended) => Err(ended.clone()),
            None => Ok(self.relays.iter().any(|relay| Arc::ptr_eq(relay.inner(), pipe.inner()))),
        }
    }

    /// Takes a message for the callbacks. Returns it if they start with it now; otherwise it waits its turn.
    pub(crate) fn claim(&mut self, message: Message, drops: bool) -> Option<Message> {
        if !self.waiting.is_empty() || self.running >= self.at_once {
            self.waiting.put(message, drops);
            return None;
        }
        self.running += 1;
        Some(message)
    }

    /// Returns the next message for callbacks that have finished with one.
    pub(crate) fn next_message(&mut self) -> Option<Message> {
        let next = self.waiting.pop();
        self.running -= usize::from(next.is_none());
        next
    }
}
