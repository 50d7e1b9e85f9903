//! Where the messages of a pipe go to: subscriptions, callbacks and other pipes.

use std::sync::Arc;

use peersock_primitives::sync;

use super::Pipe;
use crate::callbacks::{self, CallbackId, MessageCallback, MessageCallbacks, StateCallback};
use crate::{Filter, Message, PipeError, Subscription};

impl Pipe {
    /// Has messages that match queued from now on. A message goes to every queue that it matches. A server's
    /// subscription has the messages of all clients.
    pub fn subscribe(&self, filter: Filter) -> Subscription {
        let queue = sync::lock(&self.inner().state).subscribe(filter, &self.inner().options);
        self.inner().flow();
        Subscription::new(self.clone(), queue)
    }

    /// Ends the pipe's own queue, and throws away what is in it. Who waits there is told. False if there was
    /// none.
    pub fn unsubscribe(&self) -> bool {
        let own = {
            let mut state = sync::lock(&self.inner().state);
            state.has_own_by_default = false;
            state.remove_own()
        };
        while own.as_ref().is_some_and(|own| own.pop().is_some()) {}
        self.inner().flow();
        own.is_some()
    }

    /// Has a function called for each message from now on. It must not block: an asynchronous one may wait.
    ///
    /// Of a connection, one message after the other is worked on; of datagrams, up to 64 at once. A panic is
    /// logged, and the pipe goes on. A server's callbacks get the messages of all clients, with the client's
    /// pipe. They should not hold the pipe themselves, which would never be dropped.
    pub fn add_msg_cb(&self, callback: impl Fn(Message, Pipe) + Send + Sync + 'static) -> CallbackId {
        self.add_message_callback(CallbackId::next(), callbacks::of_messages(callback))
    }

    /// As [`add_msg_cb`](Self::add_msg_cb), asynchronous.
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

    /// Adds and removes callbacks for messages: the pipe was opened with those of `before`, and is to have
    /// those of `now`.
    pub(crate) fn update_message_callbacks(&self, before: &MessageCallbacks, now: &MessageCallbacks) {
        let has = |callbacks: &MessageCallbacks, id| callbacks.iter().any(|(other, _)| *other == id);
        for (id, _) in before.iter().filter(|(id, _)| !has(now, *id)) {
            self.del_cb(*id);
        }
        for (id, callback) in now.iter().filter(|(id, _)| !has(before, *id)) {
            self.add_message_callback(*id, Arc::clone(callback));
        }
    }

    /// Has a function called when the pipe is closed, by either end: once, after the callbacks for the
    /// messages before; [`error`](Self::error) says why. If that was so already, it is called now. A server's
    /// are called for the end of each client, too.
    pub fn add_end_cb(&self, callback: impl Fn(Pipe) + Send + Sync + 'static) -> CallbackId {
        self.add_end_callback(CallbackId::next(), callbacks::of_state(callback))
    }

    /// As [`add_end_cb`](Self::add_end_cb), asynchronous.
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

    /// Has a function called for each client that connects to a server, before the client's first message is.
    pub fn add_up_cb(&self, callback: impl Fn(Pipe) + Send + Sync + 'static) -> CallbackId {
        self.add_up_callback(CallbackId::next(), callbacks::of_state(callback))
    }

    /// As [`add_up_cb`](Self::add_up_cb), asynchronous.
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

    /// Takes a callback away, of whichever kind. False if there was no such.
    pub fn del_cb(&self, id: CallbackId) -> bool {
        let mut state = sync::lock(&self.inner().state);
        let before = state.msg_cbs.len() + state.up_cbs.len() + state.end_cbs.len();
        let message = state.msg_cbs.extract_if(.., |(other, _)| *other == id).collect::<Vec<_>>();
        let up = state.up_cbs.extract_if(.., |(other, _)| *other == id).collect::<Vec<_>>();
        let end = state.end_cbs.extract_if(.., |(other, _)| *other == id).collect::<Vec<_>>();
        let after = state.msg_cbs.len() + state.up_cbs.len() + state.end_cbs.len();
        // A callback may hold pipes, which are closed without the lock.
        drop(state);
        drop((message, up, end));
        self.inner().flow();
        after < before
    }

    /// Sends what comes in here to another pipe, too, until one of them is closed or
    /// [`del_pipe`](Self::del_pipe) is called. Both ways make a relay: `a.add_pipe(&b)` and `b.add_pipe(&a)`,
    /// which then keep each other open.
    ///
    /// A stream is read no faster than the other pipe takes it. What the pipe's own queue has goes first, and
    /// the queue ends.
    ///
    /// # Errors
    /// [`PipeError::NoDestination`] if the other pipe has none; one of them is closed.
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
            // One that was added before may have been taken away since.
            other.feeders.retain(|feeder| feeder.strong_count() > 0 && !feeder.ptr_eq(&own));
            other.feeders.push(own);
        }
        // Several datagrams are worked on at once: each of them has to be begun with.
        let mut begins = Vec::new();
        {
            let mut state = sync::lock(&inner.state);
            // The locks of two pipes are never held together: meanwhile it may have ended.
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

    /// Sends nothing to the other pipe any more. Messages are queued as before it was added. False if it was
    /// not.
    pub fn del_pipe(&self, pipe: &Pipe) -> bool {
        self.inner().remove_relay(pipe.inner())
    }

    /// The pipes to which messages are sent.
    pub fn pipes(&self) -> Vec<Pipe> {
        sync::lock(&self.inner().state).relays.clone()
    }
}
