//! Sockets that listen: each connection becomes one of the kernel's, to the application's own listening
//! descriptor.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use peersock_fd::{
    Accepted, Credentials, Errno, Family, Name, SocketId, address, enlarge, name_of, peer_credentials,
};
use rustix::net::{SocketType, sockopt};

use super::alongside::{Alongside, Incoming};
use super::outbox::Outbox;
use super::ready::{self, Key};
use super::server::{Entry, Readiness, ServerState, unix};
use super::sockets::Phase;
use super::stream::{self, Origin, Stream};
use crate::socket::{Connection, port_refusal};
use peersock_datapath::JoinedNetwork;
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
    entry: Arc<ready::Entry>,
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

impl Listening {
    /// A process that has the application's descriptor, most likely.
    pub(super) fn process(&self) -> i32 {
        self.owner.pid
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
        if named != Some(Name::Opened(self.tag, socket)) || !sockopt::socket_acceptconn(&fd)? {
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
            let key = self.new_key();
            let (waker, entry) = self.ready.waker(key);
            self.socket(socket).phase = Phase::Listening(key);
            let sweep = Instant::now() + SWEEP;
            self.set_timer(sweep, key);
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
        if port == 0 { Ok(()) } else { self.may_listen(port).inspect_err(|_| self.note_refusal(port)) }
    }

    /// Whether one of the networks allows listeners at a port.
    pub(super) fn may_listen(&self, port: u16) -> Result<(), Errno> {
        let node = self.node.upgrade().ok_or(Errno::NETDOWN)?;
        if node.driver.datapath.stack().allows_port(port) { Ok(()) } else { Err(Errno::ACCESS) }
    }

    /// Tells the node's owner once of each port that was refused to a listener.
    pub(super) fn note_refusal(&mut self, port: u16) {
        self.note_refusal_where(port, |_| true);
    }

    /// Tells the node's owner once of each port to which nothing may be sent in the network of `remote`, if
    /// that is what came of it.
    pub(super) fn note_if_refused<T>(
        &mut self,
        result: Result<T, Errno>,
        remote: SocketAddr,
    ) -> Result<T, Errno> {
        if matches!(result, Err(Errno::ACCESS)) {
            let holds =
                |network: &JoinedNetwork| network.routes.iter().any(|route| route.contains(remote.ip()));
            self.note_refusal_where(remote.port(), holds);
        }
        result
    }

    fn note_refusal_where(&mut self, port: u16, is_asked: impl Fn(&JoinedNetwork) -> bool) {
        let networks = self.networks();
        let refuses = |network: &&JoinedNetwork| is_asked(network) && !network.ports.contains(&port);
        let networks: Vec<_> = networks.iter().filter(refuses).cloned().collect();
        if let Some(refusals) = &self.refusals
            && !networks.is_empty()
            && self.refused.insert(port)
        {
            // Nobody may listen any more.
            let _ = refusals.send(port_refusal(port, &networks));
        }
    }

    /// Gives what has come to the application.
    pub(super) fn accept_connections(
        &mut self,
        key: Key,
        mut listening: Listening,
        readiness: Readiness,
    ) -> Option<Listening> {
        listening.entry.begin();
        if let Some(alongside) = &mut listening.alongside {
            alongside.begin(readiness.readable);
        }
        let now = Instant::now();
        if listening.sweep <= now {
            if !self.is_open(listening.socket) {
                self.opened.remove(&listening.socket.id);
                return None;
            }
            listening.sweep = now + SWEEP;
            self.set_timer(listening.sweep, key);
        }
        loop {
            let delivered = match self.next_waiting(key, &mut listening) {
                None => return Some(listening),
                Some(Waiting::Overlay(connection)) => self
                    .deliver(&listening, connection)
                    .map_err(|(error, connection)| (error, Waiting::Overlay(connection))),
                Some(Waiting::Kernel(incoming)) => self
                    .pass(&listening, incoming)
                    .map_err(|(error, incoming)| (error, Waiting::Kernel(incoming))),
            };
            match delivered {
                Ok(()) => listening.retry = None,
                Err((Errno::AGAIN, waiting)) => {
                    listening.waiting.push_front(waiting);
                    let wait = match listening.retry {
                        // Its time has not come: this is another connection's news.
                        Some((at, _)) if at > now => return Some(listening),
                        Some((_, wait)) => (2 * wait).min(LAST_RETRY),
                        None => FIRST_RETRY,
                    };
                    listening.retry = Some((now + wait, wait));
                    self.set_timer(now + wait, key);
                    return Some(listening);
                }
                // The application has closed its descriptor. What was accepted is reset, as the kernel does.
                Err((Errno::CONNREFUSED | Errno::NOENT, waiting)) => {
                    waiting.refuse();
                    self.opened.remove(&listening.socket.id);
                    return None;
                }
                Err((error, waiting)) => {
                    tracing::warn!(%error, "a connection was reset: the system refuses a descriptor for it");
                    waiting.refuse();
                }
            }
        }
    }

    /// The next connection of either network, in turn.
    fn next_waiting(&mut self, key: Key, listening: &mut Listening) -> Option<Waiting> {
        if let Some(waiting) = listening.waiting.pop_front() {
            return Some(waiting);
        }
        listening.kernel_first = !listening.kernel_first;
        if listening.kernel_first
            && let Some(incoming) = self.accept_alongside(key, listening)
        {
            return Some(Waiting::Kernel(incoming));
        }
        if let Some(connection) = self.accept_next(listening) {
            return Some(Waiting::Overlay(connection));
        }
        self.accept_alongside(key, listening).map(Waiting::Kernel)
    }

    /// The next connection of the stack's queue.
    fn accept_next(&mut self, listening: &Listening) -> Option<Connection> {
        let opened = self.opened.get(&listening.socket.id)?;
        let mut is_down = false;
        for acceptor in &opened.reserved {
            acceptor.waiters().register(Interest::Read, &listening.waker);
            match acceptor.accept() {
                Ok((connection, _)) => {
                    opened.options.apply(&connection);
                    // There may be more.
                    listening.waker.wake_by_ref();
                    return Some(connection);
                }
                Err(error) => is_down |= error.raw_os_error() == Some(libc::ENETDOWN),
            }
        }
        if is_down {
            self.take_down(listening.socket);
        }
        None
    }

    /// Connects a descriptor to the application's.
    fn deliver(&mut self, listening: &Listening, connection: Connection) -> Result<(), (Errno, Connection)> {
        let Ok(peer) = connection.peer_addr() else { return Ok(()) };
        let id = match getrandom::u64() {
            Ok(bits) => SocketId::new(bits),
            Err(_) => return Err((Errno::IO, connection)),
        };
        let family = listening.socket.family;
        let (peer, local) = (self.shown(family, peer), self.shown(family, connection.local_addr()));
        if Family::of(peer.ip()) != family || Family::of(local.ip()) != family {
            // There are too many who have no IPv4 address.
            return Err((Errno::ADDRNOTAVAIL, connection));
        }
        let accepted = Accepted { id, peer, local };
        let fd = match self.connect_to(listening, &Name::Accepted(self.tag, accepted)) {
            Ok(fd) => fd,
            Err(error) => return Err((error, connection)),
        };
        let key = self.new_key();
        let (waker, entry) = self.ready.waker(key);
        if self.watch(fd.as_fd(), key, stream::EVENTS).is_err() {
            return Err((Errno::NOMEM, connection));
        }
        self.accepted.insert(id, key);
        let wake = waker.clone();
        let origin = Origin::Accepted(id);
        let options = self.socket(listening.socket).options.clone();
        let unix = Outbox::of_accepted(fd, &Name::Accepted(self.tag, accepted));
        let stream = Stream::new(connection, origin, options, unix, listening.owner.pid, (waker, entry));
        self.insert(key, Entry::Stream(stream));
        wake.wake();
        Ok(())
    }

    /// A descriptor of this name that is connected to the application's.
    ///
    /// # Errors
    /// EAGAIN if there is no room now, ECONNREFUSED once nobody has the listener open.
    pub(super) fn connect_to(&self, listening: &Listening, name: &Name) -> Result<OwnedFd, Errno> {
        let fd = unix(SocketType::STREAM)?;
        rustix::net::bind(&fd, &address(name))?;
        enlarge(fd.as_fd());
        rustix::net::connect(&fd, &address(&Name::Opened(self.tag, listening.socket)))?;
        match peer_credentials(fd.as_fd())? {
            owner if owner == listening.owner => Ok(fd),
            // Another process of the user's has called listen(2), and says so in a moment.
            owner if owner.uid == listening.owner.uid => Err(Errno::AGAIN),
            // The application has closed its descriptor, and another user has taken the name.
            _ => Err(Errno::CONNREFUSED),
        }
    }
}
