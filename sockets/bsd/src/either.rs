//! The socket calls on any descriptor: this crate makes them for overlay sockets, the kernel for all others.
//! This is the only place that distinguishes the two.

use libc::{c_int, c_uint, c_void, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec};
use peersock_fd::Socket;
use rustix::io::Errno;

use crate::{Result, epoll_sets, kernel, last_error};

macro_rules! calls {
    ($($call:ident($($argument:ident: $type:ty),*) -> $result:ty $(, $error:path)?;)*) => {$(
        #[doc = concat!(stringify!($call), "(2) of `socket`, or of the kernel for `fd` if that is none.")]
        /// Fails with the errors of the overlay's call, or of the kernel.
        ///
        /// # Safety
        /// See the crate.
        pub unsafe fn $call(socket: Option<&Socket<'_>>, fd: c_int, $($argument: $type),*) -> Result<$result> {
            match socket {
                // SAFETY: the caller's.
                Some(socket) => unsafe { crate::$call(socket, $($argument),*) }$(.map_err($error(socket)))?,
                // SAFETY: the caller's.
                None => unsafe { kernel::$call(fd, $($argument),*) },
            }
        }
    )*};
}

calls! {
    bind(address: *const sockaddr, length: socklen_t) -> c_int;
    connect(address: *const sockaddr, length: socklen_t) -> c_int;
    accept4(address: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> c_int, once_told;
    getsockname(address: *mut sockaddr, length: *mut socklen_t) -> c_int;
    getpeername(address: *mut sockaddr, length: *mut socklen_t) -> c_int;
    getsockopt(level: c_int, name: c_int, value: *mut c_void, length: *mut socklen_t) -> c_int;
    setsockopt(level: c_int, name: c_int, value: *const c_void, length: socklen_t) -> c_int;
    sendto(
        data: *const c_void, size: size_t, flags: c_int, address: *const sockaddr, length: socklen_t
    ) -> ssize_t;
    recvfrom(
        buf: *mut c_void, size: size_t, flags: c_int, address: *mut sockaddr, length: *mut socklen_t
    ) -> ssize_t, once_told;
    sendmsg(message: *const msghdr, flags: c_int) -> ssize_t;
    recvmsg(message: *mut msghdr, flags: c_int) -> ssize_t, once_told;
    sendmmsg(messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int;
    recvmmsg(messages: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec) -> c_int, once_told;
}

/// Converts an error of a call that is made because the descriptor was ready once, see [`last_error`].
fn once_told<'a>(socket: &'a Socket<'_>) -> impl Fn(Errno) -> Errno + 'a {
    |error| last_error(socket, error, epoll_sets::find)
}

/// Calls listen(2) of `socket`, or of the kernel for `fd` if `socket` is `None`.
/// Errors: like [`bind`].
pub fn listen(socket: Option<&Socket<'_>>, fd: c_int, backlog: c_int) -> Result<c_int> {
    match socket {
        Some(socket) => crate::listen(socket, backlog),
        // SAFETY: no pointers.
        None => unsafe { kernel::listen(fd, backlog) },
    }
}

/// Calls shutdown(2) of `socket`, or of the kernel for `fd` if `socket` is `None`.
/// Errors: like [`bind`].
pub fn shutdown(socket: Option<&Socket<'_>>, fd: c_int, how: c_int) -> Result<c_int> {
    match socket {
        Some(socket) => crate::shutdown(socket, how),
        // SAFETY: no pointers.
        None => unsafe { kernel::shutdown(fd, how) },
    }
}
