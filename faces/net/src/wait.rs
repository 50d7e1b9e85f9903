//! Waiting for a socket: deadlines, closing, and one task at a time.
//!
//! A call takes a ticket for its direction and is served after all earlier tickets, so that writes do not
//! mix. The socket wakes the first ticket; a new deadline and closing wake all. Each task registers its
//! waker, then checks for closing and the deadline, then tries, so that no wake-up is lost.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, RwLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use peersock_primitives::sync;
use tokio::time::Sleep;

use crate::SocketError;

/// A direction; each has its own deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// The reason why a call failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Closed,
    Deadline,
    System(io::Error),
}

impl Failure {
    pub(crate) fn during(self, operation: &str) -> SocketError {
        match self {
            Failure::Closed => SocketError::closed(operation),
            Failure::Deadline => SocketError::deadline(operation),
            Failure::System(error) => SocketError::of_system(operation, error),
        }
    }
}

/// A socket, until it is closed, and the tasks that wait for it.
pub(crate) struct Endpoint<S: ?Sized> {
    directions: [Waiting; 2],
    /// Read-locked during each attempt, so that no task uses the socket after `close` returns.
    socket: RwLock<Option<Box<S>>>,
}

impl<S: ?Sized> Endpoint<S> {
    pub(crate) fn new(socket: Box<S>) -> Endpoint<S> {
        Endpoint { directions: [Waiting::default(), Waiting::default()], socket: RwLock::new(Some(socket)) }
    }

    /// Returns the result of `look`, unless the socket is closed.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&S) -> T) -> Option<T> {
        sync::read(&self.socket).as_deref().map(look)
    }

    pub(crate) fn is_closed(&self) -> bool {
        sync::read(&self.socket).is_none()
    }

    /// Closes the socket; pending calls fail. A second call does nothing.
    pub(crate) fn close(&self) {
        let socket = sync::write(&self.socket).take();
        if socket.is_some() {
            self.directions.iter().for_each(|direction| direction.line.wake_all());
        }
        // Drops the socket outside the lock, because SO_LINGER may make this slow.
        drop(socket);
    }

    /// Sets the deadline of calls. Returns false if the socket is closed.
    pub(crate) fn set_deadline(&self, directions: &[Direction], deadline: Option<Instant>) -> bool {
        if self.is_closed() {
            return false;
        }
        for direction in directions {
            self.directions[*direction as usize].set_deadline(deadline);
        }
        true
    }

    /// Makes the waiting tasks check again.
    pub(crate) fn wake(&self, direction: Direction) {
        self.directions[direction as usize].line.wake_all();
    }

    /// Repeats an attempt until it is done, one call after the other. A pending attempt has the task woken.
    pub(crate) async fn wait<T>(
        &self,
        direction: Direction,
        mut attempt: impl FnMut(&S, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Result<T, Failure> {
        let direction = &self.directions[direction as usize];
        let ticket = direction.line.enter();
        poll_fn(|cx| {
            let is_turn = ticket.register(cx.waker());
            self.attempt(direction, is_turn, &mut attempt)
        })
        .await
    }

    /// Polls an attempt of a task without a ticket; it is tried only while no task has a ticket.
    pub(crate) fn poll<T>(
        &self,
        direction: Direction,
        cx: &Context<'_>,
        mut attempt: impl FnMut(&S, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<Result<T, Failure>> {
        let direction = &self.directions[direction as usize];
        let is_turn = direction.line.register(cx.waker());
        let done = self.attempt(direction, is_turn, &mut attempt);
        if done.is_ready() {
            direction.line.forget(cx.waker());
        }
        done
    }

    fn attempt<T>(
        &self,
        direction: &Waiting,
        is_turn: bool,
        attempt: &mut impl FnMut(&S, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<Result<T, Failure>> {
        let socket = sync::read(&self.socket);
        let Some(socket) = socket.as_deref() else { return Poll::Ready(Err(Failure::Closed)) };
        if direction.is_over() {
            return Poll::Ready(Err(Failure::Deadline));
        }
        if !is_turn {
            return Poll::Pending;
        }
        attempt(socket, &mut Context::from_waker(&direction.ready)).map_err(Failure::System)
    }
}

/// One direction of a socket.
struct Waiting {
    line: Arc<Line>,
    /// Waker registered at the socket.
    ready: Waker,
    /// Waker registered at the deadline's timer.
    alarm: Waker,
    deadline: Mutex<Deadline>,
}

#[derive(Default)]
struct Deadline {
    at: Option<Instant>,
    /// Timer; exists once a task waits.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Default for Waiting {
    fn default() -> Waiting {
        let line = Arc::<Line>::default();
        let ready = Waker::from(Arc::new(Bell { line: Arc::clone(&line), all: false }));
        let alarm = Waker::from(Arc::new(Bell { line: Arc::clone(&line), all: true }));
        Waiting { line, ready, alarm, deadline: Mutex::default() }
    }
}

impl Waiting {
    fn set_deadline(&self, at: Option<Instant>) {
        *sync::lock(&self.deadline) = Deadline { at, sleep: None };
        self.line.wake_all();
    }

    /// Returns true if the deadline has passed. Otherwise all tasks are woken when it passes.
    fn is_over(&self) -> bool {
        let mut deadline = sync::lock(&self.deadline);
        let Some(at) = deadline.at.map(tokio::time::Instant::from_std) else { return false };
        if tokio::time::Instant::now() >= at {
            return true;
        }
        let sleep = deadline.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        sleep.as_mut().poll(&mut Context::from_waker(&self.alarm)).is_ready()
    }
}

/// Waker of the tasks in a line: the first ticket, or all.
struct Bell {
    line: Arc<Line>,
    all: bool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.all { self.line.wake_all() } else { self.line.wake_first() }
    }
}

/// Maximum number of remembered tasks without a ticket. A task does not report when it loses interest.
const MAX_POLLING: usize = 64;

/// The tasks that wait for one direction, in order of arrival.
#[derive(Default)]
struct Line(Mutex<Tasks>);

#[derive(Default)]
struct Tasks {
    next: u64,
    tickets: VecDeque<(u64, Option<Waker>)>,
    /// Wakers of tasks without a ticket; a task does not report when it loses interest.
    polling: Vec<Waker>,
}

impl Line {
    fn enter(self: &Arc<Self>) -> Ticket {
        let mut tasks = sync::lock(&self.0);
        let number = tasks.next;
        tasks.next += 1;
        tasks.tickets.push_back((number, None));
        Ticket { line: Arc::clone(self), number }
    }

    /// Registers the waker. Returns true if no task has a ticket.
    fn register(&self, waker: &Waker) -> bool {
        let mut tasks = sync::lock(&self.0);
        let mut longest = None;
        if !tasks.polling.iter().any(|known| known.will_wake(waker)) {
            // A task that still waits registers again when it is woken.
            longest = (tasks.polling.len() >= MAX_POLLING).then(|| tasks.polling.remove(0));
            tasks.polling.push(waker.clone());
        }
        let is_turn = tasks.tickets.is_empty();
        drop(tasks);
        longest.into_iter().for_each(Waker::wake);
        is_turn
    }

    fn forget(&self, waker: &Waker) {
        sync::lock(&self.0).polling.retain(|known| !known.will_wake(waker));
    }

    fn wake_first(&self) {
        let woken = sync::lock(&self.0).first();
        woken.into_iter().for_each(Waker::wake);
    }

    fn wake_all(&self) {
        let mut tasks = sync::lock(&self.0);
        let mut woken = std::mem::take(&mut tasks.polling);
        woken.extend(tasks.tickets.iter_mut().filter_map(|(_, waker)| waker.take()));
        drop(tasks);
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Tasks {
    /// Takes the wakers of the tasks that run next when the socket is ready.
    fn first(&mut self) -> Vec<Waker> {
        match self.tickets.front_mut() {
            Some((_, waker)) => waker.take().into_iter().collect(),
            None => std::mem::take(&mut self.polling),
        }
    }
}

/// A place in the line. Dropping it leaves the line.
struct Ticket {
    line: Arc<Line>,
    number: u64,
}

impl Ticket {
    /// Registers the waker. Returns true if the ticket is the first.
    fn register(&self, waker: &Waker) -> bool {
        let mut tasks = sync::lock(&self.line.0);
        if let Some((_, slot)) = tasks.tickets.iter_mut().find(|(number, _)| *number == self.number) {
            *slot = Some(waker.clone());
        }
        tasks.tickets.front().is_some_and(|(number, _)| *number == self.number)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut tasks = sync::lock(&self.line.0);
        let was_first = tasks.tickets.front().is_some_and(|(number, _)| *number == self.number);
        tasks.tickets.retain(|(number, _)| *number != self.number);
        // The wake-up of the leaving ticket may be meant for the next one.
        let woken = if was_first { tasks.first() } else { Vec::new() };
        drop(tasks);
        woken.into_iter().for_each(Waker::wake);
    }
}
