//! Receive role: decides which thread reads the UDP sockets.
//!
//! The engine thread has it by default. A thread that waits for a socket, when no other thread is busy
//! waiting, takes the role and reads the UDP sockets itself, so that an answer wakes only the thread that
//! wants it. When that thread goes back to its work, the role stays leased to it for [`LEASE`], after which
//! the engine takes it back. If others are busy waiting, the engine takes it at once.
//!
//! A thread counts as busy waiting until [`BUSY`] has passed without a wake-up. A thread that waits longer,
//! such as one that accepts connections, does not keep the threads of established connections from reading
//! themselves. At worst it gets a packet when a lease ends.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

// A relative path, so that the tests can mount this module over locks whose interleavings they choose.
use super::poll::Wakeup;
use super::receiver::Receiver;
use super::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, TryLockError};

/// Time that datagrams may lie in the kernel while the last holder of the role is busy elsewhere.
pub(super) const LEASE: Duration = Duration::from_millis(1);

const ENGINE: u64 = 0;
const HELD: u64 = 1;
/// First value of a lease: the value minus this is the start of the lease, in nanoseconds since `base`.
const LEASED: u64 = 2;

pub(crate) struct ReceiveRole {
    base: Instant,
    state: AtomicU64,
    receiver: Mutex<Receiver>,
    /// Number of threads that are busy waiting for a socket, with or without the role.
    busy: AtomicUsize,
    /// Number of sockets that a task (a waker) waits for.
    tasks: AtomicUsize,
    /// Number of times that callers took the role, which tells the engine whether they still do.
    taken: AtomicU64,
    /// True if the engine checks for the end of a lease by itself; otherwise it must be woken when a lease
    /// begins.
    engine_watches: AtomicBool,
    /// Wake-up that ends the `poll` of the thread that holds the role.
    pub(super) wakeup: Arc<Wakeup>,
    /// Waker for the same purpose.
    pub(super) waker: Waker,
}

/// Decision of the engine about the sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// The engine reads them.
    Mine,
    /// A caller reads them; check again after this time, if given, or after a wake-up.
    Theirs(Option<Duration>),
}

impl ReceiveRole {
    pub(super) fn new(base: Instant, wakeup: Wakeup, receiver: Receiver) -> ReceiveRole {
        let wakeup = Arc::new(wakeup);
        ReceiveRole {
            base,
            state: AtomicU64::new(ENGINE),
            receiver: Mutex::new(receiver),
            busy: AtomicUsize::new(0),
            tasks: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            engine_watches: AtomicBool::new(false),
            waker: Waker::from(Arc::clone(&wakeup)),
            wakeup,
        }
    }

    /// Counts a thread as busy waiting, until the guard is dropped or changed.
    pub(super) fn announce(&self) -> Announced<'_> {
        self.busy.fetch_add(1, Ordering::SeqCst);
        Announced { role: self, busy: true }
    }

    /// Counts a socket that a task waits for. Returns true if the engine must be woken to serve it.
    pub(crate) fn add_task(&self) -> bool {
        self.tasks.fetch_add(1, Ordering::SeqCst);
        self.state.load(Ordering::SeqCst) != ENGINE
    }

    pub(crate) fn remove_task(&self) {
        self.tasks.fetch_sub(1, Ordering::SeqCst);
    }

    /// Takes the role if no other thread is busy waiting and the engine is not reading. `own` is 1 for a
    /// thread that counts as busy waiting itself, else 0.
    pub(super) fn try_hold(&self, own: usize) -> Option<MutexGuard<'_, Receiver>> {
        if self.others_wait(own) {
            return None;
        }
        let receiver = match self.receiver.try_lock() {
            Ok(receiver) => receiver,
            Err(TryLockError::WouldBlock) => return None,
            Err(TryLockError::Poisoned(_)) => unreachable!("receiving does not panic"),
        };
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.state.store(HELD, Ordering::SeqCst);
        Some(receiver)
    }

    /// Releases the role after [`ReceiveRole::try_hold`]; keeps a lease on it if the thread will be `back`
    /// soon. Returns true if the engine must be woken.
    pub(super) fn release(
        &self,
        receiver: MutexGuard<'_, Receiver>,
        back: bool,
        own: usize,
        now: Instant,
    ) -> bool {
        drop(receiver);
        if !back || self.others_wait(own) {
            self.state.store(ENGINE, Ordering::SeqCst);
            return true;
        }
        let since = now.saturating_duration_since(self.base).as_nanos() as u64;
        self.state.store(LEASED + since, Ordering::SeqCst);
        // A task that came between the check and the store found the role held and woke the engine itself.
        !self.engine_watches.load(Ordering::SeqCst)
    }

    /// Decides for the engine. `seen` is the engine's memory between checks.
    pub(super) fn claim(&self, now: Instant, seen: &mut u64) -> Claim {
        self.engine_watches.store(true, Ordering::SeqCst);
        let state = self.state.load(Ordering::SeqCst);
        match state {
            ENGINE => Claim::Mine,
            HELD => {
                let taken = self.taken.load(Ordering::Relaxed);
                if *seen != taken {
                    *seen = taken;
                    return Claim::Theirs(Some(WATCH));
                }
                // One caller has waited for a long time. It wakes the engine when it releases the role.
                self.engine_watches.store(false, Ordering::SeqCst);
                // The holder may have left before it could see the flag.
                if self.state.load(Ordering::SeqCst) == HELD {
                    Claim::Theirs(None)
                } else {
                    Claim::Theirs(Some(LEASE))
                }
            }
            leased => {
                let since = self.base + Duration::from_nanos(leased - LEASED);
                let age = now.saturating_duration_since(since);
                if age < LEASE && self.tasks.load(Ordering::SeqCst) == 0 {
                    return Claim::Theirs(Some(LEASE - age));
                }
                match self.state.compare_exchange(leased, ENGINE, Ordering::SeqCst, Ordering::SeqCst) {
                    Ok(_) => Claim::Mine,
                    Err(_) => Claim::Theirs(Some(LEASE)),
                }
            }
        }
    }

    /// Returns the receiver, for the engine. `None` while a caller holds it.
    pub(super) fn engine_receiver(&self) -> Option<MutexGuard<'_, Receiver>> {
        self.receiver.try_lock().ok()
    }

    /// Waits, at most `patience`, until no thread reads the sockets.
    pub(super) fn wait_free(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.receiver.try_lock().is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn others_wait(&self, own: usize) -> bool {
        self.busy.load(Ordering::SeqCst) > own || self.tasks.load(Ordering::SeqCst) > 0
    }
}

/// Time that the engine keeps checking a role that callers take again and again.
pub(super) const WATCH: Duration = Duration::from_millis(5);

/// Time that a thread without a wake-up counts as busy waiting.
pub(super) const BUSY: Duration = Duration::from_millis(2);

/// Waiting thread.
pub(super) struct Announced<'a> {
    role: &'a ReceiveRole,
    busy: bool,
}

impl Announced<'_> {
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    pub(super) fn set_busy(&mut self, busy: bool) {
        match (self.busy, busy) {
            (false, true) => self.role.busy.fetch_add(1, Ordering::SeqCst),
            (true, false) => self.role.busy.fetch_sub(1, Ordering::SeqCst),
            _ => return,
        };
        self.busy = busy;
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.set_busy(false);
    }
}
