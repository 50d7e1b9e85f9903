//! The functions that take the place of the C library's: sockets, their addresses, connections and options.

use std::cell::Cell;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use libc::{c_int, c_ulong, c_void, epoll_event, sockaddr, socklen_t};
use peersock_bsd as bsd;
use peersock_bsd::kernel::check;
use peersock_bsd::{Errno, Rules, Side, Socket};
use peersock_fd::{Kind, Request};

use crate::alongside;
use crate::convert::convert;
use crate::kernel::{borrow, hooked, int_option};
use crate::{epoll, groups, rules};

/// The overlay socket that a descriptor is.
pub(crate) fn overlay<'a>(fd: RawFd) -> Option<Socket<'a>> {
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

/// Turns the descriptor into an overlay socket if that is where it belongs. Fails if it belongs nowhere.
fn choose_side<'a>(fd: RawFd, side: impl FnOnce(&Rules) -> Side) -> Result<Option<Socket<'a>>, Errno> {
    choose_side_if(fd, side, |_, _| true)
}

/// The same. A port that the kernel has chosen is the overlay's too if it `suits`.
fn choose_side_if<'a>(
    fd: RawFd,
    side: impl FnOnce(&Rules) -> Side,
    suits: impl FnOnce(&Rules, u16) -> bool,
) -> Result<Option<Socket<'a>>, Errno> {
    if let Some(socket) = overlay(fd) {
        return Ok(Some(socket));
    }
    let Some(rules) = candidate(fd) else { return Ok(None) };
    match side(rules) {
        Side::Kernel => Ok(None),
        Side::Nowhere(error) => Err(error),
        Side::Overlay | Side::Both => {
            let local = bound(fd).filter(|local| local.port() != 0 && local.ip().is_unspecified());
            let local = local.filter(|local| suits(rules, local.port()));
            convert(&rules.client, fd)?;
            let socket = overlay(fd);
            if let (Some(socket), Some(local)) = (&socket, local) {
                // The program may have been told the port. On the overlay it may be another's: then it is
                // any.
                let _ = socket.bind(local);
            }
            Ok(socket)
        }
    }
}

/// The socket to use for a call that names a remote address.
///
/// # Safety
/// As [`bsd::read_address`].
pub(crate) unsafe fn choose_by_remote<'a>(
    fd: RawFd,
    address: *const sockaddr,
    length: socklen_t,
) -> Result<Option<Socket<'a>>, Errno> {
    // What the kernel would complain of, it shall complain of itself.
    // SAFETY: the caller's.
    let remote = unsafe { bsd::read_address(address, length) };
    choose_side(fd, |rules| match remote {
        Ok(Some(remote)) => rules.of_remote(remote),
        Ok(None) | Err(_) => Side::Kernel,
    })
}

/// socket(2). Where nothing but the overlay is allowed, the kernel refuses its own.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    hooked(|| {
        let is_internet = matches!(domain, libc::AF_INET | libc::AF_INET6);
        let rules = rules().filter(|_| is_internet);
        let overlay = |rules: &Rules| bsd::socket(&rules.client, domain, kind, protocol);
        if let Some(rules) = rules.filter(|rules| rules.only) {
            return overlay(rules);
        }
        // SAFETY: no pointers.
        let opened = check(unsafe { libc::syscall(libc::SYS_socket, domain, kind, protocol) });
        match (opened, rules) {
            // Unprivileged users can ping members even where the system denies them echo sockets.
            (Err(error @ (Errno::PERM | Errno::ACCESS)), Some(rules)) => overlay(rules).map_err(|_| error),
            (opened, _) => opened.map(|fd| fd as c_int),
        }
    })
}

/// # Safety
/// As connect(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn connect(fd: RawFd, address: *const sockaddr, length: socklen_t) -> c_int {
    // SAFETY: the program's pointers, as it must pass them to connect(2).
    hooked(|| match unsafe { choose_by_remote(fd, address, length) }? {
        // SAFETY: as above.
        Some(socket) => unsafe { bsd::connect(&socket, address, length) },
        // SAFETY: as above.
        None => unsafe { bsd::kernel::connect(fd, address, length) },
    })
}

/// # Safety
/// As bind(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn bind(fd: RawFd, address: *const sockaddr, length: socklen_t) -> c_int {
    // SAFETY: the program's pointers, as it must pass them to bind(2).
    hooked(|| unsafe { bind_somewhere(fd, address, length) })
}

/// # Safety
/// As bind(2).
unsafe fn bind_somewhere(fd: RawFd, address: *const sockaddr, length: socklen_t) -> Result<c_int, Errno> {
    // SAFETY: the caller's.
    let local = unsafe { bsd::read_address(address, length) };
    if let Ok(Some(local)) = local
        && overlay(fd).is_none()
        && bound(fd).is_some_and(|bound| bound.port() == 0)
        && is_udp(fd)
        && let Some(rules) = candidate(fd).filter(|rules| rules.of_local(local) == Side::Both)
    {
        return alongside::bind_datagrams(rules, fd, local);
    }
    let chosen = choose_side(fd, |rules| match local {
        // A client that binds to nothing in particular: connecting, sending or listening will tell.
        Ok(Some(local)) if local.port() == 0 && local.ip().is_unspecified() => Side::Kernel,
        Ok(Some(local)) => match rules.of_local(local) {
            // Whether it listens is not known yet.
            Side::Both if is_stream(fd) => Side::Kernel,
            // It is bound already, of which the kernel shall complain itself.
            Side::Both if is_udp(fd) => Side::Kernel,
            side => side,
        },
        Ok(None) | Err(_) => Side::Kernel,
    });
    match (chosen?, local, rules()) {
        // SAFETY: the caller's.
        (Some(socket), _, _) => unsafe { bsd::bind(&socket, address, length) },
        (None, Ok(Some(local)), Some(rules)) if rules.of_local(local) == Side::Both => {
            // SAFETY: the caller's.
            unsafe { alongside::bind(rules, fd, address, length, local.port()) }
        }
        // SAFETY: the caller's.
        (None, _, _) => unsafe { bsd::kernel::bind(fd, address, length) },
    }
}

fn is_udp(fd: RawFd) -> bool {
    int_option(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL) == Some(libc::IPPROTO_UDP)
}

fn is_stream(fd: RawFd) -> bool {
    int_option(fd, libc::SOL_SOCKET, libc::SO_TYPE) == Some(libc::SOCK_STREAM)
}

/// The address that a socket of the kernel's is bound to.
pub(crate) fn bound(fd: RawFd) -> Option<SocketAddr> {
    let address = rustix::net::getsockname(borrow(fd)?).ok()?;
    SocketAddr::try_from(address).ok()
}

/// listen(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn listen(fd: RawFd, backlog: c_int) -> c_int {
    hooked(|| {
        let local = bound(fd).unwrap_or_else(|| SocketAddr::from(([0; 4], 0)));
        if overlay(fd).is_none()
            && is_stream(fd)
            && let Some(rules) = candidate(fd).filter(|rules| rules.of_local(local) == Side::Both)
        {
            return alongside::listen(rules, fd, local, backlog);
        }
        let suits = Cell::new(true);
        let asked = |rules: &Rules, port| {
            suits.set(rules.client.ask(Request::MayListen(port)) != Err(Errno::ACCESS));
            suits.get()
        };
        match choose_side_if(fd, |rules| rules.of_local(local), asked)? {
            Some(socket) => {
                // The program may have been told a port already. One that no network allows is nobody's wish:
                // it was bound to no port in particular.
                if suits.get() && local.port() != 0 && socket.local_addr()?.port() == 0 {
                    socket.bind(local)?;
                }
                bsd::listen(&socket, backlog)
            }
            // SAFETY: no pointers.
            None => unsafe { bsd::kernel::listen(fd, backlog) },
        }
    })
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
    hooked(|| match overlay(fd) {
        // SAFETY: the program's pointers, as it must pass them to accept4(2).
        Some(socket) => unsafe { bsd::accept4(&socket, address, length, flags) },
        // SAFETY: as above.
        None => unsafe { bsd::kernel::accept4(fd, address, length, flags) },
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
    hooked(|| match overlay(fd) {
        // SAFETY: the program's pointers, as it must pass them to getsockname(2).
        Some(socket) => unsafe { bsd::getsockname(&socket, address, length) },
        // SAFETY: as above.
        None => unsafe { bsd::kernel::getsockname(fd, address, length) },
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
    hooked(|| match overlay(fd) {
        // SAFETY: the program's pointers, as it must pass them to getpeername(2).
        Some(socket) => unsafe { bsd::getpeername(&socket, address, length) },
        // SAFETY: as above.
        None => unsafe { bsd::kernel::getpeername(fd, address, length) },
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
    hooked(|| match overlay(fd) {
        // SAFETY: the program's pointers, as it must pass them to getsockopt(2).
        Some(socket) => unsafe { bsd::getsockopt(&socket, level, name, value, length) },
        // SAFETY: as above.
        None => unsafe { bsd::kernel::getsockopt(fd, level, name, value, length) },
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
    hooked(|| match overlay(fd) {
        // SAFETY: the program's pointers, as it must pass them to setsockopt(2).
        Some(socket) => unsafe { bsd::setsockopt(&socket, level, name, value, length) },
        // SAFETY: as above.
        None => match candidate(fd).filter(|_| level == libc::IPPROTO_IP || level == libc::IPPROTO_IPV6) {
            // SAFETY: as above.
            Some(rules) => unsafe { groups::set(rules, fd, level, name, value, length) },
            // SAFETY: as above.
            None => unsafe { bsd::kernel::setsockopt(fd, level, name, value, length) },
        },
    })
}

/// shutdown(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn shutdown(fd: RawFd, how: c_int) -> c_int {
    hooked(|| match overlay(fd) {
        Some(socket) => bsd::shutdown(&socket, how),
        // SAFETY: no pointers.
        None => unsafe { bsd::kernel::shutdown(fd, how) },
    })
}

/// close(2). All but what SO_LINGER needs is the kernel's: a look at each descriptor would cost every
/// program.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn close(fd: RawFd) -> c_int {
    hooked(|| match bsd::lingers() {
        true => bsd::close(fd),
        // SAFETY: no pointers.
        false => unsafe { bsd::kernel::close(fd) },
    })
}

/// ioctl(2), for SIOCOUTQ of streams: programs wait until it says 0, which the kernel's AF_UNIX sockets never
/// do here.
///
/// # Safety
/// As ioctl(2). Its third argument is passed as a fixed one would be.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ioctl(fd: RawFd, request: c_ulong, argument: *mut c_void) -> c_int {
    hooked(|| {
        if request == libc::TIOCOUTQ
            && !argument.is_null()
            && let Some(socket) = overlay(fd).filter(|socket| socket.kind() == Kind::Stream)
        {
            let bytes = socket.unacknowledged().unwrap_or(0);
            // SAFETY: the program says that there is room for an `int`.
            unsafe { argument.cast::<c_int>().write_unaligned(i32::try_from(bytes).unwrap_or(i32::MAX)) };
            return Ok(0);
        }
        // SAFETY: the program's argument goes to the kernel as it is.
        check(unsafe { libc::syscall(libc::SYS_ioctl, fd, request, argument) }).map(|done| done as c_int)
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
        let done = check(unsafe { libc::syscall(libc::SYS_epoll_ctl, set, operation, fd, event) })?;
        if rules().is_some() {
            // SAFETY: as above.
            epoll::note(set, operation, fd, unsafe { event.as_ref() }.copied());
        }
        Ok(done as c_int)
    })
}
