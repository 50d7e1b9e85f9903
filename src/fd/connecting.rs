//! Sockets that connect: the attempt on the overlay, and the application's descriptor, which comes sooner or
//! later.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use peersock_fd::{Errno, Name, Reply, SocketId, enlarge, name_of, peer_credentials};
use rustix::net::{RecvFlags, SocketFlags};

use super::outbox::Outbox;
use super::ready::{self, Key};
use super::server::{Entry, ServerState};
use super::sockets::{Phase, errno};
use super::stream::{self, Origin, Stream};
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
    entry: Arc<ready::Entry>,
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
        let node = self.node.upgrade().ok_or(Errno::NETDOWN)?;
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
        let remote = self.meant(remote);
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
        let connection = self.note_if_refused(opened, remote)?;
        let key = self.new_key();
        let (waker, entry) = self.ready.waker(key);
        let now = Instant::now();
        let fills = asker.is_none();
        let asker = asker.map(|(asker, timeout)| (asker, timeout.map(|timeout| now + timeout)));
        if let Some((_, Some(until))) = asker {
            self.set_timer(until, key);
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
            if let Some(Phase::Connecting(key)) = self.opened.get(&socket.id).map(|opened| opened.phase)
                && let Some(Entry::Connecting(mut connecting)) = self.remove(key)
            {
                connecting.data.get_or_insert(fd);
                self.insert(key, Entry::Connecting(connecting));
                self.handle(key, super::server::Readiness::default());
            }
        }
    }

    /// An application has filled its descriptor, and waits for it to become writable.
    pub(super) fn filled(&mut self, socket: peersock_fd::Opened, app_end: Option<OwnedFd>) {
        if let Some(Phase::Connecting(key)) = self.opened.get(&socket.id).map(|opened| opened.phase)
            && let Some(Entry::Connecting(mut connecting)) = self.remove(key)
        {
            connecting.fills = true;
            connecting.filled = app_end;
            self.insert(key, Entry::Connecting(connecting));
            self.handle(key, super::server::Readiness::default());
        }
    }

    /// Looks how far an attempt has come.
    pub(super) fn advance(&mut self, key: Key, mut connecting: Connecting) -> Option<Entry> {
        connecting.entry.begin();
        let now = Instant::now();
        if connecting.outcome.is_none() {
            connecting.connection.waiters().register(Interest::Write, &connecting.waker);
            connecting.outcome = match connecting.connection.check_connected() {
                Ok(()) => Some(Ok(())),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
                Err(error) => Some(Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))),
            };
        }
        let (asker, outcome) = (connecting.asker, connecting.outcome);
        match (asker, outcome) {
            (Some((asker, _)), Some(outcome)) => {
                connecting.asker = None;
                self.reply(
                    asker,
                    &outcome.map_or_else(|error| Reply::Failed(error.raw_os_error()), |()| Reply::Done),
                );
                if outcome.is_err() {
                    // It may try again.
                    self.socket_failed(connecting.id, None);
                    return None;
                }
            }
            (Some((asker, Some(until))), None) if until <= now => {
                // It goes on, as with TCP; the application leaves its descriptor filled.
                (connecting.fills, connecting.asker) = (true, None);
                self.reply(asker, &Reply::Failed(Errno::INPROGRESS.raw_os_error()));
            }
            _ => {}
        }
        let Some(outcome) = outcome else { return Some(Entry::Connecting(connecting)) };
        let is_here = connecting.data.is_some() && (!connecting.fills || connecting.filled.is_some());
        if !is_here {
            let until = *connecting.until.get_or_insert(now + PATIENCE);
            if until <= now {
                self.opened.remove(&connecting.id);
                return None;
            }
            self.set_timer(until, key);
            return Some(Entry::Connecting(connecting));
        }
        match outcome {
            Ok(()) => self.begin_stream(key, connecting),
            // Closed with the last byte of its filling unread, the descriptor reports an error.
            Err(error) => {
                // First of all, so that who finds it writable is told of it.
                self.socket_failed(connecting.id, Some(error));
                // The kernel wakes who waits before it frees what is unread, and with it the room to write:
                // otherwise there would be an error for a moment, and no room.
                connecting.take_filling(&mut self.buf);
                None
            }
        }
    }

    fn socket_failed(&mut self, id: SocketId, error: Option<Errno>) {
        if let Some(opened) = self.opened.get_mut(&id) {
            (opened.phase, opened.error) = (Phase::Fresh, error);
        }
    }

    fn begin_stream(&mut self, key: Key, mut connecting: Connecting) -> Option<Entry> {
        connecting.take_filling(&mut self.buf);
        let data = connecting.data.take()?;
        enlarge(data.as_fd());
        let process = peer_credentials(data.as_fd()).map_or(0, |credentials| credentials.pid);
        let opened = self.opened.get_mut(&connecting.id)?;
        opened.phase = Phase::Connected(key);
        let options = opened.options.clone();
        if self.watch(data.as_fd(), key, stream::EVENTS).is_err() {
            self.opened.remove(&connecting.id);
            return None;
        }
        let Connecting { id, connection, waker, entry, .. } = connecting;
        waker.wake_by_ref();
        Some(Entry::Stream(Stream::new(
            connection,
            Origin::Opened(id),
            options,
            Outbox::of_connected(data),
            process,
            (waker, entry),
        )))
    }
}

impl Connecting {
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
