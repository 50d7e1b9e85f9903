//! Locks for state that calls keep, usable in any program. A child that was forked while another thread held
//! a lock finds it free and its value intact. A signal handler that makes such a call does not wait for the
//! thread it interrupts. Locks are held only for a few memory accesses.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::sigset_t;

/// A value that one thread at a time may use.
pub(crate) struct ForkLock<T> {
    is_taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: only the holder of the lock accesses the value.
unsafe impl<T: Send> Sync for ForkLock<T> {}

/// Access to the value for the lock's holder; signals are blocked meanwhile.
pub(crate) struct Guard<'a, T> {
    lock: &'a ForkLock<T>,
    mask: sigset_t,
}

impl<T> ForkLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { is_taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    pub(crate) fn lock(&self) -> Guard<'_, T> {
        let mask = block_signals();
        self.take();
        Guard { lock: self, mask }
    }

    fn take(&self) {
        while self.is_taken.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
    }

    fn give_back(&self) {
        self.is_taken.store(false, Ordering::Release);
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is held.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held, and the guard is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.lock.give_back();
        unblock_signals(&self.mask);
    }
}

/// The thread's signal mask before a fork, owned by the thread that holds all locks.
static SIGNAL_MASK: ForkLock<MaybeUninit<sigset_t>> = ForkLock::new(MaybeUninit::uninit());

/// The locks that a fork takes, in this order.
static LOCKS_IN_ORDER: OnceLock<&'static [&'static dyn Lock]> = OnceLock::new();

/// A lock over any type of value.
pub(crate) trait Lock: Sync {
    /// Takes the lock until [`give_back`](Self::give_back); signals must be blocked.
    fn take(&self);

    /// Releases the lock.
    fn give_back(&self);
}

impl<T: Send> Lock for ForkLock<T> {
    fn take(&self) {
        Self::take(self);
    }

    fn give_back(&self) {
        Self::give_back(self);
    }
}

/// Makes fork(2) take all these locks first and release them on both sides, so that their values are intact
/// in the child. Call this once.
pub(crate) fn survive_forks(all: &'static [&'static dyn Lock]) {
    if LOCKS_IN_ORDER.set(all).is_ok() {
        // SAFETY: the functions exist as long as the library, which is never unloaded.
        unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after)) };
    }
}

extern "C" fn before() {
    let mask = block_signals();
    SIGNAL_MASK.take();
    // SAFETY: the lock is held.
    unsafe { (*SIGNAL_MASK.value.get()).write(mask) };
    LOCKS_IN_ORDER.get().into_iter().copied().flatten().for_each(|lock| lock.take());
}

extern "C" fn after() {
    LOCKS_IN_ORDER.get().into_iter().copied().flatten().rev().for_each(|lock| lock.give_back());
    // SAFETY: `before` has taken the lock, on this thread, and has written the mask.
    let mask = unsafe { (*SIGNAL_MASK.value.get()).assume_init() };
    SIGNAL_MASK.give_back();
    unblock_signals(&mask);
}

/// Blocks all signals of this thread. Returns the previous mask.
fn block_signals() -> sigset_t {
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::zeroed());
    // SAFETY: both are sets of signals; the first is filled, and the second is written by the call.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr());
        before.assume_init()
    }
}

fn unblock_signals(before: &sigset_t) {
    // SAFETY: it is the mask that the thread had.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
}
