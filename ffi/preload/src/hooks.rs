//! Replacements of the C library's functions for sockets, their addresses, connections and options.

use std::os::fd::RawFd;

use libc::{c_int, c_ulong, c_void, epoll_event, sockaddr, socklen_t};
use peersock_bsd as bsd;
use peersock_bsd::kernel::check;
use peersock_bsd::{EpollSets, Errno, Sides, Socket, either, interface_requests};
use peersock_fd::Kind;

use crate::convert::counterpart;
use crate::kernel::{hooked, quietly};
use crate::waits::{by_side, missing, next_connect};
use crate::{ephemeral, epoll, groups, interfaces, netlink, rules};

/// Returns the overlay socket of a descriptor.
pub(crate) fn overlay<'a>(fd: RawFd) -> Option<Socket<'a>> {
    rules()?;
    bsd::overlay(fd)
}

/// Returns the rules for turning the program's sockets into overlay sockets, or `None` if this process was
/// not started by `peersock run`.
pub(crate) fn sides() -> Option<Sides<'static>> {
    rules().map(|rules| Sides { rules, counterpart, sets, wakes: true })
}

/// Finds the epoll sets of a descriptor. Registrations of overlay sockets are not remembered.
fn sets(fd: RawFd) -> EpollSets {
    match bsd::overlay(fd) {
        Some(_) => bsd::epoll_sets::find(fd),
        None => epoll::take(fd),
    }
}

/// Returns the socket to use for a call with a remote address.
///
/// # Safety
/// As [`bsd::read_address`].
pub(crate) unsafe fn choose_by_remote<'a>(
    fd: RawFd,
    address: *const sockaddr,
    length: socklen_t,
) -> Result<Option<Socket<'a>>, Errno> {
    let Some(sides) = sides() else { return Ok(None) };
    // SAFETY: the caller's.
    quietly(Result::is_ok, || unsafe { sides.by_remote(fd, address, length) })
}

/// Replaces socket(2). Where only the overlay is allowed, all Internet sockets are overlay sockets.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    hooked(|| match sides() {
        Some(sides) => {
            let fd = sides.socket(domain, kind, protocol)?;
            netlink::note_socket(fd, domain, protocol);
            Ok(fd)
        }
        None => {
            // SAFETY: no pointers.
            check(unsafe { peersock_fd::syscall!(libc::SYS_socket, domain, kind, protocol) })
                .map(|fd| fd as c_int)
        }
    })
}

/// Replaces connect(2). On an overlay socket it is a cancellation point at its start, but not while it waits.
///
/// # Safety
/// As connect(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn connect(
    fd: RawFd,
    address: *const sockaddr,
    length: socklen_t,
) -> c_int {
    let Some(next) = next_connect() else { return missing() };
    // SAFETY: the program's pointers, as it must pass them to connect(2).
    let chosen = unsafe { choose_by_remote(fd, address, length) };
    // SAFETY: as above, of both.
    by_side(
        chosen,
        || unsafe { next(fd, address, length) },
        |socket| unsafe { bsd::connect(socket, address, length) },
    )
}

/// # Safety
/// As bind(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn bind(fd: RawFd, address: *const sockaddr, length: socklen_t) -> c_int {
    hooked(|| match sides() {
        Some(sides) => {
            // SAFETY: as above.
            let bound = match unsafe { sides.bind(fd, address, length) }? {
                Some(bound) => bound,
                // SAFETY: as above.
                None => unsafe { sides.bind_kernels(fd, address, length) }?,
            };
            // SAFETY: as above.
            if let Ok(Some(local)) = unsafe { bsd::read_address(address, length) } {
                ephemeral::note(fd, local);
            }
            Ok(bound)
        }
        // SAFETY: as above.
        None => unsafe { either::bind(None, fd, address, length) },
    })
}

/// listen(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn listen(fd: RawFd, backlog: c_int) -> c_int {
    hooked(|| match sides() {
        Some(sides) => sides.listen(fd, backlog),
        None => either::listen(None, fd, backlog),
    })
}

/// # Safety
/// As getsockname(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getsockname(
    fd: RawFd,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    hooked(|| {
        if let Some(sides) = sides() {
            ephemeral::told(&sides, fd);
        }
        // SAFETY: the program's pointers, as it must pass them to getsockname(2).
        unsafe { either::getsockname(overlay(fd).as_ref(), fd, address, length) }
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
    // SAFETY: the program's pointers, as it must pass them to getpeername(2).
    hooked(|| unsafe { either::getpeername(overlay(fd).as_ref(), fd, address, length) })
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
    // SAFETY: the program's pointers, as it must pass them to getsockopt(2).
    hooked(|| unsafe { either::getsockopt(overlay(fd).as_ref(), fd, level, name, value, length) })
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
    hooked(|| match overlay(fd) {
        // SAFETY: the program's pointers, as it must pass them to setsockopt(2).
        Some(socket) => unsafe { bsd::setsockopt(&socket, level, name, value, length) },
        // SAFETY: as above.
        None if rules().is_some() && unsafe { bsd::is_refused_early(fd, level, name, value, length) } => {
            Err(Errno::NOPROTOOPT)
        }
        None => match (rules().filter(|_| bsd::is_candidate(fd)), level, name) {
            (Some(rules), libc::IPPROTO_IP | libc::IPPROTO_IPV6, _) => {
                // SAFETY: as above.
                unsafe { groups::set(rules, fd, level, name, value, length) }
            }
            (Some(rules), libc::SOL_SOCKET, libc::SO_BINDTODEVICE) => {
                // SAFETY: as above.
                unsafe { interfaces::bind_to(rules, fd, value, length) }
            }
            // SAFETY: as above.
            _ => unsafe { bsd::kernel::setsockopt(fd, level, name, value, length) },
        },
    })
}

/// shutdown(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn shutdown(fd: RawFd, how: c_int) -> c_int {
    hooked(|| either::shutdown(overlay(fd).as_ref(), fd, how))
}

/// Replaces close(2). The kernel closes all descriptors not affected by SO_LINGER, because a check of each
/// descriptor would cost every program.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn close(fd: RawFd) -> c_int {
    hooked(|| match bsd::lingers() {
        true => bsd::close(fd),
        // SAFETY: no pointers.
        false => unsafe { bsd::kernel::close(fd) },
    })
}

/// Replaces ioctl(2) for interfaces, and for SIOCOUTQ of streams, see [`bsd::unacknowledged`].
///
/// # Safety
/// As ioctl(2). Its third argument is passed as a fixed one would be.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ioctl(fd: RawFd, request: c_ulong, argument: *mut c_void) -> c_int {
    hooked(|| {
        if rules().is_some() && interface_requests::all().any(|known| known == request) {
            // SAFETY: the program's argument, as it must pass it to ioctl(2).
            return unsafe { interface_requests::ioctl(fd, request, argument, interfaces::networks) };
        }
        if request == libc::TIOCOUTQ
            && !argument.is_null()
            && let Some(socket) = overlay(fd).filter(|socket| socket.kind() == Kind::Stream)
        {
            let bytes = bsd::unacknowledged(&socket)?;
            // SAFETY: the program guarantees room for an `int`.
            unsafe { argument.cast::<c_int>().write_unaligned(bytes) };
            return Ok(0);
        }
        // SAFETY: the program's argument goes to the kernel as it is.
        check(unsafe { peersock_fd::syscall!(libc::SYS_ioctl, fd, request, argument) })
            .map(|done| done as c_int)
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
    hooked(|| {
        // SAFETY: the program's pointers, as it must pass them to epoll_ctl(2).
        let done = check(unsafe { peersock_fd::syscall!(libc::SYS_epoll_ctl, set, operation, fd, event) })?;
        if rules().is_some() {
            // SAFETY: as above.
            epoll::note(set, operation, fd, unsafe { event.as_ref() }.copied());
        }
        Ok(done as c_int)
    })
}
