//! What stands in the C library's buffers when a process ends.
//!
//! exit(3) calls its handlers first and flushes streams after that: of a `FILE` over a socket of the overlay
//! the last bytes would come when the node is gone.

// It calls the C library, whose streams these are.
#![allow(unsafe_code)]

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long flushing may take: a peer may have no room for the last bytes.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same where a thread waits for input, with that stream's lock. Streams are flushed from the newest to
/// standard input, which is the oldest.
const PATIENCE_BESIDE_A_READER: Duration = Duration::from_millis(100);

unsafe extern "C" {
    static stdin: *mut libc::FILE;

    fn ftrylockfile(file: *mut libc::FILE) -> libc::c_int;
    fn funlockfile(file: *mut libc::FILE);
}

/// Has a handler called when the process exits, before those that were there already: they are called from
/// the last to the first. Not at quick_exit(3), which flushes nothing.
pub(super) fn at_exit(handler: extern "C" fn()) {
    // SAFETY: it only stores the pointer of a function that stays.
    if unsafe { libc::atexit(handler) } != 0 {
        tracing::debug!("what is in buffers of stdio at the end is not sent");
    }
}

/// Writes out what all streams have in their buffers (fflush(3)).
pub(super) fn flush() {
    let patience = if is_input_awaited() { PATIENCE_BESIDE_A_READER } else { PATIENCE };
    let (done, is_done) = mpsc::channel();
    let flushing = thread::Builder::new().name("flush".into()).spawn(move || {
        // SAFETY: a null pointer stands for all streams, and each is locked meanwhile.
        unsafe { libc::fflush(std::ptr::null_mut()) };
        let _ = done.send(());
    });
    if flushing.is_ok() {
        let _ = is_done.recv_timeout(patience);
    }
}

fn is_input_awaited() -> bool {
    // SAFETY: the C library makes the stream before the program starts, and never frees it; it is unlocked by
    // the thread that has locked it.
    unsafe {
        let is_locked = ftrylockfile(stdin) == 0;
        if is_locked {
            funlockfile(stdin);
        }
        !is_locked
    }
}
