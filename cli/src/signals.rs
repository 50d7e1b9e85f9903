//! Ctrl-C and `kill`: end cleanly the first time, at once the second time.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Set once a signal has come.
static ENDING: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// On the first SIGINT or SIGTERM calls `cleanup` on a thread of its own and then ends the process with
/// status 128 + signal (130 for Ctrl-C), unless the process ends otherwise before. A second signal ends it
/// at once.
pub(crate) fn end_after(cleanup: impl FnOnce() + Send + 'static) -> io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&ENDING))?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            ENDING.store(true, Ordering::SeqCst);
            cleanup();
            std::process::exit(128 + signal);
        }
    })?;
    Ok(())
}

/// Does not return if a signal has come: what the cleanup broke off must not decide the exit status.
pub(crate) fn leave_to_cleanup() {
    while ENDING.load(Ordering::SeqCst) {
        thread::park();
    }
}
