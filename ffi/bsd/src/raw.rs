//! System calls without the C library's functions.

use libc::c_long;
use peersock_fd::Errno;

use crate::Result;

/// What libc's `syscall` has returned, with its `errno`.
///
/// # Errors
/// The `errno` if it has returned -1.
pub fn check(returned: c_long) -> Result<isize> {
    if returned == -1 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    Ok(returned as isize)
}
