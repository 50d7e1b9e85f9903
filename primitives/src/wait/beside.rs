//! Work on a second thread, beside the work of a thread that waits for it.

use std::sync::{Arc, Mutex};
use std::thread::{Builder, Result, Scope, ScopedJoinHandle};

use crate::sync;

/// Work that [`beside`] has started, and perhaps finished.
#[derive(Debug)]
#[must_use = "the scope waits for it, and its result is lost"]
pub enum Beside<'scope, T> {
    /// Work on another thread.
    Begun(ScopedJoinHandle<'scope, T>),
    /// Result of work that the calling thread did, because no thread could be started.
    Done(T),
}

/// Starts work on a thread of a scope. If the system refuses another thread (a limit on processes or memory),
/// the calling thread does the work at once: it takes longer, but nothing fails. (`Scope::spawn` panics
/// there.) The work must end by itself and not wait for the calling thread.
///
/// ```
/// use peersock_primitives::beside;
///
/// let (one, other) = std::thread::scope(|scope| {
///     let one = beside(scope, || 40 + 1);
///     (one.join().expect("it does not panic"), 2)
/// });
/// assert_eq!(one + other, 43);
/// ```
pub fn beside<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Beside<'scope, T> {
    // Shared, because a failed spawn drops its closure, and the work with it.
    let work = Arc::new(Mutex::new(Some(work)));
    let its = Arc::clone(&work);
    let begun = Builder::new().spawn_scoped(scope, move || {
        let work = take(&its).expect("the caller has it only where there is no thread");
        work()
    });
    match begun {
        Ok(thread) => Beside::Begun(thread),
        Err(_) => {
            let work = take(&work).expect("no thread has taken it");
            Beside::Done(work())
        }
    }
}

fn take<F>(work: &Mutex<Option<F>>) -> Option<F> {
    sync::lock(work).take()
}

impl<T> Beside<'_, T> {
    /// Waits for the end of the work.
    /// Fails with the work's panic, if it was on a thread.
    pub fn join(self) -> Result<T> {
        match self {
            Beside::Begun(thread) => thread.join(),
            Beside::Done(result) => Ok(result),
        }
    }
}
