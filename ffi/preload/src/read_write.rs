//! Replacements of the C library's functions that read and write. They call the C library, but convert
//! errors: for an overlay socket whose node has ended, the kernel reports only that the other end was closed.
//!
//! The C library makes the calls, so they remain the cancellation points that programs expect: `extern
//! "C-unwind"`, and nothing to drop during a call.

use std::os::fd::RawFd;

use libc::{c_int, c_void, iovec, off_t, off64_t, size_t, ssize_t};

use peersock_bsd::{Errno, replaced};

use crate::empty_receive::{is_replaced, told_without_sender};
use crate::hooks::overlay;
use crate::kernel::{errno, hooked, quietly, set_errno};
use crate::messages::{is_long_datagram, meaning, sendto};
use crate::names::next;
use crate::netlink;
use crate::waits::missing;

type Read = unsafe extern "C-unwind" fn(RawFd, *mut c_void, size_t) -> ssize_t;
type CheckedRead = unsafe extern "C-unwind" fn(RawFd, *mut c_void, size_t, size_t) -> ssize_t;
type Write = unsafe extern "C-unwind" fn(RawFd, *const c_void, size_t) -> ssize_t;
type Vectored = unsafe extern "C-unwind" fn(RawFd, *const iovec, c_int) -> ssize_t;
type Sendfile = unsafe extern "C-unwind" fn(RawFd, RawFd, *mut off_t, size_t) -> ssize_t;
type Sendfile64 = unsafe extern "C-unwind" fn(RawFd, RawFd, *mut off64_t, size_t) -> ssize_t;

/// Finds the C library's functions.
pub(crate) fn find_originals() {
    let _ = (next_read(), next_checked_read(), next_write(), next_readv(), next_writev());
}

/// # Safety
/// As read(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn read(fd: RawFd, buf: *mut c_void, size: size_t) -> ssize_t {
    let Some(next) = next_read() else { return missing() };
    // An empty read of a socket returns nothing without blocking.
    if size > 0 && netlink::is_one(fd) {
        // SAFETY: the program's pointer, as it must pass it to read(2).
        return unsafe { netlink::receive(fd, buf, size, 0) };
    }
    // SAFETY: the program's pointer, as it must pass it to read(2).
    received(fd, size, || unsafe { next(fd, buf, size) })
}

/// Replaces read(2) for programs compiled with `_FORTIFY_SOURCE`.
///
/// # Safety
/// As read(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn __read_chk(
    fd: RawFd,
    buf: *mut c_void,
    size: size_t,
    room: size_t,
) -> ssize_t {
    let Some(next) = next_checked_read() else { return missing() };
    if size > 0 && size <= room && netlink::is_one(fd) {
        // SAFETY: the program's pointer, as it must pass it to read(2).
        return unsafe { netlink::receive(fd, buf, size, 0) };
    }
    // SAFETY: the program's pointer, as it must pass it to read(2).
    received(fd, size, || unsafe { next(fd, buf, size, room) })
}

/// # Safety
/// As write(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn write(fd: RawFd, data: *const c_void, size: size_t) -> ssize_t {
    // AF_UNIX sockets do not know the maximum length of a packet.
    if is_long_datagram(fd, size) {
        // SAFETY: the program's pointer, as it must pass it to write(2).
        return unsafe { sendto(fd, data, size, 0, std::ptr::null(), 0) };
    }
    let Some(next) = next_write() else { return missing() };
    // SAFETY: the program's pointer, as it must pass it to write(2).
    unsafe { netlink::note_sent(fd, data, size) };
    // SAFETY: the program's pointer, as it must pass it to write(2).
    told(fd, unsafe { next(fd, data, size) })
}

/// # Safety
/// As readv(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn readv(fd: RawFd, pieces: *const iovec, count: c_int) -> ssize_t {
    let Some(next) = next_readv() else { return missing() };
    // SAFETY: the program's pointers, as it must pass them to readv(2).
    if netlink::is_one(fd) && unsafe { netlink::has_room(pieces, count) } {
        // SAFETY: as above.
        return unsafe { netlink::receive_pieces(fd, pieces, count) };
    }
    // SAFETY: the program's pointers, as it must pass them to readv(2).
    received(fd, 1, || unsafe { next(fd, pieces, count) })
}

/// # Safety
/// As writev(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn writev(fd: RawFd, pieces: *const iovec, count: c_int) -> ssize_t {
    let Some(next) = next_writev() else { return missing() };
    // SAFETY: the program's pointers, as it must pass them to writev(2).
    unsafe { netlink::note_pieces(fd, pieces, usize::try_from(count).unwrap_or(0)) };
    // SAFETY: the program's pointers, as it must pass them to writev(2).
    let written = told(fd, unsafe { next(fd, pieces, count) });
    // The total length is known only after the kernel has taken the data. The node drops data that is too
    // long.
    match usize::try_from(written) {
        Ok(length) if is_long_datagram(fd, length) && is_too_long(fd, length) => {
            hooked(|| Err(Errno::MSGSIZE))
        }
        _ => written,
    }
}

/// Returns true if a datagram was longer than any packet.
fn is_too_long(fd: RawFd, length: usize) -> bool {
    quietly(|_| true, || overlay(fd).is_some_and(|socket| socket.is_too_long(length)))
}

/// # Safety
/// As sendfile(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn sendfile(
    fd: RawFd,
    file: RawFd,
    offset: *mut off_t,
    size: size_t,
) -> ssize_t {
    let Some(next) = next!(Sendfile, c"sendfile") else { return missing() };
    // SAFETY: the program's pointer, as it must pass it to sendfile(2).
    told(fd, unsafe { next(fd, file, offset, size) })
}

/// Replaces sendfile(2) for programs with 64-bit offsets.
///
/// # Safety
/// As sendfile(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn sendfile64(
    fd: RawFd,
    file: RawFd,
    offset: *mut off64_t,
    size: size_t,
) -> ssize_t {
    let Some(next) = next!(Sendfile64, c"sendfile64") else { return missing() };
    // SAFETY: the program's pointer, as it must pass it to sendfile(2).
    told(fd, unsafe { next(fd, file, offset, size) })
}

/// Returns a call's result, and converts the error in `errno`. Checks only errors that the kernel reports for
/// a closed end, so that successful calls cost nothing.
fn told(fd: RawFd, returned: ssize_t) -> ssize_t {
    if returned == -1
        && let error = errno()
        && matches!(error, libc::ECONNRESET | libc::EPIPE)
    {
        set_errno(meaning(fd, Errno::from_raw_os_error(error)).raw_os_error());
    }
    returned
}

/// Does the same for a call that `reads`. An empty result with room for data may mean an error, or that
/// another socket must be read.
///
/// Values captured by `reads` must not need dropping.
fn received(fd: RawFd, size: size_t, reads: impl Fn() -> ssize_t) -> ssize_t {
    loop {
        let before = replaced::count();
        let returned = match told(fd, reads()) {
            0 if size > 0 => told_without_sender(fd, 0),
            returned => returned,
        };
        if returned != 0 || size == 0 || !is_replaced(fd, before) {
            return returned;
        }
    }
}

fn next_read() -> Option<Read> {
    next!(Read, c"read")
}

fn next_checked_read() -> Option<CheckedRead> {
    next!(CheckedRead, c"__read_chk")
}

fn next_write() -> Option<Write> {
    next!(Write, c"write")
}

fn next_readv() -> Option<Vectored> {
    next!(Vectored, c"readv")
}

fn next_writev() -> Option<Vectored> {
    next!(Vectored, c"writev")
}
