//! MSG_WAITALL on a stream.
//!
//! The kernel's AF_UNIX sockets take what has ended a stream along with the bytes before it, and a program
//! that was given fewer than it wanted would see an end in order next. TCP gives the bytes, and tells the
//! error to the next call. So the kernel is asked for what there is, again and again, and only while there is
//! something.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use libc::{c_int, size_t, ssize_t};
use peersock_fd::{Errno, Identity, Socket, identity};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::net::sockopt::{Timeout, socket_timeout};

use crate::Result;

/// How often who waits looks whether the descriptor is still what it was.
const LOOK: Duration = Duration::from_secs(1);

/// Whether a call takes as much as it has room for, and waits for it.
pub fn takes_all(flags: c_int) -> bool {
    flags & (libc::MSG_WAITALL | libc::MSG_PEEK) == libc::MSG_WAITALL
}

/// Receives `size` bytes by calls of `receive`, if `flags` say MSG_WAITALL, and otherwise by one: less at the
/// stream's end, when its time is over, and when a signal comes. `receive` is told how much has come already,
/// and the flags to use. Between two calls `wait` is for something to read, see [`await_readable`].
///
/// # Errors
/// Those of the first call: what has come before any other is more than an error.
pub fn receive_all<'fd>(
    socket: &Socket<'fd>,
    flags: c_int,
    size: size_t,
    wait: impl Fn(BorrowedFd<'fd>, Option<Duration>) -> Result<()>,
    mut receive: impl FnMut(usize, c_int) -> Result<ssize_t>,
) -> Result<ssize_t> {
    if !takes_all(flags) {
        return receive(0, flags);
    }
    let flags = flags & !libc::MSG_WAITALL;
    let until = socket_timeout(socket.fd(), Timeout::Recv)?.and_then(|time| Instant::now().checked_add(time));
    // Meanwhile another thread may close the descriptor, and its number be another's.
    let file = identity(socket.fd())?;
    let mut received = receive(0, flags)?;
    while received > 0
        && (received as usize) < size
        && await_more(socket, flags, until, file, &wait).unwrap_or(false)
    {
        match receive(received as usize, flags | libc::MSG_DONTWAIT) {
            Ok(more @ 1..) => received += more,
            // Another thread has taken it.
            Err(Errno::AGAIN) => {}
            Ok(_) | Err(_) => break,
        }
    }
    Ok(received)
}

/// Waits, where a call with these flags would, until a stream has something to read: false if it has ended,
/// if the time is over, and if the descriptor stands for another file by now.
///
/// # Errors
/// Those of `wait`, EINTR among them, and those of fstat(2), fcntl(2), ioctl(2) and poll(2).
fn await_more<'fd>(
    socket: &Socket<'fd>,
    flags: c_int,
    until: Option<Instant>,
    file: Identity,
    wait: &impl Fn(BorrowedFd<'fd>, Option<Duration>) -> Result<()>,
) -> Result<bool> {
    let fd = socket.fd();
    loop {
        // In this order: what comes before the end is there when the end is.
        let has_ended = socket.has_ended()?;
        if identity(fd)? != file {
            return Ok(false);
        }
        if rustix::io::ioctl_fionread(fd)? > 0 {
            return Ok(true);
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if has_ended || left.is_some_and(|left| left.is_zero()) || !waits(fd, flags)? {
            return Ok(false);
        }
        wait(fd, Some(left.unwrap_or(LOOK).min(LOOK)))?;
    }
}

/// Whether a call with these flags waits.
///
/// # Errors
/// Those of fcntl(2).
pub fn waits(fd: BorrowedFd<'_>, flags: c_int) -> Result<bool> {
    Ok(flags & libc::MSG_DONTWAIT == 0 && !rustix::fs::fcntl_getfl(fd)?.contains(OFlags::NONBLOCK))
}

/// Waits for something to read, or the end: for so long at most.
///
/// # Errors
/// Those of poll(2).
pub fn await_readable(fd: BorrowedFd<'_>, time: Option<Duration>) -> Result<()> {
    let time = time.map(Timespec::try_from).transpose().map_err(|_| Errno::INVAL)?;
    rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], time.as_ref()).map(drop)
}
