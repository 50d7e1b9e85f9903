//! What rustix has no safe call for.
#![allow(unsafe_code)]

use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// The process and the user at the other end of a connected AF_UNIX socket, as of when it connected or listened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// The process; 0 if it cannot be seen from here.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
}

/// SO_PEERCRED. By system call, so that a library that takes the place of getsockopt(3) does not see it, and because a
/// process in another PID namespace has the ID 0.
///
/// # Errors
/// Those of getsockopt(2).
pub fn peer_credentials(fd: BorrowedFd<'_>) -> Result<Credentials, Errno> {
    let mut credentials = MaybeUninit::<libc::ucred>::zeroed();
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: both pointers are to live variables, of the sizes that the kernel is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_getsockopt,
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            credentials.as_mut_ptr(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    // SAFETY: every bit pattern is a `ucred`, and the kernel has written one over the zeros.
    let credentials = unsafe { credentials.assume_init() };
    Ok(Credentials { pid: credentials.pid, uid: credentials.uid })
}
