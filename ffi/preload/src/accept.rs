//! Replacements of the C library's functions that accept connections. A thread that waits in them can be
//! cancelled, see the module `waits`.

use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};

use libc::{c_int, sockaddr, socklen_t};
use peersock_bsd::{Errno, Socket, epoll_sets, last_error, write_address};
use peersock_fd::{Kind, SocketFlags};

use crate::hooks::overlay;
use crate::kernel::{errno, hooked};
use crate::waits::{NO_ADDRESS, missing, next_accept4};

/// # Safety
/// As accept4(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn accept4(
    fd: RawFd,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    let Some(next) = next_accept4() else { return missing() };
    let Some(socket) = overlay(fd) else {
        // SAFETY: the program's pointers, as it must pass them to accept4(2).
        return unsafe { next(fd, address, length, flags) };
    };
    if socket.kind() != Kind::Stream {
        return hooked(|| Err(Errno::OPNOTSUPP));
    }
    loop {
        // SAFETY: there are no pointers.
        let accepted = unsafe { next(fd, NO_ADDRESS.0, NO_ADDRESS.1, flags) };
        // SAFETY: the program's pointers, as it must pass them to accept4(2).
        if let Some(done) = unsafe { finish(&socket, accepted, (address, length), flags) } {
            return done;
        }
    }
}

/// Converts the result of accept4(2) for the program. Returns `None` if the next connection must be awaited.
///
/// # Safety
/// As accept4(2).
unsafe fn finish(
    socket: &Socket<'_>,
    accepted: c_int,
    (address, length): (*mut sockaddr, *mut socklen_t),
    flags: c_int,
) -> Option<c_int> {
    if accepted == -1 {
        let error = Errno::from_raw_os_error(errno());
        return Some(hooked(|| Err(last_error(socket, socket.accept_error(error), epoll_sets::find))));
    }
    // SAFETY: it was just opened, and no other code knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(accepted) };
    let before = errno();
    // The kernel has accepted no other flags.
    let taken = socket.take_accepted(fd, SocketFlags::from_bits_retain(flags as u32)).transpose();
    crate::kernel::set_errno(before);
    taken.map(|taken| {
        hooked(|| {
            let (fd, peer) = taken?;
            // SAFETY: the caller's. After an error the connection is closed, as in the kernel.
            unsafe { write_address(peer, address, length) }?;
            Ok(fd.into_raw_fd())
        })
    })
}

/// # Safety
/// As accept(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn accept(
    fd: RawFd,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { accept4(fd, address, length, 0) }
}
