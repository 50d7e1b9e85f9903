//! recvmmsg(2) after its first message: what fails then is told by the next call.

use libc::c_int;
use peersock_fd::{Errno, Kind, Socket};
use rustix::net::sockopt::{Timeout, socket_timeout};

use crate::Result;
use crate::wait_all::{await_readable, waits};

/// Whether a call may receive one more message: it waits for that if it would wait for the message.
///
/// Of a stream only bytes count. What has ended it the kernel tells once, and it is for the next call.
///
/// # Errors
/// Those of poll(2).
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

/// Has the next call on a datagram socket tell an error that a message after the first has met.
pub fn keep_for_next_call(socket: &Socket<'_>, error: Errno) {
    // That nothing has come is no error of the socket's; the others are mistakes of this call.
    if !matches!(error, Errno::AGAIN | Errno::INTR | Errno::FAULT | Errno::INVAL) {
        socket.keep_error(error);
    }
}
