//! setsockopt(2) for any option of any socket.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd as _, BorrowedFd};

use peersock_fd::Errno;

/// Sets an option to a value in kernel layout.
///
/// # Errors
/// Errors of setsockopt(2).
pub(crate) fn set(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
    let length = libc::socklen_t::try_from(value.len()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the value is as long as the given length, and the kernel only reads it.
    match unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), length) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}
