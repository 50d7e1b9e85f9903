//! The process's signals and descriptors, and what its sockets hold: the few places where the server needs
//! `unsafe`.
#![allow(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, IntoRawFd as _, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use peersock_fd::{Kind, Socket, SocketId};
use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt;

use crate::requester;

/// More descriptors of other processes are not looked at: that takes a second or two.
const MANY_DESCRIPTORS: usize = 1 << 19;

/// How long a forked child may take to execute another program, and how often it is looked whether it has.
const EXECUTES: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(5);

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

/// The overlay streams that this process has open, and no other process that can be seen. `None` if there is
/// no proc(5).
///
/// A child that is about to execute another program has them until then: that is waited for, up to
/// [`EXECUTES`].
pub(crate) fn own_sockets() -> Option<BTreeSet<SocketId>> {
    let mut own = own_streams()?;
    let begun = Instant::now();
    let mut others = if own.is_empty() { Vec::new() } else { others() };
    while !others.is_empty() {
        let has_time = begun.elapsed() < EXECUTES;
        others = take_held(&mut own, &others, has_time);
        if !others.is_empty() {
            std::thread::sleep(LOOK);
        }
    }
    Some(own.into_values().collect())
}

/// The overlay streams of this process that do not listen, by what proc(5) calls them.
fn own_streams() -> Option<BTreeMap<String, SocketId>> {
    let mut own = BTreeMap::new();
    // Not the process's: where its first thread has ended, that has none.
    for fd in numbers_in("/proc/thread-self/fd").ok()? {
        // SAFETY: the descriptor may have been closed since, or another one may have its number: then
        // getsockname(2) fails or says what that one is, and nothing else is done with it.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let socket = Socket::of(fd).filter(|socket| socket.kind() == Kind::Stream);
        let socket = socket.filter(|_| !sockopt::socket_acceptconn(fd).unwrap_or(false));
        if let (Some(socket), Ok(stat)) = (socket, rustix::fs::fstat(fd)) {
            own.insert(format!("socket:[{}]", stat.st_ino), requester::id(socket.which()));
        }
    }
    Some(own)
}

/// Takes those out of `own` that one of the processes has. With `spares_executing`, those stay that a process
/// has which may be about to execute another program, and loses with that: these processes are returned.
fn take_held(
    own: &mut BTreeMap<String, SocketId>,
    processes: &[RawFd],
    spares_executing: bool,
) -> Vec<RawFd> {
    let (mut executing, mut left) = (Vec::new(), MANY_DESCRIPTORS);
    for &process in processes {
        for fd in numbers_in(&format!("/proc/{process}/fd")).unwrap_or_default() {
            if own.is_empty() || left == 0 {
                return executing;
            }
            left -= 1;
            let Ok(link) = fs::read_link(format!("/proc/{process}/fd/{fd}")) else { continue };
            let Some(link) = link.to_str().filter(|link| own.contains_key(*link)) else { continue };
            match spares_executing && is_closed_on_exec(process, fd) {
                true if executing.last() == Some(&process) => {}
                true => executing.push(process),
                false => drop(own.remove(link)),
            }
        }
    }
    executing
}

/// Whether a process closes a descriptor when it executes another program, and runs the same as this one.
fn is_closed_on_exec(process: RawFd, fd: RawFd) -> bool {
    let program = |process: &str| fs::read_link(format!("/proc/{process}/exe")).ok();
    let info = fs::read_to_string(format!("/proc/{process}/fdinfo/{fd}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| libc::c_int::from_str_radix(flags.trim(), 8).ok()).unwrap_or(0);
    flags & libc::O_CLOEXEC != 0 && program(&process.to_string()) == program("self")
}

/// The numbers in a folder of proc(5).
pub(crate) fn numbers_in(folder: &str) -> io::Result<Vec<RawFd>> {
    let listed = fs::read_dir(folder)?.flatten();
    Ok(listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// The other processes. Those first that were started after this one: its children are among them.
fn others() -> Vec<RawFd> {
    let own = std::process::id().cast_signed();
    let mut found = numbers_in("/proc").unwrap_or_default();
    found.retain(|process| *process != own);
    found.sort_by_key(|process| (*process < own, *process));
    found
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
