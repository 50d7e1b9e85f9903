//! The kernel's own calls.

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
