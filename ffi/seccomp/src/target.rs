//! The thread whose call is answered: its memory, its descriptors and its signals.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use libc::{c_int, c_ulong, c_void, iovec};
use peersock_bsd::kernel::check;
use peersock_bsd::{Errno, Result};
use rustix::event::EventfdFlags;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

use crate::listener::{Listener, Notice};

/// Interruption by a signal: the kernel repeats the call, or fails it with EINTR, according to the handler's
/// flags. Programs never see the number.
const ERESTARTSYS: c_int = 512;

/// A thread that waits for the answer to a call.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) listener: Arc<Listener>,
    pub(crate) notice: Notice,
}

impl Target {
    /// Returns an argument of the call that is a signed or unsigned number.
    pub(crate) fn int(&self, index: usize) -> c_int {
        self.notice.arguments[index] as c_int
    }

    /// Returns an argument that is an address or a size.
    pub(crate) fn word(&self, index: usize) -> u64 {
        self.notice.arguments[index]
    }

    /// Returns true if the call still waits. Then the data read before is the thread's own, because its
    /// number was not reused.
    pub(crate) fn is_waiting(&self) -> bool {
        self.listener.is_waiting(self.notice.id)
    }

    /// Returns a copy of one of the thread's descriptors, which refers to the same open file.
    /// Errors: EBADF if there is none, EPERM if the system denies access, ENOENT if the call was interrupted.
    pub(crate) fn fd(&self, number: RawFd) -> Result<OwnedFd> {
        if number < 0 {
            return Err(Errno::BADF);
        }
        let process = process(self.notice.thread)?;
        let fd = rustix::process::pidfd_getfd(&process, number, PidfdGetfdFlags::empty())?;
        if self.is_waiting() { Ok(fd) } else { Err(Errno::NOENT) }
    }

    /// Reads the thread's memory.
    ///
    /// # Errors
    /// EFAULT if it is not mapped, EPERM if the system denies access, ENOENT if the call was interrupted.
    pub(crate) fn read(&self, address: u64, buf: &mut [u8]) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let local = iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        let copied = transfer(libc::SYS_process_vm_readv, self.notice.thread, local, address)?;
        match copied == buf.len() {
            _ if !self.is_waiting() => Err(Errno::NOENT),
            true => Ok(()),
            false => Err(Errno::FAULT),
        }
    }

    /// Writes to the thread's memory.
    /// Errors: like [`read`](Self::read).
    pub(crate) fn write(&self, address: u64, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        if !self.is_waiting() {
            return Err(Errno::NOENT);
        }
        let local = iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
        let copied = transfer(libc::SYS_process_vm_writev, self.notice.thread, local, address)?;
        if copied == data.len() { Ok(()) } else { Err(Errno::FAULT) }
    }

    /// Reads a number, see [`read`](Self::read).
    pub(crate) fn read_u32(&self, address: u64) -> Result<u32> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    /// Makes the descriptor `number` refer to `fd`, and keeps its close-on-exec flag.
    /// Errors: ENOENT if the call was interrupted, EMFILE.
    pub(crate) fn put(&self, fd: BorrowedFd<'_>, number: RawFd) -> Result<()> {
        self.listener.put(self.notice.id, fd, number, closes_on_exec(self.notice.thread, number))
    }

    /// Sets the call's result.
    pub(crate) fn answer(&self, returned: Result<i64>) {
        // An interrupted call no longer waits.
        let _ = self.listener.answer(self.notice.id, returned.map_err(Errno::raw_os_error));
    }

    /// Makes the call return a new descriptor. Returns false if that fails: the call was interrupted, or has
    /// no number left, which is its error.
    pub(crate) fn answer_with(&self, fd: &OwnedFd, close_on_exec: bool) -> bool {
        let given = self.listener.answer_with(self.notice.id, fd.as_fd(), close_on_exec);
        if let Err(error) = given
            && error != Errno::NOENT
        {
            self.answer(Err(error));
        }
        given.is_ok()
    }

    /// Returns true if the thread can have another descriptor (RLIMIT_NOFILE), as far as the system allows
    /// the check.
    pub(crate) fn has_free_number(&self) -> bool {
        let thread = self.notice.thread;
        let Some(limit) = most_descriptors(thread) else { return true };
        // Since Linux 6.2 the folder's size is the number of descriptors. This check is faster, because a
        // server has many.
        let folder = format!("/proc/{thread}/fd");
        if let Ok(folder) = fs::metadata(&folder)
            && (1..limit).contains(&folder.len())
        {
            return true;
        }
        let Ok(open) = fs::read_dir(&folder) else { return true };
        let numbers = open.flatten().filter_map(|open| open.file_name().to_str()?.parse::<u64>().ok());
        // Descriptors beyond a lowered limit do not count against it.
        (numbers.filter(|number| *number < limit).count() as u64) < limit
    }

    /// Makes the kernel execute the call.
    pub(crate) fn go_on(&self) {
        let _ = self.listener.go_on(self.notice.id);
    }

    /// Interrupts the call for a [pending signal](Self::has_signal). A call with a timeout (SO_RCVTIMEO) is
    /// not repeated, see signal(7).
    pub(crate) fn interrupt(&self, is_limited: bool) {
        let error = if is_limited { libc::EINTR } else { ERESTARTSYS };
        let _ = self.listener.answer(self.notice.id, Err(error));
    }

    /// Returns true if a signal that the program handles is pending for the thread.
    pub(crate) fn has_signal(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.notice.thread)).unwrap_or_default();
        let own = |name| mask(&status, name);
        let handled = own("SigCgt:") & !own("SigBlk:");
        let of_process = own("ShdPnd:") & handled;
        own("SigPnd:") & handled != 0
            || of_process != 0 && of_process & !taken_by_leader(&status, self.notice.thread) != 0
    }

    /// Sends SIGPIPE, as the kernel does to a writer without a reader.
    pub(crate) fn signal_broken_pipe(&self) {
        let Some(process) = thread_group(self.notice.thread) else { return };
        if self.is_waiting() {
            // SAFETY: no pointers.
            unsafe { libc::syscall(libc::SYS_tgkill, process, self.notice.thread, libc::SIGPIPE) };
        }
    }
}

/// Checks that the system lets this process inspect the descriptors and memory of its children (ptrace(2)).
/// Errors: EPERM if it does not.
pub(crate) fn check_access() -> Result<()> {
    const CAP_SYS_PTRACE: u32 = 19;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = mask(&status, "CapEff:");
    // From 2 on, not even a parent may.
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let is_restricted = scope.trim().parse::<u32>().is_ok_and(|scope| scope >= 2);
    if is_restricted && (capabilities & 1 << CAP_SYS_PTRACE == 0 || scope.trim() == "3") {
        return Err(Errno::PERM);
    }
    // Containers forbid the calls themselves.
    let own = rustix::thread::gettid().as_raw_nonzero().get();
    let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
    rustix::process::pidfd_getfd(&process(own)?, fd.as_raw_fd(), PidfdGetfdFlags::empty())?;
    let (mut copy, original) = (0_u64, 42_u64);
    let size = size_of::<u64>();
    let local = iovec { iov_base: (&raw mut copy).cast(), iov_len: size };
    transfer(libc::SYS_process_vm_readv, own, local, (&raw const original).addr() as u64)?;
    if copy == original { Ok(()) } else { Err(Errno::PERM) }
}

/// Copies between a local piece of memory and another process's. Returns the number of bytes.
fn transfer(call: i64, thread: i32, local: iovec, address: u64) -> Result<usize> {
    // The address is the other thread's, and only a number here.
    let remote = iovec { iov_base: address as *mut c_void, iov_len: local.iov_len };
    let (one, flags): (c_ulong, c_ulong) = (1, 0);
    // SAFETY: the local piece is live memory of its length. It is written to only if the caller has borrowed
    // it mutably. The kernel checks each page of the other process.
    let copied =
        check(unsafe { libc::syscall(call, thread, &raw const local, one, &raw const remote, one, flags) });
    copied.map(|copied| copied as usize)
}

/// Returns a descriptor of a thread, or of its process in kernels before 6.9. There all threads have the same
/// descriptors, except those that have left the table (unshare(2)).
pub(crate) fn process(thread: i32) -> Result<OwnedFd> {
    let open = |process, flags| {
        let process = Pid::from_raw(process).ok_or(Errno::SRCH)?;
        rustix::process::pidfd_open(process, flags)
    };
    match open(thread, PidfdFlags::from_bits_retain(libc::PIDFD_THREAD)) {
        Err(Errno::INVAL) => open(thread_group(thread).ok_or(Errno::SRCH)?, PidfdFlags::empty()),
        process => process,
    }
}

/// Returns the soft limit of a thread's descriptors; all numbers are below it.
fn most_descriptors(thread: i32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{thread}/limits")).ok()?;
    most_in(&limits)
}

/// Parses the limit in a process's limits file (proc(5)). Returns `None` if there is none.
fn most_in(limits: &str) -> Option<u64> {
    field(limits, "Max open files")?.split_whitespace().next()?.parse().ok()
}

/// Returns the signals to the process that its first thread takes, unless that is the thread with this
/// `status`: the signals that it does not block. Without this check one signal would interrupt each waiting
/// thread.
fn taken_by_leader(status: &str, thread: i32) -> u64 {
    let leader = field(status, "Tgid:").and_then(|leader| leader.parse().ok());
    let Some(leader) = leader.filter(|leader: &i32| *leader != thread) else { return 0 };
    let status = fs::read_to_string(format!("/proc/{leader}/status")).unwrap_or_default();
    // A thread that has ended takes none.
    let has_ended = field(&status, "State:").is_none_or(|state| state.starts_with(['Z', 'X']));
    if has_ended { 0 } else { !mask(&status, "SigBlk:") }
}

/// Returns a descriptor of the process that has connected a socket; in kernels before 6.5, of the process
/// that has its number now.
/// Errors: ESRCH if it has ended.
pub(crate) fn peer_process(socket: BorrowedFd<'_>, number: i32) -> Result<OwnedFd> {
    /// Option number on all supported architectures, since Linux 6.5.
    const SO_PEERPIDFD: c_int = 77;
    let mut fd: c_int = -1;
    let mut length = size_of::<c_int>() as libc::socklen_t;
    let (level, to, at) = (libc::SOL_SOCKET, (&raw mut fd).cast(), &raw mut length);
    // SAFETY: both pointers are to live variables of the given sizes.
    let told = unsafe { peersock_bsd::kernel::getsockopt(socket.as_raw_fd(), level, SO_PEERPIDFD, to, at) };
    match told {
        // SAFETY: the kernel has made the descriptor just now, for this process.
        Ok(_) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        Err(Errno::NOPROTOOPT) => {
            let process = Pid::from_raw(number).ok_or(Errno::SRCH)?;
            rustix::process::pidfd_open(process, PidfdFlags::empty())
        }
        Err(error) => Err(error),
    }
}

/// Returns the process that a thread belongs to.
fn thread_group(thread: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    field(&status, "Tgid:")?.parse().ok()
}

fn closes_on_exec(thread: i32, number: RawFd) -> bool {
    let info = fs::read_to_string(format!("/proc/{thread}/fdinfo/{number}")).unwrap_or_default();
    let flags = field(&info, "flags:").and_then(|flags| c_int::from_str_radix(flags, 8).ok()).unwrap_or(0);
    flags & libc::O_CLOEXEC != 0
}

/// Parses a mask field of a process's or descriptor's file (proc(5)); 0 if it is missing.
fn mask(text: &str, name: &str) -> u64 {
    field(text, name).and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_of_descriptors_is_found() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max processes             127227               127227               processes \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(most_in(limits), Some(1024));
        assert_eq!(most_in(&limits.replace("1024  ", "unlimited")), None);
        let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        assert_eq!(most_descriptors(rustix::thread::gettid().as_raw_nonzero().get()), own);
    }
}
