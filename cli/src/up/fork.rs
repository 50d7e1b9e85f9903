//! Processes beside `peersock up` that keep a right which the node's process gives up.
//!
//! Each is a fork of the node's process that never executes a program, so no command exists with which others
//! could start one.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rustix::process::{Pid, setpgid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::failure::Outcome;
use crate::stdio;

/// Forks this process; returns `None` in the child.
#[allow(unsafe_code)]
pub(super) fn fork() -> io::Result<Option<Pid>> {
    // Other threads do not exist in a fork, but their locks stay held.
    if fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
        return Err(io::Error::other("other threads run already"));
    }
    // SAFETY: no other thread is there, so that the copy may do whatever this process may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        child => Ok(Pid::from_raw(child)),
    }
}

/// Works as a process beside the node's until it exits. Nothing that belongs to the node is dropped in it.
pub(super) fn be(work: impl FnOnce() -> Outcome) -> ! {
    let done = catch_unwind(AssertUnwindSafe(work));
    std::process::exit(match done {
        Ok(Ok(())) => 0,
        Ok(Err(failure)) => {
            stdio::note(&failure);
            1
        }
        Err(_) => 101,
    })
}

/// Leaves the node's terminal and signals to the node, and closes all descriptors but stderr and these.
pub(super) fn stand_apart<'a>(kept: impl Iterator<Item = BorrowedFd<'a>>) -> io::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // Ignored, because these signals are for the node, whose last message comes by the pipe.
        signal_hook::flag::register(signal, Arc::default())?;
    }
    // Leaves the process group, because Ctrl-C is for the node.
    setpgid(None, None)?;
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(&nothing)?;
    // Before its number is closed with all others.
    drop(nothing);
    close_all_but(kept);
    Ok(())
}

/// Closes all descriptors except the standard ones and these.
#[allow(unsafe_code)]
fn close_all_but<'a>(kept: impl Iterator<Item = BorrowedFd<'a>>) {
    let mut kept: Vec<RawFd> = kept.map(|fd| fd.as_raw_fd()).collect();
    kept.sort_unstable();
    let close = |first: RawFd, last: libc::c_uint| {
        // SAFETY: what is closed belongs to the node's process, whose values this one uses no more and never
        // drops.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, first as libc::c_uint, last, 0) };
        if closed != 0 {
            close_each(first, last);
        }
    };
    let mut first = 3;
    for fd in kept {
        if fd > first {
            close(first, (fd - 1) as libc::c_uint);
        }
        first = first.max(fd + 1);
    }
    close(first, libc::c_uint::MAX);
}

/// Closes descriptors one by one, where the kernel has no close_range(2) or a sandbox forbids it.
#[allow(unsafe_code)]
fn close_each(first: RawFd, last: libc::c_uint) {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<RawFd> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd >= first && fd.cast_unsigned() <= last) {
        // SAFETY: as above. The one of the list itself is closed already.
        unsafe { libc::close(fd) };
    }
}
