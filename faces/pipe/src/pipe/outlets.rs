//! Outlets of a pipe's messages: subscriptions, callbacks and other pipes.

use std::sync::Arc;

use peersock_primitives::sync;

use super::Pipe;
use crate::callbacks::{self, CallbackId, MessageCallback, MessageCallbacks, StateCallback};
use crate::{Filter, Message, PipeError, Subscription};

impl Pipe {
    /// Queues matching messages from now on. A message goes to every queue that it matches. A server's
    /// subscription gets the messages of all clients.
    pub fn subscribe(&self, filter: Filter) -> Subscription {
        let queue = sync::lock(&self.inner().state).subscribe(filter, &self.inner().options);
        self.inner().flow();
        Subscription::new(self.clone(), queue)
    }

    /// Ends the pipe's own queue, and discards its messages. Waiting receivers get an error. Returns false if
    /// there was no such queue.
    pub fn unsubscribe(&self) -> bool {
        let own = {
            let mut state = sync::lock(&self.inner().state);
            state.has_own_by_default = false;
            state.remove_own()
        };
        own.iter().for_each(|own| own.clear());
        self.inner().flow();
        own.is_some()
    }

    /// Adds a callback for each message from now on. It must not block; an asynchronous callback may wait.
    ///
    /// Callbacks get the messages of a connection one after another, and up to 64 datagrams at once. A panic
    /// is logged, and the pipe continues. A server's callbacks get the messages of all clients, with the
    /// client's pipe. A callback should not hold the pipe, because the pipe would then never be dropped.
    pub fn add_msg_cb(&self, callback: impl Fn(Message, Pipe) + Send + Sync + 'static) -> CallbackId {
        self.add_message_callback(CallbackId::next(), callbacks::of_messages(callback))
    }

    /// Adds an asynchronous callback as [`add_msg_cb`](Self::add_msg_cb) does.
    pub fn add_async_msg_cb<F>(
        &self,
        callback: impl Fn(Message, Pipe) -> F + Send + Sync + 'static,
    ) -> CallbackId
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.add_message_callback(CallbackId::next(), callbacks::async_of_messages(callback))
    }

    pub(crate) fn add_message_callback(&self, id: CallbackId, callback: MessageCallback) -> CallbackId {
        sync::lock(&self.inner().state).msg_cbs.push((id, callback));
        self.inner().flow();
        id
    }

    /// Adds and removes callbacks for messages. The pipe was opened with the callbacks `before`, and must end
    /// up with the callbacks `now`.
    pub(crate) fn update_message_callbacks(&self, before: &MessageCallbacks, now: &MessageCallbacks) {
        let has = |callbacks: &MessageCallbacks, id| callbacks.iter().any(|(other, _)| *other == id);
        for (id, _) in before.iter().filter(|(id, _)| !has(now, *id)) {
            self.del_cb(*id);
        }
        for (id, callback) in now.iter().filter(|(id, _)| !has(before, *id)) {
            self.add_message_callback(*id, Arc::clone(callback));
        }
    }

    /// Adds a callback for the end of the pipe, by either end. It is called once, after the callbacks for
    /// earlier messages; [`error`](Self::error) returns the reason. If the pipe has already ended, it is
    /// called at once. A server's callbacks are also called for the end of each client.
    pub fn add_end_cb(&self, callback: impl Fn(Pipe) + Send + Sync + 'static) -> CallbackId {
        self.add_end_callback(CallbackId::next(), callbacks::of_state(callback))
    }

    /// Adds an asynchronous callback as [`add_end_cb`](Self::add_end_cb) does.
    pub fn add_async_end_cb<F>(&self, callback: impl Fn(Pipe) -> F + Send + Sync + 'static) -> CallbackId
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.add_end_callback(CallbackId::next(), callbacks::async_of_state(callback))
    }

    pub(crate) fn add_end_callback(&self, id: CallbackId, callback: StateCallback) -> CallbackId {
        let mut state = sync::lock(&self.inner().state);
        if !state.is_over {
            state.end_cbs.push((id, callback));
        } else {
            drop(state);
            let later = self.inner().call_state(vec![callback]);
            if !later.is_empty() {
                tokio::spawn(callbacks::finish(later));
            }
        }
        id
    }

    /// Adds a callback for each client that connects to a server. It is called before those for the client's
    /// messages.
    pub fn add_up_cb(&self, callback: impl Fn(Pipe) + Send + Sync + 'static) -> CallbackId {
        self.add_up_callback(CallbackId::next(), callbacks::of_state(callback))
    }

    /// Adds an asynchronous callback as [`add_up_cb`](Self::add_up_cb) does.
    pub fn add_async_up_cb<F>(&self, callback: impl Fn(Pipe) -> F + Send + Sync + 'static) -> CallbackId
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.add_up_callback(CallbackId::next(), callbacks::async_of_state(callback))
    }

    fn add_up_callback(&self, id: CallbackId, callback: StateCallback) -> CallbackId {
        sync::lock(&self.inner().state).up_cbs.push((id, callback));
        id
    }

    /// Removes a callback of any kind. Returns false if it does not exist.
    pub fn del_cb(&self, id: CallbackId) -> bool {
        let mut state = sync::lock(&self.inner().state);
        let before = state.msg_cbs.len() + state.up_cbs.len() + state.end_cbs.len();
        let message = state.msg_cbs.extract_if(.., |(other, _)| *other == id).collect::<Vec<_>>();
        let up = state.up_cbs.extract_if(.., |(other, _)| *other == id).collect::<Vec<_>>();
        let end = state.end_cbs.extract_if(.., |(other, _)| *other == id).collect::<Vec<_>>();
        let after = state.msg_cbs.len() + state.up_cbs.len() + state.end_cbs.len();
        // A callback may hold pipes, which must be closed without the lock.
        drop(state);
        drop((message, up, end));
        self.inner().flow();
        after < before
    }

    /// Forwards incoming messages to another pipe, until one of the pipes is closed or
    /// [`del_pipe`](Self::del_pipe) is called. Both directions make a relay: `a.add_pipe(&b)` and
    /// `b.add_pipe(&a)`, which then keep each other open.
    ///
    /// A stream is read no faster than the other pipe takes its data. Messages in the pipe's own queue go
    /// first, and the queue ends.
    ///
    /// # Errors
    /// [`PipeError::NoDestination`] if the other pipe has none, or one of the pipes is closed.
    pub fn add_pipe(&self, pipe: &Pipe) -> Result<(), PipeError> {
        if pipe.remote_addr().is_none() {
            return Err(PipeError::NoDestination);
        }
        let inner = self.inner();
        if sync::lock(&inner.state).leads_to(pipe)? {
            return Ok(());
        }
        {
            let mut other = sync::lock(&pipe.inner().state);
            if let Some(ended) = other.ended.clone() {
                return Err(ended);
            }
            let own = Arc::downgrade(inner);
            // A feeder that was added before may have been removed since.
            other.feeders.retain(|feeder| feeder.strong_count() > 0 && !feeder.ptr_eq(&own));
            other.feeders.push(own);
        }
        // Callbacks work on several datagrams at once, so start each of these messages.
        let mut begins = Vec::new();
        {
            let mut state = sync::lock(&inner.state);
            // The locks of two pipes are never held together, so the pipe may have ended in the meantime.
            if state.leads_to(pipe)? {
                return Ok(());
            }
            state.relays.push(pipe.clone());
            if state.has_own_by_default
                && let Some(own) = state.remove_own()
            {
                while let Some(message) = own.pop() {
                    begins.extend(state.claim(message, false));
                }
            }
        }
        for message in begins {
            inner.work(message);
        }
        inner.flow();
        Ok(())
    }

    /// Stops forwarding to the other pipe. Messages are queued as before it was added. Returns false if it
    /// was not added.
    pub fn del_pipe(&self, pipe: &Pipe) -> bool {
        self.inner().remove_relay(pipe.inner())
    }

    /// Returns the pipes to which messages are forwarded.
    pub fn pipes(&self) -> Vec<Pipe> {
        sync::lock(&self.inner().state).relays.clone()
    }
}
