//! Sockets of the kernel's that receive for an overlay socket as well: a socket of both networks is one
//! descriptor of the application's. Connections of the machine's own network are accepted here and passed to
//! it as descriptors, so that they are the kernel's from then on.

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
use crate::listening::{LAST_RETRY, Listening};
use crate::wakers::Key;

/// Connections that are accepted before others have their turn.
const ROUNDS: usize = 64;

/// What the kernel shall tell of its listener.
pub(crate) const EVENTS: EventFlags = EventFlags::IN.union(EventFlags::ET);

/// The kernel's listener.
pub(crate) struct Alongside {
    fd: OwnedFd,
    /// As far as we know somebody waits.
    is_ready: bool,
    /// How many may still be accepted in this turn.
    left: usize,
}

/// A connection of the machine's own network.
pub(crate) struct Incoming {
    fd: OwnedFd,
    peer: SocketAddr,
}

impl Alongside {
    /// Has the kernel tell of a listener of its own by the key of the overlay socket's. Accepting does not
    /// wait any more.
    pub(crate) fn new(fd: OwnedFd, key: Key, context: &Context) -> Result<Self, Errno> {
        let status = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, status | OFlags::NONBLOCK)?;
        context.watch(fd.as_fd(), key, EVENTS).map_err(|_| Errno::NOMEM)?;
        Ok(Self { fd, is_ready: true, left: 0 })
    }

    /// A turn begins.
    pub(crate) fn begin(&mut self, news: bool) {
        self.is_ready |= news;
        self.left = ROUNDS;
    }

    /// listen(2) once more.
    pub(crate) fn listen(&self, backlog: u32) -> Result<(), Errno> {
        rustix::net::listen(&self.fd, i32::try_from(backlog).unwrap_or(i32::MAX))
    }

    /// Sets what its connections begin with. What the kernel does not take it refuses as it would have at the
    /// application.
    pub(crate) fn follow(&self, row: &Row, value: &[u8]) {
        if let Err(error) = socket_option::set(self.fd.as_fd(), row.level, row.number, value) {
            tracing::debug!(%error, option = row.name, "the kernel refuses an option");
        }
    }
}

impl Incoming {
    /// Resets it, as the kernel does with what nobody has accepted.
    pub(crate) fn refuse(self) {
        let _ = sockopt::set_socket_linger(&self.fd, Some(Duration::ZERO));
    }
}

impl Listening {
    /// The next connection of the kernel's queue.
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
                // Left where it is until there are descriptors again: of that the kernel tells nothing.
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    context.set_timer(Instant::now() + LAST_RETRY, key);
                    return None;
                }
                // It listens no more.
                Err(Errno::INVAL | Errno::BADF | Errno::NOTSOCK | Errno::OPNOTSUPP) => {
                    self.alongside = None;
                    return None;
                }
                // What has gone wrong with that one connection, see accept(2).
                Err(_) => {}
            }
        }
        context.set_timer(Instant::now(), key);
        None
    }

    /// Passes a connection to the application's descriptor.
    ///
    /// # Errors
    /// EAGAIN if there is no room now, ECONNREFUSED once nobody has the listener open.
    pub(crate) fn pass(&self, context: &Context, incoming: Incoming) -> Result<(), (Errno, Incoming)> {
        match self.try_pass(context, &incoming) {
            Ok(()) => Ok(()),
            // Descriptors, or those that are on their way (ETOOMANYREFS): there will be some again.
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
        // Where that fails, the application finds an end that says nothing, and waits for the next.
        match hand_over(&end, &[0], Some(incoming.fd.as_fd())) {
            // It has closed its listener just now.
            Err(Errno::PIPE | Errno::CONNRESET) => Err(Errno::CONNREFUSED),
            sent => sent,
        }
    }
}
