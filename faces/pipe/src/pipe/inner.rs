//! State shared by all handles of a pipe: incoming messages, and the end.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use peersock::PeerIdentity;
use peersock::overlay::NodeId;
use peersock_net::UdpConn;
use peersock_primitives::sync;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;

use super::server::Server;
use super::state::{Outlets, State};
use super::tcp::Outgoing;
use super::{Pipe, User};
use crate::callbacks::{self, Later, StateCallback};
use crate::queue::{Buffer, Queue};
use crate::{Message, Options, PipeError, Proto};

/// Progress of the end of a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Open,
    /// The pipe accepts no more data; data already sent leaves.
    Closing,
    /// No more data comes or goes.
    Gone,
    /// The callbacks of the end have finished.
    Over,
}

/// The transport below a pipe.
pub(crate) enum Kind {
    Stream(mpsc::Sender<Outgoing>),
    Server(Server),
    Datagrams(Arc<UdpConn>),
}

/// A pipe. The tasks that drive it hold this, and no handle, so they do not keep it open.
pub(crate) struct Inner {
    pub(crate) proto: Proto,
    pub(crate) options: Options,
    pub(crate) kind: Kind,
    pub(crate) local: SocketAddr,
    pub(crate) remote: Option<SocketAddr>,
    /// The server that has accepted it. The server's callbacks and subscriptions also apply to this pipe.
    pub(crate) parent: Option<Arc<Inner>>,
    /// The member at the other end of a connection over the overlay.
    pub(crate) peer: Option<PeerIdentity>,
    pub(crate) state: Mutex<State>,
    user: Mutex<Weak<User>>,
    phase: watch::Sender<Phase>,
    /// Wakes tasks that wait for permission to read a stream.
    flow: Notify,
    /// Number of datagrams that were dropped as repetitions.
    pub(crate) repeated: AtomicU64,
    /// Notified when no callback works on a message.
    idle: Notify,
}

impl Inner {
    pub(crate) fn new(
        proto: Proto,
        options: Options,
        kind: Kind,
        local: SocketAddr,
        remote: Option<SocketAddr>,
        peer: Option<PeerIdentity>,
        parent: Option<Arc<Inner>>,
    ) -> Arc<Inner> {
        Arc::new(Inner {
            state: Mutex::new(State::new(proto, &options)),
            proto,
            options,
            kind,
            local,
            remote,
            parent,
            peer,
            user: Mutex::default(),
            phase: watch::Sender::new(Phase::Open),
            flow: Notify::new(),
            repeated: AtomicU64::new(0),
            idle: Notify::new(),
        })
    }

    /// Returns a handle. The pipe is closed when the last handle is dropped.
    pub(crate) fn handle(self: &Arc<Inner>) -> Pipe {
        let mut known = sync::lock(&self.user);
        let user = known.upgrade().unwrap_or_else(|| {
            let user = Arc::new(User(Arc::clone(self)));
            *known = Arc::downgrade(&user);
            user
        });
        Pipe(user)
    }

    /// Returns true if a handle exists.
    pub(crate) fn has_handle(&self) -> bool {
        sync::lock(&self.user).strong_count() > 0
    }

    /// Returns the machine at the other end, which counts as one client with all its programs.
    pub(crate) fn member(&self) -> Option<NodeId> {
        self.peer.as_ref().map(|peer| peer.machine)
    }

    // Progress of the end.

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub(crate) fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let is_further = to > *phase;
            *phase = to.max(*phase);
            is_further
        });
    }

    pub(crate) async fn reached(&self, phase: Phase) {
        // The sender lives as long as this.
        let _ = self.phase.subscribe().wait_for(|now| *now >= phase).await;
    }

    /// Begins to close the pipe.
    pub(crate) fn shut(&self) {
        sync::lock(&self.state).waiting.clear();
        self.advance(Phase::Closing);
        if let Kind::Datagrams(socket) = &self.kind {
            socket.close();
        }
        if let Kind::Server(server) = &self.kind {
            server.wake();
        }
        self.idle.notify_waiters();
    }

    /// Returns the reason why nothing can be sent.
    pub(crate) fn closed(&self) -> PipeError {
        sync::lock(&self.state).ended.clone().unwrap_or(PipeError::Closed)
    }

    // Incoming messages.

    fn parent_outlets(&self) -> Option<Outlets> {
        self.parent.as_ref().map(|parent| sync::lock(&parent.state).outlets())
    }

    /// Takes an incoming message.
    pub(crate) fn receive(self: &Arc<Inner>, message: Message) {
        if self.phase() != Phase::Open {
            return;
        }
        let parent = self.parent_outlets();
        let is_datagram = self.proto == Proto::Udp;
        // Hold the lock until every outlet has the message, so that a relay added in the meantime misses
        // none.
        let mut state = sync::lock(&self.state);
        let own = state.outlets();
        let both = || own.queues.iter().chain(parent.iter().flat_map(|parent| &parent.queues));
        let pushes = own.pushes || parent.as_ref().is_some_and(|parent| parent.pushes);
        // A stream loses nothing, unless an outlet that does not read would stop one that does.
        let drops = is_datagram || pushes || both().any(|(_, queue)| queue.is_awaited());
        for (filter, queue) in both() {
            if filter.as_ref().is_none_or(|filter| filter.matches(&message)) {
                queue.put(message.clone(), drops && (is_datagram || queue.is_full()));
            }
        }
        let begins = if pushes { state.claim(message, is_datagram) } else { None };
        drop(state);
        if let Some(message) = begins {
            self.work(message);
        }
    }

    /// Returns true if reading a stream must pause for now.
    fn wants_pause(&self) -> bool {
        let parent = self.parent_outlets();
        let state = sync::lock(&self.state);
        if state.waiting.is_full() {
            return true;
        }
        let own = state.outlets();
        let outlets = [Some(own), parent];
        let mut queues = outlets.iter().flatten().flat_map(|outlets| &outlets.queues);
        let pushes = outlets.iter().flatten().any(|outlets| outlets.pushes);
        !pushes
            && !queues.clone().any(|(_, queue)| queue.is_awaited())
            && queues.any(|(_, queue)| queue.is_full())
    }

    /// Waits until a stream may be read.
    pub(crate) async fn room(&self) {
        loop {
            let mut again = pin!(self.flow.notified());
            again.as_mut().enable();
            if !self.wants_pause() {
                return;
            }
            again.await;
        }
    }

    /// Makes streams check again if they may be read; for a server, also its clients' streams.
    pub(crate) fn flow(&self) {
        self.flow.notify_waiters();
        if let Kind::Server(server) = &self.kind {
            server.clients().iter().for_each(|client| client.inner().flow.notify_waiters());
        }
    }

    /// Returns the next message of a queue, or `None` after the timeout.
    pub(crate) async fn take(
        &self,
        queue: &Queue,
        within: Option<Duration>,
    ) -> Result<Option<Message>, PipeError> {
        let taking = queue.wait(Buffer::pop, || self.flow());
        let taken = match within {
            Some(within) => timeout(within, taking).await.ok().transpose(),
            None => taking.await.map(Some),
        };
        self.flow();
        taken
    }

    pub(crate) fn unsubscribe(&self, queue: &Arc<Queue>) {
        sync::lock(&self.state).unsubscribe(queue);
        self.flow();
    }

    // Callbacks and relays.

    /// Runs callbacks on a message, and on the messages that wait after it.
    pub(crate) fn work(self: &Arc<Inner>, message: Message) {
        let mut next = Some(message);
        while let Some(message) = next {
            let later = self.begin(&message);
            if later.is_empty() {
                next = self.next_message();
                continue;
            }
            let inner = Arc::clone(self);
            tokio::spawn(async move {
                callbacks::finish(later).await;
                while let Some(message) = inner.next_message() {
                    callbacks::finish(inner.begin(&message)).await;
                }
            });
            return;
        }
    }

    fn next_message(&self) -> Option<Message> {
        let next = sync::lock(&self.state).next_message();
        self.flow.notify_waiters();
        if next.is_none() {
            self.idle.notify_waiters();
        }
        next
    }

    /// Calls the callbacks for a message, the server's first. Returns the parts to await.
    fn begin(self: &Arc<Inner>, message: &Message) -> Vec<Later> {
        let mut later = Vec::new();
        for owner in self.parent.iter().chain([self]) {
            let (callbacks, relays) = {
                let state = sync::lock(&owner.state);
                let callbacks: Vec<_> =
                    state.msg_cbs.iter().map(|(_, callback)| Arc::clone(callback)).collect();
                (callbacks, state.relays.clone())
            };
            for callback in callbacks {
                later.extend(callbacks::call(|| callback(message.clone(), self.handle())));
            }
            later.extend(relays.into_iter().map(|relay| forward(Arc::clone(owner), relay, message.clone())));
        }
        later
    }

    /// Waits until callbacks have finished with all messages.
    pub(crate) async fn idle(&self) {
        loop {
            let mut again = pin!(self.idle.notified());
            again.as_mut().enable();
            {
                let state = sync::lock(&self.state);
                if state.running == 0 && state.waiting.is_empty() {
                    return;
                }
            }
            again.await;
        }
    }

    pub(crate) fn remove_relay(&self, relay: &Arc<Inner>) -> bool {
        let mut state = sync::lock(&self.state);
        let at = state.relays.iter().position(|other| Arc::ptr_eq(other.inner(), relay));
        let removed = at.map(|at| state.relays.remove(at));
        if removed.is_some() && state.relays.is_empty() && state.has_own_by_default && state.own.is_none() {
            state.queue_by_default(&self.options);
        }
        drop(state);
        self.flow();
        removed.is_some()
    }

    /// Calls callbacks for a state change of the pipe.
    pub(crate) fn call_state(self: &Arc<Inner>, callbacks: Vec<StateCallback>) -> Vec<Later> {
        let called = |callback: StateCallback| callbacks::call(|| callback(self.handle()));
        callbacks.into_iter().filter_map(called).collect()
    }

    // The end.

    /// Ends the pipe: notifies all waiters, and calls the callbacks of the end, once.
    pub(crate) async fn finish(self: &Arc<Inner>, why: PipeError) {
        let feeders = {
            let mut state = sync::lock(&self.state);
            if state.ended.is_some() {
                return;
            }
            state.ended = Some(why.clone());
            state.queues().for_each(|queue| queue.end(why.clone()));
            std::mem::take(&mut state.feeders)
        };
        for feeder in feeders.iter().filter_map(Weak::upgrade) {
            feeder.remove_relay(self);
        }
        self.advance(Phase::Gone);
        if let Kind::Server(server) = &self.kind {
            server.wake();
        }
        self.idle().await;
        let mut callbacks = Vec::new();
        for owner in self.parent.iter().chain([self]) {
            let mut state = sync::lock(&owner.state);
            state.is_over |= Arc::ptr_eq(owner, self);
            callbacks.extend(state.end_cbs.iter().map(|(_, callback)| Arc::clone(callback)));
        }
        let relays = std::mem::take(&mut sync::lock(&self.state).relays);
        drop(relays);
        if let Some(Kind::Server(server)) = self.parent.as_ref().map(|parent| &parent.kind) {
            server.forget(self);
        }
        callbacks::finish(self.call_state(callbacks)).await;
        // Callbacks may hold this pipe, or others that hold it.
        let ended = sync::lock(&self.state).take_callbacks();
        drop(ended);
        self.advance(Phase::Over);
    }
}

/// Sends a message to another pipe, as long as that pipe is open.
fn forward(from: Arc<Inner>, to: Pipe, message: Message) -> Later {
    Box::pin(async move {
        match to.send(&message).await {
            Err(error) if error.is_closed() => {
                from.remove_relay(to.inner());
            }
            Err(error) => tracing::warn!(%error, "a message was not sent to the other pipe"),
            Ok(_) => {}
        }
    })
}
