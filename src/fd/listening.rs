//! Sockets that listen: each connection becomes one of the kernel's, to the application's own listening
//! descriptor.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use peersock_fd::{
    Accepted, Credentials, Errno, Family, Name, SocketId, address, enlarge, name_of, peer_credentials,
};
use rustix::net::{SocketType, sockopt};

use super::context::{Context, unix};
use super::kernel_listener::{Alongside, Incoming};
use super::outbox::Outbox;
use super::socket_table::{Opened, Phase};
use super::state::{Entry, Readiness, ServerState};
use super::stream::{self, Origin, Stream};
use super::wakers::{self, Key};
use crate::socket::Connection;
use peersock_primitives::wait::Interest;

/// How soon, and how late at most, an application is looked at again whose queue of connections was full. The
/// kernel does not tell when there is room.
const FIRST_RETRY: Duration = Duration::from_millis(1);
pub(super) const LAST_RETRY: Duration = Duration::from_millis(50);

/// How often it is looked whether the descriptors that listen or are bound are still open.
const SWEEP: Duration = Duration::from_secs(1);

/// A socket that listens.
pub(super) struct Listening {
    pub(super) socket: peersock_fd::Opened,
    /// Who called listen(2) last.
    pub(super) owner: Credentials,
    /// The inode of the application's descriptor.
    pub(super) inode: u64,
    waker: Waker,
    entry: Arc<wakers::Entry>,
    /// Accepted from the stack, for which the application had no room.
    waiting: VecDeque<Waiting>,
    /// The kernel's socket that listens, too.
    pub(super) alongside: Option<Alongside>,
    /// Whose turn it is.
    kernel_first: bool,
    retry: Option<(Instant, Duration)>,
    sweep: Instant,
}

/// A connection that has come.
enum Waiting {
    Overlay(Connection),
    Kernel(Incoming),
}

impl Waiting {
    /// Resets it.
    fn refuse(self) {
        match self {
            Self::Overlay(connection) => connection.flow().set_reset_on_close(true),
            Self::Kernel(incoming) => incoming.refuse(),
        }
    }
}

impl ServerState {
    /// listen(2), also once more to change the backlog.
    pub(super) fn listen(
        &mut self,
        socket: peersock_fd::Opened,
        backlog: u32,
        fd: Option<OwnedFd>,
    ) -> Result<(), Errno> {
        let fd = fd.ok_or(Errno::BADF)?;
        let named = rustix::net::getsockname(&fd).ok().and_then(name_of);
        if named != Some(Name::Opened(self.context.tag, socket)) || !sockopt::socket_acceptconn(&fd)? {
            return Err(Errno::INVAL);
        }
        // Of a socket that listens they are those of who called listen(2).
        let (owner, inode) = (peer_credentials(fd.as_fd())?, rustix::fs::fstat(&fd)?.st_ino);
        if self.socket(socket).reserved.is_empty() {
            self.bind(socket, (socket.family.unspecified(), 0).into())?;
        }
        self.check_port(socket)?;
        let opened = self.socket(socket);
        match opened.phase {
            Phase::Fresh | Phase::Listening(_) => {}
            Phase::Connecting(_) | Phase::Connected(_) | Phase::Datagrams(_) => return Err(Errno::INVAL),
        }
        for acceptor in &opened.reserved {
            acceptor.listen(backlog as usize);
        }
        if let Phase::Listening(key) = opened.phase
            && let Some(Entry::Listening(listening)) = self.entry_mut(key)
        {
            listening.owner = owner;
            if let Some(alongside) = &listening.alongside {
                alongside.listen(backlog)?;
            }
        }
        let opened = self.socket(socket);
        if opened.phase == Phase::Fresh {
            let key = self.context.new_key();
            let (waker, entry) = self.context.waker(key);
            self.socket(socket).phase = Phase::Listening(key);
            let sweep = Instant::now() + SWEEP;
            self.context.set_timer(sweep, key);
            let listening = Listening {
                socket,
                owner,
                inode,
                waker: waker.clone(),
                entry,
                waiting: VecDeque::new(),
                alongside: None,
                kernel_first: false,
                retry: None,
                sweep,
            };
            self.insert(key, Entry::Listening(listening));
            waker.wake();
        }
        Ok(())
    }

    /// Refuses a port that no network allows. A socket that is bound to a wildcard may have one, as long as
    /// it only connects.
    fn check_port(&mut self, socket: peersock_fd::Opened) -> Result<(), Errno> {
        let port = self.socket(socket).reserved.first().map_or(0, |acceptor| acceptor.local_addr().port());
        if port == 0 {
            Ok(())
        } else {
            self.context.may_listen(port).inspect_err(|_| self.context.note_refusal(port))
        }
    }

    /// Gives what has come to the application.
    pub(super) fn accept_connections(&mut self, key: Key, readiness: Readiness) {
        let Some(Entry::Listening(listening)) = self.entries.get_mut(&key) else { return };
        let socket = listening.socket;
        let Some(opened) = self.sockets.get(socket.id) else { return };
        let mut accepted = Vec::new();
        let step = listening.accept(key, &mut self.context, opened, readiness, &mut accepted);
        for (key, id, stream) in accepted {
            self.sockets.note_accepted(id, key);
            let wake = stream.waker();
            self.insert(key, Entry::Stream(stream));
            wake.wake();
        }
        match step {
            Step::Waits => {}
            Step::NetworkDown => self.take_down(socket),
            Step::Closed => {
                self.sockets.remove(socket.id);
                self.remove(key);
            }
        }
    }
}

/// What follows from a look at a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It goes on.
    Waits,
    /// The node has left the network that it is bound to.
    NetworkDown,
    /// Nobody has it open.
    Closed,
}

/// What a listener has accepted.
type Accepting = Vec<(Key, SocketId, Stream)>;

impl Listening {
    /// A process that has the application's descriptor, most likely.
    pub(super) fn process(&self) -> i32 {
        self.owner.pid
    }

    /// Connects descriptors to the application's for what has come.
    fn accept(
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
        if self.sweep <= now {
            if !context.is_open(self.socket) {
                return Step::Closed;
            }
            self.sweep = now + SWEEP;
            context.set_timer(self.sweep, key);
        }
        let mut step = Step::Waits;
        loop {
            let delivered = match self.next_waiting(key, context, opened, &mut step) {
                None => return step,
                Some(Waiting::Overlay(connection)) => self
                    .deliver(context, opened, connection)
                    .map(|stream| accepted.extend(stream))
                    .map_err(|(error, connection)| (error, Waiting::Overlay(connection))),
                Some(Waiting::Kernel(incoming)) => self
                    .pass(context, incoming)
                    .map_err(|(error, incoming)| (error, Waiting::Kernel(incoming))),
            };
            match delivered {
                Ok(()) => self.retry = None,
                Err((Errno::AGAIN, waiting)) => {
                    self.waiting.push_front(waiting);
                    let wait = match self.retry {
                        // Its time has not come: this is another connection's news.
                        Some((at, _)) if at > now => return step,
                        Some((_, wait)) => (2 * wait).min(LAST_RETRY),
                        None => FIRST_RETRY,
                    };
                    self.retry = Some((now + wait, wait));
                    context.set_timer(now + wait, key);
                    return step;
                }
                // The application has closed its descriptor. What was accepted is reset, as the kernel does.
                Err((Errno::CONNREFUSED | Errno::NOENT, waiting)) => {
                    waiting.refuse();
                    return Step::Closed;
                }
                Err((error, waiting)) => {
                    tracing::warn!(%error, "a connection was reset: the system refuses a descriptor for it");
                    waiting.refuse();
                }
            }
        }
    }

    /// The next connection of either network, in turn.
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
        if let Some(connection) = self.accept_next(opened, step) {
            return Some(Waiting::Overlay(connection));
        }
        self.accept_alongside(key, context).map(Waiting::Kernel)
    }

    /// The next connection of the stack's queue.
    fn accept_next(&self, opened: &Opened, step: &mut Step) -> Option<Connection> {
        for acceptor in &opened.reserved {
            acceptor.waiters().register(Interest::Read, &self.waker);
            match acceptor.accept() {
                Ok((connection, _)) => {
                    opened.options.apply(&connection);
                    // There may be more.
                    self.waker.wake_by_ref();
                    return Some(connection);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => *step = Step::NetworkDown,
                Err(_) => {}
            }
        }
        None
    }

    /// Connects a descriptor to the application's. There is no stream if the connection has ended already.
    fn deliver(
        &self,
        context: &mut Context,
        opened: &Opened,
        connection: Connection,
    ) -> Result<Option<(Key, SocketId, Stream)>, (Errno, Connection)> {
        let Ok(peer) = connection.peer_addr() else { return Ok(None) };
        let id = match getrandom::u64() {
            Ok(bits) => SocketId::new(bits),
            Err(_) => return Err((Errno::IO, connection)),
        };
        let family = self.socket.family;
        let (peer, local) = (context.shown(family, peer), context.shown(family, connection.local_addr()));
        if Family::of(peer.ip()) != family || Family::of(local.ip()) != family {
            // There are too many who have no IPv4 address.
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
        let (origin, unix) = (Origin::Accepted(id), Outbox::of_accepted(fd, &name));
        let options = opened.options.clone();
        let stream = Stream::new(connection, origin, options, unix, self.owner.pid, waker);
        Ok(Some((key, id, stream)))
    }

    /// A descriptor of this name that is connected to the application's.
    ///
    /// # Errors
    /// EAGAIN if there is no room now, ECONNREFUSED once nobody has the listener open.
    pub(super) fn connect_to(&self, context: &Context, name: &Name) -> Result<OwnedFd, Errno> {
        let fd = unix(SocketType::STREAM)?;
        rustix::net::bind(&fd, &address(name))?;
        enlarge(fd.as_fd());
        rustix::net::connect(&fd, &address(&Name::Opened(context.tag, self.socket)))?;
        match peer_credentials(fd.as_fd())? {
            owner if owner == self.owner => Ok(fd),
            // Another process of the user's has called listen(2), and says so in a moment.
            owner if owner.uid == self.owner.uid => Err(Errno::AGAIN),
            // The application has closed its descriptor, and another user has taken the name.
            _ => Err(Errno::CONNREFUSED),
        }
    }
}
