//! Tests of the role, and of the interleavings of the engine with callers that take the role, as a scheduler
//! finds them.

use std::time::{Duration, Instant};

use super::busy_poll::{BusyPoll, Looking};
use super::poll::Wakeup;
use super::role::{Claim, LEASE, ReceiveRole, WATCH};

/// Lock and atomics of `shuttle`, which decides at each of them which thread goes on.
mod sync {
    pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
    pub(super) use shuttle::sync::{Mutex, MutexGuard};
    pub(super) use std::sync::TryLockError;
}

/// Placeholder, because nothing is received here.
mod receiver {
    pub(super) struct Receiver {}
}

mod poll {
    pub(super) use crate::sys::poll::Wakeup;
}

#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "it is compiled a second time, over the locks of the scheduler that tests, which need not all of it"
)]
#[path = "mod.rs"]
mod interleaved;

fn receiver() -> crate::driver::receiver::Receiver {
    crate::driver::receiver::Receiver::new(Looking::new(BusyPoll::Adaptive))
}

fn role() -> (ReceiveRole, Instant) {
    let base = Instant::now();
    (ReceiveRole::new(base, Wakeup::new().expect("an eventfd"), receiver()), base)
}

#[test]
fn a_lone_waiter_takes_the_role_and_keeps_a_lease_on_it() {
    let (role, base) = role();
    let mut seen = 0;
    assert_eq!(role.claim(base, &mut seen), Claim::Mine);
    let _announced = role.announce();
    let receiver = role.try_hold(1).expect("nobody else waits");
    assert_eq!(role.claim(base, &mut seen), Claim::Theirs(Some(WATCH)));
    assert!(!role.release(receiver, true, 1, base), "the engine watches the lease by itself");
    assert!(matches!(role.claim(base, &mut seen), Claim::Theirs(Some(_))));
    assert_eq!(role.claim(base + LEASE, &mut seen), Claim::Mine);
}

#[test]
fn of_two_busy_waiters_neither_takes_it_until_one_has_waited_long() {
    let (role, _) = role();
    let _first = role.announce();
    let mut second = role.announce();
    assert!(role.try_hold(1).is_none());
    second.set_busy(false);
    assert!(role.try_hold(1).is_some());
}

#[test]
fn tasks_keep_it_with_the_engine() {
    let (role, base) = role();
    let mut seen = 0;
    let _announced = role.announce();
    let receiver = role.try_hold(1).expect("nobody else waits");
    assert!(role.add_task(), "the engine must hear of a task while a caller reads");
    assert!(role.release(receiver, true, 1, base), "the task waits, so the engine takes over at once");
    assert_eq!(role.claim(base, &mut seen), Claim::Mine);
    assert!(role.try_hold(1).is_none());
    role.remove_task();
    assert!(role.try_hold(1).is_some());
}

#[test]
fn the_engine_stops_watching_a_caller_that_stays_and_is_told_when_it_leaves() {
    let (role, base) = role();
    let mut seen = 0;
    let receiver = role.try_hold(0).expect("nobody waits");
    assert_eq!(role.claim(base, &mut seen), Claim::Theirs(Some(WATCH)));
    assert_eq!(role.claim(base, &mut seen), Claim::Theirs(None));
    assert!(role.release(receiver, true, 0, base));
}

#[test]
fn who_waits_for_the_end_of_reading_waits_for_its_holder_but_not_for_ever() {
    let (role, base) = role();
    let patience = Duration::from_millis(5);
    let receiver = role.try_hold(0).expect("nobody waits");
    role.wait_free(patience);
    assert!(base.elapsed() >= patience);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| role.wait_free(Duration::from_secs(600)));
        assert!(!waiting.is_finished());
        role.release(receiver, false, 0, base);
    });
}

#[test]
fn a_caller_that_will_not_be_back_hands_over_at_once() {
    let (role, base) = role();
    let receiver = role.try_hold(0).expect("nobody waits");
    assert!(role.release(receiver, false, 0, base));
    assert_eq!(role.claim(base, &mut 0), Claim::Mine);
}

/// Number of wake-ups of the engine, and a condition to wait for one.
type Woken = shuttle::sync::Arc<(shuttle::sync::Mutex<u32>, shuttle::sync::Condvar)>;

#[test]
fn in_every_interleaving_the_engine_has_the_role_again_when_the_callers_are_done() {
    shuttle::check_random(
        || {
            let base = Instant::now();
            let wakeup = Wakeup::new().expect("an eventfd");
            let role = interleaved::ReceiveRole::new(base, wakeup, receiver::Receiver {});
            let role = shuttle::sync::Arc::new(role);
            let woken = Woken::default();
            let callers = [true, false].map(|back| {
                let (role, woken) = (role.clone(), woken.clone());
                shuttle::thread::spawn(move || {
                    for _ in 0..2 {
                        let announced = role.announce();
                        let wake = role.try_hold(1).is_some_and(|held| {
                            shuttle::thread::yield_now();
                            role.release(held, back, 1, base)
                        });
                        drop(announced);
                        if wake {
                            *woken.0.lock().expect("no panic under this lock") += 1;
                            woken.1.notify_all();
                        }
                    }
                })
            });
            // The engine looks at its announced time, or when it is woken.
            let (mut now, mut seen, mut heard) = (base, 0, 0);
            let mut claim_again = || {
                loop {
                    match role.claim(now, &mut seen) {
                        interleaved::Claim::Mine => return,
                        interleaved::Claim::Theirs(Some(look)) => {
                            now += look;
                            shuttle::thread::yield_now();
                        }
                        interleaved::Claim::Theirs(None) => {
                            let mut count = woken.0.lock().expect("no panic under this lock");
                            // A missing wake-up leaves the engine asleep for ever, which the scheduler
                            // reports.
                            while *count == heard {
                                count = woken.1.wait(count).expect("no panic under this lock");
                            }
                            heard = *count;
                        }
                    }
                }
            };
            claim_again();
            for caller in callers {
                caller.join().expect("it does not panic");
            }
            claim_again();
            assert!(role.engine_receiver().is_some());
        },
        3_000,
    );
}
