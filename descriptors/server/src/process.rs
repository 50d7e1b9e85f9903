//! The process's signals and descriptors, and what its sockets hold: the few places where the server needs
//! `unsafe`.
#![allow(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, IntoRawFd as _, OwnedFd, RawFd};

use peersock_fd::{Kind, Socket, SocketId};
use rustix::fs::{Mode, OFlags};

use crate::requester;

/// More children are not looked at.
const MANY_PROCESSES: usize = 10_000;

/// The first descriptor that is not standard input, output or error.
const FIRST: RawFd = 3;

/// Memory of what was written to an AF_UNIX socket and its peer has not read, bytes (SIOCOUTQ).
pub(crate) fn unread_by_peer(fd: BorrowedFd<'_>) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the call writes one `int`.
    let asked = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if asked == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Whether others may send descriptors to an AF_UNIX socket: SO_PASSRIGHTS, of Linux 6.16.
///
/// # Errors
/// ENOPROTOOPT where the system does not know it.
pub(crate) fn set_pass_rights(fd: BorrowedFd<'_>, passes: bool) -> io::Result<()> {
    const SO_PASSRIGHTS: libc::c_int = 83;
    let value = libc::c_int::from(passes);
    let length = size_of_val(&value) as libc::socklen_t;
    let fd = fd.as_raw_fd();
    // SAFETY: the pointer is to a live variable, of the size that the kernel is told.
    let result =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, SO_PASSRIGHTS, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the calling thread, and those that it starts, take no signals: handlers of the program would run with
/// the descriptors of the node.
pub(crate) fn block_signals() {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset(3) initializes the set that it is given; pthread_sigmask(3) reads it, and may be
    // given no place for the old one.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
    }
}

/// Gives the calling thread, and those that it starts, a table of descriptors of their own. Of the process's
/// it has standard input, output and error only.
///
/// # Errors
/// When the system does not allow it.
pub(crate) fn leave_descriptors() -> io::Result<()> {
    // SAFETY: a system call without pointers. Nothing on this thread owns one of the descriptors, and the
    // other threads keep theirs.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST as libc::c_uint,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_UNSHARE as libc::c_uint,
        )
    };
    if result != 0 {
        leave_descriptors_singly()?;
    }
    // Where one of the three is closed, the node's own would get its number, and what is printed would go
    // there.
    loop {
        let file = placeholder()?;
        if file.as_raw_fd() >= FIRST {
            return Ok(());
        }
        let _ = file.into_raw_fd();
    }
}

/// A descriptor that only takes a number: reading and writing fail with EBADF, as where nothing is open. It
/// is to be had where there is no /dev/null, too.
///
/// # Errors
/// EMFILE, ENFILE.
pub(crate) fn placeholder() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// The overlay streams that this process has open, and no child of it. `None` if there is no proc(5).
pub(crate) fn own_sockets() -> Option<BTreeSet<SocketId>> {
    let mut own = BTreeMap::new();
    // Not the process's: where its first thread has ended, that has none.
    for fd in numbers_in("/proc/thread-self/fd").ok()? {
        // SAFETY: the descriptor may have been closed since, or another one may have its number: then
        // getsockname(2) fails or says what that one is, and nothing else is done with it.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let socket = Socket::of(fd).filter(|socket| socket.kind() == Kind::Stream);
        if let (Some(socket), Ok(stat)) = (socket, rustix::fs::fstat(fd)) {
            own.insert(format!("socket:[{}]", stat.st_ino), requester::id(socket.which()));
        }
    }
    if !own.is_empty() {
        for child in descendants() {
            for fd in numbers_in(&format!("/proc/{child}/fd")).unwrap_or_default() {
                let link = fs::read_link(format!("/proc/{child}/fd/{fd}"));
                link.ok().and_then(|link| own.remove(link.to_str()?));
            }
        }
    }
    Some(own.into_values().collect())
}

/// The numbers in a folder of proc(5).
fn numbers_in(folder: &str) -> io::Result<Vec<RawFd>> {
    let listed = fs::read_dir(folder)?.flatten();
    Ok(listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// The processes that this one has started, and those that they have, as far as the system tells.
fn descendants() -> Vec<RawFd> {
    let (mut found, mut left) = (Vec::new(), vec![std::process::id().cast_signed()]);
    while let Some(process) = left.pop() {
        for thread in numbers_in(&format!("/proc/{process}/task")).unwrap_or_default() {
            let path = format!("/proc/{process}/task/{thread}/children");
            let children = fs::read_to_string(path).unwrap_or_default();
            left.extend(children.split_whitespace().filter_map(|id| id.parse::<RawFd>().ok()));
        }
        found.push(process);
        if found.len() > MANY_PROCESSES {
            break;
        }
    }
    found.split_off(1)
}

/// For kernels before 5.9, and sandboxes that do not know close_range(2).
fn leave_descriptors_singly() -> io::Result<()> {
    // SAFETY: it takes no pointer; see above.
    if unsafe { libc::unshare(libc::CLONE_FILES) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for fd in numbers_in("/proc/thread-self/fd")?.into_iter().filter(|fd| *fd >= FIRST) {
        // SAFETY: the table is this thread's alone, and nothing on it owns a descriptor. That of the listing
        // is closed already, which is no harm.
        unsafe { libc::close(fd) };
    }
    Ok(())
}
