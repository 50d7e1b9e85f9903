//! The socket calls of POSIX. On descriptors that are not overlay sockets they do what the system's calls do.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, RawFd};

use libc::{c_int, c_void, msghdr, size_t, sockaddr, socklen_t, ssize_t};
use peersock_bsd as bsd;
use peersock_bsd::{Errno, Socket, either};

use crate::boundary::{guarded_or, posix, posix_with_text, remember};
use crate::registry::{PEERSOCK_DEFAULT, find, node_of, peersock_node};
use crate::result::Failure;

/// As socket(2), on the default node: AF_INET or AF_INET6; SOCK_STREAM, SOCK_DGRAM or SOCK_RAW, with
/// SOCK_NONBLOCK and SOCK_CLOEXEC. The result is a file descriptor of the process: read(2), write(2),
/// poll(2), epoll(7), dup(2), fork(2) and passing it to other processes work.
///
/// ENETDOWN means that the default node cannot be started; `peersock_last_error()` has the reason.
#[unsafe(no_mangle)]
pub extern "C" fn peersock_socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    peersock_node_socket(PEERSOCK_DEFAULT, domain, kind, protocol)
}

/// As `peersock_socket()`, on any node.
#[unsafe(no_mangle)]
pub extern "C" fn peersock_node_socket(
    node: peersock_node,
    domain: c_int,
    kind: c_int,
    protocol: c_int,
) -> c_int {
    posix_with_text(|| {
        let node = find(node)?;
        bsd::socket(&node.client, domain, kind, protocol).map_err(|error| Failure {
            errno: Some(error.raw_os_error()),
            ..Failure::new(crate::result::PEERSOCK_E_SYSTEM, "the socket cannot be opened")
        })
    })
}

/// As bind(2).
///
/// EACCES means that the network does not allow the port for a stream socket; `peersock_last_error()` lists
/// the allowed ports. A UDP socket can be bound to any port, because clients may use any, but peers cannot
/// reach a server on a port that is not allowed.
///
/// # Safety
/// Pointers must be what the call of the same name in POSIX asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_bind(fd: RawFd, address: *const sockaddr, length: socklen_t) -> c_int {
    posix(|| {
        let socket = overlay(fd)?;
        // SAFETY: the caller's pointers.
        let bound = unsafe { either::bind(socket.as_ref(), fd, address, length) };
        // SAFETY: as above.
        let local = || unsafe { bsd::read_address(address, length) };
        bound.inspect_err(|error| explain(*error, socket.as_ref(), local))
    })
}

/// As connect(2).
///
/// # Safety
/// Pointers must be what the call of the same name in POSIX asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_connect(fd: RawFd, address: *const sockaddr, length: socklen_t) -> c_int {
    // SAFETY: the caller's pointers.
    posix(|| unsafe { either::connect(overlay(fd)?.as_ref(), fd, address, length) })
}

/// Returns the outcome of connect(2) on a non-blocking stream: 0 if it is connected, otherwise -1. `errno` is
/// EINPROGRESS while the attempt continues (poll(2) reports the stream as writable after it has ended), or
/// the reason of the failure. After a failed read(2) or write(2), `errno` is the node's more exact reason,
/// such as ENETDOWN, if the node knows one. Like SO_ERROR, each reason is returned once.
#[unsafe(no_mangle)]
pub extern "C" fn peersock_connected(fd: RawFd) -> c_int {
    posix(|| connected(fd).map(|()| 0))
}

/// Returns the reason why a connection has ended: `error`, the `errno` of a failed read(2) or write(2), or
/// the node's more exact reason, such as ENETDOWN where the kernel says ECONNRESET or EPIPE. Like SO_ERROR,
/// each reason is returned once.
///
/// `if (read(fd, buf, size) < 0) errno = peersock_reason(fd, errno);`
#[unsafe(no_mangle)]
pub extern "C" fn peersock_reason(fd: RawFd, error: c_int) -> c_int {
    if error != libc::ECONNRESET && error != libc::EPIPE {
        return error;
    }
    guarded_or(error, || match connected(fd) {
        // The connection has ended, so it is neither established nor about to be.
        Ok(()) | Err(Errno::INPROGRESS | Errno::CONNRESET | Errno::PIPE) => error,
        Err(reason) => reason.raw_os_error(),
    })
}

/// As listen(2).
///
/// EACCES means that no network allows the port; `peersock_last_error()` lists the allowed ports.
#[unsafe(no_mangle)]
pub extern "C" fn peersock_listen(fd: RawFd, backlog: c_int) -> c_int {
    posix(|| {
        let socket = overlay(fd)?;
        let listens = either::listen(socket.as_ref(), fd, backlog);
        let local = || socket.as_ref().map(Socket::local_addr).transpose();
        listens.inspect_err(|error| explain(*error, socket.as_ref(), local))
    })
}

/// As accept(2).
///
/// # Safety
/// Pointers must be what the call of the same name in POSIX asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_accept(fd: RawFd, address: *mut sockaddr, length: *mut socklen_t) -> c_int {
    // SAFETY: the caller's pointers.
    unsafe { peersock_accept4(fd, address, length, 0) }
}

/// As accept4(2).
///
/// # Safety
/// Pointers must be what the call of the same name in POSIX asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_accept4(
    fd: RawFd,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's pointers.
    posix(|| unsafe { either::accept4(overlay(fd)?.as_ref(), fd, address, length, flags) })
}

/// As send(2).
///
/// # Safety
/// Pointers must be what the call of the same name in POSIX asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_send(
    fd: RawFd,
    data: *const c_void,
    size: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller's pointers.
    unsafe { peersock_sendto(fd, data, size, flags, std::ptr::null(), 0) }
}

/// As recv(2).
///
/// # Safety
/// Pointers must be what the call of the same name in POSIX asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_recv(fd: RawFd, buf: *mut c_void, size: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's pointers.
    unsafe { peersock_recvfrom(fd, buf, size, flags, std::ptr::null_mut(), std::ptr::null_mut()) }
}

/// As sendto(2).
///
/// # Safety
/// Pointers must be what the call of the same name in POSIX asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_sendto(
    fd: RawFd,
    data: *const c_void,
    size: size_t,
    flags: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> ssize_t {
    // SAFETY: the caller's pointers.
    posix(|| unsafe { either::sendto(overlay(fd)?.as_ref(), fd, data, size, flags, address, length) })
}

/// As recvfrom(2).
///
/// # Safety
/// Pointers must be what the call of the same name in POSIX asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_recvfrom(
    fd: RawFd,
    buf: *mut c_void,
    size: size_t,
    flags: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the caller's pointers.
    posix(|| unsafe { either::recvfrom(overlay(fd)?.as_ref(), fd, buf, size, flags, address, length) })
}

/// As sendmsg(2).
///
/// # Safety
/// Pointers must be what the call of the same name in POSIX asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_sendmsg(fd: RawFd, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's pointers.
    posix(|| unsafe { either::sendmsg(overlay(fd)?.as_ref(), fd, message, flags) })
}

/// As recvmsg(2).
///
/// # Safety
/// Pointers must be what the call of the same name in POSIX asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_recvmsg(fd: RawFd, message: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's pointers.
    posix(|| unsafe { either::recvmsg(overlay(fd)?.as_ref(), fd, message, flags) })
}

/// As shutdown(2).
#[unsafe(no_mangle)]
pub extern "C" fn peersock_shutdown(fd: RawFd, how: c_int) -> c_int {
    posix(|| either::shutdown(overlay(fd)?.as_ref(), fd, how))
}

/// As close(2), which also works. Only this function waits as SO_LINGER with a time requires, and fails if
/// not everything was delivered (ECONNRESET, EPIPE, or ETIMEDOUT after that time). The descriptor is closed
/// in any case.
#[unsafe(no_mangle)]
pub extern "C" fn peersock_close(fd: RawFd) -> c_int {
    posix(|| bsd::close(fd))
}

/// As getsockname(2).
///
/// # Safety
/// Pointers must be what the call of the same name in POSIX asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_getsockname(
    fd: RawFd,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: the caller's pointers.
    posix(|| unsafe { either::getsockname(overlay(fd)?.as_ref(), fd, address, length) })
}

/// As getpeername(2).
///
/// # Safety
/// Pointers must be what the call of the same name in POSIX asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_getpeername(
    fd: RawFd,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: the caller's pointers.
    posix(|| unsafe { either::getpeername(overlay(fd)?.as_ref(), fd, address, length) })
}

/// As getsockopt(2).
///
/// # Safety
/// Pointers must be what the call of the same name in POSIX asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_getsockopt(
    fd: RawFd,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: the caller's pointers.
    posix(|| unsafe { either::getsockopt(overlay(fd)?.as_ref(), fd, level, name, value, length) })
}

/// As setsockopt(2).
///
/// # Safety
/// Pointers must be what the call of the same name in POSIX asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_setsockopt(
    fd: RawFd,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    // SAFETY: the caller's pointers.
    posix(|| unsafe { either::setsockopt(overlay(fd)?.as_ref(), fd, level, name, value, length) })
}

/// Returns the outcome of a stream's connect(2).
fn connected(fd: RawFd) -> Result<(), Errno> {
    let socket = overlay(fd)?;
    let mut ready = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one descriptor, in a local variable.
    match unsafe { libc::poll(&raw mut ready, 1, 0) } {
        0 => return Err(Errno::INPROGRESS),
        -1 => return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        _ => {}
    }
    let (mut error, mut length): (c_int, _) = (0, size_of::<c_int>() as socklen_t);
    let (value, level) = ((&raw mut error).cast(), libc::SOL_SOCKET);
    // SAFETY: the value is as long as the given length.
    unsafe { either::getsockopt(socket.as_ref(), fd, level, libc::SO_ERROR, value, &raw mut length) }?;
    match error {
        // Without an error it was established, and reset before any call looked.
        0 if ready.revents & libc::POLLHUP != 0 => Err(Errno::CONNRESET),
        0 => Ok(()),
        error => Err(Errno::from_raw_os_error(error)),
    }
}

/// Remembers the allowed ports, if a call has failed because of the port.
fn explain(
    error: Errno,
    socket: Option<&Socket<'_>>,
    local: impl FnOnce() -> Result<Option<SocketAddr>, Errno>,
) {
    let Some(socket) = socket.filter(|_| error == Errno::ACCESS) else { return };
    let (Ok(Some(local)), Ok(Some(node))) = (local(), node_of(socket)) else { return };
    if let Ok(Some(text)) = node.node.port_refusal(local.port()) {
        remember(&text);
    }
}

/// Returns the overlay socket of a descriptor, or `None` for another descriptor.
pub(crate) fn overlay<'a>(fd: RawFd) -> Result<Option<Socket<'a>>, Errno> {
    if fd < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: it is used only during the caller's own call; a number that is not open makes system calls
    // fail.
    Ok(Socket::of(unsafe { BorrowedFd::borrow_raw(fd) }))
}
