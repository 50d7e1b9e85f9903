//! Locks whose poisoning is ignored, and the atomics that are used beside them.
//!
//! Poison means that a thread has panicked while it held the lock. Code that takes its locks with these
//! functions never leaves guarded data half changed, so other threads can go on.
//!
//! Modules whose interleavings are tested take everything from `super::sync`. Their tests replace it with a
//! module of the same name, with the locks and atomics of `shuttle`.
//!
//! ```
//! use peersock_primitives::sync::{self, Mutex};
//!
//! let names = Mutex::new(vec!["alpha"]);
//! std::thread::scope(|scope| {
//!     let panics = scope.spawn(|| {
//!         let _held = sync::lock(&names);
//!         panic!("the lock is poisoned now");
//!     });
//!     assert!(panics.join().is_err());
//! });
//! sync::lock(&names).push("beta");
//! assert_eq!(*sync::lock(&names), ["alpha", "beta"]);
//! ```

use std::sync::PoisonError;
pub use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
pub use std::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::Duration;

/// Waits for the mutex and takes it, poisoned or not.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the end of writing and takes the lock for reading, poisoned or not.
pub fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the lock and takes it for writing, poisoned or not.
pub fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Releases the mutex until `condvar` is notified, or a spurious wake-up, and takes it again, poisoned or
/// not.
pub fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Waits like [`wait`], for at most `timeout`.
pub fn wait_timeout<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    timeout: Duration,
) -> MutexGuard<'a, T> {
    condvar.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner).0
}

/// Waits like [`wait_timeout`], as long as the condition holds for the guarded data.
pub fn wait_timeout_while<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    timeout: Duration,
    condition: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    condvar.wait_timeout_while(guard, timeout, condition).unwrap_or_else(PoisonError::into_inner).0
}

#[cfg(test)]
mod tests {
    use std::panic::{self, AssertUnwindSafe};

    use super::*;

    #[test]
    fn locks_are_taken_though_they_are_poisoned() {
        let (mutex, rw) = (Mutex::new(1), RwLock::new(1));
        let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
            let _held = (lock(&mutex), write(&rw));
            panic!("while both are held");
        }));
        assert!(panicked.is_err() && mutex.is_poisoned() && rw.is_poisoned());
        *lock(&mutex) += 1;
        *write(&rw) += 1;
        assert_eq!((*lock(&mutex), *read(&rw)), (2, 2));
    }

    #[test]
    fn a_thread_that_waits_goes_on_though_another_panics() {
        let (mutex, condvar) = (Mutex::new(false), Condvar::new());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let mut done = lock(&mutex);
                while !*done {
                    done = wait(&condvar, done);
                }
                done = wait_timeout(&condvar, done, Duration::ZERO);
                drop(wait_timeout_while(&condvar, done, Duration::ZERO, |done| *done));
            });
            let panicked = scope.spawn(|| {
                *lock(&mutex) = true;
                let _held = lock(&mutex);
                condvar.notify_all();
                panic!("while another waits");
            });
            assert!(panicked.join().is_err());
            assert!(waiting.join().is_ok());
        });
    }
}
