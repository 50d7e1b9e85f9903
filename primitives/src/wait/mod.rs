//! Waiting of a thread or a task for a socket: each socket has one [`Waiters`], notified when the socket's
//! readiness may have changed.
//!
//! No wake-up is lost, because the order of steps is fixed. A waiter first announces itself, then checks the
//! socket, then sleeps. A notifier first changes the socket (under the socket's own lock), then checks for
//! waiters. Without waiters, a notification costs one load.
//!
//! ```
//! use std::sync::atomic::{AtomicBool, Ordering};
//!
//! use peersock_primitives::wait::{Interest, Waiters};
//!
//! let (waiters, has_data) = (Waiters::default(), AtomicBool::new(false));
//! std::thread::scope(|scope| {
//!     scope.spawn(|| {
//!         let mut ticket = waiters.enter(Interest::Read);
//!         while !has_data.load(Ordering::SeqCst) {
//!             ticket.sleep(None);
//!         }
//!     });
//!     has_data.store(true, Ordering::SeqCst);
//!     waiters.notify(true, false);
//! });
//! ```

use std::task::Waker;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

// A relative path, so that the tests can mount this module over locks whose interleavings they choose.
use super::sync::{self, AtomicU8, Condvar, Mutex, MutexGuard, Ordering};

/// Kind of readiness to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Data, end of stream, a connection to accept, or an error.
    Read,
    /// Room to write, an established connection, or an error.
    Write,
    /// An error alone, for tasks that cannot take data now.
    Error,
}

const ALL: [Interest; 3] = [Interest::Read, Interest::Write, Interest::Error];

impl Interest {
    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Threads and tasks that wait for one socket.
#[derive(Debug, Default)]
pub struct Waiters {
    /// Bits of the interests that have a waiter, so that a notification without waiters costs one load.
    interested: AtomicU8,
    list: Mutex<WaiterList>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct WaiterList {
    wakers: [Vec<Waker>; 3],
    threads: [u32; 3],
    /// Number of notifications, per interest.
    generation: [u64; 3],
    /// Number of threads asleep on the condition variable.
    asleep: u32,
    /// Threads that wait for something else instead, each with the waker that ends that wait.
    elsewhere: Vec<(ThreadId, Waker)>,
}

impl Waiters {
    /// Wakes the waiters for `read` or `write`.
    pub fn notify(&self, read: bool, write: bool) {
        self.notify_by((u8::from(read) * Interest::Read.bit()) | (u8::from(write) * Interest::Write.bit()));
    }

    /// Wakes all waiters: there is an error, or the end.
    pub fn notify_all(&self) {
        self.notify_by(ALL.iter().fold(0, |mask, interest| mask | interest.bit()));
    }

    fn notify_by(&self, mask: u8) {
        // SeqCst pairs with `publish`: either this load sees the waiter, or the waiter's check sees the
        // changed socket.
        if self.interested.load(Ordering::SeqCst) & mask == 0 {
            return;
        }
        let mut woken = Vec::new();
        let mut state = self.lock();
        for interest in ALL {
            if mask & interest.bit() != 0 {
                state.generation[interest as usize] += 1;
                woken.append(&mut state.wakers[interest as usize]);
            }
        }
        // A thread that notifies itself checks the socket afterwards, so it needs no wake-up.
        let own = std::thread::current().id();
        for (_, waker) in state.elsewhere.iter().filter(|(thread, _)| *thread != own) {
            waker.wake_by_ref();
        }
        let threads = state.asleep > 0;
        self.publish(&state);
        drop(state);
        if threads {
            // All threads, because the condition variable serves both interests.
            self.changed.notify_all();
        }
        // Without the lock, because a waker may register again at once.
        woken.into_iter().for_each(Waker::wake);
    }

    /// Registers `waker` for the next notification. The caller must check the socket again afterwards.
    pub fn register(&self, interest: Interest, waker: &Waker) {
        let mut state = self.lock();
        let wakers = &mut state.wakers[interest as usize];
        // A task that polls repeatedly must not grow the list.
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
        self.publish(&state);
    }

    /// Announces a thread that is about to wait, until the ticket is dropped.
    pub fn enter(&self, interest: Interest) -> Ticket<'_> {
        let mut state = self.lock();
        state.threads[interest as usize] += 1;
        let generation = state.generation[interest as usize];
        self.publish(&state);
        Ticket { waiters: self, interest, generation, waker: None }
    }

    fn publish(&self, state: &WaiterList) {
        let mut mask = 0;
        for interest in ALL {
            let i = interest as usize;
            if state.threads[i] > 0 || !state.wakers[i].is_empty() {
                mask |= interest.bit();
            }
        }
        self.interested.store(mask, Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, WaiterList> {
        sync::lock(&self.list)
    }
}

/// Announcement of a thread that waits.
pub struct Ticket<'a> {
    waiters: &'a Waiters,
    interest: Interest,
    generation: u64,
    waker: Option<Waker>,
}

impl Ticket<'_> {
    /// Sleeps until notified or until `deadline`; returns true if notified. Returns at once if a notification
    /// came since the last call.
    pub fn sleep(&mut self, deadline: Option<Instant>) -> bool {
        let mut state = self.waiters.lock();
        let i = self.interest as usize;
        state.asleep += 1;
        let woken = loop {
            // The generation, not the wake-up, decides: condition variables wake without a reason, and before
            // this call.
            if state.generation[i] != self.generation {
                break true;
            }
            state = match deadline {
                None => sync::wait(&self.waiters.changed, state),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left == Duration::ZERO {
                        break false;
                    }
                    sync::wait_timeout(&self.waiters.changed, state, left)
                }
            };
        };
        state.asleep -= 1;
        self.generation = state.generation[i];
        woken
    }

    /// Makes notifications by other threads also wake `waker`, because this thread is about to wait for
    /// something else that `waker` ends. Only the first call has an effect.
    pub fn also_wake(&mut self, waker: &Waker) {
        if self.waker.is_none() {
            self.waiters.lock().elsewhere.push((std::thread::current().id(), waker.clone()));
            self.waker = Some(waker.clone());
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut state = self.waiters.lock();
        state.threads[self.interest as usize] -= 1;
        if let Some(mine) = &self.waker
            && let Some(at) = state.elsewhere.iter().position(|(_, waker)| waker.will_wake(mine))
        {
            state.elsewhere.swap_remove(at);
        }
        self.waiters.publish(&state);
    }
}
