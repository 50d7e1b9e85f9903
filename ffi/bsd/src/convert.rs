//! Turning a socket of the kernel into one of the overlay, under the same descriptor.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_int, epoll_event};
use peersock_fd::{Client, Errno, Socket};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::{DupFlags, FdFlags};

use crate::kernel::{borrow, int_option};

/// Options that a program may have set before: level, name, and the value that need not be repeated.
const OPTIONS: &[(c_int, c_int, c_int)] = &[
    (libc::SOL_SOCKET, libc::SO_REUSEADDR, 0),
    (libc::SOL_SOCKET, libc::SO_REUSEPORT, 0),
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 0),
    (libc::SOL_SOCKET, libc::SO_BROADCAST, 0),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMP, 0),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, 64),
    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_WANT),
    (libc::IPPROTO_IPV6, IPV6_RECVPATHMTU, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, 1),
    (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, 1),
    (libc::IPPROTO_IP, libc::IP_TTL, 64),
    (libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, 1),
    (libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, 1),
    (libc::IPPROTO_IP, libc::IP_TOS, 0),
    (libc::IPPROTO_IP, libc::IP_PKTINFO, 0),
    (libc::IPPROTO_IP, libc::IP_RECVTTL, 0),
    (libc::IPPROTO_IP, libc::IP_RECVTOS, 0),
    (libc::IPPROTO_IP, libc::IP_RECVERR, 0),
    (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_WANT),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY, 0),
    (libc::IPPROTO_TCP, libc::TCP_CORK, 0),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 7200),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 75),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 9),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 0),
    (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 0),
];

/// Which libc does not name (RFC 3542 11.3).
const IPV6_RECVPATHMTU: c_int = 60;

/// Options whose value is longer: repeated unless it is all zeros.
const LONG_OPTIONS: &[(c_int, c_int, usize)] = &[
    (libc::SOL_SOCKET, libc::SO_LINGER, 8),
    (libc::SOL_SOCKET, libc::SO_RCVTIMEO, 16),
    (libc::SOL_SOCKET, libc::SO_SNDTIMEO, 16),
    (libc::IPPROTO_ICMPV6, ICMP6_FILTER, 32),
    (libc::SOL_RAW, ICMP_FILTER, 4),
];

// linux/icmpv6.h and linux/icmp.h.
const ICMP6_FILTER: c_int = 1;
const ICMP_FILTER: c_int = 1;

/// The epoll sets that a descriptor is in, and with which events.
pub type EpollSets = Vec<(RawFd, epoll_event)>;

/// Turns `fd` into an overlay socket of the same family and kind, with the options that were set, and puts it
/// again into the epoll sets that `sets` finds it in.
///
/// # Errors
/// EPROTONOSUPPORT where the overlay has no such sockets, and those of socket(2) and dup3(2).
pub fn convert(client: &Client, fd: RawFd, sets: impl FnOnce(RawFd) -> EpollSets) -> Result<(), Errno> {
    replace(fd, &counterpart(client, fd)?, sets)
}

/// Opens an overlay socket of the same family and kind as `fd`, with the options that were set.
///
/// # Errors
/// EPROTONOSUPPORT where the overlay has no such sockets, and those of socket(2).
pub fn counterpart(client: &Client, fd: RawFd) -> Result<OwnedFd, Errno> {
    let option = |name| int_option(fd, libc::SOL_SOCKET, name).ok_or(Errno::NOTSOCK);
    let kind = (option(libc::SO_DOMAIN)?, option(libc::SO_TYPE)?, option(libc::SO_PROTOCOL)?);
    let fresh = fresh_socket(kind);
    let usual_size = |_: &Socket<'_>, name| int_option(fresh.as_ref()?.as_raw_fd(), libc::SOL_SOCKET, name);
    open_like(client, fd, kind, usual_size, |level, name, value| {
        let mut length = value.len() as libc::socklen_t;
        let value = value.as_mut_ptr().cast();
        // SAFETY: both pointers are to live variables of the sizes that the kernel is told.
        unsafe { crate::kernel::getsockopt(fd, level, name, value, &raw mut length) }?;
        Ok(length as usize)
    })
}

/// One of the kernel's sockets to which nobody has done anything; its buffers are as the system's settings
/// say.
fn fresh_socket((domain, kind, protocol): (c_int, c_int, c_int)) -> Option<OwnedFd> {
    let kind = kind | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_socket, domain, kind, protocol) };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: it was just opened, and nobody else knows of it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether an overlay stream has tried to connect in vain without waiting: the kernel's AF_UNIX sockets
/// cannot try again.
pub fn has_failed(socket: &Socket<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(socket.fd(), PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    socket.kind() == peersock_fd::Kind::Stream
        && rustix::net::getpeername(socket.fd()).is_ok()
        && rustix::event::poll(&mut fds, Some(&now)).is_ok()
        && fds[0].revents().contains(PollFlags::HUP)
        && socket.peer_addr() == Err(Errno::NOTCONN)
}

/// Turns an overlay socket into a new one with the same options and address, as [`convert`] does with the
/// kernel's.
///
/// # Errors
/// Those of socket(2), dup3(2) and bind(2).
pub fn renew(socket: &Socket<'_>, sets: impl FnOnce(RawFd) -> EpollSets) -> Result<(), Errno> {
    let get = |level, name, value: &mut [u8]| {
        let mut length = value.len() as libc::socklen_t;
        // SAFETY: both pointers are to live variables of the sizes that are told.
        unsafe { crate::getsockopt(socket, level, name, value.as_mut_ptr().cast(), &raw mut length) }?;
        Ok(length as usize)
    };
    let int = |name| {
        let mut value = [0; 4];
        get(libc::SOL_SOCKET, name, &mut value).map(|_| c_int::from_ne_bytes(value))
    };
    let kind = (int(libc::SO_DOMAIN)?, int(libc::SO_TYPE)?, int(libc::SO_PROTOCOL)?);
    let local = socket.local_addr()?;
    let fd = socket.fd().as_raw_fd();
    let usual_size = |new: &Socket<'_>, name| {
        let (mut value, mut length): (c_int, _) = (0, size_of::<c_int>() as libc::socklen_t);
        let to = (&raw mut value).cast();
        // SAFETY: both pointers are to live variables of the sizes that are told.
        let got = unsafe { crate::getsockopt(new, libc::SOL_SOCKET, name, to, &raw mut length) };
        got.is_ok().then_some(value)
    };
    let new = open_like(&socket.client(), fd, kind, usual_size, get)?;
    replace(fd, &new, sets)?;
    // The old one has let go of its port.
    if local.port() == 0 { Ok(()) } else { Socket::of(new.as_fd()).ok_or(Errno::NOTSOCK)?.bind(local) }
}

/// Opens an overlay socket with the flags of `fd`, and the options that `get` gives. `usual_size` says how
/// large a buffer is if nobody has set its size.
fn open_like(
    client: &Client,
    fd: RawFd,
    (domain, kind, protocol): (c_int, c_int, c_int),
    usual_size: impl Fn(&Socket<'_>, c_int) -> Option<c_int>,
    get: impl Fn(c_int, c_int, &mut [u8]) -> Result<usize, Errno>,
) -> Result<OwnedFd, Errno> {
    let new = crate::socket(client, domain, kind, protocol)?;
    // SAFETY: it was just opened, and nobody else knows of it.
    let new = unsafe { OwnedFd::from_raw_fd(new) };
    let old = borrow(fd).ok_or(Errno::BADF)?;
    let status = rustix::fs::fcntl_getfl(old)?;
    rustix::fs::fcntl_setfl(
        &new,
        status & (OFlags::NONBLOCK | OFlags::from_bits_retain(libc::O_ASYNC as u32)),
    )?;
    let socket = Socket::of(new.as_fd()).ok_or(Errno::NOTSOCK)?;
    repeat_sizes(&socket, usual_size, &get);
    repeat_options(&socket, get);
    Ok(new)
}

/// Has `fd` stand for `new` from now on, also in the epoll sets that `sets` finds it in.
///
/// # Errors
/// Those of dup3(2).
pub fn replace(fd: RawFd, new: &OwnedFd, sets: impl FnOnce(RawFd) -> EpollSets) -> Result<(), Errno> {
    let old = borrow(fd).ok_or(Errno::BADF)?;
    let flags = match rustix::io::fcntl_getfd(old)?.contains(FdFlags::CLOEXEC) {
        true => DupFlags::CLOEXEC,
        false => DupFlags::empty(),
    };
    let sets = sets(fd);
    // SAFETY: the program's descriptor, which goes on being its own; `dup3` replaces what it stands for at
    // once.
    let mut target = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(fd) });
    rustix::io::dup3(new, &mut target, flags)?;
    restore(target.as_raw_fd(), sets);
    Ok(())
}

/// Puts `fd` into the sets again.
fn restore(fd: RawFd, sets: EpollSets) {
    for (epoll, mut event) in sets {
        let add = libc::EPOLL_CTL_ADD;
        // SAFETY: the event is a live variable. A set that is closed makes the call fail, which is as it
        // should be.
        unsafe { libc::syscall(libc::SYS_epoll_ctl, epoll, add, fd, &raw mut event) };
    }
}

/// Sets on the new socket what differs on the old one from what sockets begin with. What the overlay does not
/// have it refuses now as it would have then; nobody hears of it, as nobody heard of it then.
fn repeat_options(new: &Socket<'_>, get: impl Fn(c_int, c_int, &mut [u8]) -> Result<usize, Errno>) {
    for &(level, name, usual) in OPTIONS {
        let mut bytes = [0; 4];
        let value = get(level, name, &mut bytes).map(|_| c_int::from_ne_bytes(bytes));
        if let Ok(value) = value
            && value != usual
            && !(name == libc::IPV6_UNICAST_HOPS && value == -1)
        {
            // SAFETY: the value is as long as we say.
            let _ = unsafe { crate::setsockopt(new, level, name, bytes.as_ptr().cast(), 4) };
        }
    }
    for &(level, name, size) in LONG_OPTIONS {
        let mut value = [0u8; 32];
        let length = get(level, name, &mut value[..size]);
        if let Ok(length) = length
            && value != [0; 32]
        {
            let value = value.as_ptr().cast();
            // SAFETY: the value is at least as long as was said.
            let _ = unsafe { crate::setsockopt(new, level, name, value, length as libc::socklen_t) };
        }
    }
}

/// Gives the new socket the sizes of buffers that were set on the old one.
fn repeat_sizes(
    new: &Socket<'_>,
    usual: impl Fn(&Socket<'_>, c_int) -> Option<c_int>,
    get: impl Fn(c_int, c_int, &mut [u8]) -> Result<usize, Errno>,
) {
    for name in [libc::SO_RCVBUF, libc::SO_SNDBUF] {
        let mut bytes = [0; 4];
        let value = get(libc::SOL_SOCKET, name, &mut bytes).map(|_| c_int::from_ne_bytes(bytes));
        if let (Ok(value), Some(usual)) = (value, usual(new, name))
            && value != usual
        {
            // What is told is twice what was asked for (socket(7)).
            let asked = value / 2;
            let asked = (&raw const asked).cast();
            // SAFETY: the value is as long as we say.
            let _ = unsafe { crate::setsockopt(new, libc::SOL_SOCKET, name, asked, 4) };
        }
    }
}
