//! Opening, addresses and connections.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, IntoRawFd, RawFd};

use libc::{c_int, sockaddr, socklen_t};
use peersock_fd::{Client, Errno, Family, Kind, Shutdown, Socket, SocketFlags};

use crate::convert::end_listening;
use crate::sockaddr::{check_structure, read, write};
use crate::{
    EpollSets, Result, dissolve, ends_attempt, epoll_sets, has_failed, kernel, make_private, receiving, renew,
};

/// Opens a socket as socket(2) does, for AF_INET and AF_INET6.
/// Errors: EINVAL, EAFNOSUPPORT, ESOCKTNOSUPPORT, EPROTONOSUPPORT, EMFILE, ENFILE, ENOBUFS.
pub fn socket(client: &Client, domain: c_int, kind: c_int, protocol: c_int) -> Result<RawFd> {
    let (flags, kind) = (socket_flags(kind & !SOCK_TYPE_MASK)?, kind & SOCK_TYPE_MASK);
    let family = match domain {
        libc::AF_INET => Family::V4,
        libc::AF_INET6 => Family::V6,
        _ => return Err(Errno::AFNOSUPPORT),
    };
    if kind > MAX_TYPE || !(0..=MAX_PROTOCOL).contains(&protocol) {
        return Err(Errno::INVAL);
    }
    let icmp = if family == Family::V4 { libc::IPPROTO_ICMP } else { libc::IPPROTO_ICMPV6 };
    let kind = match (kind, protocol) {
        (libc::SOCK_STREAM, 0 | libc::IPPROTO_TCP) => Kind::Stream,
        (libc::SOCK_DGRAM, 0 | libc::IPPROTO_UDP) => Kind::Datagram,
        (libc::SOCK_DGRAM, protocol) if protocol == icmp => Kind::Echo,
        (libc::SOCK_RAW, 1..=255) => Kind::Raw(protocol as u8),
        (libc::SOCK_STREAM | libc::SOCK_DGRAM | libc::SOCK_RAW, _) => return Err(Errno::PROTONOSUPPORT),
        _ => return Err(Errno::SOCKTNOSUPPORT),
    };
    let fd = peersock_fd::open(client, family, kind, flags)?;
    Ok(fd.into_raw_fd())
}

/// Mask of the type in the second argument of socket(2).
const SOCK_TYPE_MASK: c_int = 0xf;
/// The last socket type that Linux knows: SOCK_PACKET.
const MAX_TYPE: c_int = 10;
/// The last protocol that Linux knows: IPPROTO_MPTCP.
const MAX_PROTOCOL: c_int = 262;

fn socket_flags(flags: c_int) -> Result<SocketFlags> {
    SocketFlags::from_bits(flags as u32)
        .filter(|flags| (SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).contains(*flags))
        .ok_or(Errno::INVAL)
}

/// Binds a socket, as bind(2) does.
/// Fails with the errors of [`Socket::bind`], EFAULT, EINVAL.
///
/// # Safety
/// See the crate.
pub unsafe fn bind(socket: &Socket<'_>, address: *const sockaddr, length: socklen_t) -> Result<c_int> {
    // SAFETY: the caller's.
    unsafe { bind_with(socket, address, length, epoll_sets::find) }
}

/// Does the same for a descriptor in the epoll sets that `sets` finds.
///
/// # Safety
/// See the crate.
pub(crate) unsafe fn bind_with(
    socket: &Socket<'_>,
    address: *const sockaddr,
    length: socklen_t,
    sets: impl Fn(RawFd) -> EpollSets,
) -> Result<c_int> {
    // SAFETY: the caller's.
    let address = unsafe { read(address, length) }?.ok_or(Errno::AFNOSUPPORT)?;
    check_structure(socket.family(), address, length)?;
    socket.bind(address)?;
    make_private(socket, sets)?;
    Ok(0)
}

/// Listens, as listen(2) does.
/// Fails with the errors of [`Socket::listen`].
pub fn listen(socket: &Socket<'_>, backlog: c_int) -> Result<c_int> {
    listen_with(socket, backlog, epoll_sets::find)
}

/// Does the same for a descriptor in the epoll sets that `sets` finds.
pub(crate) fn listen_with(
    socket: &Socket<'_>,
    backlog: c_int,
    sets: impl Fn(RawFd) -> EpollSets,
) -> Result<c_int> {
    // A bound socket is private already.
    make_private(socket, sets)?;
    socket.listen(backlog)?;
    Ok(0)
}

/// Connects, as connect(2) does. AF_UNSPEC dissolves a stream's connection: the descriptor then refers to
/// another socket, as after a failed attempt, see [`connect_to`].
/// Fails with the errors of [`Socket::connect`] and dup3(2), EFAULT, EINVAL.
///
/// # Safety
/// See the crate.
pub unsafe fn connect(socket: &Socket<'_>, address: *const sockaddr, length: socklen_t) -> Result<c_int> {
    // SAFETY: the caller's.
    match unsafe { read_remote(socket, address, length) }? {
        None if socket.kind() == Kind::Stream => dissolve(socket, epoll_sets::find)?,
        None => receiving(socket, epoll_sets::find)?.connect(None)?,
        Some(remote) => connect_to(socket, remote, epoll_sets::find)?,
    }
    Ok(0)
}

/// Reads an address for [`connect`]; `None` for AF_UNSPEC. As in Linux, a connected or listening stream
/// returns EISCONN before it reports a wrong address.
/// Errors: EFAULT, EINVAL, EAFNOSUPPORT, EISCONN.
///
/// # Safety
/// See the crate.
pub unsafe fn read_remote(
    socket: &Socket<'_>,
    address: *const sockaddr,
    length: socklen_t,
) -> Result<Option<SocketAddr>> {
    // SAFETY: the caller's.
    let remote = unsafe { read(address, length) };
    if socket.kind() != Kind::Stream {
        return remote;
    }
    let remote = remote.and_then(|remote| match remote {
        Some(address) => check_structure(socket.family(), address, length).map(|()| remote),
        None => Ok(None),
    });
    let has_family = size_of::<libc::sa_family_t>()..=size_of::<libc::sockaddr_storage>();
    match remote {
        Err(Errno::INVAL | Errno::AFNOSUPPORT)
            if has_family.contains(&(length as usize))
                && (socket.is_listener() || socket.peer_addr().is_ok()) =>
        {
            Err(Errno::ISCONN)
        }
        remote => remote,
    }
}

/// Connects to an address, as connect(2) does. As with TCP, after a failed attempt that no call waited for, a
/// stream first returns the error, or ECONNABORTED if a call has reported it already. It may try again then:
/// its descriptor, which is in the epoll sets that `sets` finds, refers to another socket.
///
/// # Errors
/// Errors of [`Socket::connect`] and dup3(2), ECONNABORTED.
///
/// A datagram socket that was shut down for reading receives again, see [`receiving`].
pub fn connect_to(socket: &Socket<'_>, remote: SocketAddr, sets: impl Fn(RawFd) -> EpollSets) -> Result<()> {
    if has_failed(socket) {
        let error = socket.take_error()?.filter(|error| *error != Errno::CONNRESET);
        renew(socket, sets)?;
        return Err(error.unwrap_or(Errno::CONNABORTED));
    }
    let connected = receiving(socket, &sets)?.connect(Some(remote));
    if let Err(error) = connected
        && ends_attempt(socket, error)
    {
        renew(socket, sets)?;
    }
    connected
}

/// Accepts a connection, as accept4(2) does.
/// Fails with the errors of [`Socket::accept`], EFAULT, EINVAL.
///
/// # Safety
/// See the crate.
pub unsafe fn accept4(
    socket: &Socket<'_>,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> Result<RawFd> {
    let (fd, peer) = socket.accept(socket_flags(flags)?)?;
    // SAFETY: the caller's. After an error the connection is closed, as in the kernel.
    unsafe { write(peer, address, length) }?;
    Ok(fd.into_raw_fd())
}

/// Closes any descriptor, as close(2) does. If it was the last descriptor of a stream with SO_LINGER and a
/// time, the call waits up to that time until written data is acknowledged.
///
/// # Errors
/// Errors of close(2). With SO_LINGER also errors of [`Client::close_lingering`]: the descriptor is closed
/// all the same.
pub fn close(fd: RawFd) -> Result<c_int> {
    // SAFETY: no pointers.
    let close = || unsafe { kernel::close(fd) };
    // Check this first, because it costs less than identifying the socket.
    if fd < 0 || !has_linger(fd) {
        return close();
    }
    // SAFETY: it is used before it is closed; a number that is not open makes system calls fail.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    match Socket::of(borrowed).and_then(|socket| Some((socket, socket.linger()?))) {
        Some((socket, time)) => {
            let (closed, delivered) = socket.client().close_lingering(socket.which(), time, close);
            closed.and_then(|closed| delivered.map(|()| closed))
        }
        None => close(),
    }
}

/// Returns true if the kernel socket has SO_LINGER, which overlay sockets get from [`Socket::set_option`].
fn has_linger(fd: RawFd) -> bool {
    let mut linger = libc::linger { l_onoff: 0, l_linger: 0 };
    let mut length = size_of::<libc::linger>() as socklen_t;
    let value = (&raw mut linger).cast();
    // SAFETY: both pointers are to live variables of the given sizes.
    let asked = unsafe { kernel::getsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, value, &raw mut length) };
    asked.is_ok() && linger.l_onoff != 0
}

/// Returns the local address, as getsockname(2) does.
/// Errors: ENETDOWN, EFAULT, EINVAL.
///
/// # Safety
/// See the crate.
pub unsafe fn getsockname(
    socket: &Socket<'_>,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> Result<c_int> {
    if address.is_null() {
        return Err(Errno::FAULT);
    }
    // SAFETY: the caller's.
    unsafe { write(socket.local_addr()?, address, length) }?;
    Ok(0)
}

/// Returns the peer's address, as getpeername(2) does.
/// Errors: ENOTCONN, ENETDOWN, EFAULT, EINVAL.
///
/// # Safety
/// See the crate.
pub unsafe fn getpeername(
    socket: &Socket<'_>,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> Result<c_int> {
    let peer = socket.peer_addr()?;
    if address.is_null() {
        return Err(Errno::FAULT);
    }
    // SAFETY: the caller's.
    unsafe { write(peer, address, length) }?;
    Ok(0)
}

/// Shuts a socket down, see [`shutdown_with`].
/// Errors: EINVAL, ENOTCONN, ENETDOWN.
pub fn shutdown(socket: &Socket<'_>, how: c_int) -> Result<c_int> {
    shutdown_with(socket, how, epoll_sets::find)
}

/// Shuts a socket down, as shutdown(2) does. A listener that is shut down for reading may listen again,
/// because its descriptor then refers to another socket with the same port. `sets` finds the descriptor's
/// epoll sets.
/// Errors: EINVAL, ENOTCONN, ENETDOWN.
pub fn shutdown_with(socket: &Socket<'_>, how: c_int, sets: impl Fn(RawFd) -> EpollSets) -> Result<c_int> {
    let how = shutdown_of(how)?;
    if how != Shutdown::Write && socket.is_listener() {
        end_listening(socket, sets)?;
    } else {
        socket.shutdown(how)?;
    }
    Ok(0)
}

/// Converts the argument of shutdown(2).
/// Errors: EINVAL.
fn shutdown_of(how: c_int) -> Result<Shutdown> {
    match how {
        libc::SHUT_RD => Ok(Shutdown::Read),
        libc::SHUT_WR => Ok(Shutdown::Write),
        libc::SHUT_RDWR => Ok(Shutdown::Both),
        _ => Err(Errno::INVAL),
    }
}

/// Returns the number of unacknowledged bytes of a stream, its end included, as ioctl(2) with SIOCOUTQ.
/// Programs wait until it is 0, which it never is on the AF_UNIX sockets used here.
/// Errors: EINVAL for a listener.
pub fn unacknowledged(socket: &Socket<'_>) -> Result<c_int> {
    if socket.is_listener() {
        return Err(Errno::INVAL);
    }
    Ok(socket.outq().map_or(0, |bytes| c_int::try_from(bytes).unwrap_or(c_int::MAX)))
}
