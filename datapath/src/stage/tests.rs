//! Tests of the stage, and of the interleavings of its threads that a scheduler finds.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::stage::Stage;

/// Lock and note of `shuttle`, which decides at each of them which thread goes on.
mod sync {
    pub(super) use shuttle::sync::Mutex;
    pub(super) use shuttle::sync::atomic::{AtomicBool, Ordering};
    pub(super) use std::sync::TryLockError;
}

#[allow(
    clippy::duplicate_mod,
    reason = "it is compiled a second time, over the locks of the scheduler that tests"
)]
#[path = "mod.rs"]
mod interleaved;

#[test]
fn a_note_left_while_the_stage_is_taken_is_worked_off_by_its_holder() {
    let stage = Stage::default();
    let runs = AtomicUsize::new(0);
    stage.run(|| {
        if runs.fetch_add(1, Ordering::SeqCst) == 0 {
            stage.run(|| panic!("the stage is taken"));
        }
    });
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[test]
fn every_request_from_many_threads_is_followed_by_work() {
    let stage = Stage::default();
    let asked = AtomicUsize::new(0);
    let seen = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    asked.fetch_add(1, Ordering::SeqCst);
                    stage.run(|| seen.store(asked.load(Ordering::SeqCst), Ordering::SeqCst));
                }
            });
        }
    });
    assert_eq!(seen.load(Ordering::SeqCst), 40_000);
}

#[test]
fn in_every_interleaving_a_request_is_followed_by_work_that_sees_it() {
    shuttle::check_random(
        || {
            use shuttle::sync::Arc;
            use shuttle::sync::atomic::{AtomicUsize, Ordering};

            let shared = Arc::new((interleaved::Stage::default(), AtomicUsize::new(0), AtomicUsize::new(0)));
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    let shared = Arc::clone(&shared);
                    shuttle::thread::spawn(move || {
                        let (stage, asked, seen) = &*shared;
                        for _ in 0..2 {
                            asked.fetch_add(1, Ordering::SeqCst);
                            stage.run(|| seen.store(asked.load(Ordering::SeqCst), Ordering::SeqCst));
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
            assert_eq!(shared.2.load(Ordering::SeqCst), 6);
        },
        3_000,
    );
}

#[test]
fn in_every_interleaving_one_thread_works_at_a_time() {
    shuttle::check_random(
        || {
            use shuttle::sync::Arc;
            use shuttle::sync::atomic::{AtomicUsize, Ordering};

            let shared = Arc::new((interleaved::Stage::default(), AtomicUsize::new(0)));
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    let shared = Arc::clone(&shared);
                    shuttle::thread::spawn(move || {
                        let (stage, working) = &*shared;
                        stage.run(|| {
                            assert_eq!(working.fetch_add(1, Ordering::SeqCst), 0);
                            shuttle::thread::yield_now();
                            working.fetch_sub(1, Ordering::SeqCst);
                        });
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
        },
        3_000,
    );
}
