//! Resets that a program sees only if its launcher helps.
//!
//! The library leaves a byte in each connection that makes its close a reset, see
//! [`Outbox`](crate::outbox::Outbox). A program that accepts by a direct system call does not, so the reset
//! is shown through its own descriptor, see [`application_fd::poison`]. A node in another process than the
//! launcher may not have the right to take that (Yama, `kernel.yama.ptrace_scope` of 1), but the launcher, as
//! the program's ancestor, has. So the node asks the launcher, and keeps its end of the connection open until
//! the launcher has answered: closed before, it would look like the end of the data.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use peersock_fd::SocketId;
use peersock_primitives::sync;
use serde::{Deserialize, Serialize};

use crate::application_fd::{self, Holder, Names};

/// Limit of failures that are remembered until the engine thread takes them.
const MAX_FAILED: usize = 4096;

/// The process that has started a server's programs, if it is not the node's.
pub trait Launcher: Send + Sync {
    /// Asks the launcher to show a reset with [`FdServer::show_reset`](crate::FdServer::show_reset), and
    /// passes its answer to [`PendingReset::answered`]. Must not wait, because the engine thread calls it.
    fn show(&self, reset: PendingReset);

    /// Asks the launcher to show the end of all sockets with
    /// [`FdServer::break_sockets_of`](crate::FdServer::break_sockets_of), and waits for it. Returns false if
    /// it has not answered.
    fn break_all(&self) -> bool;
}

/// Description of a connection for a launcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    pub(crate) names: Names,
    /// The process that most likely has the program's descriptor.
    pub(crate) process: i32,
}

/// A connection that was reset, and whose end the program has not seen yet. When it is dropped without an
/// answer, the node tries to show the reset itself. Then the node's end is closed.
pub struct PendingReset {
    end: OwnedFd,
    holder: Holder,
    socket: SocketId,
    failed: Arc<Failed>,
    is_shown: bool,
}

impl PendingReset {
    /// Returns what the launcher needs; `None` if the program's end is not connected any more.
    pub fn shown(&self) -> Option<Shown> {
        let names = application_fd::names(self.end.as_fd())?;
        Some(Shown { names, process: self.holder.process })
    }

    /// Takes the launcher's answer: true if it has shown the reset.
    pub fn answered(mut self, is_shown: bool) {
        self.is_shown = is_shown;
    }
}

impl Drop for PendingReset {
    fn drop(&mut self) {
        if !self.is_shown && !application_fd::poison(self.end.as_fd(), self.holder) {
            self.failed.add(self.socket);
        }
    }
}

impl fmt::Debug for PendingReset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingReset").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// Shows resets: through the launcher if it is another process.
#[derive(Default)]
pub(crate) struct Resets {
    launcher: Option<Arc<dyn Launcher>>,
    failed: Arc<Failed>,
}

impl Resets {
    pub(crate) fn new(launcher: Option<Arc<dyn Launcher>>) -> Resets {
        Resets { launcher, failed: Arc::default() }
    }

    /// Returns the launcher, if it is another process.
    pub(crate) fn launcher(&self) -> Option<&Arc<dyn Launcher>> {
        self.launcher.as_ref()
    }

    /// Makes a reset visible to the program when the node's `end` is closed next, as
    /// [`application_fd::poison`] does. Returns true also if the launcher has been asked; if it fails,
    /// [`Resets::take_failed`] returns the socket.
    ///
    /// The caller must have removed `end` from the poller.
    pub(crate) fn show(&self, end: BorrowedFd<'_>, holder: Holder, socket: SocketId) -> bool {
        self.ask(end, holder, socket) || application_fd::poison(end, holder)
    }

    /// Does the same before `end` is closed. Returns true once the program will see the reset. If the
    /// launcher was asked, that can be later.
    pub(crate) fn show_early(&self, end: BorrowedFd<'_>, holder: Holder, socket: SocketId) -> bool {
        match self.ask(end, holder, socket) {
            true => application_fd::has_unread(end),
            false => application_fd::poison(end, holder),
        }
    }

    /// Asks the launcher, if there is one and its help is needed.
    fn ask(&self, end: BorrowedFd<'_>, holder: Holder, socket: SocketId) -> bool {
        let Some(launcher) = &self.launcher else { return false };
        if application_fd::has_unread(end) {
            return false;
        }
        // A copy, because the server closes its own.
        let Ok(end) = rustix::io::fcntl_dupfd_cloexec(end, 0) else { return false };
        let failed = Arc::clone(&self.failed);
        launcher.show(PendingReset { end, holder, socket, failed, is_shown: false });
        true
    }

    /// Returns the sockets whose resets were not shown after all, once.
    pub(crate) fn take_failed(&self) -> Vec<SocketId> {
        std::mem::take(&mut *sync::lock(&self.failed.0))
    }
}

#[derive(Default)]
struct Failed(Mutex<Vec<SocketId>>);

impl Failed {
    fn add(&self, socket: SocketId) {
        let mut failed = sync::lock(&self.0);
        if failed.len() < MAX_FAILED {
            failed.push(socket);
        }
    }
}
