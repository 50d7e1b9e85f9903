//! Sockets that are connecting: the attempt on the overlay, and the application's descriptor, which arrives
//! sooner or later.

mod shutdown;

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use peersock::attach::Connection;
use peersock_fd::{BUFFER, Credentials, Errno, Filling, Reply, SocketId, enlarge, events_of};
use peersock_primitives::wait::Interest;
use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::io::retry_on_intr;
use rustix::net::{RecvFlags, sockopt};

use crate::abandoned::SEARCH_INTERVAL;
use crate::context::Context;
use crate::options::Options;
use crate::outbox::Outbox;
use crate::requester::failed;
use crate::stream::{self, Origin, Stream};
use crate::wakers::{self, Key};

/// Time for an application to connect its descriptor after the connection is established.
const APPLICATION_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of bytes that other threads may write before the library's first piece. The library waits for room
/// when more are pending.
const MAX_EARLY_BYTES: usize = 16 * BUFFER;

/// A client that waits for the outcome of an attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    /// Key of the connection to the request socket, which carries the reply.
    pub(crate) key: Key,
    owner: Credentials,
    /// Deadline of the wait.
    pub(crate) until: Option<Instant>,
}

impl Asker {
    /// Creates an asker that waits for `timeout` from now on.
    pub(crate) fn new(key: Key, owner: Credentials, timeout: Option<Duration>) -> Self {
        Self { key, owner, until: timeout.map(|timeout| Instant::now() + timeout) }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// A connection attempt.
pub(crate) struct Connecting {
    id: SocketId,
    /// The process that has asked to connect, and connects the application's descriptor.
    owner: Credentials,
    /// True if other processes can have the text of the socket's name.
    is_private: bool,
    connection: Connection,
    waker: Waker,
    entry: Arc<wakers::Entry>,
    /// The client that began the attempt and waits for the outcome.
    asker: Option<Asker>,
    /// Other waiting clients: threads that connect a socket which is already connecting. They leave the
    /// descriptor alone.
    joined: Vec<Asker>,
    /// True if the client that began the attempt was told that it is in progress. Then the application's
    /// descriptor arrives filled, so that it is not writable until the server allows it. Only the content of
    /// the reply decides this.
    fills: bool,
    /// The library's piece at the beginning of a descriptor that comes without being filled.
    first: Option<Filling>,
    /// The descriptor's other end, once the application has connected it.
    data: Option<OwnedFd>,
    /// True if the poller watches `data`.
    is_watched: bool,
    /// The application's descriptor and its filling, once it is filled.
    filled: Option<(OwnedFd, Filling)>,
    /// Time of the next search for other copies of the filled descriptor, see [`crate::abandoned`].
    search_at: Option<Instant>,
    /// True if the last search found no other copy.
    is_missed: bool,
    /// The bytes that the application wrote before the library's last piece.
    written: Vec<u8>,
    outcome: Option<Result<(), Errno>>,
    /// Set once the application has shut its socket down, and the attempt ends because of that.
    is_aborted: bool,
    /// Set once the application has shut its socket down while it filled the descriptor. The filling then
    /// shows if the descriptor has taken data.
    is_shut_unfilled: bool,
    /// Deadline for the application to connect its descriptor.
    until: Option<Instant>,
}

/// Next step after a look at an attempt.
pub(crate) enum Step {
    /// The attempt goes on.
    Waits,
    /// The socket may try again; this is its SO_ERROR, unless a reply has reported it.
    Failed(Option<Errno>),
    /// The application did not connect its descriptor in time.
    GivenUp,
    /// The connection is established, and the descriptor is here.
    Stands,
}

impl Connecting {
    /// Begins an attempt of a socket. Without an asker its descriptor will arrive filled.
    pub(crate) fn new(
        (id, owner, is_private): (SocketId, Credentials, bool),
        connection: Connection,
        asker: Option<Asker>,
        (waker, entry): (Waker, Arc<wakers::Entry>),
    ) -> Self {
        // Trigger a first look, because connections within the node are established at once.
        waker.wake_by_ref();
        let (fills, data, filled, outcome, until) = (asker.is_none(), None, None, None, None);
        let (joined, written, is_watched) = (Vec::new(), Vec::new(), false);
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
            first: None,
            data,
            is_watched,
            filled,
            search_at: None,
            is_missed: false,
            written,
            outcome,
            is_aborted: false,
            is_shut_unfilled: false,
            until,
        }
    }

    /// Returns the socket's ID.
    pub(crate) fn id(&self) -> SocketId {
        self.id
    }

    /// Returns the connection, which may not be established yet.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Returns true if a descriptor connected by `other` is the application's. Compares only the process,
    /// because its user may have changed. For a process ID that is invisible here, the name must not be
    /// private and the users must match.
    pub(crate) fn is_of(&self, other: Credentials) -> bool {
        let is_same_unseen = !self.is_private && other.uid == self.owner.uid;
        other.pid == self.owner.pid && (other.pid != 0 || is_same_unseen)
    }

    /// Adds a client that waits for the outcome.
    pub(crate) fn join(&mut self, asker: Asker) {
        self.joined.push(asker);
    }

    /// Ends a client's wait. Returns its reply, unless it got one already.
    pub(crate) fn stop_waiting(&mut self, key: Key) -> Option<Reply> {
        if self.asker.take_if(|asker| asker.key == key).is_some() {
            self.fills = true;
            return Some(failed(Errno::INPROGRESS));
        }
        let at = self.joined.iter().position(|asker| asker.key == key)?;
        self.joined.swap_remove(at);
        Some(failed(Errno::ALREADY))
    }

    /// Forgets a waiting client that has gone. If it began the attempt, another client takes over connecting
    /// the descriptor. Returns false if there is none: then the descriptor never comes.
    pub(crate) fn forget(&mut self, key: Key) -> bool {
        self.joined.retain(|asker| asker.key != key);
        if self.asker.take_if(|asker| asker.key == key).is_none() {
            return true;
        }
        self.asker = self.joined.pop();
        self.owner = self.asker.map_or(self.owner, |asker| asker.owner);
        self.asker.is_some()
    }

    /// Stores the descriptor that the application has connected.
    pub(crate) fn attach(&mut self, data: OwnedFd) {
        self.data.get_or_insert(data);
    }

    /// Returns true if the descriptor that the application connects is here.
    pub(crate) fn has_descriptor(&self) -> bool {
        self.data.is_some()
    }

    /// Notes that the application has filled its descriptor and waits for it to become writable.
    pub(crate) fn note_filled(
        &mut self,
        app_end: Option<OwnedFd>,
        filling: Filling,
        key: Key,
        context: &mut Context,
    ) {
        self.filled = app_end.map(|app_end| (app_end, filling));
        self.search_later(Instant::now(), key, context);
        if std::mem::take(&mut self.is_shut_unfilled) {
            self.shut_down();
        }
    }

    /// Returns the node's copy of the application's descriptor, and the process that has connected it, if
    /// that process is visible here.
    pub(crate) fn held(&self) -> Option<(BorrowedFd<'_>, i32)> {
        let (app_end, _) = self.filled.as_ref().filter(|_| self.owner.pid > 0)?;
        Some((app_end.as_fd(), self.owner.pid))
    }

    /// Returns the time of the next search for other copies.
    pub(crate) fn search_at(&self) -> Option<Instant> {
        self.search_at
    }

    /// Sets the time of the next search.
    pub(crate) fn search_later(&mut self, now: Instant, key: Key, context: &mut Context) {
        self.search_at = self.held().map(|_| now + SEARCH_INTERVAL);
        if let Some(at) = self.search_at {
            context.set_timer(at, key);
        }
    }

    /// Notes whether a search missed the other copies. Returns true if two in a row have.
    pub(crate) fn note_search(&mut self, is_missed: bool) -> bool {
        std::mem::replace(&mut self.is_missed, is_missed) && is_missed
    }

    /// Returns the clients that wait for the outcome.
    pub(crate) fn askers(&self) -> Vec<Key> {
        self.asker.iter().chain(&self.joined).map(|asker| asker.key).collect()
    }

    /// Becomes a stream. Returns `None` if the poller cannot watch the descriptor.
    pub(crate) fn into_stream(self, key: Key, context: &Context, options: Options) -> Option<Stream> {
        let Self { id, owner, connection, waker, entry, data, written, fills, joined, is_watched, .. } = self;
        let data = data?;
        enlarge(data.as_fd());
        match is_watched {
            false => context.watch(data.as_fd(), key, stream::EVENTS).ok()?,
            // Repeats events that were reported already.
            true => context.rewatch(data.as_fd(), key, stream::EVENTS),
        }
        waker.wake_by_ref();
        let (origin, unix) = (Origin::Opened(id), Outbox::of_connected(data));
        let mut stream =
            Stream::new(connection, origin, options, unix, context.holder(owner.pid), (waker, entry));
        stream.set_written(written);
        if fills && joined.is_empty() {
            stream.set_untold();
        }
        Some(stream)
    }

    /// Returns the outcome, if it is known.
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

    /// Advances the attempt. Returns the replies to send after it, and the next step.
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
                (self.asker, self.first) = (None, Filling::new().ok());
                replies.push((asker.key, self.first.map_or_else(|| failed(Errno::IO), Reply::Established)));
            }
            (Some(asker), None) if asker.is_over(now) => {
                // The attempt goes on, as with TCP; the application leaves its descriptor filled.
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
            let until = *self.until.get_or_insert(now + APPLICATION_TIMEOUT);
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

    /// Adds a reply to all joined clients. Returns true if there were any.
    fn tell_joined(&self, reply: &Reply, replies: &mut Vec<(Key, Reply)>) -> bool {
        replies.extend(self.joined.iter().map(|asker| (asker.key, reply.clone())));
        !self.joined.is_empty()
    }

    /// Returns true if the application's descriptor is here, with everything that the library writes to it
    /// first. No client gets a reply before that, because the application may then write behind it.
    fn is_here(&mut self, key: Key, context: &Context) -> bool {
        if self.data.is_none() {
            return false;
        }
        if self.fills {
            return self.filled.is_some();
        }
        if self.first.is_none() || self.take_first() {
            return true;
        }
        if let Some(data) = self.data.as_ref().filter(|_| !self.is_watched) {
            self.is_watched = context.watch(data.as_fd(), key, stream::EVENTS).is_ok();
        }
        // The data may have arrived before the watch began.
        !self.is_watched || self.take_first()
    }

    /// Takes the library's first piece but its last byte, which stays in the descriptor: see `outbox`. Moves
    /// what other threads have written before it to `written`. Returns true if the piece was there, or never
    /// comes.
    fn take_first(&mut self) -> bool {
        let (Some(data), Some(first)) = (&self.data, self.first) else { return false };
        let mut seen = [0; Filling::LENGTH + 1];
        let pending =
            retry_on_intr(|| rustix::net::recv(data, &mut seen[..], RecvFlags::DONTWAIT | RecvFlags::PEEK));
        match pending {
            Err(Errno::AGAIN) => return false,
            // Nearly always the piece comes alone.
            Ok((Filling::LENGTH, _))
                if self.written.is_empty() && seen[..Filling::LENGTH] == first.bytes() =>
            {
                return retry_on_intr(|| {
                    rustix::net::recv(data, &mut seen[1..Filling::LENGTH], RecvFlags::DONTWAIT)
                })
                .is_ok();
            }
            Ok((1.., _)) => {}
            // The application has closed its descriptor.
            Ok(_) | Err(_) => return true,
        }
        if self.written.len() > MAX_EARLY_BYTES {
            return false;
        }
        // Nothing comes behind an end that is here before the data is taken.
        let is_shut = self.data.as_ref().is_none_or(|data| has_ended(data.as_fd()));
        let pending = self.take_pending();
        let others = first.without(&pending);
        let has_come = others.len() < pending.len();
        self.written.extend(others);
        if !has_come && !is_shut {
            // The last byte is still in the descriptor, and comes again.
            self.written.pop();
        }
        has_come || is_shut
    }

    /// Makes the application's descriptor report the outcome.
    ///
    /// The kernel publishes room, the end and the error one after another. A refused attempt has room first,
    /// because a program may look for nothing else. An attempt that the application itself has shut down has
    /// its end first, because the application may look for that alone.
    fn finish(&mut self, outcome: Result<(), Errno>) -> Step {
        let filled = self.filled.take();
        let app_end = filled.as_ref().map(|(app_end, _)| app_end.as_fd());
        let Err(error) = outcome else {
            if let Some((_, filling)) = filled {
                self.written = filling.without(&self.take_pending());
            }
            app_end.map(enlarge);
            return Step::Stands;
        };
        let mut waiting = None;
        if !self.is_aborted {
            if let Some(data) = &self.data {
                // This makes room before the end, so a program that writes then must get EPIPE.
                let _ = rustix::net::shutdown(data, rustix::net::Shutdown::Read);
            }
            // A program that reads then must get the error, so reads block until the end is there, a moment
            // later.
            waiting = app_end.and_then(Waiting::begin);
            self.take_pending();
        }
        // A descriptor whose peer closes with unread filling reports an error.
        drop(self.data.take());
        drop(waiting);
        app_end.map(enlarge);
        Step::Failed(Some(error))
    }

    /// Returns true if the connection is established and the application may know. It may then write to a
    /// descriptor that is not here yet.
    pub(crate) fn is_standing(&self) -> bool {
        self.outcome == Some(Ok(()))
    }

    /// Reads all but the last pending byte, so that a filled descriptor becomes writable. Returns everything,
    /// including that byte, which stays in the descriptor: see `outbox`.
    fn take_pending(&self) -> Vec<u8> {
        let Some(data) = &self.data else { return Vec::new() };
        // An urgent byte counts as pending data, so read it inline.
        let _ = sockopt::set_socket_oobinline(data, true);
        // At most the application's SO_SNDBUF. What is written from now on comes with another event.
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

    /// Makes the attempt fail.
    pub(crate) fn abort(&mut self) {
        self.reset();
        self.is_aborted = true;
        self.outcome = Some(Err(Errno::CONNRESET));
    }

    /// Makes the connection end with a reset when this is dropped.
    pub(crate) fn reset(&self) {
        self.connection.flow().set_reset_on_close(true);
    }

    /// Returns the local address, and the peer's once the connection is established.
    pub(crate) fn addresses(&self) -> (SocketAddr, Option<SocketAddr>) {
        let peer = self.connection.peer_addr().ok().filter(|_| self.outcome == Some(Ok(())));
        (self.connection.local_addr(), peer)
    }
}

/// Returns true if the application's end writes no more.
fn has_ended(data: BorrowedFd<'_>) -> bool {
    events_of(data, PollFlags::RDHUP).map_or(true, |events| !events.is_empty())
}

/// Makes calls on an application's descriptor block until dropped, even if O_NONBLOCK was set.
struct Waiting<'fd>(BorrowedFd<'fd>);

impl<'fd> Waiting<'fd> {
    /// Returns `None` if the calls block anyway.
    fn begin(fd: BorrowedFd<'fd>) -> Option<Self> {
        let is_nonblocking = rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK));
        // Create the guard only in this case, because dropping it sets the flag.
        (is_nonblocking && rustix::io::ioctl_fionbio(fd, false).is_ok()).then(|| Self(fd))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let _ = rustix::io::ioctl_fionbio(self.0, true);
    }
}
