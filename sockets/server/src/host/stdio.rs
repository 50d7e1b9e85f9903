//! Flushing of the C library's stream buffers when a process ends.
//!
//! exit(3) calls its handlers first and flushes streams after that. The last bytes of a `FILE` over an
//! overlay socket would therefore arrive after the node has ended.

// This module calls the C library, which owns these streams.
#![allow(unsafe_code)]

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Time limit of flushing; a peer may have no room for the last bytes.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit while a thread waits for input and holds that stream's lock. Streams are flushed from the
/// newest to standard input, which is the oldest.
const FLUSH_TIMEOUT_BESIDE_READER: Duration = Duration::from_millis(100);

unsafe extern "C" {
    static stdin: *mut libc::FILE;

    fn ftrylockfile(file: *mut libc::FILE) -> libc::c_int;
    fn funlockfile(file: *mut libc::FILE);
}

/// Registers a handler for the process's exit. It runs before those registered earlier, because exit(3) calls
/// them from the last to the first. quick_exit(3), which flushes nothing, does not call it.
pub(super) fn at_exit(handler: extern "C" fn()) {
    // SAFETY: atexit(3) only stores the pointer of a function that is never unloaded.
    if unsafe { libc::atexit(handler) } != 0 {
        tracing::debug!("what is in buffers of stdio at the end is not sent");
    }
}

/// Writes out the buffers of all streams (fflush(3)).
pub(super) fn flush() {
    let patience = if is_input_awaited() { FLUSH_TIMEOUT_BESIDE_READER } else { FLUSH_TIMEOUT };
    let (done, is_done) = mpsc::channel();
    let flushing = thread::Builder::new().name("flush".into()).spawn(move || {
        // SAFETY: a null pointer means all streams, and each is locked meanwhile.
        unsafe { libc::fflush(std::ptr::null_mut()) };
        let _ = done.send(());
    });
    if flushing.is_ok() {
        let _ = is_done.recv_timeout(patience);
    }
}

fn is_input_awaited() -> bool {
    // SAFETY: the C library creates the stream before the program starts and never frees it; the thread that
    // locked it unlocks it.
    unsafe {
        let is_locked = ftrylockfile(stdin) == 0;
        if is_locked {
            funlockfile(stdin);
        }
        !is_locked
    }
}
