//! The kernel's own calls.

use std::os::fd::RawFd;

use peersock_bsd::Errno;
pub(crate) use peersock_bsd::kernel::{borrow, int_option};

/// Sets `errno` for what failed and gives what the C library's function would return.
pub(crate) fn finish<T: From<i8>>(result: Result<T, Errno>) -> T {
    result.unwrap_or_else(|error| {
        // SAFETY: the C library's variable of this thread.
        unsafe { *libc::__errno_location() = error.raw_os_error() };
        T::from(-1)
    })
}

/// SO_COOKIE: what tells a socket from all others that there have been.
pub(crate) fn cookie(fd: RawFd) -> Option<u64> {
    let mut value: u64 = 0;
    let mut length = size_of::<u64>() as libc::socklen_t;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_COOKIE);
    // SAFETY: both pointers are to live variables of the sizes that the kernel is told.
    let got = unsafe {
        peersock_bsd::kernel::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut length)
    };
    got.is_ok().then_some(value)
}
