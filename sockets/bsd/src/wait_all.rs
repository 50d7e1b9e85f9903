//! MSG_WAITALL on a stream.
//!
//! AF_UNIX sockets take the error that has ended a stream together with the bytes before it. A program that
//! got fewer bytes than requested would see an orderly end next. TCP returns the bytes, and reports the error
//! at the next call. So this module receives the pending bytes repeatedly, and only while there are any.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use libc::{c_int, size_t, ssize_t};
use peersock_fd::{Errno, Identity, Socket, identity};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::net::sockopt::{Timeout, socket_timeout};

use crate::Result;

/// Interval at which a waiting call checks that the descriptor is still the same file.
const SAME_FILE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Returns true if a call waits until its buffer is full.
pub fn takes_all(flags: c_int) -> bool {
    flags & (libc::MSG_WAITALL | libc::MSG_PEEK) == libc::MSG_WAITALL
}

/// Receives `size` bytes by calls of `receive` if `flags` contain MSG_WAITALL, otherwise by one call. Returns
/// fewer at the stream's end, on a timeout, and on a signal. `receive` gets the number of bytes received
/// already, and the flags to use. Between two calls `wait` waits for data, see [`await_readable`].
/// Fails with the errors of the first call. Bytes received before a later error take precedence over it.
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
    // Another thread may close the descriptor meanwhile, and its number may be reused.
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

/// Waits, where a call with these flags would, until a stream has data. Returns false if it has ended, on a
/// timeout, and if the descriptor refers to another file by now.
/// Fails with the errors of `wait`, EINTR among them, and of fstat(2), fcntl(2), ioctl(2) and poll(2).
fn await_more<'fd>(
    socket: &Socket<'fd>,
    flags: c_int,
    until: Option<Instant>,
    file: Identity,
    wait: &impl Fn(BorrowedFd<'fd>, Option<Duration>) -> Result<()>,
) -> Result<bool> {
    let fd = socket.fd();
    loop {
        // Check in this order, because data sent before the end is present when the end is.
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
        wait(fd, Some(left.unwrap_or(SAME_FILE_CHECK_INTERVAL).min(SAME_FILE_CHECK_INTERVAL)))?;
    }
}

/// Returns true if a call with these flags waits.
/// Fails with the errors of fcntl(2).
pub fn waits(fd: BorrowedFd<'_>, flags: c_int) -> Result<bool> {
    Ok(flags & libc::MSG_DONTWAIT == 0 && !rustix::fs::fcntl_getfl(fd)?.contains(OFlags::NONBLOCK))
}

/// Waits until there is data or the end, at most for `time`.
/// Fails with the errors of poll(2).
pub fn await_readable(fd: BorrowedFd<'_>, time: Option<Duration>) -> Result<()> {
    let time = time.map(Timespec::try_from).transpose().map_err(|_| Errno::INVAL)?;
    rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], time.as_ref()).map(drop)
}
