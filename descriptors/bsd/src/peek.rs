//! MSG_PEEK with MSG_WAITALL on a stream.

use std::os::fd::AsRawFd as _;
use std::ptr;

use libc::{c_int, size_t, socklen_t};
use peersock_fd::Socket;

use crate::{Result, kernel};

/// Whether a call peeks, and waits for as much as it has room for.
pub fn is_patient_peek(flags: c_int) -> bool {
    let wanted = libc::MSG_PEEK | libc::MSG_WAITALL;
    flags & (wanted | libc::MSG_DONTWAIT) == wanted
}

/// Waits for so many bytes of a stream, if a call wants to peek at them all: the kernel's AF_UNIX sockets
/// give what there is. It ends earlier where the call would: at the stream's end, and when its time is over
/// or a signal comes; that is an error only if there is nothing.
pub(crate) fn await_bytes(socket: &Socket<'_>, flags: c_int, wanted: size_t) -> Result<()> {
    if !is_patient_peek(flags) {
        return Ok(());
    }
    let own = peek_offset(socket)?;
    loop {
        let there = rustix::io::ioctl_fionread(socket.fd())?;
        if there as usize >= wanted {
            return Ok(());
        }
        // A peek behind what there is waits for more.
        set_peek_offset(socket, i32::try_from(there).unwrap_or(i32::MAX))?;
        let (none, no_length) = (ptr::null_mut(), ptr::null_mut());
        let mut byte = 0_u8;
        let room = (&raw mut byte).cast();
        // SAFETY: there is room for the one byte.
        let peeked =
            unsafe { kernel::recvfrom(socket.fd().as_raw_fd(), room, 1, libc::MSG_PEEK, none, no_length) };
        set_peek_offset(socket, own)?;
        match peeked {
            Ok(1..) => {}
            Err(error) if there == 0 => return Err(socket.stream_error(error)),
            Ok(_) | Err(_) => return Ok(()),
        }
    }
}

/// What the program has set.
fn peek_offset(socket: &Socket<'_>) -> Result<c_int> {
    let mut offset: c_int = -1;
    let (value, mut length) = ((&raw mut offset).cast(), size_of::<c_int>() as socklen_t);
    let fd = socket.fd().as_raw_fd();
    // SAFETY: the value is as long as we say.
    unsafe { kernel::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, value, &raw mut length) }?;
    Ok(offset)
}

/// SO_PEEK_OFF, which AF_UNIX sockets have.
fn set_peek_offset(socket: &Socket<'_>, offset: c_int) -> Result<()> {
    let (value, length) = ((&raw const offset).cast(), size_of_val(&offset) as socklen_t);
    // SAFETY: the value is as long as we say.
    unsafe { kernel::setsockopt(socket.fd().as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEEK_OFF, value, length) }
        .map(drop)
}
