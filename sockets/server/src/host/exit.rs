//! Process exit while hosts are running.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, Once, TryLockError, Weak, mpsc};
use std::time::{Duration, Instant};

use peersock::attach::{Linger, say_loss};

use rustix::process::Pid;

use super::stdio;
use super::thread::Ending;
use crate::{Unclosed, process};

/// Time for a node to begin its shutdown; its thread may be busy with another job.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the hosts to end, slightly more than the maximum of [`Linger::Exit`].
const END_TIMEOUT: Duration = Duration::from_secs(605);
/// Number of attempts to lock the list of hosts, 1 ms apart.
const LOCK_ATTEMPTS: u32 = 100;

static HOSTS: Mutex<Vec<Weak<dyn Stops>>> = Mutex::new(Vec::new());
static AT_EXIT: Once = Once::new();

/// A host that is stopped when its process exits.
pub(super) trait Stops: Send + Sync {
    /// Returns the process that the host belongs to.
    fn process(&self) -> Pid;

    /// Returns true if the calling thread is the host's.
    fn is_own_thread(&self) -> bool;

    /// Returns true if the exit does not wait for the host's deliveries.
    fn is_given_up(&self) -> bool;

    /// Returns the flag that is set once the host has begun to end.
    fn is_ending(&self) -> Arc<AtomicBool>;

    /// Begins the end and returns the channel of its progress, or `None` if the host has stopped already.
    fn begin_stop(&self, linger: Linger, unclosed: Unclosed) -> Option<mpsc::Receiver<Ending>>;
}

/// Registers a host to be stopped at process exit if it still runs then.
pub(super) fn remember<H: Stops + 'static>(hosted: &Arc<H>) {
    AT_EXIT.call_once(|| {
        peersock::attach::at_exit(stop_all);
        stdio::at_exit(flush);
    });
    // In a child forked while another thread held the lock, the list stays locked; skip registration.
    if let Ok(mut hosts) = HOSTS.try_lock() {
        hosts.retain(|host| host.strong_count() > 0);
        let hosted: Arc<dyn Stops> = hosted.clone();
        hosts.push(Arc::downgrade(&hosted));
    }
}

/// Returns the hosts, or `None` in a child that was forked while another thread held the lock.
fn hosts() -> Option<MutexGuard<'static, Vec<Weak<dyn Stops>>>> {
    for _ in 0..LOCK_ATTEMPTS {
        match HOSTS.try_lock() {
            Ok(hosts) => return Some(hosts),
            Err(TryLockError::Poisoned(hosts)) => return Some(hosts.into_inner()),
            // A thread that starts a node holds the lock only briefly.
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    None
}

/// Returns the host if the calling thread can stop it: it belongs to this process, and the thread is not its
/// own.
fn here(host: &Weak<dyn Stops>) -> Option<Arc<dyn Stops>> {
    let host = host.upgrade()?;
    if host.process() == rustix::process::getpid() && !host.is_own_thread() {
        return Some(host);
    }
    // Do not drop the host, because that could block on a lock that is never released.
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
    let is_waited_for = |host: &Arc<dyn Stops>| !host.is_given_up();
    let hosts: Vec<_> = hosts.drain(..).filter_map(|host| here(&host)).filter(is_waited_for).collect();
    if hosts.is_empty() {
        return;
    }
    let unclosed = Unclosed::of_exit();
    let begin = |host: Arc<dyn Stops>| {
        let stop = host.begin_stop(Linger::Exit, unclosed.clone())?;
        Some((stop, host.is_ending()))
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
    /// Returns the treatment for a process that exits: sockets shared with a child or another process are
    /// reset.
    pub(super) fn of_exit() -> Unclosed {
        // The process may not be able to inspect its own descriptors; then all connections end in order.
        process::own_sockets().map_or(Unclosed::Finish, Unclosed::FinishOnly)
    }
}

/// Waits for the end of a node. Returns the number of lost bytes, or `None` if nothing was lost.
fn loss(stop: &mpsc::Receiver<Ending>, is_ending: &AtomicBool, begun: Instant) -> Option<u64> {
    let mut deadline = begun + BEGIN_TIMEOUT;
    loop {
        match stop.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Ending::Begun) => deadline = begun + END_TIMEOUT,
            Ok(Ending::Over(lost)) => return lost,
            // Another thread has stopped the node and received the result.
            Err(RecvTimeoutError::Disconnected) => return None,
            // Another thread requested the stop earlier, so the wait is as long as that thread's.
            Err(RecvTimeoutError::Timeout)
                if is_ending.load(Ordering::Relaxed) && begun.elapsed() < END_TIMEOUT =>
            {
                deadline = begun + END_TIMEOUT;
            }
            // The loss is unknown.
            Err(RecvTimeoutError::Timeout) => return Some(0),
        }
    }
}
