//! Kernel calls, and the handling of `errno`.

use peersock_bsd::Errno;
pub(crate) use peersock_bsd::kernel::{borrow, cookie, int_option};

/// Makes a call that replaces a C library function, and returns that function's result. On failure `errno`
/// has the error. On success `errno` is unchanged, whatever the call tried meanwhile.
pub(crate) fn hooked<T: From<i8>>(call: impl FnOnce() -> Result<T, Errno>) -> T {
    let before = errno();
    let result = call();
    set_errno(result.as_ref().map_or_else(|error| error.raw_os_error(), |_| before));
    result.unwrap_or_else(|_| T::from(-1))
}

/// Does the same for calls that report failure in another way: `errno` is unchanged if `succeeded`.
pub(crate) fn quietly<T>(succeeded: impl FnOnce(&T) -> bool, call: impl FnOnce() -> T) -> T {
    let before = errno();
    let result = call();
    if succeeded(&result) {
        set_errno(before);
    }
    result
}

pub(crate) fn errno() -> i32 {
    // SAFETY: the C library's variable of this thread.
    unsafe { *libc::__errno_location() }
}

pub(crate) fn set_errno(errno: i32) {
    // SAFETY: the C library's variable of this thread.
    unsafe { *libc::__errno_location() = errno };
}
