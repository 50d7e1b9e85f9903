//! Sockets that connect: the attempt on the overlay, and the application's descriptor, which comes sooner or
//! later.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use peersock_fd::{Errno, Name, Reply, SocketId, enlarge, name_of, peer_credentials};
use rustix::net::{RecvFlags, SocketFlags};

use super::context::Context;
use super::outbox::Outbox;
use super::requests::failed;
use super::socket_table::{Phase, errno};
use super::state::{Entry, ServerState};
use super::stream::{self, Origin, Stream};
use super::wakers::{self, Key};
use crate::socket::Connection;
use peersock_primitives::wait::Interest;

/// How long an application may take to connect its descriptor after the connection stands.
const PATIENCE: Duration = Duration::from_secs(10);

/// Descriptors that are accepted before others have their turn.
const MOST_ACCEPTS: usize = 64;

/// An attempt.
pub(super) struct Connecting {
    id: SocketId,
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
    /// When the application is given up that does not connect its descriptor.
    until: Option<Instant>,
}

impl ServerState {
    /// Begins an attempt. The reply is given now, or when it is known what came of it.
    pub(super) fn connect(
        &mut self,
        socket: peersock_fd::Opened,
        remote: SocketAddr,
        asker: Option<(Key, Option<Duration>)>,
    ) -> Result<(), Errno> {
        let node = self.context.node()?;
        let opened = self.socket(socket);
        match opened.phase {
            Phase::Fresh => {}
            Phase::Connecting(key) => {
                // It does not wait any more: its descriptor will come filled.
                if asker.is_none()
                    && let Some(Entry::Connecting(connecting)) = self.entry_mut(key)
                {
                    (connecting.fills, connecting.asker) = (true, None);
                }
                return Err(Errno::ALREADY);
            }
            Phase::Connected(_) | Phase::Listening(_) => return Err(Errno::ISCONN),
            Phase::Datagrams(_) => return Err(Errno::INVAL),
        }
        let remote = self.context.meant(remote);
        let opened = self.socket(socket);
        if remote.ip().is_unspecified() || remote.port() == 0 {
            return Err(Errno::CONNREFUSED);
        }
        let same_family = |local: &SocketAddr| local.is_ipv4() == remote.is_ipv4();
        let local = opened.reserved.iter().map(|acceptor| acceptor.local_addr()).find(same_family);
        if local.is_none() && !opened.reserved.is_empty() {
            return Err(Errno::NETUNREACH);
        }
        let mut options = opened.options.tcp(remote.is_ipv4());
        let device = opened.options.interface();
        // It is this socket itself that has the port.
        options.reuse_address |= local.is_some();
        let opened = Connection::open(&node, device, local, remote, options).map_err(errno);
        let connection = self.context.note_if_refused(opened, remote)?;
        let key = self.context.new_key();
        let (waker, entry) = self.context.waker(key);
        let now = Instant::now();
        let fills = asker.is_none();
        let asker = asker.map(|(asker, timeout)| (asker, timeout.map(|timeout| now + timeout)));
        if let Some((_, Some(until))) = asker {
            self.context.set_timer(until, key);
        }
        let opened = self.socket(socket);
        opened.phase = Phase::Connecting(key);
        opened.error = None;
        let connecting = Connecting {
            id: socket.id,
            connection,
            waker: waker.clone(),
            entry,
            asker,
            fills,
            data: None,
            filled: None,
            outcome: None,
            until: None,
        };
        self.insert(key, Entry::Connecting(connecting));
        // The first look: connections within the node stand at once.
        waker.wake();
        Ok(())
    }

    /// An application has connected its descriptor.
    pub(super) fn accept_data(&mut self, listener: &OwnedFd) {
        for _ in 0..MOST_ACCEPTS {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (fd, from) = match rustix::net::acceptfrom_with(listener, flags) {
                Ok(accepted) => accepted,
                Err(error) => return self.turn_away(listener, error),
            };
            // A stranger cannot have the name of a socket that a known application has asked to connect.
            let Some(Name::Opened(_, socket)) = from.and_then(name_of) else { continue };
            if let Some((key, attempt)) = self.attempt_of(socket) {
                attempt.data.get_or_insert(fd);
                self.advance(key);
            }
        }
    }

    /// An application has filled its descriptor, and waits for it to become writable.
    pub(super) fn filled(&mut self, socket: peersock_fd::Opened, app_end: Option<OwnedFd>) {
        if let Some((key, attempt)) = self.attempt_of(socket) {
            attempt.fills = true;
            attempt.filled = app_end;
            self.advance(key);
        }
    }

    fn attempt_of(&mut self, socket: peersock_fd::Opened) -> Option<(Key, &mut Connecting)> {
        let Some(Phase::Connecting(key)) = self.sockets.phase(socket.id) else { return None };
        match self.entry_mut(key) {
            Some(Entry::Connecting(attempt)) => Some((key, attempt)),
            _ => None,
        }
    }

    /// Looks how far an attempt has come.
    pub(super) fn advance(&mut self, key: Key) {
        let Some(Entry::Connecting(attempt)) = self.entries.get_mut(&key) else { return };
        let id = attempt.id;
        let (reply, step) = attempt.advance(key, &mut self.context);
        if let Some((asker, reply)) = reply {
            self.reply(asker, &reply);
        }
        match step {
            Step::Waits => {}
            Step::Failed(error) => {
                if let Some(opened) = self.sockets.get_mut(id) {
                    (opened.phase, opened.error) = (Phase::Fresh, error);
                }
                self.remove(key);
            }
            Step::GivenUp => {
                self.sockets.remove(id);
                self.remove(key);
            }
            Step::Stands => {
                if let Some(Entry::Connecting(attempt)) = self.remove(key) {
                    self.begin_stream(key, attempt);
                }
            }
        }
    }

    fn begin_stream(&mut self, key: Key, attempt: Connecting) {
        let Connecting { id, connection, waker, entry, data: Some(data), .. } = attempt else { return };
        enlarge(data.as_fd());
        let process = peer_credentials(data.as_fd()).map_or(0, |credentials| credentials.pid);
        let Some(opened) = self.sockets.get_mut(id) else { return };
        opened.phase = Phase::Connected(key);
        let options = opened.options.clone();
        if self.context.watch(data.as_fd(), key, stream::EVENTS).is_err() {
            self.sockets.remove(id);
            return;
        }
        waker.wake_by_ref();
        let (origin, unix) = (Origin::Opened(id), Outbox::of_connected(data));
        let stream = Stream::new(connection, origin, options, unix, process, (waker, entry));
        self.insert(key, Entry::Stream(stream));
    }
}

/// What follows from a look at an attempt.
enum Step {
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
    /// Looks how far it has come: what somebody who waits is told, and what follows.
    fn advance(&mut self, key: Key, context: &mut Context) -> (Option<(Key, Reply)>, Step) {
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
        // The kernel wakes who waits before it frees what is unread, and with it the room to write: without
        // this, a descriptor whose connection was refused would have an error for a moment, and no room.
        // Closed with the last byte of its filling unread, it reports an error.
        self.take_filling(&mut context.buf);
        (reply, outcome.map_or_else(|error| Step::Failed(Some(error)), |()| Step::Stands))
    }

    /// Whether the connection stands and the application was told: it may be writing to a descriptor that is
    /// not here yet.
    pub(super) fn is_standing(&self) -> bool {
        self.outcome == Some(Ok(()))
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

    /// Has the connection reset when this is dropped.
    pub(super) fn reset(&self) {
        self.connection.flow().set_reset_on_close(true);
    }

    /// The own address, and the other end's once the connection stands.
    pub(super) fn addresses(&self) -> (SocketAddr, Option<SocketAddr>) {
        let peer = self.connection.peer_addr().ok().filter(|_| self.outcome == Some(Ok(())));
        (self.connection.local_addr(), peer)
    }
}
