//! Kernel calls made without the C library's functions: the basis of this crate's calls, and the calls for
//! descriptors that are not overlay sockets.

use std::os::fd::{BorrowedFd, RawFd};

use libc::{c_int, c_long, c_uint, c_void, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec};
use peersock_fd::Errno;

use crate::Result;

/// Converts the result of libc's `syscall`, with its `errno`.
/// Fails with the `errno` if it has returned -1.
pub fn check(returned: c_long) -> Result<isize> {
    if returned == -1 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    Ok(returned as isize)
}

macro_rules! calls {
    ($($call:ident = $number:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {$(
        #[doc = concat!(stringify!($call), "(2).")]
        /// Fails with the errors of the kernel.
        ///
        /// # Safety
        /// Pointers must be valid for the system call.
        pub unsafe fn $call($($argument: $type),*) -> Result<$result> {
            // SAFETY: the caller's; the number is that of the call with these arguments.
            check(unsafe { peersock_fd::syscall!(libc::$number, $($argument),*) }).map(|returned| returned as $result)
        }
    )*};
}

calls! {
    bind = SYS_bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int;
    connect = SYS_connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int;
    listen = SYS_listen(fd: c_int, backlog: c_int) -> c_int;
    accept4 = SYS_accept4(fd: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> c_int;
    close = SYS_close(fd: c_int) -> c_int;
    shutdown = SYS_shutdown(fd: c_int, how: c_int) -> c_int;
    getsockname = SYS_getsockname(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int;
    getpeername = SYS_getpeername(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int;
    getsockopt = SYS_getsockopt(
        fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut socklen_t
    ) -> c_int;
    setsockopt = SYS_setsockopt(
        fd: c_int, level: c_int, name: c_int, value: *const c_void, length: socklen_t
    ) -> c_int;
    sendto = SYS_sendto(
        fd: c_int, data: *const c_void, size: size_t, flags: c_int, address: *const sockaddr, length: socklen_t
    ) -> ssize_t;
    recvfrom = SYS_recvfrom(
        fd: c_int, buf: *mut c_void, size: size_t, flags: c_int, address: *mut sockaddr, length: *mut socklen_t
    ) -> ssize_t;
    sendmsg = SYS_sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t;
    recvmsg = SYS_recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t;
    sendmmsg = SYS_sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int;
    recvmmsg = SYS_recvmmsg(
        fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec
    ) -> c_int;
}

/// Borrows a program's descriptor. Returns `None` for negative numbers.
pub fn borrow<'a>(fd: RawFd) -> Option<BorrowedFd<'a>> {
    // SAFETY: it is used only during the program's own call; a number that is not open makes system calls
    // fail.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Returns an `int` option, or `None` if there is no such option.
pub fn int_option(fd: RawFd, level: c_int, name: c_int) -> Option<c_int> {
    let mut value: c_int = 0;
    let mut length = size_of::<c_int>() as socklen_t;
    // SAFETY: both pointers are to live variables of the given sizes.
    let got = unsafe { getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut length) };
    got.is_ok().then_some(value)
}

/// Returns SO_COOKIE, a number that the kernel never reuses for another socket, or `None` if there is none.
pub fn cookie(fd: RawFd) -> Option<u64> {
    rustix::net::sockopt::socket_cookie(borrow(fd)?).ok()
}
