//! Waits with the semantics of CPython's sockets: without the interpreter's lock, until a deadline, and
//! through signals (PEP 475).

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use peersock_bsd::kernel::borrow;
use peersock_bsd::{Errno, Socket};
use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::epoll;
use crate::errors::{errno, timed_out};

/// Timeout above which calls wait for ever.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Timeout of a socket: `None` blocks, 0 does not block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    deadline: Option<Instant>,
}

impl Patience {
    /// Converts the result of `gettimeout()`. Sockets with a timeout are non-blocking for the kernel.
    pub(crate) fn new(timeout: Option<f64>) -> Self {
        let span = timeout
            .filter(|seconds| *seconds > 0.0)
            .map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST));
        Self { deadline: span.map(|span| Instant::now() + span) }
    }

    fn is_over(self) -> bool {
        self.left() == Some(Duration::ZERO)
    }

    fn left(self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

/// Makes a call that may wait for `events`, as CPython's `sock_call` does.
pub(crate) fn call<T: Send>(
    py: Python<'_>,
    fd: RawFd,
    events: PollFlags,
    patience: Patience,
    mut call: impl FnMut() -> Result<T, Errno> + Send,
) -> PyResult<T> {
    loop {
        if patience.deadline.is_some() && !ready(py, fd, events, patience)? {
            return Err(timed_out());
        }
        match py.detach(&mut call) {
            Ok(result) => return Ok(result),
            Err(Errno::INTR) => py.check_signals()?,
            // Another thread or process was faster.
            Err(Errno::AGAIN) if patience.deadline.is_some() => {
                py.check_signals()?;
                if patience.is_over() {
                    return Err(timed_out());
                }
            }
            Err(error) => {
                if error == Errno::NETDOWN && has_ended(fd) {
                    epoll::forget(fd);
                }
                return Err(errno(py, error));
            }
        }
    }
}

/// Returns true if the node has ended the socket. The kernel then reports it ready for ever, so a watcher
/// such as asyncio would never rest. The caller therefore drops it from epoll sets, and reports it once.
fn has_ended(fd: RawFd) -> bool {
    borrow(fd).and_then(Socket::of).is_some_and(|socket| socket.end().is_some())
}

/// Waits for `events`. Returns false after the timeout.
pub(crate) fn ready(py: Python<'_>, fd: RawFd, events: PollFlags, patience: Patience) -> PyResult<bool> {
    let Some(fd) = borrow(fd) else { return Err(errno(py, Errno::BADF)) };
    loop {
        let left = patience.left();
        let result = py.detach(|| {
            let mut fds = [PollFd::from_borrowed_fd(fd, events)];
            let left = left.map(|left| Timespec::try_from(left).unwrap_or_default());
            poll(&mut fds, left.as_ref())
        });
        match result {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => py.check_signals()?,
            Err(error) => return Err(errno(py, error)),
        }
    }
}

/// Makes a call that does not wait.
pub(crate) fn at_once<T: Send>(
    py: Python<'_>,
    mut call: impl FnMut() -> Result<T, Errno> + Send,
) -> PyResult<T> {
    loop {
        match py.detach(&mut call) {
            Ok(result) => return Ok(result),
            Err(Errno::INTR) => py.check_signals()?,
            Err(error) => return Err(errno(py, error)),
        }
    }
}
