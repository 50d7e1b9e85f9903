//! The order of attempts, with pauses that the test ends.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{DELAY, first_connected, interleaved};
use crate::{Addr, TcpAddr};

fn v4(number: u8) -> Addr {
    addr(&format!("10.0.0.{number}:80"))
}

fn v6(number: u8) -> Addr {
    addr(&format!("[fd00::{number}]:80"))
}

fn addr(text: &str) -> Addr {
    Addr::Tcp(text.parse::<TcpAddr>().expect("an address"))
}

/// The result of an attempt, and a flag set when the attempt is dropped.
#[derive(Default)]
struct Outcome {
    result: Option<Result<u8, &'static str>>,
    is_over: bool,
}

struct Attempt(Rc<RefCell<Outcome>>);

impl Future for Attempt {
    type Output = Result<u8, &'static str>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.borrow_mut().result.take().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.borrow_mut().is_over = true;
    }
}

type Ended = Result<u8, Vec<(u8, &'static str)>>;

/// A race of the addresses 0, 1, …
struct Race {
    attempts: Rc<RefCell<Vec<Rc<RefCell<Outcome>>>>>,
    /// Numbers of pauses started and ended.
    pauses: Rc<RefCell<(usize, usize)>>,
    race: Pin<Box<dyn Future<Output = Ended>>>,
}

impl Race {
    /// Creates a race in which attempts have these outcomes at once.
    fn new(at_once: Vec<Option<Result<u8, &'static str>>>) -> Race {
        let attempts = Rc::<RefCell<Vec<Rc<RefCell<Outcome>>>>>::default();
        let pauses = Rc::<RefCell<(usize, usize)>>::default();
        let (begun, paused) = (Rc::clone(&attempts), Rc::clone(&pauses));
        let addresses = (0..).take(at_once.len()).collect();
        let begin = move |address: &u8| {
            let outcome = Outcome { result: at_once[usize::from(*address)], is_over: false };
            let outcome = Rc::new(RefCell::new(outcome));
            begun.borrow_mut().push(Rc::clone(&outcome));
            Attempt(outcome)
        };
        let pause = move || {
            paused.borrow_mut().0 += 1;
            let (number, paused) = (paused.borrow().0, Rc::clone(&paused));
            poll_fn(move |_| if paused.borrow().1 >= number { Poll::Ready(()) } else { Poll::Pending })
        };
        Race { attempts, pauses, race: Box::pin(first_connected(addresses, begin, pause)) }
    }

    fn go(&mut self) -> Poll<Ended> {
        self.race.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Ends the pause started last.
    fn passes(&mut self) -> Poll<Ended> {
        let mut pauses = self.pauses.borrow_mut();
        pauses.1 = pauses.0;
        drop(pauses);
        self.go()
    }

    fn becomes(&mut self, results: &[(usize, Result<u8, &'static str>)]) -> Poll<Ended> {
        for (attempt, result) in results {
            self.attempts.borrow()[*attempt].borrow_mut().result = Some(*result);
        }
        self.go()
    }

    fn open(&self) -> Vec<usize> {
        let attempts = self.attempts.borrow();
        (0..attempts.len()).filter(|at| !attempts[*at].borrow().is_over).collect()
    }
}

#[test]
fn families_are_in_turn_the_first_ones_first() {
    assert_eq!(interleaved(vec![v6(0), v6(1), v6(2), v4(0), v4(1)]), [v6(0), v4(0), v6(1), v4(1), v6(2)]);
    assert_eq!(interleaved(vec![v4(0), v4(1), v6(0)]), [v4(0), v6(0), v4(1)]);
    assert_eq!(interleaved(vec![v4(0), v4(1)]), [v4(0), v4(1)]);
    assert_eq!(interleaved(Vec::new()), []);
}

#[test]
fn one_more_begins_at_each_end_of_a_pause() {
    assert_eq!(DELAY, Duration::from_millis(250));
    let mut race = Race::new(vec![None; 3]);
    assert_eq!(race.go(), Poll::Pending);
    assert_eq!(race.open(), [0]);
    assert_eq!((race.go(), race.open()), (Poll::Pending, vec![0]));
    assert_eq!((race.passes(), race.open()), (Poll::Pending, vec![0, 1]));
    assert_eq!((race.passes(), race.open()), (Poll::Pending, vec![0, 1, 2]));
    // No address is left to start.
    assert_eq!((race.passes(), race.open()), (Poll::Pending, vec![0, 1, 2]));
    assert_eq!(race.becomes(&[(1, Ok(7))]), Poll::Ready(Ok(7)));
    drop(race.race);
    assert!(race.attempts.borrow().iter().all(|attempt| attempt.borrow().is_over));
}

#[test]
fn a_failure_begins_the_next_at_once() {
    let mut race = Race::new(vec![None; 3]);
    assert_eq!(race.go(), Poll::Pending);
    assert_eq!((race.becomes(&[(0, Err("refused"))]), race.open()), (Poll::Pending, vec![1]));
    assert_eq!((race.becomes(&[(1, Err("refused"))]), race.open()), (Poll::Pending, vec![2]));
    assert_eq!(race.becomes(&[(2, Ok(1))]), Poll::Ready(Ok(1)));
}

#[test]
fn what_fails_or_succeeds_at_once_needs_no_pause() {
    let mut race = Race::new(vec![Some(Err("unreachable")), None, Some(Ok(3))]);
    assert_eq!((race.go(), race.open()), (Poll::Pending, vec![1]));
    assert_eq!(race.passes(), Poll::Ready(Ok(3)));
}

#[test]
fn of_several_that_are_ready_one_is_taken() {
    let mut race = Race::new(vec![None; 2]);
    assert_eq!(race.go(), Poll::Pending);
    assert_eq!(race.passes(), Poll::Pending);
    assert_eq!(race.becomes(&[(0, Ok(1)), (1, Ok(2))]), Poll::Ready(Ok(1)));
}

#[test]
fn if_all_fail_it_is_said_of_each() {
    let mut race = Race::new(vec![None; 2]);
    assert_eq!(race.go(), Poll::Pending);
    assert_eq!(race.passes(), Poll::Pending);
    assert_eq!(race.becomes(&[(1, Err("no route"))]), Poll::Pending);
    assert_eq!(race.becomes(&[(0, Err("refused"))]), Poll::Ready(Err(vec![(1, "no route"), (0, "refused")])));
    assert_eq!(Race::new(Vec::new()).go(), Poll::Ready(Err(Vec::new())));
}
