//! The functions that take the place of the C library's: copies of descriptors. They are the kernel's, and it
//! is noted that a socket which may become the overlay's has one: the copy becomes so, too.

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
    // dup3(2), which all architectures have, refuses this, and dup2(2) only looks whether it is open.
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

/// A function with a variable list, of which no command takes more than one argument.
type Fcntl = unsafe extern "C-unwind" fn(RawFd, c_int, ...) -> c_int;

/// fcntl(2), a cancellation point: nothing is to be dropped while the C library's own is called.
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

/// fcntl(2) as programs call it that have offsets of 64 bits.
///
/// # Safety
/// As [`fcntl`].
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

/// Notes a copy, unless nothing can become of it.
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
