//! Locks for what calls have to remember, in any program: a child that was forked while another thread held
//! one finds it free and what it guards whole, and a signal handler that makes such a call does not wait for
//! the thread that it interrupts. They are held for a few memory accesses only.

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

// SAFETY: only who holds the lock gets at the value.
unsafe impl<T: Send> Sync for ForkLock<T> {}

/// The value, for who holds the lock; signals are blocked as long.
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
        // SAFETY: the lock is held, and the guard is borrowed by nobody else.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.lock.give_back();
        unblock_signals(&self.mask);
    }
}

/// The thread's signals before a fork, for whoever holds all locks.
static MASK: ForkLock<MaybeUninit<sigset_t>> = ForkLock::new(MaybeUninit::uninit());

/// The locks that a fork takes, in the order in which it does.
static ALL: OnceLock<&'static [&'static dyn Lock]> = OnceLock::new();

/// A lock whatever it guards.
pub(crate) trait Lock: Sync {
    /// Takes it until [`give_back`](Self::give_back): signals are blocked.
    fn take(&self);

    /// Lets others have it.
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

/// Has fork(2) take all these locks first and give them back on both sides, so that what they guard is whole
/// in the child. To be called once.
pub(crate) fn survive_forks(all: &'static [&'static dyn Lock]) {
    if ALL.set(all).is_ok() {
        // SAFETY: the functions are there as long as the library, which is never unloaded.
        unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after)) };
    }
}

extern "C" fn before() {
    let mask = block_signals();
    MASK.take();
    // SAFETY: the lock is held.
    unsafe { (*MASK.value.get()).write(mask) };
    ALL.get().into_iter().copied().flatten().for_each(|lock| lock.take());
}

extern "C" fn after() {
    ALL.get().into_iter().copied().flatten().rev().for_each(|lock| lock.give_back());
    // SAFETY: `before` has taken the lock, on this thread, and has written the mask.
    let mask = unsafe { (*MASK.value.get()).assume_init() };
    MASK.give_back();
    unblock_signals(&mask);
}

/// Blocks all signals of this thread; gives those that were blocked before.
fn block_signals() -> sigset_t {
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::zeroed());
    // SAFETY: both are sets of signals, of which the first is filled, and the second written from it.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr());
        before.assume_init()
    }
}

fn unblock_signals(before: &sigset_t) {
    // SAFETY: it is the set that the thread had.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
}
