//! Turning a kernel socket into an overlay socket, under the same descriptor.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_int, c_void, socklen_t};
use peersock_fd::option_table::{self, Repeat, Row};
use peersock_fd::{Client, Errno, Identity, Kind, Shutdown, Socket, SocketFlags, Which, inherit_status};
use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::io::{DupFlags, FdFlags};

use crate::kernel::{borrow, int_option};
use crate::replaced::Kept;
use crate::room::with_room;
use crate::{EpollSets, copies, options};

/// Maximum length of a copied option value of known length, bytes.
const MAX_FIXED_OPTION_BYTES: usize = 32;
/// Maximum length of a value of any length: an extension header.
const MAX_OPTION_BYTES: usize = 8 * 256;

/// Turns `fd` into an overlay socket of the same family and type, with the options that were set. Adds it
/// again to the epoll sets that `sets` finds.
/// Errors: EPROTONOSUPPORT where the overlay has no such sockets, and errors of socket(2) and dup3(2).
pub fn convert(client: &Client, fd: RawFd, sets: impl Fn(RawFd) -> EpollSets) -> Result<(), Errno> {
    replace(fd, &counterpart(client, fd)?, sets)
}

/// Opens an overlay socket of the same family and type as `fd`, with the options that were set.
/// Errors: EPROTONOSUPPORT where the overlay has no such sockets, and errors of socket(2).
pub fn counterpart(client: &Client, fd: RawFd) -> Result<OwnedFd, Errno> {
    let option = |name| int_option(fd, libc::SOL_SOCKET, name).ok_or(Errno::NOTSOCK);
    let kind = (option(libc::SO_DOMAIN)?, option(libc::SO_TYPE)?, option(libc::SO_PROTOCOL)?);
    with_room(|| {
        let unused = unused_socket(kind);
        let unused = unused.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let of_unused =
            |_: &Socket<'_>, level, name, value: &mut [u8]| get_kernels(unused, level, name, value);
        open_like(client, fd, kind, of_unused, |level, name, value| get_kernels(fd, level, name, value))
    })
}

fn get_kernels(fd: RawFd, level: c_int, name: c_int, value: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: both pointers are to live variables of the given sizes.
    read_value(value, |value, length| unsafe { crate::kernel::getsockopt(fd, level, name, value, length) })
}

fn get_overlays(socket: &Socket<'_>, level: c_int, name: c_int, value: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: both pointers are to live variables of the given sizes.
    read_value(value, |value, length| unsafe { crate::getsockopt(socket, level, name, value, length) })
}

/// Reads a value into a buffer and returns its length.
fn read_value(
    value: &mut [u8],
    get: impl FnOnce(*mut c_void, *mut socklen_t) -> Result<c_int, Errno>,
) -> Result<usize, Errno> {
    let mut length = value.len() as socklen_t;
    get(value.as_mut_ptr().cast(), &raw mut length)?;
    Ok(length as usize)
}

/// Returns a new kernel socket, whose options have the system's defaults.
fn unused_socket((domain, kind, protocol): (c_int, c_int, c_int)) -> Option<OwnedFd> {
    let kind = kind | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    let fd = unsafe { peersock_fd::syscall!(libc::SYS_socket, domain, kind, protocol) };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: it was just opened, and no other code knows it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Returns true if a non-blocking connect of an overlay stream has failed. An AF_UNIX socket cannot try
/// again.
pub fn has_failed(socket: &Socket<'_>) -> bool {
    has_no_connection(socket)
        && socket.events(PollFlags::empty()).is_ok_and(|events| events.contains(PollFlags::HUP))
}

/// Returns true if connect(2) of an overlay stream has failed with this error because its attempt has failed,
/// even if the kernel does not know yet.
pub fn ends_attempt(socket: &Socket<'_>, error: Errno) -> bool {
    !matches!(error, Errno::INPROGRESS | Errno::ALREADY | Errno::ISCONN | Errno::INTR)
        && has_no_connection(socket)
}

/// Returns true if a stream that was opened is connected to the node, and the node has no connection for it.
fn has_no_connection(socket: &Socket<'_>) -> bool {
    socket.kind() == Kind::Stream
        && rustix::net::getpeername(socket.fd()).is_ok()
        && matches!(socket.which(), Which::Opened(_))
        && socket.peer_addr() == Err(Errno::NOTCONN)
}

/// Turns an overlay socket into a new one with the same options and address, as [`convert`] does with kernel
/// sockets.
/// Fails with the errors of socket(2), dup3(2) and bind(2).
pub fn renew(socket: &Socket<'_>, sets: impl Fn(RawFd) -> EpollSets) -> Result<(), Errno> {
    let new = open_again(socket)?;
    put_in_place(socket, &new, sets)
}

/// Gives a new socket the binding and the descriptor of an old one.
fn put_in_place(socket: &Socket<'_>, new: &OwnedFd, sets: impl Fn(RawFd) -> EpollSets) -> Result<(), Errno> {
    match socket.hand_over(&Socket::of(new.as_fd()).ok_or(Errno::NOTSOCK)?) {
        // The node has nothing to hand over.
        Ok(()) | Err(Errno::INVAL) => replace(socket.fd().as_raw_fd(), new, sets),
        Err(error) => Err(error),
    }
}

/// Returns the datagram socket to use for connecting, one that can receive. As in Linux, shutting down for
/// reading only ends waits, so a connected socket receives again. After such a shutdown the descriptor, which
/// is in the epoll sets that `sets` finds, refers to another socket from now on.
/// Fails with the errors of socket(2) and dup3(2), ENETDOWN.
pub fn receiving<'fd>(socket: &Socket<'fd>, sets: impl Fn(RawFd) -> EpollSets) -> Result<Socket<'fd>, Errno> {
    if socket.kind() == Kind::Stream || !socket.has_ended()? {
        return Ok(*socket);
    }
    let new = open_again(socket)?;
    if socket.events(PollFlags::empty())?.contains(PollFlags::HUP) {
        // It was shut down for writing too, which stays.
        rustix::net::shutdown(&new, Shutdown::Write)?;
    }
    put_in_place(socket, &new, sets)?;
    Socket::of(socket.fd()).ok_or(Errno::NOTSOCK)
}

/// Returns the error for a call that a program makes because a descriptor was ready. A non-blocking
/// descriptor returns ENETDOWN only once. Its network is gone and it would always be ready, so an event loop
/// that ignores errors would take a processor and fill its log. The descriptor, which is in the epoll sets
/// that `sets` finds, then refers to a socket that receives nothing. A connection has its end instead.
pub fn last_error(socket: &Socket<'_>, error: Errno, sets: impl Fn(RawFd) -> EpollSets) -> Errno {
    let flags = || rustix::fs::fcntl_getfl(socket.fd());
    let is_connection = || socket.kind() == Kind::Stream && !socket.is_listener();
    if error == Errno::NETDOWN
        && flags().is_ok_and(|flags| flags.contains(OFlags::NONBLOCK))
        && !is_connection()
    {
        // If that fails, the socket stays and its errors are delayed a little.
        let _ = fall_silent(socket, sets);
    }
    error
}

fn fall_silent(socket: &Socket<'_>, sets: impl Fn(RawFd) -> EpollSets) -> Result<(), Errno> {
    let new = peersock_fd::open(&socket.client(), socket.family(), socket.kind(), SocketFlags::CLOEXEC)?;
    if socket.is_listener() {
        rustix::net::listen(&new, 0)?;
    }
    inherit_status(socket.fd(), new.as_fd())?;
    replace(socket.fd().as_raw_fd(), &new, sets)
}

/// Connects an overlay stream to AF_UNSPEC: resets its connection, or stops listening. The descriptor then
/// refers to a new, unbound socket with the same options.
/// Fails with the errors of socket(2) and dup3(2).
pub fn dissolve(socket: &Socket<'_>, sets: impl Fn(RawFd) -> EpollSets) -> Result<(), Errno> {
    let listens = socket.is_listener();
    if !listens && rustix::net::getpeername(socket.fd()).is_err() {
        return Ok(());
    }
    let new = open_again(socket)?;
    reset_on_close(socket)?;
    if listens {
        // The node detects the end of connections itself. Threads that wait in accept(2) wait for the
        // listener's end. Ignore errors, because the node may be gone.
        let _ = socket.shutdown(Shutdown::Both);
    }
    replace(socket.fd().as_raw_fd(), &new, sets)
}

/// Shuts a listener down. The descriptor then refers to a new socket with the same options, address and port,
/// which may listen.
/// Fails with the errors of socket(2) and dup3(2), ENETDOWN.
pub(crate) fn end_listening(socket: &Socket<'_>, sets: impl Fn(RawFd) -> EpollSets) -> Result<(), Errno> {
    let new = open_again(socket)?;
    let successor = Socket::of(new.as_fd()).ok_or(Errno::NOTSOCK)?;
    socket.hand_over(&successor)?;
    rustix::net::shutdown(socket.fd(), Shutdown::Both)?;
    replace(socket.fd().as_raw_fd(), &new, sets)
}

/// Makes the close of a connection's last descriptor a reset: SO_LINGER of zero.
/// Errors: ENETDOWN if the node has ended.
pub fn reset_on_close(socket: &Socket<'_>) -> Result<(), Errno> {
    let reset = libc::linger { l_onoff: 1, l_linger: 0 };
    let (value, length) = ((&raw const reset).cast(), size_of_val(&reset) as socklen_t);
    // SAFETY: the value is as long as the given length.
    unsafe { crate::setsockopt(socket, libc::SOL_SOCKET, libc::SO_LINGER, value, length) }?;
    Ok(())
}

/// Replaces a stream that is bound, or about to listen, by a kernel socket to which only the node can
/// connect, under the same descriptor, see [`Socket::private`].
/// Fails with the errors of socket(2) and dup3(2), ENETDOWN.
pub fn make_private(socket: &Socket<'_>, sets: impl Fn(RawFd) -> EpollSets) -> Result<(), Errno> {
    match with_room(|| socket.private())? {
        Some(new) => replace(socket.fd().as_raw_fd(), &new, sets),
        None => Ok(()),
    }
}

/// Opens an overlay socket with the flags and options of another.
fn open_again(socket: &Socket<'_>) -> Result<OwnedFd, Errno> {
    let get = |level, name, value: &mut [u8]| get_overlays(socket, level, name, value);
    let int = |name| {
        let mut value = [0; 4];
        get(libc::SOL_SOCKET, name, &mut value).map(|_| c_int::from_ne_bytes(value))
    };
    let kind = (int(libc::SO_DOMAIN)?, int(libc::SO_TYPE)?, int(libc::SO_PROTOCOL)?);
    with_room(|| open_like(&socket.client(), socket.fd().as_raw_fd(), kind, get_overlays, get))
}

/// Opens an overlay socket with the flags of `fd`, and the options that `get` returns. `of_new` returns the
/// defaults of the new socket.
fn open_like(
    client: &Client,
    fd: RawFd,
    (domain, kind, protocol): (c_int, c_int, c_int),
    of_new: impl Fn(&Socket<'_>, c_int, c_int, &mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(c_int, c_int, &mut [u8]) -> Result<usize, Errno>,
) -> Result<OwnedFd, Errno> {
    let new = crate::socket(client, domain, kind, protocol)?;
    // SAFETY: it was just opened, and no other code knows it.
    let new = unsafe { OwnedFd::from_raw_fd(new) };
    let old = borrow(fd).ok_or(Errno::BADF)?;
    inherit_status(old, new.as_fd())?;
    let socket = Socket::of(new.as_fd()).ok_or(Errno::NOTSOCK)?;
    repeat_options(&socket, of_new, get);
    Ok(new)
}

/// Makes `fd`, and its [copies](crate::copies) that still exist, refer to `new`, also in the epoll sets that
/// `sets` finds.
/// Fails with the errors of dup3(2).
pub fn replace(fd: RawFd, new: &OwnedFd, sets: impl Fn(RawFd) -> EpollSets) -> Result<(), Errno> {
    replace_if(fd, copies::identity(fd), None, new, sets)
}

/// Does the same if `fd` still has this `identity`. The kept copy of the old socket, used to wake waiting
/// threads, stays.
/// Fails with the errors of dup3(2), EBADF if another thread has replaced the descriptor.
pub(crate) fn replace_if(
    fd: RawFd,
    identity: Option<Identity>,
    kept: Option<&Kept>,
    new: &OwnedFd,
    sets: impl Fn(RawFd) -> EpollSets,
) -> Result<(), Errno> {
    let kept = kept.map(Kept::number);
    let replace_one = |fd| replace_one(fd, new, &sets, || copies::identity(fd) == identity);
    for copy in copies::of(fd).into_iter().filter(|copy| Some(*copy) != kept) {
        // Another thread may have reused the number for another file meanwhile.
        let _ = replace_one(copy);
    }
    replace_one(fd)
}

/// # Errors
/// Errors of dup3(2), EBADF if `is` returns false.
fn replace_one(
    fd: RawFd,
    new: &OwnedFd,
    sets: &impl Fn(RawFd) -> EpollSets,
    is: impl Fn() -> bool,
) -> Result<(), Errno> {
    let old = borrow(fd).ok_or(Errno::BADF)?;
    let flags = match rustix::io::fcntl_getfd(old)?.contains(FdFlags::CLOEXEC) {
        true => DupFlags::CLOEXEC,
        false => DupFlags::empty(),
    };
    // A descriptor that has changed stays in its sets.
    if !is() {
        return Err(Errno::BADF);
    }
    let sets = sets(fd);
    // The kernel itself removes the old socket only once no process has it open any more.
    change(libc::EPOLL_CTL_DEL, fd, &sets);
    // SAFETY: the program's descriptor, which it keeps; `dup3` replaces the file behind it atomically.
    let mut target = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(fd) });
    let replaced = if is() { rustix::io::dup3(new, &mut target, flags) } else { Err(Errno::BADF) };
    change(libc::EPOLL_CTL_ADD, fd, &sets);
    replaced
}

/// Removes `fd` from the sets, or adds it again.
fn change(operation: c_int, fd: RawFd, sets: &EpollSets) {
    for &(epoll, mut event) in sets {
        // SAFETY: the event is a live variable. A closed set makes the call fail, as intended.
        unsafe { peersock_fd::syscall!(libc::SYS_epoll_ctl, epoll, operation, fd, &raw mut event) };
    }
}

/// Sets options on the new socket that differ on the old one from the initial values. Errors are ignored,
/// because the overlay refuses unsupported options now as it would have earlier.
fn repeat_options(
    new: &Socket<'_>,
    of_new: impl Fn(&Socket<'_>, c_int, c_int, &mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(c_int, c_int, &mut [u8]) -> Result<usize, Errno>,
) {
    let int = |bytes: &[u8]| bytes.first_chunk().map(|bytes| c_int::from_ne_bytes(*bytes));
    for row in option_table::of_kind(new.kind()) {
        let size = match row.repeat {
            Repeat::Never => continue,
            Repeat::UnlessEmpty => {
                let mut value = [0u8; MAX_OPTION_BYTES];
                if let Ok(length @ 1..) = get(row.level, row.number, &mut value) {
                    set_again(new, row, value.get(..length).unwrap_or(&value));
                }
                continue;
            }
            Repeat::Unless(_) | Repeat::Buffer => size_of::<c_int>(),
            Repeat::UnlessZeros(size) | Repeat::UnlessNew(size) => size,
        };
        let mut old = [0u8; MAX_FIXED_OPTION_BYTES];
        let Ok(length) = get(row.level, row.number, &mut old[..size.min(MAX_FIXED_OPTION_BYTES)]) else {
            continue;
        };
        let old = &mut old[..length.min(MAX_FIXED_OPTION_BYTES)];
        let is_usual = match row.repeat {
            Repeat::Never | Repeat::UnlessEmpty => true,
            // An IPv6 socket reports a hop limit of -1 until it is set.
            Repeat::Unless(usual) => {
                int(old).is_none_or(|value| value == usual || (value == -1 && usual == 64))
            }
            Repeat::UnlessZeros(_) => old.iter().all(|byte| *byte == 0),
            Repeat::UnlessNew(_) | Repeat::Buffer => {
                let mut usual = [0u8; MAX_FIXED_OPTION_BYTES];
                let length =
                    of_new(new, row.level, row.number, &mut usual[..size.min(MAX_FIXED_OPTION_BYTES)]);
                // If the initial value is unknown, for example for lack of descriptors, do not copy.
                length.map_or(true, |length| usual.get(..length) == Some(old))
            }
        };
        if is_usual {
            continue;
        }
        if row.repeat == Repeat::Buffer
            && let Some(told) = int(old)
        {
            // The value read is twice the value set (socket(7)).
            old.copy_from_slice(&(told / 2).to_ne_bytes());
        }
        set_again(new, row, old);
    }
}

fn set_again(new: &Socket<'_>, row: &Row, value: &[u8]) {
    let (pointer, length) = (value.as_ptr().cast(), value.len() as socklen_t);
    // SAFETY: the value is as long as the given length.
    let _ = unsafe { options::repeat(new, row.level, row.number, pointer, length) };
}
