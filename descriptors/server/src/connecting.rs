//! Sockets that connect: the attempt on the overlay, and the application's descriptor, which comes sooner or
//! later.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use peersock::attach::Connection;
use peersock_fd::{Credentials, Errno, Filling, Reply, SocketId, enlarge, events_of};
use peersock_primitives::wait::Interest;
use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::net::{RecvFlags, sockopt};

use crate::context::Context;
use crate::options::Options;
use crate::outbox::Outbox;
use crate::requester::failed;
use crate::stream::{self, Origin, Stream};
use crate::wakers::{self, Key};

/// How long an application may take to connect its descriptor after the connection stands.
const PATIENCE: Duration = Duration::from_secs(10);

/// Somebody who waits for the outcome of an attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    /// The connection to the request socket, on which the reply goes.
    pub(crate) key: Key,
    owner: Credentials,
    /// The end of its wait.
    pub(crate) until: Option<Instant>,
}

impl Asker {
    /// One that waits so long from now on.
    pub(crate) fn new(key: Key, owner: Credentials, timeout: Option<Duration>) -> Self {
        Self { key, owner, until: timeout.map(|timeout| Instant::now() + timeout) }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// An attempt.
pub(crate) struct Connecting {
    id: SocketId,
    /// The process that has asked to connect, and connects the application's descriptor.
    owner: Credentials,
    /// Others can have the text of the socket's name.
    is_private: bool,
    connection: Connection,
    waker: Waker,
    entry: Arc<wakers::Entry>,
    /// The one who has begun it, and waits for the outcome.
    asker: Option<Asker>,
    /// Others that wait: threads that connect a socket which connects already. They leave the descriptor
    /// alone.
    joined: Vec<Asker>,
    /// True if the one who has begun it was told that it goes on: the application's descriptor comes filled,
    /// so that it is not writable until we say so. It is decided by what the reply says, and by nothing else.
    fills: bool,
    /// The descriptor's other end, once the application has connected it.
    data: Option<OwnedFd>,
    /// True if the kernel tells of it.
    is_watched: bool,
    /// The application's descriptor, once it is filled, and with what.
    filled: Option<(OwnedFd, Filling)>,
    /// The bytes that the application has written while the library filled its descriptor.
    written: Vec<u8>,
    outcome: Option<Result<(), Errno>>,
    /// The application has shut its socket down.
    is_aborted: bool,
    /// When the application is given up that does not connect its descriptor.
    until: Option<Instant>,
}

/// What follows from a look at an attempt.
pub(crate) enum Step {
    /// It goes on.
    Waits,
    /// The socket may try again; this is its SO_ERROR, unless the application was told by a reply.
    Failed(Option<Errno>),
    /// The application does not connect its descriptor.
    GivenUp,
    /// The connection stands, and the descriptor is here.
    Stands,
}

impl Connecting {
    /// Begins an attempt of a socket. If nobody waits for the outcome, its descriptor will come filled.
    pub(crate) fn new(
        (id, owner, is_private): (SocketId, Credentials, bool),
        connection: Connection,
        asker: Option<Asker>,
        (waker, entry): (Waker, Arc<wakers::Entry>),
    ) -> Self {
        // The first look: connections within the node stand at once.
        waker.wake_by_ref();
        let (fills, data, filled, outcome, until) = (asker.is_none(), None, None, None, None);
        let (joined, written, is_watched, is_aborted) = (Vec::new(), Vec::new(), false, false);
        Self {
            id,
            owner,
            is_private,
            connection,
            waker,
            entry,
            asker,
            joined,
            fills,
            data,
            is_watched,
            filled,
            written,
            outcome,
            is_aborted,
            until,
        }
    }

    /// The socket.
    pub(crate) fn id(&self) -> SocketId {
        self.id
    }

    /// The connection, which may not stand yet.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether a descriptor that somebody has connected is the application's. A process may have another user
    /// by now; where it cannot be seen from here, its name has to be its own, and its user the same.
    pub(crate) fn is_of(&self, other: Credentials) -> bool {
        let is_same_unseen = !self.is_private && other.uid == self.owner.uid;
        other.pid == self.owner.pid && (other.pid != 0 || is_same_unseen)
    }

    /// Another one waits for the outcome.
    pub(crate) fn join(&mut self, asker: Asker) {
        self.joined.push(asker);
    }

    /// One who has waited does so no longer: what it is told, unless it was told already.
    pub(crate) fn stop_waiting(&mut self, key: Key) -> Option<Reply> {
        if self.asker.take_if(|asker| asker.key == key).is_some() {
            self.fills = true;
            return Some(failed(Errno::INPROGRESS));
        }
        let at = self.joined.iter().position(|asker| asker.key == key)?;
        self.joined.swap_remove(at);
        Some(failed(Errno::ALREADY))
    }

    /// One who has waited is gone. If it has begun the attempt, another one connects the descriptor.
    pub(crate) fn forget(&mut self, key: Key) {
        self.joined.retain(|asker| asker.key != key);
        if self.asker.take_if(|asker| asker.key == key).is_none() {
            return;
        }
        self.asker = self.joined.pop();
        match self.asker {
            Some(asker) => self.owner = asker.owner,
            None => self.fills = true,
        }
    }

    /// The application has connected its descriptor.
    pub(crate) fn attach(&mut self, data: OwnedFd) {
        self.data.get_or_insert(data);
    }

    /// The application has filled its descriptor, and waits for it to become writable.
    pub(crate) fn note_filled(&mut self, app_end: Option<OwnedFd>, filling: Filling) {
        self.filled = app_end.map(|app_end| (app_end, filling));
    }

    /// Becomes a stream; `None` if the kernel does not tell of the descriptor.
    pub(crate) fn into_stream(self, key: Key, context: &Context, options: Options) -> Option<Stream> {
        let Self { id, owner, connection, waker, entry, data, written, fills, joined, is_watched, .. } = self;
        let data = data?;
        enlarge(data.as_fd());
        match is_watched {
            false => context.watch(data.as_fd(), key, stream::EVENTS).ok()?,
            // What it has told of already it tells again.
            true => context.rewatch(data.as_fd(), key, stream::EVENTS),
        }
        waker.wake_by_ref();
        let (origin, unix) = (Origin::Opened(id), Outbox::of_connected(data));
        let mut stream = Stream::new(connection, origin, options, unix, owner.pid, (waker, entry));
        stream.set_written(written);
        if fills && joined.is_empty() {
            stream.set_untold();
        }
        Some(stream)
    }

    /// Returns the outcome, if that is known.
    pub(crate) fn look(&mut self) -> Option<Result<(), Errno>> {
        if self.outcome.is_none() {
            self.connection.waiters().register(Interest::Write, &self.waker);
            self.outcome = match self.connection.check_connected() {
                Ok(()) => Some(Ok(())),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
                Err(error) => Some(Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))),
            };
        }
        self.outcome
    }

    /// Looks how far it has come: what those who wait are told after it, and what follows.
    pub(crate) fn advance(&mut self, key: Key, context: &mut Context) -> (Vec<(Key, Reply)>, Step) {
        self.entry.begin();
        let now = Instant::now();
        let mut replies = Vec::new();
        match (self.asker, self.look()) {
            (Some(asker), Some(Err(error))) => {
                replies.push((asker.key, failed(error)));
                self.tell_joined(&failed(error), &mut replies);
                return (replies, Step::Failed(None));
            }
            (Some(asker), Some(Ok(()))) => {
                self.asker = None;
                replies.push((asker.key, Reply::Done));
            }
            (Some(asker), None) if asker.is_over(now) => {
                // It goes on, as with TCP; the application leaves its descriptor filled.
                (self.fills, self.asker) = (true, None);
                replies.push((asker.key, failed(Errno::INPROGRESS)));
            }
            _ => {}
        }
        for asker in self.joined.extract_if(.., |asker| asker.is_over(now)) {
            replies.push((asker.key, failed(Errno::ALREADY)));
        }
        let Some(outcome) = self.outcome else { return (replies, Step::Waits) };
        if !self.is_here(key, context) {
            let until = *self.until.get_or_insert(now + PATIENCE);
            if until <= now {
                self.tell_joined(&failed(Errno::TIMEDOUT), &mut replies);
                return (replies, Step::GivenUp);
            }
            context.set_timer(until, key);
            return (replies, Step::Waits);
        }
        let is_told_apart = self.tell_joined(&outcome.map_or_else(failed, |()| Reply::Stands), &mut replies);
        match self.finish(outcome) {
            Step::Failed(_) if is_told_apart => (replies, Step::Failed(None)),
            step => (replies, step),
        }
    }

    /// Tells those who have joined in waiting; true if there were any.
    fn tell_joined(&self, reply: &Reply, replies: &mut Vec<(Key, Reply)>) -> bool {
        replies.extend(self.joined.iter().map(|asker| (asker.key, reply.clone())));
        !self.joined.is_empty()
    }

    /// Returns true if the application's descriptor is here, with all that the library writes to it first.
    /// Nobody is told before that he may write behind it.
    fn is_here(&mut self, key: Key, context: &Context) -> bool {
        let Some(data) = &self.data else { return false };
        if self.fills {
            return self.filled.is_some();
        }
        if has_come(data.as_fd()) {
            return true;
        }
        if !self.is_watched {
            self.is_watched = context.watch(data.as_fd(), key, stream::EVENTS).is_ok();
        }
        // It may have come before the kernel was asked to tell.
        !self.is_watched || has_come(data.as_fd())
    }

    /// Has the application's descriptor tell the outcome.
    ///
    /// The kernel makes room, the end and the error known one after another. A refused attempt has room
    /// first, because a program may look for nothing else. An attempt that the application itself has shut
    /// down has its end first, because the application may look for that alone.
    fn finish(&mut self, outcome: Result<(), Errno>) -> Step {
        let filled = self.filled.take();
        let app_end = filled.as_ref().map(|(app_end, _)| app_end.as_fd());
        let Err(error) = outcome else {
            if let Some((_, filling)) = filled {
                self.written = filling.without(&self.take_filling());
            }
            app_end.map(enlarge);
            return Step::Stands;
        };
        let mut waiting = None;
        if !self.is_aborted {
            if let Some(data) = &self.data {
                // There will be room before the end: a program that writes then must hear that nobody reads.
                let _ = rustix::net::shutdown(data, rustix::net::Shutdown::Read);
            }
            // One that reads then must hear why: it waits until the end is there, a moment later.
            waiting = app_end.and_then(Waiting::begin);
            self.take_filling();
        }
        // Closed with something of its filling unread, the descriptor reports an error.
        drop(self.data.take());
        drop(waiting);
        app_end.map(enlarge);
        Step::Failed(Some(error))
    }

    /// Whether the connection stands and the application was told: it may be writing to a descriptor that is
    /// not here yet.
    pub(crate) fn is_standing(&self) -> bool {
        self.outcome == Some(Ok(()))
    }

    /// Takes all but the last byte of what is in a descriptor that was filled, so that it becomes writable.
    /// Gives all of it, that byte included, which stays: see `outbox`.
    fn take_filling(&self) -> Vec<u8> {
        let Some(data) = &self.data else { return Vec::new() };
        // An urgent byte is counted among those that are there, and is to be read with them.
        let _ = sockopt::set_socket_oobinline(data, true);
        // It became full and was not writable since: what is there now is filling, and what the application
        // has written before it was full. The kernel keeps no more of a program than its SO_SNDBUF.
        let there = rustix::io::ioctl_fionread(data).map_or(0, |there| there as usize);
        let (mut buf, mut taken) = (vec![0; there], 0);
        while taken < there {
            let (flags, end) = match there - taken {
                1 => (RecvFlags::DONTWAIT | RecvFlags::PEEK, there),
                _ => (RecvFlags::DONTWAIT, there - 1),
            };
            match rustix::net::recv(data, &mut buf[taken..end], flags) {
                Ok((length @ 1.., _)) => taken += length,
                Err(Errno::INTR) => {}
                _ => break,
            }
        }
        buf.truncate(taken);
        buf
    }

    /// shutdown(2): it comes to nothing.
    pub(crate) fn abort(&mut self) {
        self.reset();
        self.is_aborted = true;
        self.outcome = Some(Err(Errno::CONNRESET));
    }

    /// Has the connection reset when this is dropped.
    pub(crate) fn reset(&self) {
        self.connection.flow().set_reset_on_close(true);
    }

    /// The own address, and the other end's once the connection stands.
    pub(crate) fn addresses(&self) -> (SocketAddr, Option<SocketAddr>) {
        let peer = self.connection.peer_addr().ok().filter(|_| self.outcome == Some(Ok(())));
        (self.connection.local_addr(), peer)
    }
}

/// Returns true if the application's end has written something, or is closed.
fn has_come(data: BorrowedFd<'_>) -> bool {
    events_of(data, PollFlags::IN).map_or(true, |events| !events.is_empty())
}

/// The calls on an application's descriptor wait, whatever its O_NONBLOCK says, until this is dropped.
struct Waiting<'fd>(BorrowedFd<'fd>);

impl<'fd> Waiting<'fd> {
    /// `None` if they do so anyway.
    fn begin(fd: BorrowedFd<'fd>) -> Option<Self> {
        let is_nonblocking = rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK));
        // Made only where it is true: who is dropped sets the flag.
        (is_nonblocking && rustix::io::ioctl_fionbio(fd, false).is_ok()).then(|| Self(fd))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let _ = rustix::io::ioctl_fionbio(self.0, true);
    }
}
