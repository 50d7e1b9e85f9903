//! The functions that take the place of the C library's: sending and receiving, where it is more than reading
//! and writing.

use std::os::fd::RawFd;

use libc::{c_int, c_uint, c_void, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec};
use peersock_bsd as bsd;
use peersock_bsd::{Errno, either};
use peersock_fd::Kind;

use crate::hooks::{choose_by_remote, overlay};
use crate::kernel::hooked;

/// send(2). All but what only an overlay socket needs is the kernel's: a look at each descriptor would cost
/// every program.
///
/// # Safety
/// As send(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn send(fd: RawFd, data: *const c_void, size: size_t, flags: c_int) -> ssize_t {
    let none = std::ptr::null::<sockaddr>();
    // The kernel's AF_UNIX sockets would take urgent data out of the stream, and do not know a path's MTU.
    if flags & libc::MSG_OOB != 0 || bsd::may_be_too_long(size) {
        // SAFETY: the program's pointers, as it must pass them to send(2).
        return unsafe { sendto(fd, data, size, flags, none, 0) };
    }
    hooked(|| {
        // SAFETY: as above.
        let sent = unsafe { bsd::kernel::sendto(fd, data, size, flags, none, 0) };
        sent.map_err(|error| meaning(fd, error))
    })
}

/// recv(2), in the same way.
///
/// # Safety
/// As recv(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn recv(fd: RawFd, buf: *mut c_void, size: size_t, flags: c_int) -> ssize_t {
    let (none, length) = (std::ptr::null_mut::<sockaddr>(), std::ptr::null_mut::<socklen_t>());
    // AF_UNIX streams do not know what it means to TCP.
    if flags & libc::MSG_TRUNC != 0 {
        // SAFETY: the program's pointers, as it must pass them to recv(2).
        return unsafe { recvfrom(fd, buf, size, flags, none, length) };
    }
    hooked(|| {
        // SAFETY: the program's pointers, as it must pass them to recv(2).
        let received = unsafe { bsd::kernel::recvfrom(fd, buf, size, flags, none, length) };
        match received {
            // A datagram socket whose node is no more receives nothing for ever.
            Ok(0) => match overlay(fd)
                .filter(|socket| socket.kind() != Kind::Stream)
                .and_then(|socket| socket.end())
            {
                Some(error) => Err(error),
                None => Ok(0),
            },
            received => received.map_err(|error| meaning(fd, error)),
        }
    })
}

/// recv(2) as programs call it that were compiled with `_FORTIFY_SOURCE`.
///
/// # Safety
/// As recv(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn __recv_chk(
    fd: RawFd,
    buf: *mut c_void,
    size: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    if size > room {
        // The C library ends such a program.
        std::process::abort();
    }
    // SAFETY: the caller's.
    unsafe { recv(fd, buf, size, flags) }
}

/// What the kernel's error means on an overlay socket: the node has something to tell, or has ended.
pub(crate) fn meaning(fd: RawFd, error: Errno) -> Errno {
    if !matches!(error, Errno::CONNRESET | Errno::PIPE | Errno::INVAL | Errno::NOTCONN) {
        return error;
    }
    match overlay(fd) {
        Some(socket) if socket.kind() == Kind::Stream => socket.stream_error(error),
        Some(_) if error == Errno::NOTCONN => Errno::DESTADDRREQ,
        Some(socket) if error == Errno::CONNRESET => {
            socket.take_error().ok().flatten().unwrap_or(Errno::CONNREFUSED)
        }
        _ => error,
    }
}

/// # Safety
/// As sendto(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sendto(
    fd: RawFd,
    data: *const c_void,
    size: size_t,
    flags: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> ssize_t {
    hooked(|| {
        let socket = match address.is_null() {
            true => Ok(overlay(fd)),
            // SAFETY: the program's pointers, as it must pass them to sendto(2).
            false => unsafe { choose_by_remote(fd, address, length) },
        };
        // SAFETY: as above.
        unsafe { either::sendto(socket?.as_ref(), fd, data, size, flags, address, length) }
    })
}

/// # Safety
/// As recvfrom(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn recvfrom(
    fd: RawFd,
    buf: *mut c_void,
    size: size_t,
    flags: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the program's pointers, as it must pass them to recvfrom(2).
    hooked(|| unsafe { either::recvfrom(overlay(fd).as_ref(), fd, buf, size, flags, address, length) })
}

/// recvfrom(2) as programs call it that were compiled with `_FORTIFY_SOURCE`.
///
/// # Safety
/// As recvfrom(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn __recvfrom_chk(
    fd: RawFd,
    buf: *mut c_void,
    size: size_t,
    room: size_t,
    flags: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> ssize_t {
    if size > room {
        // The C library ends such a program.
        std::process::abort();
    }
    // SAFETY: the caller's.
    unsafe { recvfrom(fd, buf, size, flags, address, length) }
}

/// # Safety
/// As sendmsg(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sendmsg(fd: RawFd, message: *const msghdr, flags: c_int) -> ssize_t {
    hooked(|| {
        // SAFETY: the program's pointers, as it must pass them to sendmsg(2).
        let socket = match unsafe { message.as_ref() } {
            // SAFETY: as above.
            Some(message) if !message.msg_name.is_null() => unsafe {
                choose_by_remote(fd, message.msg_name.cast(), message.msg_namelen)
            },
            _ => Ok(overlay(fd)),
        };
        // SAFETY: as above.
        unsafe { either::sendmsg(socket?.as_ref(), fd, message, flags) }
    })
}

/// # Safety
/// As recvmsg(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn recvmsg(fd: RawFd, message: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the program's pointers, as it must pass them to recvmsg(2).
    hooked(|| unsafe { either::recvmsg(overlay(fd).as_ref(), fd, message, flags) })
}

/// # Safety
/// As sendmmsg(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sendmmsg(
    fd: RawFd,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    // SAFETY: the program's pointers, as it must pass them to sendmmsg(2).
    let first = if count == 0 { None } else { unsafe { messages.as_ref() } };
    hooked(|| {
        let socket = match first {
            // SAFETY: as above.
            Some(first) if !first.msg_hdr.msg_name.is_null() => unsafe {
                choose_by_remote(fd, first.msg_hdr.msg_name.cast(), first.msg_hdr.msg_namelen)
            },
            _ => Ok(overlay(fd)),
        };
        // SAFETY: as above.
        unsafe { either::sendmmsg(socket?.as_ref(), fd, messages, count, flags) }
    })
}

/// # Safety
/// As recvmmsg(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn recvmmsg(
    fd: RawFd,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    // SAFETY: the program's pointers, as it must pass them to recvmmsg(2).
    hooked(|| unsafe { either::recvmmsg(overlay(fd).as_ref(), fd, messages, count, flags, timeout) })
}
