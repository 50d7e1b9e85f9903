//! Signals and descriptors of the process, and unread bytes of its sockets: the few places where the server
//! needs `unsafe`.
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

/// Maximum number of other processes' descriptors inspected, which takes a second or two.
const MAX_INSPECTED_DESCRIPTORS: usize = 1 << 19;

/// Time for a forked child to execute another program, and interval of the checks.
const EXECUTE_TIMEOUT: Duration = Duration::from_millis(500);
const EXECUTE_CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// The first descriptor that is not standard input, output or error.
const FIRST_BEHIND_STANDARD: RawFd = 3;

/// Returns the memory used by data that an AF_UNIX socket's peer has not read, bytes (SIOCOUTQ).
pub(crate) fn unread_by_peer(fd: BorrowedFd<'_>) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the call writes one `int`.
    let asked = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if asked == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Sets whether other processes may send descriptors to an AF_UNIX socket: SO_PASSRIGHTS, since Linux 6.16.
///
/// # Errors
/// ENOPROTOOPT where the system does not support it.
pub(crate) fn set_pass_rights(fd: BorrowedFd<'_>, passes: bool) -> io::Result<()> {
    const SO_PASSRIGHTS: libc::c_int = 83;
    let value = libc::c_int::from(passes);
    let length = size_of_val(&value) as libc::socklen_t;
    let fd = fd.as_raw_fd();
    // SAFETY: the pointer is to a live variable, and `length` is its size.
    let result =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, SO_PASSRIGHTS, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Blocks all signals in the calling thread and the threads it starts, because the program's handlers would
/// run with the node's descriptors.
pub(crate) fn block_signals() {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset(3) initializes the set that it is given; pthread_sigmask(3) reads it, and accepts
    // null for the old one.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
    }
}

/// Lets the calling thread, and the threads it starts, receive all signals, although the process's starter
/// has blocked some.
pub fn unblock_signals() {
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset(3) initializes the set that it is given; pthread_sigmask(3) reads it, and accepts
    // null for the old one.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Returns true if the kernel has given this process rights that its starter lacks, by set-user-ID or file
/// capabilities (AT_SECURE).
pub fn is_secure_execution() -> bool {
    // SAFETY: a read of a value that does not change; 0 for an unknown key.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Gives the calling thread, and the threads it starts, a separate descriptor table. It keeps only the
/// process's standard input, output and error.
///
/// # Errors
/// The system does not allow it.
pub fn leave_descriptors() -> io::Result<()> {
    // SAFETY: a system call without pointers. Nothing on this thread owns one of the descriptors, and the
    // other threads keep theirs.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST_BEHIND_STANDARD as libc::c_uint,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_UNSHARE as libc::c_uint,
        )
    };
    if result != 0 {
        leave_descriptors_singly()?;
    }
    // Fill free numbers below 3; otherwise a node's descriptor would get such a number, and output to it
    // would go there.
    loop {
        let file = placeholder()?;
        if file.as_raw_fd() >= FIRST_BEHIND_STANDARD {
            return Ok(());
        }
        let _ = file.into_raw_fd();
    }
}

/// Returns a descriptor that only occupies a number: reading and writing fail with EBADF, as on a closed one.
/// It works without /dev/null, too.
///
/// # Errors
/// EMFILE, ENFILE.
pub(crate) fn placeholder() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// Returns the overlay streams that only this process has open, as far as other processes are visible.
/// Returns `None` without proc(5).
///
/// A child about to execute another program holds them until then, so this function waits for it, up to
/// [`EXECUTE_TIMEOUT`].
pub(crate) fn own_sockets() -> Option<BTreeSet<SocketId>> {
    let mut own = own_streams()?;
    let begun = Instant::now();
    let mut others = if own.is_empty() { Vec::new() } else { others() };
    while !others.is_empty() {
        let has_time = begun.elapsed() < EXECUTE_TIMEOUT;
        others = take_held(&mut own, &others, has_time);
        if !others.is_empty() {
            std::thread::sleep(EXECUTE_CHECK_INTERVAL);
        }
    }
    Some(own.into_values().collect())
}

/// Returns the overlay streams of this process that do not listen, by their inodes.
fn own_streams() -> Option<BTreeMap<u64, SocketId>> {
    let mut own = BTreeMap::new();
    // Use thread-self: /proc/self/fd is empty once the process's first thread has ended.
    for fd in numbers_in("/proc/thread-self/fd").ok()? {
        // SAFETY: the descriptor may have been closed since, or its number reused. Then getsockname(2) fails
        // or describes the new one, and nothing else is done with it.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let socket = Socket::of(fd).filter(|socket| socket.kind() == Kind::Stream);
        let socket = socket.filter(|_| !sockopt::socket_acceptconn(fd).unwrap_or(false));
        if let (Some(socket), Ok(stat)) = (socket, rustix::fs::fstat(fd)) {
            own.insert(stat.st_ino, requester::id(socket.which()));
        }
    }
    Some(own)
}

/// Removes the sockets from `own` that any of the processes has. With `spares_executing`, sockets stay that a
/// process would lose by executing another program; such processes are returned.
fn take_held(own: &mut BTreeMap<u64, SocketId>, processes: &[RawFd], spares_executing: bool) -> Vec<RawFd> {
    let (mut executing, mut left) = (Vec::new(), MAX_INSPECTED_DESCRIPTORS);
    for &process in processes {
        let table = format!("/proc/{process}/fd");
        for fd in numbers_in(&table).unwrap_or_default() {
            if own.is_empty() || left == 0 {
                return executing;
            }
            left -= 1;
            let Some(inode) = socket_in(&table, fd).filter(|inode| own.contains_key(inode)) else { continue };
            match spares_executing && is_closed_on_exec(process, fd) {
                true if executing.last() == Some(&process) => {}
                true => executing.push(process),
                false => drop(own.remove(&inode)),
            }
        }
    }
    executing
}

/// Returns true if a process closes a descriptor on exec, and still runs the same program as this one.
fn is_closed_on_exec(process: RawFd, fd: RawFd) -> bool {
    let program = |process: &str| fs::read_link(format!("/proc/{process}/exe")).ok();
    let info = fs::read_to_string(format!("/proc/{process}/fdinfo/{fd}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| libc::c_int::from_str_radix(flags.trim(), 8).ok()).unwrap_or(0);
    flags & libc::O_CLOEXEC != 0 && program(&process.to_string()) == program("self")
}

/// Returns the numbers in a folder of proc(5).
pub(crate) fn numbers_in(folder: &str) -> io::Result<Vec<RawFd>> {
    let listed = fs::read_dir(folder)?.flatten();
    Ok(listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Returns the inode of the socket with this number in a table of proc(5).
fn socket_in(table: &str, fd: RawFd) -> Option<u64> {
    let link = fs::read_link(format!("{table}/{fd}")).ok()?;
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Removes the sockets from `inodes` that a visible process has open, and those of which nothing is known.
/// The map has their inodes and owners. The `copies` of this thread do not count, and sockets in flight are
/// not seen.
pub(crate) fn retain_closed(inodes: &mut BTreeMap<u64, RawFd>, copies: &BTreeSet<RawFd>) {
    let own = std::process::id().cast_signed();
    let Ok(mut processes) = numbers_in("/proc") else { return inodes.clear() };
    let owners: BTreeSet<_> = inodes.values().copied().collect();
    processes.extend(&owners);
    // Owners come first, because most sockets are found there.
    processes.sort_by_key(|process| (!owners.contains(process), *process));
    processes.dedup();
    // Most node threads have a separate descriptor table, in which the application's numbers mean nothing.
    let none = BTreeSet::new();
    let own_copies = if has_common_table() { copies } else { &none };
    let mut left = MAX_INSPECTED_DESCRIPTORS;
    for process in processes {
        if inodes.is_empty() {
            return;
        }
        let Some((table, fds)) = table(process) else {
            if owners.contains(&process) && !has_ended(process) {
                inodes.retain(|_, owner| *owner != process);
            }
            continue;
        };
        let skipped = if process == own { own_copies } else { &none };
        for fd in fds.into_iter().filter(|fd| !skipped.contains(fd)) {
            left -= 1;
            if left == 0 {
                return inodes.clear();
            }
            if let Some(inode) = socket_in(&table, fd) {
                inodes.remove(&inode);
            }
        }
    }
}

/// Returns the folder of a process's descriptors, and their numbers; `None` if there are none to see. The
/// process's folder has none once the process's first thread has ended, so another thread's is read.
fn table(process: RawFd) -> Option<(String, Vec<RawFd>)> {
    let read = |folder: String| {
        let fds = numbers_in(&folder).ok().filter(|fds| !fds.is_empty())?;
        Some((folder, fds))
    };
    read(format!("/proc/{process}/fd")).or_else(|| {
        let threads = numbers_in(&format!("/proc/{process}/task")).unwrap_or_default();
        // This process's threads include the node's.
        let is_own = process == std::process::id().cast_signed();
        threads
            .into_iter()
            .filter(|_| !is_own)
            .find_map(|thread| read(format!("/proc/{process}/task/{thread}/fd")))
    })
}

/// Returns true if there is no such process. A process that is hidden in proc(5) may still run.
fn has_ended(process: RawFd) -> bool {
    let tried = rustix::process::Pid::from_raw(process).map(rustix::process::test_kill_process);
    tried.is_none_or(|tried| tried == Err(rustix::io::Errno::SRCH))
}

/// Returns true if this thread has the descriptor table of the process's first thread, which proc(5) lists.
fn has_common_table() -> bool {
    let Ok((probe, _other)) = std::os::unix::net::UnixStream::pair() else { return false };
    let inode = rustix::fs::fstat(&probe).map(|stat| stat.st_ino);
    inode.is_ok_and(|inode| socket_in("/proc/self/fd", probe.as_raw_fd()) == Some(inode))
}

/// Returns the other processes, beginning with those started after this one, because its children are among
/// them.
fn others() -> Vec<RawFd> {
    let own = std::process::id().cast_signed();
    let mut found = numbers_in("/proc").unwrap_or_default();
    found.retain(|process| *process != own);
    found.sort_by_key(|process| (*process < own, *process));
    found
}

/// Fallback for kernels before 5.9, and sandboxes that do not know close_range(2).
fn leave_descriptors_singly() -> io::Result<()> {
    // SAFETY: it takes no pointer; see above.
    if unsafe { libc::unshare(libc::CLONE_FILES) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for fd in numbers_in("/proc/thread-self/fd")?.into_iter().filter(|fd| *fd >= FIRST_BEHIND_STANDARD) {
        // SAFETY: the table is this thread's alone, and nothing on it owns a descriptor. The descriptor of
        // the listing is closed already, and closing its number again is harmless.
        unsafe { libc::close(fd) };
    }
    Ok(())
}
