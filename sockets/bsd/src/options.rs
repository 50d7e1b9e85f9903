//! Socket options.

use std::os::fd::AsRawFd;
use std::{ptr, slice};

use libc::{c_int, c_void, socklen_t};
use peersock_fd::option_table::{self, Access, Note, Repeat, Row};
use peersock_fd::{Errno, Family, Kind, Socket};

use crate::privilege::has_net_raw;
use crate::{Result, kernel, option_hints, sides};

/// Maximum length of an accepted value, bytes.
const MAX_VALUE: usize = 4096;

/// Returns an option, as getsockopt(2) does.
/// Errors: ENOPROTOOPT, EFAULT, EINVAL.
///
/// # Safety
/// See the crate.
pub unsafe fn getsockopt(
    socket: &Socket<'_>,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> Result<c_int> {
    if is_the_kernels(row(socket, level, name)) {
        // SAFETY: the caller's pointers go to the kernel as they are.
        return unsafe { kernel::getsockopt(raw(socket), level, name, value, length) };
    }
    if value.is_null() || length.is_null() {
        return Err(Errno::FAULT);
    }
    // SAFETY: the caller guarantees a length.
    let room = unsafe { ptr::read_unaligned(length) };
    if i32::try_from(room).is_err() {
        return Err(Errno::INVAL);
    }
    let found = match (level, name) {
        (libc::SOL_SOCKET, libc::SO_ERROR) => {
            int(socket.take_error()?.map_or(0, |error| error.raw_os_error()))
        }
        (libc::SOL_SOCKET, libc::SO_TYPE) => int(match socket.kind() {
            Kind::Stream => libc::SOCK_STREAM,
            Kind::Datagram | Kind::Echo => libc::SOCK_DGRAM,
            Kind::Raw(_) => libc::SOCK_RAW,
        }),
        (libc::SOL_SOCKET, libc::SO_DOMAIN) => int(domain(socket)),
        // The `ucred` of an unknown peer: process, user and group.
        (libc::SOL_SOCKET, libc::SO_PEERCRED) => [0, -1, -1].map(c_int::to_ne_bytes).concat(),
        (libc::SOL_SOCKET, libc::SO_PROTOCOL) => int(protocol(socket)),
        _ => socket.option(level, name, room).map_err(|error| unknown(socket, level, error))?,
    };
    let fits = found.len().min(room as usize);
    // SAFETY: the caller says that `room` bytes are there.
    unsafe { ptr::copy_nonoverlapping(found.as_ptr(), value.cast(), fits) };
    // SAFETY: as above.
    unsafe { ptr::write_unaligned(length, fits as socklen_t) };
    Ok(0)
}

/// Converts the error of getsockopt(2) for a level that IPv4 sockets do not have.
fn unknown(socket: &Socket<'_>, level: c_int, error: Errno) -> Errno {
    let is_known = match level {
        libc::SOL_SOCKET | libc::IPPROTO_IP => true,
        libc::IPPROTO_TCP if socket.kind() == Kind::Stream => true,
        _ => socket.family() != Family::V4 || matches!(socket.kind(), Kind::Raw(_) | Kind::Echo),
    };
    if error == Errno::NOPROTOOPT && !is_known { Errno::OPNOTSUPP } else { error }
}

/// Sets an option, as setsockopt(2) does.
/// Errors: ENOPROTOOPT, EFAULT, EINVAL, EPERM.
///
/// # Safety
/// See the crate.
pub unsafe fn setsockopt(
    socket: &Socket<'_>,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> Result<c_int> {
    if row(socket, level, name).is_some_and(|row| row.is_privileged) && !has_net_raw() {
        return Err(Errno::PERM);
    }
    // SAFETY: the caller's.
    unsafe { repeat(socket, level, name, value, length) }
}

/// Returns true if a kernel socket must refuse an option with ENOPROTOOPT. The socket may become an overlay
/// socket, which lacks the option, and the loss would go unreported. Turning the option off is harmless.
///
/// # Safety
/// `value` points to `length` bytes.
pub unsafe fn is_refused_early(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> bool {
    let is_off = || {
        // SAFETY: the caller guarantees an `int`, unless the pointer is null.
        length as usize == size_of::<c_int>() && unsafe { value.cast::<c_int>().as_ref() } == Some(&0)
    };
    // A bound socket stays in the kernel.
    let is_free = || sides::bound(fd).is_none_or(|bound| bound.ip().is_unspecified());
    option_table::is_refused_early(level, name) && !is_off() && sides::is_candidate(fd) && is_free()
}

/// Like [`setsockopt`], for an option that the program was allowed to set on another socket.
/// Fails with the errors of [`setsockopt`] except EPERM.
///
/// # Safety
/// See the crate.
pub(crate) unsafe fn repeat(
    socket: &Socket<'_>,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> Result<c_int> {
    let row = row(socket, level, name);
    if is_the_kernels(row) {
        // SAFETY: the caller's pointer goes to the kernel as it is.
        return unsafe { kernel::setsockopt(raw(socket), level, name, value, length) };
    }
    let length = length as usize;
    if length > MAX_VALUE {
        return Err(Errno::INVAL);
    }
    if value.is_null() && length > 0 {
        // As Linux for extension headers.
        let is_header = row.is_some_and(|row| row.repeat == Repeat::UnlessEmpty);
        return Err(if is_header { Errno::INVAL } else { Errno::FAULT });
    }
    let value = match length {
        0 => &[][..],
        // SAFETY: the caller says that this many bytes are there.
        _ => unsafe { slice::from_raw_parts(value.cast::<u8>(), length) },
    };
    socket.set_option(level, name, value)?;
    option_hints::note(row.map_or(Note::Nothing, |row| row.note));
    Ok(0)
}

/// Returns the row of an option.
fn row(socket: &Socket<'_>, level: c_int, name: c_int) -> Option<&'static Row> {
    option_table::find(socket.kind(), socket.family(), level, name)
}

/// Returns true if the AF_UNIX socket itself keeps the option.
fn is_the_kernels(row: Option<&Row>) -> bool {
    row.is_some_and(|row| row.access == Access::Kernel)
}

/// Returns SO_DOMAIN.
fn domain(socket: &Socket<'_>) -> c_int {
    match socket.family() {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    }
}

/// Returns SO_PROTOCOL.
fn protocol(socket: &Socket<'_>) -> c_int {
    match socket.kind() {
        Kind::Stream => libc::IPPROTO_TCP,
        Kind::Datagram => libc::IPPROTO_UDP,
        Kind::Echo if domain(socket) == libc::AF_INET => libc::IPPROTO_ICMP,
        Kind::Echo => libc::IPPROTO_ICMPV6,
        Kind::Raw(protocol) => protocol.into(),
    }
}

fn raw(socket: &Socket<'_>) -> c_int {
    socket.fd().as_raw_fd()
}

fn int(value: c_int) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}
