//! Ctrl-C and `kill`: end cleanly the first time, at once the second time.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;

use rustix::process::{Pid, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Signals that ask a process to end.
const ENDS: [i32; 2] = [SIGINT, SIGTERM];

/// Set once a signal has arrived, or the process ends for another reason.
static ENDING: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Set by the handler of such a signal. The thread that ends the process comes later, and the main thread may
/// be at its end by then.
static ARRIVED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Ends the process on the first SIGINT or SIGTERM, after calling `cleanup` on a separate thread. The status
/// is 128 + signal (130 for Ctrl-C), unless the process ends earlier. A second signal ends it at once.
pub fn end_after(cleanup: impl FnOnce() + Send + 'static) -> io::Result<()> {
    end_with(|signal| {
        cleanup();
        128 + signal
    })
}

/// Ends the process as [`end_after`] does, but `cleanup` gets the signal and returns the exit status. A
/// signal ignored at the process's start stays ignored, because shells make background jobs ignore Ctrl-C.
pub fn end_with(cleanup: impl FnOnce(i32) -> i32 + Send + 'static) -> io::Result<()> {
    end_by(heeded(ENDS), cleanup)
}

/// Does the same as [`end_with`] for signals that were ignored, too. Other signals of a terminal's end
/// (SIGHUP) are ignored. For a process in the background.
pub fn end_always_with(cleanup: impl FnOnce(i32) -> i32 + Send + 'static) -> io::Result<()> {
    signal_hook::flag::register(SIGHUP, Arc::default())?;
    end_by(ENDS.to_vec(), cleanup)
}

fn end_by(heeded: Vec<i32>, cleanup: impl FnOnce(i32) -> i32 + Send + 'static) -> io::Result<()> {
    for signal in &heeded {
        signal_hook::flag::register_conditional_shutdown(*signal, 128 + signal, Arc::clone(&ENDING))?;
        signal_hook::flag::register(*signal, Arc::clone(&ARRIVED))?;
    }
    let mut signals = Signals::new(heeded)?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            ENDING.store(true, Ordering::SeqCst);
            std::process::exit(cleanup(signal));
        }
    })?;
    Ok(())
}

/// Records SIGINT and SIGTERM from now on, until [`end_after`] or [`end_with`] handles them; otherwise they
/// would end the process. Returns the last signal, zero if none has arrived.
pub fn note() -> io::Result<Arc<AtomicUsize>> {
    let noted = Arc::new(AtomicUsize::new(0));
    for signal in heeded(ENDS) {
        signal_hook::flag::register_usize(signal, Arc::clone(&noted), signal as usize)?;
    }
    Ok(noted)
}

/// Returns the signals that were not ignored at the start of this process.
pub fn heeded<const N: usize>(signals: [i32; N]) -> Vec<i32> {
    // Uses `self`, because in /proc of another PID namespace the PID could be another process.
    let is_heeded = |number: &i32| Signal::from_named_raw(*number).is_none_or(|one| !ignores(one, "self"));
    signals.into_iter().filter(is_heeded).collect()
}

/// Calls `reload` on each SIGHUP, on a separate thread.
pub fn on_hangup(reload: impl Fn() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP])?;
    thread::Builder::new().name("reload".into()).spawn(move || signals.forever().for_each(|_| reload()))?;
    Ok(())
}

/// Ends the process with `status` after `cleanup`, even if the main thread fails meanwhile.
pub fn exit_after(status: i32, cleanup: impl FnOnce()) -> ! {
    ENDING.store(true, Ordering::SeqCst);
    cleanup();
    std::process::exit(status);
}

/// Returns true if a process ignores a signal; false if that is unknown.
pub fn is_ignored(signal: Signal, process: Pid) -> bool {
    ignores(signal, &process.to_string())
}

fn ignores(signal: Signal, process: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    ignored & (1 << (signal.as_raw() - 1)) != 0
}

/// Blocks forever after a signal, because failures due to the cleanup must not decide the exit status.
pub fn leave_to_cleanup() {
    while ENDING.load(Ordering::SeqCst) || ARRIVED.load(Ordering::SeqCst) {
        thread::park();
    }
}
