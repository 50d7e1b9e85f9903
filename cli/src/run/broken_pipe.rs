//! The program's disposition of SIGPIPE: the one with which this process was started.
//!
//! Rust's runtime ignores the signal in this process, and the standard library resets it to the default in
//! children. A program that must ignore it, as systemd arranges for services, would then end when it writes
//! to a disconnected client.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// True if the signal was ignored at the start of this process.
static IGNORED_AT_START: AtomicBool = AtomicBool::new(false);

/// Makes the program ignore the signal if this process was started so.
#[allow(unsafe_code)]
pub(super) fn keep(command: &mut Command) {
    if IGNORED_AT_START.load(Ordering::Relaxed) {
        // SAFETY: the function makes one system call, which signal-safety(7) allows after a fork.
        unsafe { command.pre_exec(ignore) };
    }
}

#[allow(unsafe_code)]
fn ignore() -> io::Result<()> {
    // SAFETY: SIG_IGN is not a function, so no code runs by it.
    match unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Constructor that reads the disposition before `main`, because Rust's runtime then ignores the signal.
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
