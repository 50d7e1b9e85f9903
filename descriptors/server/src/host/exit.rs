//! The end of a process that has hosts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, Once, TryLockError, Weak, mpsc};
use std::time::{Duration, Instant};

use peersock::attach::{Linger, say_loss};

use super::stdio;
use super::thread::{Ending, Hosted};
use crate::{Unclosed, process};

/// How long a node may take to begin its end: its thread may have another job.
const BEGIN: Duration = Duration::from_secs(5);
/// What the hosts may take for ending beyond what [`Linger::Exit`] takes at most.
const END: Duration = Duration::from_secs(605);
/// How often the list of hosts is tried, once a millisecond.
const LOOKS: u32 = 100;

static HOSTS: Mutex<Vec<Weak<Hosted>>> = Mutex::new(Vec::new());
static AT_EXIT: Once = Once::new();

/// Stops a host when the process exits, if it still runs then.
pub(super) fn remember(hosted: &Arc<Hosted>) {
    AT_EXIT.call_once(|| {
        peersock::attach::at_exit(stop_all);
        stdio::at_exit(flush);
    });
    // A child that was forked while another thread held the lock does without.
    if let Ok(mut hosts) = HOSTS.try_lock() {
        hosts.retain(|host| host.strong_count() > 0);
        hosts.push(Arc::downgrade(hosted));
    }
}

/// The hosts. `None` in a child that was forked while another thread held the lock.
fn hosts() -> Option<MutexGuard<'static, Vec<Weak<Hosted>>>> {
    for _ in 0..LOOKS {
        match HOSTS.try_lock() {
            Ok(hosts) => return Some(hosts),
            Err(TryLockError::Poisoned(hosts)) => return Some(hosts.into_inner()),
            // A thread that starts a node has it for a moment.
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    None
}

/// The host, if the calling thread can stop it: it is this process's, and not that thread's own.
fn here(host: &Weak<Hosted>) -> Option<Arc<Hosted>> {
    let host = host.upgrade()?;
    if host.process == rustix::process::getpid() && !host.is_own_thread() {
        return Some(host);
    }
    // The parent's: its locks may be held for ever.
    std::mem::forget(host);
    None
}

extern "C" fn flush() {
    let has_host = hosts().is_some_and(|hosts| hosts.iter().any(|host| here(host).is_some()));
    if has_host {
        stdio::flush();
    }
}

extern "C" fn stop_all() {
    let Some(mut hosts) = hosts() else { return };
    let is_waited_for = |host: &Arc<Hosted>| !host.given_up.load(Ordering::Relaxed);
    let hosts: Vec<_> = hosts.drain(..).filter_map(|host| here(&host)).filter(is_waited_for).collect();
    if hosts.is_empty() {
        return;
    }
    let unclosed = Unclosed::of_exit();
    let begin = |host: Arc<Hosted>| {
        let stop = host.begin_stop(Linger::Exit, unclosed.clone())?;
        Some((stop, Arc::clone(&host.is_ending)))
    };
    let stopping: Vec<_> = hosts.into_iter().filter_map(begin).collect();
    let begun = Instant::now();
    let lost: Vec<u64> =
        stopping.iter().filter_map(|(stop, is_ending)| loss(stop, is_ending, begun)).collect();
    if !lost.is_empty() {
        say_loss(lost.iter().sum());
    }
}

impl Unclosed {
    /// For a process that exits: what a child of it goes on with, or another process, is not at its end.
    pub(super) fn of_exit() -> Unclosed {
        // Where the process may not look at itself, nobody knows.
        process::own_sockets().map_or(Unclosed::Finish, |own| Unclosed::FinishOnly(Arc::new(own)))
    }
}

/// Waits for the end of a node. The bytes that were lost; `None` if nothing was.
fn loss(stop: &mpsc::Receiver<Ending>, is_ending: &AtomicBool, begun: Instant) -> Option<u64> {
    let mut deadline = begun + BEGIN;
    loop {
        match stop.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Ending::Begun) => deadline = begun + END,
            Ok(Ending::Over(lost)) => return lost,
            // Another thread has stopped it, and was told.
            Err(RecvTimeoutError::Disconnected) => return None,
            // Another thread has asked before, and it takes as long as that one allows.
            Err(RecvTimeoutError::Timeout) if is_ending.load(Ordering::Relaxed) && begun.elapsed() < END => {
                deadline = begun + END;
            }
            // Nobody knows what was lost.
            Err(RecvTimeoutError::Timeout) => return Some(0),
        }
    }
}
