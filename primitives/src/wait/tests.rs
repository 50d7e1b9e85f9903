//! Tests of the waiters, and of the interleavings of waiting and notifying threads that a scheduler finds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Instant;

use crate::wait::{Interest, Waiters};

/// Locks and atomics of `shuttle`, which decides at each of them which thread goes on.
mod sync {
    use std::time::Duration;

    pub(super) use shuttle::sync::atomic::{AtomicU8, Ordering};
    pub(super) use shuttle::sync::{Condvar, Mutex, MutexGuard};

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().expect("no panic under this lock")
    }

    pub(super) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        condvar.wait(guard).expect("no panic under this lock")
    }

    pub(super) fn wait_timeout<'a, T>(
        condvar: &Condvar,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> MutexGuard<'a, T> {
        condvar.wait_timeout(guard, timeout).expect("no panic under this lock").0
    }
}

#[allow(
    dead_code,
    unreachable_pub,
    clippy::duplicate_mod,
    reason = "it is compiled a second time, over the locks of the scheduler that tests, which need not all of it"
)]
#[path = "mod.rs"]
mod interleaved;

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_waker_is_woken_once_and_only_for_its_interest() {
    let waiters = Waiters::default();
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    waiters.register(Interest::Read, &waker);
    waiters.register(Interest::Read, &waker);
    waiters.notify(false, true);
    assert_eq!(count.0.load(Ordering::SeqCst), 0);
    waiters.notify(true, false);
    waiters.notify(true, true);
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
}

#[test]
fn a_notification_between_announcing_and_sleeping_is_not_lost() {
    let waiters = Waiters::default();
    let mut ticket = waiters.enter(Interest::Write);
    waiters.notify(true, true);
    assert!(ticket.sleep(None));
}

#[test]
fn a_sleeping_thread_is_woken_from_another() {
    let waiters = Waiters::default();
    std::thread::scope(|scope| {
        let mut ticket = waiters.enter(Interest::Read);
        scope.spawn(|| waiters.notify(true, false));
        ticket.sleep(None);
    });
}

#[test]
fn sleeping_ends_at_the_deadline() {
    let waiters = Waiters::default();
    assert!(!waiters.enter(Interest::Read).sleep(Some(Instant::now())));
}

/// Counter of deliveries; the waiters are notified after each increment.
type Shared = Arc<(shuttle::sync::atomic::AtomicUsize, interleaved::Waiters)>;

fn deliver(shared: &Shared) {
    shared.0.fetch_add(1, Ordering::SeqCst);
    shared.1.notify(true, false);
}

#[test]
fn in_every_interleaving_sleeping_threads_hear_of_what_they_wait_for() {
    shuttle::check_random(
        || {
            let shared = Shared::default();
            let sleep_until = |wanted: usize| {
                let shared = shared.clone();
                shuttle::thread::spawn(move || {
                    let mut ticket = shared.1.enter(interleaved::Interest::Read);
                    while shared.0.load(Ordering::SeqCst) < wanted {
                        ticket.sleep(None);
                    }
                })
            };
            let sleepers = [sleep_until(1), sleep_until(2)];
            let tellers = [0, 1].map(|_| {
                let shared = shared.clone();
                shuttle::thread::spawn(move || deliver(&shared))
            });
            // A lost wake-up leaves a thread asleep for ever, which the scheduler reports.
            for thread in sleepers.into_iter().chain(tellers) {
                thread.join().expect("it does not panic");
            }
        },
        3_000,
    );
}

#[test]
fn in_every_interleaving_a_task_that_looks_after_it_has_registered_misses_nothing() {
    shuttle::check_random(
        || {
            let shared = Shared::default();
            let teller = {
                let shared = shared.clone();
                shuttle::thread::spawn(move || deliver(&shared))
            };
            let count = Arc::new(Count(AtomicUsize::new(0)));
            shared.1.register(interleaved::Interest::Read, &Waker::from(Arc::clone(&count)));
            let has_seen = shared.0.load(Ordering::SeqCst) == 1;
            teller.join().expect("it does not panic");
            assert!(has_seen || count.0.load(Ordering::SeqCst) == 1);
        },
        3_000,
    );
}
