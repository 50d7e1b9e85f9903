//! Sockets that connect: the attempt on the overlay, and the application's descriptor, which comes sooner or
//! later.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use peersock::attach::Connection;
use peersock_fd::{Credentials, Errno, Reply, SocketId, enlarge};
use peersock_primitives::wait::Interest;
use rustix::net::RecvFlags;

use crate::context::Context;
use crate::options::Options;
use crate::outbox::Outbox;
use crate::requester::failed;
use crate::stream::{self, Origin, Stream};
use crate::wakers::{self, Key};

/// How long an application may take to connect its descriptor after the connection stands.
const PATIENCE: Duration = Duration::from_secs(10);

/// An attempt.
pub(crate) struct Connecting {
    id: SocketId,
    /// Who has asked to connect.
    owner: Credentials,
    /// Others can have the text of the socket's name.
    is_private: bool,
    connection: Connection,
    waker: Waker,
    entry: Arc<wakers::Entry>,
    /// Who waits for the outcome, and until when.
    asker: Option<(Key, Option<Instant>)>,
    /// Whether the application's descriptor is filled, so that it is not writable until we say so.
    fills: bool,
    /// The descriptor's other end, once the application has connected it.
    data: Option<OwnedFd>,
    /// The application's descriptor, once it is filled.
    filled: Option<OwnedFd>,
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
        asker: Option<(Key, Option<Instant>)>,
        (waker, entry): (Waker, Arc<wakers::Entry>),
    ) -> Self {
        // The first look: connections within the node stand at once.
        waker.wake_by_ref();
        let (fills, data, filled, outcome, until) = (asker.is_none(), None, None, None, None);
        let is_aborted = false;
        Self {
            id,
            owner,
            is_private,
            connection,
            waker,
            entry,
            asker,
            fills,
            data,
            filled,
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

    /// Nobody waits any more: the descriptor will come filled.
    pub(crate) fn stop_waiting(&mut self) {
        (self.fills, self.asker) = (true, None);
    }

    /// The application has connected its descriptor.
    pub(crate) fn attach(&mut self, data: OwnedFd) {
        self.data.get_or_insert(data);
    }

    /// The application has filled its descriptor, and waits for it to become writable.
    pub(crate) fn note_filled(&mut self, app_end: Option<OwnedFd>) {
        (self.fills, self.filled) = (true, app_end);
    }

    /// Becomes a stream; `None` if the kernel does not tell of the descriptor.
    pub(crate) fn into_stream(self, key: Key, context: &Context, options: Options) -> Option<Stream> {
        let Self { id, owner, connection, waker, entry, data, fills, .. } = self;
        let data = data?;
        enlarge(data.as_fd());
        context.watch(data.as_fd(), key, stream::EVENTS).ok()?;
        waker.wake_by_ref();
        let (origin, unix) = (Origin::Opened(id), Outbox::of_connected(data));
        let mut stream = Stream::new(connection, origin, options, unix, owner.pid, (waker, entry));
        if fills {
            stream.set_untold();
        }
        Some(stream)
    }

    /// Looks how far it has come: what somebody who waits is told, and what follows.
    pub(crate) fn advance(&mut self, key: Key, context: &mut Context) -> (Option<(Key, Reply)>, Step) {
        self.entry.begin();
        let now = Instant::now();
        if self.outcome.is_none() {
            self.connection.waiters().register(Interest::Write, &self.waker);
            self.outcome = match self.connection.check_connected() {
                Ok(()) => Some(Ok(())),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
                Err(error) => Some(Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))),
            };
        }
        let mut reply = None;
        match (self.asker, self.outcome) {
            (Some((asker, _)), Some(Err(error))) => {
                return (Some((asker, failed(error))), Step::Failed(None));
            }
            (Some((asker, _)), Some(Ok(()))) => {
                self.asker = None;
                reply = Some((asker, Reply::Done));
            }
            (Some((asker, Some(until))), None) if until <= now => {
                // It goes on, as with TCP; the application leaves its descriptor filled.
                (self.fills, self.asker) = (true, None);
                reply = Some((asker, failed(Errno::INPROGRESS)));
            }
            _ => {}
        }
        let Some(outcome) = self.outcome else { return (reply, Step::Waits) };
        let is_here = self.data.is_some() && (!self.fills || self.filled.is_some());
        if !is_here {
            let until = *self.until.get_or_insert(now + PATIENCE);
            if until <= now {
                return (reply, Step::GivenUp);
            }
            context.set_timer(until, key);
            return (reply, Step::Waits);
        }
        (reply, self.finish(outcome, &mut context.buf))
    }

    /// Has the application's descriptor tell the outcome.
    ///
    /// The kernel makes room, the end and the error known one after another. A refused attempt has room first:
    /// a program that waits for room asks for SO_ERROR then. An attempt that the application itself has shut
    /// down has its end first, because the application may look for nothing else.
    fn finish(&mut self, outcome: Result<(), Errno>, buf: &mut [u8]) -> Step {
        let Err(error) = outcome else {
            self.take_filling(buf);
            return Step::Stands;
        };
        if self.is_aborted {
            // Closed with its filling unread, the descriptor has its end and its error at once.
            drop(self.data.take());
            if let Some(app_end) = self.filled.take() {
                enlarge(app_end.as_fd());
            }
        } else {
            if let Some(data) = &self.data {
                // There will be room before the end: a program that writes then must hear that nobody reads.
                let _ = rustix::net::shutdown(data, rustix::net::Shutdown::Read);
            }
            // Closed with the last byte of its filling unread, the descriptor reports an error.
            self.take_filling(buf);
        }
        Step::Failed(Some(error))
    }

    /// Whether the connection stands and the application was told: it may be writing to a descriptor that is
    /// not here yet.
    pub(crate) fn is_standing(&self) -> bool {
        self.outcome == Some(Ok(()))
    }

    /// Whether a call that has waited for it was told that it stands.
    pub(crate) fn is_told(&self) -> bool {
        self.is_standing() && !self.fills
    }

    /// Makes the application's descriptor writable, if it was filled.
    fn take_filling(&mut self, buf: &mut [u8]) {
        let (Some(data), Some(app_end)) = (&self.data, self.filled.take()) else { return };
        // It became full and was not writable since, so whatever is there now is filling. Once some of it is
        // taken the application may write. The last byte stays, see `outbox`.
        let mut filling = rustix::io::ioctl_fionread(data).unwrap_or(0).saturating_sub(1) as usize;
        while filling > 0 {
            let room = filling.min(buf.len());
            match rustix::net::recv(data, &mut buf[..room], RecvFlags::DONTWAIT) {
                Ok((taken @ 1.., _)) => filling -= taken,
                Err(Errno::INTR) => {}
                _ => break,
            }
        }
        enlarge(app_end.as_fd());
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
