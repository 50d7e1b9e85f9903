//! Kernel listeners that serve an overlay listener as well, because a socket of both networks is one
//! application descriptor. The node accepts connections of the machine's own network here and passes them to
//! the application as descriptors. From then on they are plain kernel sockets.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::socket_option;
use peersock::attach::EventFlags;
use peersock_fd::option_table::Row;
use peersock_fd::{Errno, Name, Passed, SocketId};
use rustix::fs::OFlags;
use rustix::net::{SocketFlags, sockopt};

use crate::ancillary::hand_over;
use crate::context::Context;
use crate::listening::{Listening, MAX_RETRY_INTERVAL};
use crate::wakers::Key;

/// Number of connections accepted before other sockets have their turn.
const ACCEPTS_PER_TURN: usize = 64;

/// Events for which the kernel listener is watched.
pub(crate) const EVENTS: EventFlags = EventFlags::IN.union(EventFlags::ET);

/// A kernel listener.
pub(crate) struct Alongside {
    fd: OwnedFd,
    /// Set while a connection may be waiting.
    is_ready: bool,
    /// Number of connections that may still be accepted in this turn.
    left: usize,
}

/// A connection of the machine's own network.
pub(crate) struct Incoming {
    fd: OwnedFd,
    peer: SocketAddr,
}

impl Alongside {
    /// Watches a kernel listener under the key of the overlay socket. Accepting becomes non-blocking.
    pub(crate) fn new(fd: OwnedFd, key: Key, context: &Context) -> Result<Self, Errno> {
        let status = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, status | OFlags::NONBLOCK)?;
        context.watch(fd.as_fd(), key, EVENTS).map_err(|_| Errno::NOMEM)?;
        Ok(Self { fd, is_ready: true, left: 0 })
    }

    /// Begins a turn.
    pub(crate) fn begin(&mut self, news: bool) {
        self.is_ready |= news;
        self.left = ACCEPTS_PER_TURN;
    }

    /// Repeats listen(2).
    pub(crate) fn listen(&self, backlog: u32) -> Result<(), Errno> {
        rustix::net::listen(&self.fd, i32::try_from(backlog).unwrap_or(i32::MAX))
    }

    /// Sets an option that its connections inherit. The kernel refuses an invalid value as it would have
    /// refused the application.
    pub(crate) fn follow(&self, row: &Row, value: &[u8]) {
        if let Err(error) = socket_option::set(self.fd.as_fd(), row.level, row.number, value) {
            tracing::debug!(%error, option = row.name, "the kernel refuses an option");
        }
    }
}

impl Incoming {
    /// Resets the connection, as the kernel does with connections that were never accepted.
    pub(crate) fn refuse(self) {
        let _ = sockopt::set_socket_linger(&self.fd, Some(Duration::ZERO));
    }
}

impl Listening {
    /// Accepts the next connection of the kernel listener's queue.
    pub(crate) fn accept_alongside(&mut self, key: Key, context: &mut Context) -> Option<Incoming> {
        let alongside = self.alongside.as_mut().filter(|alongside| alongside.is_ready)?;
        while alongside.left > 0 {
            alongside.left -= 1;
            match rustix::net::acceptfrom_with(&alongside.fd, SocketFlags::CLOEXEC) {
                Ok((fd, peer)) => {
                    if let Some(peer) = peer.and_then(|peer| SocketAddr::try_from(peer).ok()) {
                        return Some(Incoming { fd, peer });
                    }
                }
                Err(Errno::AGAIN) => {
                    alongside.is_ready = false;
                    return None;
                }
                // The connection stays in the queue until descriptors are free. The kernel does not report
                // that, so retry by timer.
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    context.set_timer(Instant::now() + MAX_RETRY_INTERVAL, key);
                    return None;
                }
                // The listener no longer listens.
                Err(Errno::INVAL | Errno::BADF | Errno::NOTSOCK | Errno::OPNOTSUPP) => {
                    self.alongside = None;
                    return None;
                }
                // An error of that one connection, see accept(2).
                Err(_) => {}
            }
        }
        context.set_timer(Instant::now(), key);
        None
    }

    /// Passes a connection to the application's descriptor.
    ///
    /// # Errors
    /// EAGAIN if there is no room now, ECONNREFUSED once no process has the listener open.
    pub(crate) fn pass(&self, context: &Context, incoming: Incoming) -> Result<(), (Errno, Incoming)> {
        match self.try_pass(context, &incoming) {
            Ok(()) => Ok(()),
            // Too few descriptors, or too many in flight (ETOOMANYREFS); both are temporary.
            Err(Errno::MFILE | Errno::NFILE | Errno::TOOMANYREFS | Errno::NOBUFS | Errno::NOMEM) => {
                Err((Errno::AGAIN, incoming))
            }
            Err(error) => Err((error, incoming)),
        }
    }

    fn try_pass(&self, context: &Context, incoming: &Incoming) -> Result<(), Errno> {
        let id = SocketId::new(getrandom::u64().map_err(|_| Errno::IO)?);
        let passed = Passed { id, peer: incoming.peer };
        let end = self.connect_to(context, &Name::Passed(context.tag, passed))?;
        // If passing fails, the application finds a silent connection and waits for the next.
        match hand_over(&end, &[0], Some(incoming.fd.as_fd())) {
            // The application has closed its listener just now.
            Err(Errno::PIPE | Errno::CONNRESET) => Err(Errno::CONNREFUSED),
            sent => sent,
        }
    }
}
