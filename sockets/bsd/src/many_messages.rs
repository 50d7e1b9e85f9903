//! recvmmsg(2) after its first message: the next call reports later errors.

use libc::c_int;
use peersock_fd::{Errno, Kind, Socket};
use rustix::net::sockopt::{Timeout, socket_timeout};

use crate::Result;
use crate::wait_all::{await_readable, waits};

/// Returns true if a call may receive one more message. Waits for it if the call would wait for the message.
///
/// Only bytes count on a stream. The kernel reports the cause of its end once, and that is for the next call.
/// Fails with the errors of poll(2).
pub fn may_receive_more(socket: &Socket<'_>, flags: c_int) -> Result<bool> {
    if socket.kind() != Kind::Stream || flags & libc::MSG_ERRQUEUE != 0 {
        return Ok(true);
    }
    let fd = socket.fd();
    if waits(fd, flags)? {
        await_readable(fd, socket_timeout(fd, Timeout::Recv)?)?;
    }
    Ok(rustix::io::ioctl_fionread(fd)? > 0)
}

/// Makes the next call on a datagram socket return an error that a message after the first has met.
pub fn keep_for_next_call(socket: &Socket<'_>, error: Errno) {
    // EAGAIN and EINTR are not errors of the socket; the others are mistakes of this call.
    if !matches!(error, Errno::AGAIN | Errno::INTR | Errno::FAULT | Errno::INVAL) {
        socket.keep_error(error);
    }
}
