//! Listening sockets: each connection becomes a kernel connection to the application's own listening
//! descriptor.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use peersock::attach::{Connection, Place};
use peersock_fd::{Accepted, Credentials, Errno, Family, Name, SocketId, address, enlarge, peer_credentials};
use peersock_primitives::wait::Interest;
use rustix::net::SocketType;

use crate::context::Context;
use crate::kernel_listener::{Alongside, Incoming};
use crate::log_limit::LogLimit;
use crate::outbox::Outbox;
use crate::passed_fds;
use crate::private_name::PrivateName;
use crate::socket_table::Opened;
use crate::stream::{self, Origin, Stream};
use crate::unix::unix;
use crate::wakers::{self, Key, Readiness};

/// Shortest and longest interval before an application whose accept queue was full is tried again. The kernel
/// does not report room.
const MIN_RETRY_INTERVAL: Duration = Duration::from_millis(1);
pub(crate) const MAX_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Interval of the sweep for listeners the application has closed, where the kernel does not report it.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A listening socket.
pub(crate) struct Listening {
    socket: peersock_fd::Opened,
    /// Credentials of the last caller of listen(2).
    owner: Credentials,
    /// Name to which only the node can connect, if the socket has one.
    private: Option<Arc<PrivateName>>,
    waker: Waker,
    entry: Arc<wakers::Entry>,
    /// Connections accepted from the stack that did not fit into the application's queue.
    waiting: VecDeque<Waiting>,
    /// The kernel socket that listens as well.
    pub(crate) alongside: Option<Alongside>,
    /// True if connections hold their place until the application accepts them.
    counts_exactly: bool,
    /// True if a kernel connection is next.
    kernel_first: bool,
    retry: Option<(Instant, Duration)>,
    /// Time of the next sweep, where closings are not reported.
    sweep: Option<Instant>,
    /// Connections reset for lack of a descriptor. Its warnings are rate-limited, because peers open as many
    /// as they like.
    refused: LogLimit,
}

/// Largest number of places that is counted exactly, because an application that asks for a small backlog
/// means it. For larger ones it suffices that the kernel queue and the stack's queue both keep the limit.
const MAX_EXACT_PLACES: usize = 16;

/// Returns the number of connections that may wait (as in Linux one more than the backlog), and whether the
/// node counts them exactly.
pub(crate) fn places(backlog: u32) -> (usize, bool) {
    let places = backlog as usize + 1;
    (places, places <= MAX_EXACT_PLACES)
}

/// An incoming connection.
enum Waiting {
    /// An overlay connection, with its place in the queue if places are counted.
    Overlay(Connection, Option<Place>),
    Kernel(Incoming),
}

impl Waiting {
    /// Resets the connection.
    fn refuse(self) {
        match self {
            Self::Overlay(connection, _) => connection.flow().set_reset_on_close(true),
            Self::Kernel(incoming) => incoming.refuse(),
        }
    }
}

/// Result of a look at a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The listener goes on.
    Waits,
    /// The node has left the network that the listener is bound to.
    NetworkDown,
    /// No process has the listener open.
    Closed,
}

/// Streams that a listener has accepted.
pub(crate) type Accepting = Vec<AcceptedStream>;

/// A stream with its key and the ID in its name.
type AcceptedStream = (Key, SocketId, Stream);

impl Listening {
    /// Starts listening for an application that has called listen(2).
    pub(crate) fn new(
        key: Key,
        socket: peersock_fd::Opened,
        (owner, private): (Credentials, Option<Arc<PrivateName>>),
        is_watched: bool,
        backlog: u32,
        context: &mut Context,
    ) -> Self {
        let (waker, entry) = context.waker(key);
        let sweep = (!is_watched).then(|| Instant::now() + SWEEP_INTERVAL);
        if let Some(sweep) = sweep {
            context.set_timer(sweep, key);
        }
        waker.wake_by_ref();
        Self {
            socket,
            owner,
            private,
            waker,
            entry,
            waiting: VecDeque::new(),
            alongside: None,
            counts_exactly: places(backlog).1,
            kernel_first: false,
            retry: None,
            sweep,
            refused: LogLimit::default(),
        }
    }

    /// Returns the socket.
    pub(crate) fn socket(&self) -> peersock_fd::Opened {
        self.socket
    }

    /// Handles a repeated listen(2), possibly by another process.
    pub(crate) fn listen_again(&mut self, owner: Credentials, backlog: u32) -> Result<(), Errno> {
        self.owner = owner;
        self.counts_exactly = places(backlog).1;
        self.alongside.as_ref().map_or(Ok(()), |alongside| alongside.listen(backlog))
    }

    /// Returns the process that most likely has the application's descriptor.
    pub(crate) fn process(&self) -> i32 {
        self.owner.pid
    }

    /// Connects a descriptor to the application's for each new connection.
    pub(crate) fn accept(
        &mut self,
        key: Key,
        context: &mut Context,
        opened: &Opened,
        readiness: Readiness,
        accepted: &mut Accepting,
    ) -> Step {
        self.entry.begin();
        if let Some(alongside) = &mut self.alongside {
            alongside.begin(readiness.readable);
        }
        let now = Instant::now();
        if self.sweep.is_some_and(|sweep| sweep <= now) {
            if !context.is_open(opened, SWEEP_INTERVAL) {
                return Step::Closed;
            }
            self.sweep = Some(now + SWEEP_INTERVAL);
            context.set_timer(now + SWEEP_INTERVAL, key);
        }
        let mut step = Step::Waits;
        loop {
            let delivered = match self.next_waiting(key, context, opened, &mut step) {
                None => return step,
                Some(Waiting::Overlay(connection, place)) => {
                    match self.deliver(context, opened, connection) {
                        Ok(stream) => {
                            accepted
                                .extend(stream.map(|(key, id, stream)| (key, id, stream.in_place(place))));
                            Ok(())
                        }
                        Err((error, connection)) => Err((error, Waiting::Overlay(connection, place))),
                    }
                }
                Some(Waiting::Kernel(incoming)) => self
                    .pass(context, incoming)
                    .map_err(|(error, incoming)| (error, Waiting::Kernel(incoming))),
            };
            match delivered {
                Ok(()) => self.retry = None,
                Err((Errno::AGAIN, waiting)) => {
                    self.waiting.push_front(waiting);
                    let wait = match self.retry {
                        // The retry is not due yet; an event of another connection led here.
                        Some((at, _)) if at > now => return step,
                        Some((_, wait)) => (2 * wait).min(MAX_RETRY_INTERVAL),
                        None => MIN_RETRY_INTERVAL,
                    };
                    self.retry = Some((now + wait, wait));
                    context.set_timer(now + wait, key);
                    return step;
                }
                // The application has closed its descriptor. Reset what was accepted, as the kernel does.
                Err((Errno::CONNREFUSED | Errno::NOENT, waiting)) => {
                    waiting.refuse();
                    return Step::Closed;
                }
                Err((error, waiting)) => {
                    if let Some(connections) = self.refused.count(now) {
                        let reason = "connections were reset: the system refuses descriptors for them";
                        tracing::warn!(%error, connections, "{reason}");
                    }
                    waiting.refuse();
                }
            }
        }
    }

    /// Returns the next connection, alternating between the two networks.
    fn next_waiting(
        &mut self,
        key: Key,
        context: &mut Context,
        opened: &Opened,
        step: &mut Step,
    ) -> Option<Waiting> {
        if let Some(waiting) = self.waiting.pop_front() {
            return Some(waiting);
        }
        self.kernel_first = !self.kernel_first;
        if self.kernel_first
            && let Some(incoming) = self.accept_alongside(key, context)
        {
            return Some(Waiting::Kernel(incoming));
        }
        if let Some((connection, place)) = self.accept_next(opened, step) {
            return Some(Waiting::Overlay(connection, Some(place).filter(|_| self.counts_exactly)));
        }
        self.accept_alongside(key, context).map(Waiting::Kernel)
    }

    /// Returns the next connection of the stack's queue.
    fn accept_next(&self, opened: &Opened, step: &mut Step) -> Option<(Connection, Place)> {
        for acceptor in &opened.reserved {
            acceptor.waiters().register(Interest::Read, &self.waker);
            match acceptor.accept_in_place() {
                Ok((connection, place)) => {
                    opened.options.apply(&connection);
                    // There may be more.
                    self.waker.wake_by_ref();
                    return Some((connection, place));
                }
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => *step = Step::NetworkDown,
                Err(_) => {}
            }
        }
        None
    }

    /// Connects a descriptor to the application's. Returns no stream if the connection has ended already.
    fn deliver(
        &self,
        context: &mut Context,
        opened: &Opened,
        connection: Connection,
    ) -> Result<Option<AcceptedStream>, (Errno, Connection)> {
        let Ok(peer) = connection.peer_addr() else { return Ok(None) };
        let id = match getrandom::u64() {
            Ok(bits) => SocketId::new(bits),
            Err(_) => return Err((Errno::IO, connection)),
        };
        let family = self.socket.family;
        let (peer, local) = (context.shown(family, peer), context.shown(family, connection.local_addr()));
        if Family::of(peer.ip()) != family || Family::of(local.ip()) != family {
            // There are too many members without an IPv4 address.
            return Err((Errno::ADDRNOTAVAIL, connection));
        }
        let accepted = Accepted { id, peer, local };
        let name = Name::Accepted(context.tag, accepted);
        let fd = match self.connect_to(context, &name) {
            Ok(fd) => fd,
            Err(error) => return Err((error, connection)),
        };
        let key = context.new_key();
        let waker = context.waker(key);
        if context.watch(fd.as_fd(), key, stream::EVENTS).is_err() {
            return Err((Errno::NOMEM, connection));
        }
        let origin = Origin::Accepted { id, listener: self.socket.id };
        let unix = Outbox::of_accepted(fd, &name);
        let options = opened.options.inherited();
        let stream = Stream::new(connection, origin, options, unix, context.holder(self.owner.pid), waker);
        Ok(Some((key, id, stream)))
    }

    /// Returns a descriptor with this name, connected to the application's.
    ///
    /// # Errors
    /// EAGAIN if there is no room now, ECONNREFUSED once no process has the listener open.
    pub(crate) fn connect_to(&self, context: &Context, name: &Name) -> Result<OwnedFd, Errno> {
        let fd = unix(SocketType::STREAM)?;
        passed_fds::refuse(fd.as_fd());
        rustix::net::bind(&fd, &address(name))?;
        enlarge(fd.as_fd());
        if let Some(private) = &self.private {
            rustix::net::connect(&fd, &private.address()?)?;
            return Ok(fd);
        }
        rustix::net::connect(&fd, &address(&Name::Opened(context.tag, self.socket)))?;
        match peer_credentials(fd.as_fd())? {
            owner if owner == self.owner => Ok(fd),
            // Another process of the same user has called listen(2), and will notify the node in a moment.
            owner if owner.uid == self.owner.uid => Err(Errno::AGAIN),
            // The application has closed its descriptor, and another user has taken the name.
            _ => Err(Errno::CONNREFUSED),
        }
    }
}
