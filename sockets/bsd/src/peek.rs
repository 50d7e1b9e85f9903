//! MSG_PEEK with MSG_WAITALL on a stream.

use std::os::fd::AsRawFd as _;
use std::ptr;

use libc::{c_int, size_t};
use peersock_fd::{Socket, int_option, set_int_option};

use crate::{Result, kernel};

/// Returns true if a call peeks, and waits until its buffer is full.
pub fn is_patient_peek(flags: c_int) -> bool {
    let wanted = libc::MSG_PEEK | libc::MSG_WAITALL;
    flags & (wanted | libc::MSG_DONTWAIT) == wanted
}

/// Waits for `wanted` bytes of a stream, if a call wants to peek at them all, because AF_UNIX sockets return
/// only pending data. It ends early where the call would: at the stream's end, on a timeout, or on a signal.
/// That is an error only if no data is pending.
pub(crate) fn await_bytes(socket: &Socket<'_>, flags: c_int, wanted: size_t) -> Result<()> {
    if !is_patient_peek(flags) {
        return Ok(());
    }
    // AF_UNIX sockets have this option.
    let own = int_option(socket.fd(), libc::SO_PEEK_OFF)?;
    loop {
        let there = rustix::io::ioctl_fionread(socket.fd())?;
        if there as usize >= wanted {
            return Ok(());
        }
        // A peek behind the pending data waits for more.
        set_int_option(socket.fd(), libc::SO_PEEK_OFF, i32::try_from(there).unwrap_or(i32::MAX))?;
        let (none, no_length) = (ptr::null_mut(), ptr::null_mut());
        let mut byte = 0_u8;
        let room = (&raw mut byte).cast();
        // SAFETY: there is room for the one byte.
        let peeked =
            unsafe { kernel::recvfrom(socket.fd().as_raw_fd(), room, 1, libc::MSG_PEEK, none, no_length) };
        set_int_option(socket.fd(), libc::SO_PEEK_OFF, own)?;
        match peeked {
            Ok(1..) => {}
            Err(error) if there == 0 => return Err(socket.stream_error(error)),
            Ok(_) | Err(_) => return Ok(()),
        }
    }
}
