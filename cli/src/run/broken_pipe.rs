//! What SIGPIPE does to the program: what it did when this program was started.
//!
//! Rust's runtime ignores the signal here, and the standard library sets it back to its default in whatever
//! it starts. A program that was to ignore it, as systemd has its services do, would end when it writes to a
//! client that has gone.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the signal was ignored when this program began.
static IGNORED_AT_START: AtomicBool = AtomicBool::new(false);

/// Has the program ignore the signal if this one was started so.
#[allow(unsafe_code)]
pub(super) fn keep(command: &mut Command) {
    if IGNORED_AT_START.load(Ordering::Relaxed) {
        // SAFETY: the function makes one system call, which signal-safety(7) allows after a fork.
        unsafe { command.pre_exec(ignore) };
    }
}

#[allow(unsafe_code)]
fn ignore() -> io::Result<()> {
    // SAFETY: SIG_IGN is no function, so nothing runs by it.
    match unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Looks at the signal before `main`, that is before Rust's runtime ignores it.
#[used]
#[allow(unsafe_code)]
// SAFETY: the section holds pointers to functions of this type, which the C library calls before `main`. This
// one makes a system call and writes to an atomic variable; it needs nothing that Rust's runtime sets up.
#[unsafe(link_section = ".init_array")]
static LOOK_AT_SIGNAL: extern "C" fn() = look_at_signal;

#[allow(unsafe_code)]
extern "C" fn look_at_signal() {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is changed, and the room is for one such structure, which is valid with any bytes.
    let action = unsafe {
        libc::sigaction(libc::SIGPIPE, ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    IGNORED_AT_START.store(action.sa_sigaction == libc::SIG_IGN, Ordering::Relaxed);
}
