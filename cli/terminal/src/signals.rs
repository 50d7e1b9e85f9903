//! Ctrl-C and `kill`: end cleanly the first time, at once the second time.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;

use rustix::process::{Pid, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The signals that ask a process for its end.
const ENDS: [i32; 2] = [SIGINT, SIGTERM];

/// Set once a signal has come, or something else has decided that the process ends.
static ENDING: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// On the first SIGINT or SIGTERM calls `cleanup` on a thread of its own and then ends the process with
/// status 128 + signal (130 for Ctrl-C), unless the process ends otherwise before. A second signal ends it
/// at once.
pub fn end_after(cleanup: impl FnOnce() + Send + 'static) -> io::Result<()> {
    end_with(|signal| {
        cleanup();
        128 + signal
    })
}

/// As [`end_after`]; `cleanup` is told the signal, and returns the exit status. A signal that was ignored
/// when this process was started stays so: shells have their background jobs ignore Ctrl-C.
pub fn end_with(cleanup: impl FnOnce(i32) -> i32 + Send + 'static) -> io::Result<()> {
    let heeded = heeded(ENDS);
    for signal in &heeded {
        signal_hook::flag::register_conditional_shutdown(*signal, 128 + signal, Arc::clone(&ENDING))?;
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

/// Has SIGINT and SIGTERM noted from now on, where they would end the process until [`end_after`] or
/// [`end_with`] attends to them. The result is the last of them, zero if none has come.
pub fn note() -> io::Result<Arc<AtomicUsize>> {
    let noted = Arc::new(AtomicUsize::new(0));
    for signal in heeded(ENDS) {
        signal_hook::flag::register_usize(signal, Arc::clone(&noted), signal as usize)?;
    }
    Ok(noted)
}

/// Those of the signals that were not ignored when this process was started.
pub fn heeded<const N: usize>(signals: [i32; N]) -> Vec<i32> {
    // By its number it might be another process in /proc, which may be of another PID namespace.
    let is_heeded = |number: &i32| Signal::from_named_raw(*number).is_none_or(|one| !ignores(one, "self"));
    signals.into_iter().filter(is_heeded).collect()
}

/// Calls `reload` with each SIGHUP, on a thread of its own.
pub fn on_hangup(reload: impl Fn() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP])?;
    thread::Builder::new().name("reload".into()).spawn(move || signals.forever().for_each(|_| reload()))?;
    Ok(())
}

/// Ends the process with `status` after `cleanup`. The main thread may fail meanwhile: it has no say any
/// more.
pub fn exit_after(status: i32, cleanup: impl FnOnce()) -> ! {
    ENDING.store(true, Ordering::SeqCst);
    cleanup();
    std::process::exit(status);
}

/// Whether a process ignores a signal; false if nobody knows.
pub fn is_ignored(signal: Signal, process: Pid) -> bool {
    ignores(signal, &process.to_string())
}

fn ignores(signal: Signal, process: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    ignored & (1 << (signal.as_raw() - 1)) != 0
}

/// Does not return if a signal has come: what the cleanup broke off must not decide the exit status.
pub fn leave_to_cleanup() {
    while ENDING.load(Ordering::SeqCst) {
        thread::park();
    }
}
