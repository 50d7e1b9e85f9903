//! Forks and exits of the process, for which the node needs `unsafe`.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

/// Mark that distinguishes the process that made it from processes forked from that one.
#[derive(Debug)]
pub(crate) struct Process {
    /// Page of which a forked child gets a cleared copy.
    mark: Option<NonNull<AtomicU8>>,
    /// Process ID, for kernels without such pages (before Linux 4.14).
    id: u32,
}

// SAFETY: the page is only read after it was made, as an atomic, and unmapped when the value is dropped,
// after its last use.
unsafe impl Send for Process {}
// SAFETY: as above.
unsafe impl Sync for Process {}

impl Process {
    /// Returns the mark of this process.
    pub(crate) fn current() -> Process {
        Process { mark: marked_page(), id: std::process::id() }
    }

    /// Returns true in a forked process. Costs a load.
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

/// Requested size in bytes; the kernel allocates a page.
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

/// Returns true if `body` is true in a forked child, which ends after it.
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

unsafe extern "C" {
    /// Registers a handler of quick_exit(3) (C11 7.22.4.3). The `libc` crate has it for few systems.
    fn at_quick_exit(handler: extern "C" fn()) -> libc::c_int;
}

/// Calls `handler` when the process exits normally: by exit(3), quick_exit(3), or returning from `main`.
pub fn at_exit(handler: extern "C" fn()) {
    // SAFETY: both calls only store the pointer; `handler` is a function of this program and lives as long as
    // it does (a library that holds it must not be unloaded, which Rust libraries never are by themselves).
    let failed = unsafe { libc::atexit(handler) | at_quick_exit(handler) } != 0;
    if failed {
        tracing::debug!("no exit handler: call Node::shutdown before the program ends");
    }
}

/// Writes a line to stderr at the end of a process. It avoids the locks of the standard library, which
/// another thread may hold for ever, and SIGPIPE, which would change how the process ends.
pub(crate) fn say(line: &str) {
    let mut pipe = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the sets are initialized by sigemptyset(3) and pthread_sigmask(3) before they are read; the
    // signal that is taken is of this thread, and was blocked by it.
    unsafe {
        libc::sigemptyset(pipe.as_mut_ptr());
        libc::sigaddset(pipe.as_mut_ptr(), libc::SIGPIPE);
        if libc::pthread_sigmask(libc::SIG_BLOCK, pipe.as_ptr(), before.as_mut_ptr()) != 0 {
            return;
        }
    }
    let written = rustix::io::write(io::stderr(), line.as_bytes());
    // SAFETY: as above.
    unsafe {
        let was_blocked = libc::sigismember(before.as_ptr(), libc::SIGPIPE) == 1;
        if written == Err(rustix::io::Errno::PIPE) && !was_blocked {
            let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            libc::sigtimedwait(pipe.as_ptr(), std::ptr::null_mut(), &raw const none);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
    }
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
