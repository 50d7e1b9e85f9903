//! Forks and exits of the process, its signals and descriptors: the few places where the node needs `unsafe`.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, IntoRawFd as _, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::fs::{Mode, OFlags};

/// The first descriptor that is not standard input, output or error.
const FIRST: RawFd = 3;

/// Tells the process that made it from those that were forked from that.
#[derive(Debug)]
pub(crate) struct Process {
    /// A page of which a forked child gets a cleared copy.
    mark: Option<NonNull<AtomicU8>>,
    /// Where the kernel has no such pages (before Linux 4.14).
    id: u32,
}

// SAFETY: the page is only read after it was made, as an atomic, and unmapped when nobody has the value any
// more.
unsafe impl Send for Process {}
// SAFETY: as above.
unsafe impl Sync for Process {}

impl Process {
    /// This process.
    pub(crate) fn current() -> Process {
        Process { mark: marked_page(), id: std::process::id() }
    }

    /// Whether this is another process. Costs a load.
    pub(crate) fn is_forked(&self) -> bool {
        match self.mark {
            // SAFETY: the page is mapped until this value is dropped, in a child as well.
            Some(mark) => unsafe { mark.as_ref() }.load(Ordering::Relaxed) == 0,
            None => std::process::id() != self.id,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mark) = self.mark {
            // SAFETY: the whole mapping that `marked_page` made, to which nothing else points.
            unsafe { libc::munmap(mark.as_ptr().cast(), MARK) };
        }
    }
}

/// Bytes asked for; the kernel gives a page.
const MARK: usize = 1;

fn marked_page() -> Option<NonNull<AtomicU8>> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new private mapping at a place that the kernel chooses touches no other memory.
    let page = unsafe {
        libc::mmap(std::ptr::null_mut(), MARK, access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the mapping was made just now, and is at least `MARK` bytes long.
    if unsafe { libc::madvise(page, MARK, libc::MADV_WIPEONFORK) } != 0 {
        // SAFETY: as above, and it is not used after this.
        unsafe { libc::munmap(page, MARK) };
        return None;
    }
    let mark = NonNull::new(page.cast::<AtomicU8>())?;
    // SAFETY: mapped, readable, writable and cleared: a valid atomic.
    unsafe { mark.as_ref() }.store(1, Ordering::Relaxed);
    Some(mark)
}

/// Whether `body` is true in a forked child, which ends after it.
#[cfg(test)]
pub(crate) fn in_child(body: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child runs `body` alone, which takes no lock that another thread may have held, and ends
    // without running destructors or exit handlers.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", io::Error::last_os_error()),
        0 => {
            let held = body();
            // SAFETY: ends the process.
            unsafe { libc::_exit(libc::c_int::from(!held)) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the call writes one `int`.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            waited == child && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
        }
    }
}

/// Calls `handler` when the process exits normally (exit(3), or returning from `main`).
pub(crate) fn at_exit(handler: extern "C" fn()) {
    // SAFETY: atexit(3) only stores the pointer; `handler` is a function of this program and lives as long as
    // it does (a library that holds it must not be unloaded, which Rust libraries never are by themselves).
    let failed = unsafe { libc::atexit(handler) } != 0;
    if failed {
        tracing::debug!("no exit handler: call Node::shutdown before the program ends");
    }
}

/// Memory of what was written to an AF_UNIX socket and its peer has not read, bytes (SIOCOUTQ).
pub(crate) fn unread_by_peer(fd: BorrowedFd<'_>) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the call writes one `int`.
    let asked = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if asked == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
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

/// For kernels before 5.9, and sandboxes that do not know close_range(2).
fn leave_descriptors_singly() -> io::Result<()> {
    // SAFETY: it takes no pointer; see above.
    if unsafe { libc::unshare(libc::CLONE_FILES) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let listed = fs::read_dir("/proc/thread-self/fd")?.flatten();
    let open: Vec<RawFd> = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd >= FIRST) {
        // SAFETY: the table is this thread's alone, and nothing on it owns a descriptor. That of the listing
        // is closed already, which is no harm.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_child_is_another_process_and_what_it_makes_is_its_own() {
        let process = Process::current();
        assert!(process.mark.is_some() && !process.is_forked());
        assert!(in_child(|| process.is_forked() && !Process::current().is_forked()));
        let by_id = Process { mark: None, id: std::process::id() };
        assert!(!by_id.is_forked() && in_child(|| by_id.is_forked()));
        assert!(!process.is_forked());
    }
}
