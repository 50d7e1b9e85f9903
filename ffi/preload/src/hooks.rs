//! The functions that take the place of the C library's.

use std::net::SocketAddr;
use std::os::fd::RawFd;

use libc::{
    c_int, c_uint, c_void, epoll_event, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec,
};
use peersock_bsd as bsd;
use peersock_bsd::{Errno, Socket, check};

use crate::convert::convert;
use crate::kernel::{borrow, finish, int_option};
use crate::rules::{Rules, Side};
use crate::{epoll, rules};

/// The overlay socket that a descriptor is.
fn overlay<'a>(fd: RawFd) -> Option<Socket<'a>> {
    rules()?;
    Socket::of(borrow(fd)?)
}

/// The rules, if the descriptor is an IPv4 or IPv6 socket of the kernel's that the overlay could have.
fn candidate(fd: RawFd) -> Option<&'static Rules> {
    let rules = rules()?;
    let option = |name| int_option(fd, libc::SOL_SOCKET, name);
    let has_family = matches!(option(libc::SO_DOMAIN), Some(libc::AF_INET | libc::AF_INET6));
    let protocol = option(libc::SO_PROTOCOL);
    let kinds = [libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6];
    (has_family && protocol.is_some_and(|protocol| kinds.contains(&protocol))).then_some(rules)
}

/// Turns the descriptor into an overlay socket if that is where it belongs. ENETUNREACH if it belongs nowhere.
fn settle<'a>(fd: RawFd, side: impl FnOnce(&Rules) -> Side) -> Result<Option<Socket<'a>>, Errno> {
    if let Some(socket) = overlay(fd) {
        return Ok(Some(socket));
    }
    let Some(rules) = candidate(fd) else { return Ok(None) };
    match side(rules) {
        Side::Kernel => Ok(None),
        Side::Neither => Err(Errno::NETUNREACH),
        Side::Overlay => {
            convert(&rules.client, fd)?;
            Ok(overlay(fd))
        }
    }
}

/// The socket to use for a call that names a remote address.
///
/// # Safety
/// As [`bsd::read_address`].
unsafe fn settle_remote<'a>(
    fd: RawFd,
    address: *const sockaddr,
    length: socklen_t,
) -> Result<Option<Socket<'a>>, Errno> {
    // What the kernel would complain of, it shall complain of itself.
    // SAFETY: the caller's.
    let remote = unsafe { bsd::read_address(address, length) };
    settle(fd, |rules| match remote {
        Ok(Some(remote)) => rules.of_remote(remote),
        Ok(None) | Err(_) => Side::Kernel,
    })
}

/// # Safety
/// As connect(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn connect(fd: RawFd, address: *const sockaddr, length: socklen_t) -> c_int {
    // SAFETY: the program's pointers, as it must pass them to connect(2).
    finish(unsafe { settle_remote(fd, address, length) }.and_then(|socket| match socket {
        // SAFETY: as above.
        Some(socket) => unsafe { bsd::connect(&socket, address, length) },
        // SAFETY: as above.
        None => check(unsafe { libc::syscall(libc::SYS_connect, fd, address, length) }).map(|n| n as c_int),
    }))
}

/// # Safety
/// As bind(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn bind(fd: RawFd, address: *const sockaddr, length: socklen_t) -> c_int {
    // SAFETY: the program's pointers, as it must pass them to bind(2).
    let local = unsafe { bsd::read_address(address, length) };
    let settled = settle(fd, |rules| match local {
        // A client that binds to nothing in particular: connecting, sending or listening will tell.
        Ok(Some(local)) if local.port() == 0 && local.ip().is_unspecified() => Side::Kernel,
        Ok(Some(local)) => rules.of_local(local),
        Ok(None) | Err(_) => Side::Kernel,
    });
    finish(settled.and_then(|socket| match socket {
        // SAFETY: as above.
        Some(socket) => unsafe { bsd::bind(&socket, address, length) },
        // SAFETY: as above.
        None => check(unsafe { libc::syscall(libc::SYS_bind, fd, address, length) }).map(|n| n as c_int),
    }))
}

/// The port that a socket of the kernel's is bound to.
fn bound_port(fd: RawFd) -> Option<u16> {
    let address = rustix::net::getsockname(borrow(fd)?).ok()?;
    SocketAddr::try_from(address).ok().map(|address| address.port())
}

/// listen(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn listen(fd: RawFd, backlog: c_int) -> c_int {
    let any = |rules: &Rules| match bound_port(fd) {
        // It was bound to an address of the kernel's on purpose.
        Some(1..) => Side::Kernel,
        _ => rules.of_local(SocketAddr::from(([0; 4], 0))),
    };
    finish(settle(fd, any).and_then(|socket| match socket {
        Some(socket) => bsd::listen(&socket, backlog),
        // SAFETY: no pointers.
        None => check(unsafe { libc::syscall(libc::SYS_listen, fd, backlog) }).map(|n| n as c_int),
    }))
}

/// # Safety
/// As accept4(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn accept4(
    fd: RawFd,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    finish(match overlay(fd) {
        // SAFETY: the program's pointers, as it must pass them to accept4(2).
        Some(socket) => unsafe { bsd::accept4(&socket, address, length, flags) },
        // SAFETY: as above.
        None => {
            check(unsafe { libc::syscall(libc::SYS_accept4, fd, address, length, flags) }).map(|n| n as c_int)
        }
    })
}

/// # Safety
/// As accept(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn accept(fd: RawFd, address: *mut sockaddr, length: *mut socklen_t) -> c_int {
    // SAFETY: the caller's.
    unsafe { accept4(fd, address, length, 0) }
}

/// # Safety
/// As getsockname(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getsockname(
    fd: RawFd,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    finish(match overlay(fd) {
        // SAFETY: the program's pointers, as it must pass them to getsockname(2).
        Some(socket) => unsafe { bsd::getsockname(&socket, address, length) },
        // SAFETY: as above.
        None => {
            check(unsafe { libc::syscall(libc::SYS_getsockname, fd, address, length) }).map(|n| n as c_int)
        }
    })
}

/// # Safety
/// As getpeername(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getpeername(
    fd: RawFd,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    finish(match overlay(fd) {
        // SAFETY: the program's pointers, as it must pass them to getpeername(2).
        Some(socket) => unsafe { bsd::getpeername(&socket, address, length) },
        // SAFETY: as above.
        None => {
            check(unsafe { libc::syscall(libc::SYS_getpeername, fd, address, length) }).map(|n| n as c_int)
        }
    })
}

/// # Safety
/// As getsockopt(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getsockopt(
    fd: RawFd,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    finish(match overlay(fd) {
        // SAFETY: the program's pointers, as it must pass them to getsockopt(2).
        Some(socket) => unsafe { bsd::getsockopt(&socket, level, name, value, length) },
        None => {
            // SAFETY: as above.
            let returned = unsafe { libc::syscall(libc::SYS_getsockopt, fd, level, name, value, length) };
            check(returned).map(|n| n as c_int)
        }
    })
}

/// # Safety
/// As setsockopt(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn setsockopt(
    fd: RawFd,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    finish(match overlay(fd) {
        // SAFETY: the program's pointers, as it must pass them to setsockopt(2).
        Some(socket) => unsafe { bsd::setsockopt(&socket, level, name, value, length) },
        None => {
            // SAFETY: as above.
            let returned = unsafe { libc::syscall(libc::SYS_setsockopt, fd, level, name, value, length) };
            check(returned).map(|n| n as c_int)
        }
    })
}

/// shutdown(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn shutdown(fd: RawFd, how: c_int) -> c_int {
    finish(match overlay(fd) {
        Some(socket) => bsd::shutdown(&socket, how),
        // SAFETY: no pointers.
        None => check(unsafe { libc::syscall(libc::SYS_shutdown, fd, how) }).map(|n| n as c_int),
    })
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
    let socket = match address.is_null() {
        true => Ok(overlay(fd)),
        // SAFETY: the program's pointers, as it must pass them to sendto(2).
        false => unsafe { settle_remote(fd, address, length) },
    };
    finish(socket.and_then(|socket| match socket {
        // SAFETY: as above.
        Some(socket) => unsafe { bsd::sendto(&socket, data, size, flags, address, length) },
        // SAFETY: as above.
        None => check(unsafe { libc::syscall(libc::SYS_sendto, fd, data, size, flags, address, length) }),
    }))
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
    finish(match overlay(fd) {
        // SAFETY: the program's pointers, as it must pass them to recvfrom(2).
        Some(socket) => unsafe { bsd::recvfrom(&socket, buf, size, flags, address, length) },
        // SAFETY: as above.
        None => check(unsafe { libc::syscall(libc::SYS_recvfrom, fd, buf, size, flags, address, length) }),
    })
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
    // SAFETY: the program's pointers, as it must pass them to sendmsg(2).
    let socket = match unsafe { message.as_ref() } {
        // SAFETY: as above.
        Some(message) if !message.msg_name.is_null() => unsafe {
            settle_remote(fd, message.msg_name.cast(), message.msg_namelen)
        },
        _ => Ok(overlay(fd)),
    };
    finish(socket.and_then(|socket| match socket {
        // SAFETY: as above.
        Some(socket) => unsafe { bsd::sendmsg(&socket, message, flags) },
        // SAFETY: as above.
        None => check(unsafe { libc::syscall(libc::SYS_sendmsg, fd, message, flags) }),
    }))
}

/// # Safety
/// As recvmsg(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn recvmsg(fd: RawFd, message: *mut msghdr, flags: c_int) -> ssize_t {
    finish(match overlay(fd) {
        // SAFETY: the program's pointers, as it must pass them to recvmsg(2).
        Some(socket) => unsafe { bsd::recvmsg(&socket, message, flags) },
        // SAFETY: as above.
        None => check(unsafe { libc::syscall(libc::SYS_recvmsg, fd, message, flags) }),
    })
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
    let socket = match first {
        // SAFETY: as above.
        Some(first) if !first.msg_hdr.msg_name.is_null() => unsafe {
            settle_remote(fd, first.msg_hdr.msg_name.cast(), first.msg_hdr.msg_namelen)
        },
        _ => Ok(overlay(fd)),
    };
    finish(socket.and_then(|socket| match socket {
        // SAFETY: as above.
        Some(socket) => unsafe { bsd::sendmmsg(&socket, messages, count, flags) },
        None => {
            // SAFETY: as above.
            check(unsafe { libc::syscall(libc::SYS_sendmmsg, fd, messages, count, flags) })
                .map(|n| n as c_int)
        }
    }))
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
    finish(match overlay(fd) {
        // SAFETY: the program's pointers, as it must pass them to recvmmsg(2).
        Some(socket) => unsafe { bsd::recvmmsg(&socket, messages, count, flags, timeout) },
        None => {
            // SAFETY: as above.
            let returned = unsafe { libc::syscall(libc::SYS_recvmmsg, fd, messages, count, flags, timeout) };
            check(returned).map(|n| n as c_int)
        }
    })
}

/// # Safety
/// As epoll_ctl(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn epoll_ctl(
    set: RawFd,
    operation: c_int,
    fd: RawFd,
    event: *mut epoll_event,
) -> c_int {
    // SAFETY: the program's pointers, as it must pass them to epoll_ctl(2).
    let done = check(unsafe { libc::syscall(libc::SYS_epoll_ctl, set, operation, fd, event) });
    if done.is_ok() && rules().is_some() {
        // SAFETY: as above.
        epoll::note(set, operation, fd, unsafe { event.as_ref() }.copied());
    }
    finish(done.map(|n| n as c_int))
}
