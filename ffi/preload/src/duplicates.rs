//! Replacements of the C library's functions that copy descriptors. The kernel makes the copies. The library
//! notes that a socket which may become an overlay socket has a copy, because the copy must become one, too.

use std::os::fd::RawFd;

use libc::{c_int, c_long};
use peersock_bsd::kernel::check;
use peersock_bsd::{copies, is_candidate};

use crate::kernel::{errno, hooked, set_errno};
use crate::names::next;
use crate::rules;
use crate::waits::missing;

/// Finds the C library's functions.
pub(crate) fn find_originals() {
    let _ = (next_fcntl(), next_fcntl64());
}

/// dup(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn dup(fd: RawFd) -> c_int {
    hooked(|| {
        note(fd);
        // SAFETY: no pointers.
        check(unsafe { peersock_fd::syscall!(libc::SYS_dup, fd) }).map(|copy| copy as c_int)
    })
}

/// dup2(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn dup2(fd: RawFd, to: RawFd) -> c_int {
    if fd != to {
        return dup3(fd, to, 0);
    }
    // dup3(2), which all architectures have, rejects equal numbers; dup2(2) only checks that the descriptor
    // is open.
    hooked(|| {
        // SAFETY: no pointers.
        check(unsafe { peersock_fd::syscall!(libc::SYS_fcntl, fd, libc::F_GETFD) }).map(|_| to)
    })
}

/// dup3(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn dup3(fd: RawFd, to: RawFd, flags: c_int) -> c_int {
    hooked(|| {
        note(fd);
        // SAFETY: no pointers.
        check(unsafe { peersock_fd::syscall!(libc::SYS_dup3, fd, to, flags) }).map(|copy| copy as c_int)
    })
}

/// A variadic function, of which no command takes more than one argument.
type Fcntl = unsafe extern "C-unwind" fn(RawFd, c_int, ...) -> c_int;

/// Replaces fcntl(2), a cancellation point: nothing must need dropping while the C library's function runs.
///
/// # Safety
/// As fcntl(2). Its third argument is passed as a fixed one would be.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn fcntl(fd: RawFd, command: c_int, argument: c_long) -> c_int {
    let Some(next) = next_fcntl() else { return missing() };
    note_command(fd, command);
    // SAFETY: the program's argument, as it must pass it to fcntl(2).
    unsafe { next(fd, command, argument) }
}

/// Replaces fcntl(2) for programs with 64-bit offsets.
///
/// # Safety
/// Like [`fcntl`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn fcntl64(fd: RawFd, command: c_int, argument: c_long) -> c_int {
    let Some(next) = next_fcntl64().or_else(next_fcntl) else { return missing() };
    note_command(fd, command);
    // SAFETY: the program's argument, as it must pass it to fcntl(2).
    unsafe { next(fd, command, argument) }
}

fn note_command(fd: RawFd, command: c_int) {
    if matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) {
        note(fd);
    }
}

/// Notes a copy of a socket that may be, or become, an overlay socket.
fn note(fd: RawFd) {
    let before = errno();
    if rules().is_some() && (is_candidate(fd) || peersock_bsd::overlay(fd).is_some()) {
        copies::note();
    }
    set_errno(before);
}

fn next_fcntl() -> Option<Fcntl> {
    next!(Fcntl, c"fcntl")
}

fn next_fcntl64() -> Option<Fcntl> {
    next!(Fcntl, c"fcntl64")
}
