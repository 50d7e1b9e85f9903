//! Calls that wait for their sockets.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use peersock_bsd::Errno;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

use crate::Context;
use crate::call::{Call, Step, Wait};

/// Maximum number of waiting calls; more fail with ENOBUFS.
const MAX_WAITING_CALLS: usize = 4096;

/// Interval of the checks for interrupted calls, and of tries that depend on time alone. It grows with the
/// number of waiting calls.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);
const LOOK_FOR_EACH: Duration = Duration::from_micros(200);

/// Interval of the checks whether the program still has the descriptor. The kernel does not report that it
/// has closed it, because an epoll set forgets a closed member.
const CHECK: Duration = Duration::from_secs(1);

/// The waiting calls. One thread [serves](Self::serve) them.
pub(crate) struct Waiting {
    /// Calls added since the last turn.
    added: Mutex<Vec<Waiter>>,
    wake: OwnedFd,
    /// See [`note_replaced`](Self::note_replaced): inodes not processed yet, and the number of all.
    replaced: Mutex<Vec<u64>>,
    count: AtomicU64,
}

struct Waiter {
    call: Call,
    /// See [`Wait`].
    on: Option<OwnedFd>,
    inode: u64,
    /// True until the serving thread has looked at it.
    is_new: bool,
    /// Set if it was ready, and the call still had to wait: it is tried again after some time.
    was_early: bool,
    /// Time of the last try or check.
    checked: Instant,
    /// Set if the last check found another file under the number. That may be a replacement of the socket
    /// that is not noted yet, so one check alone decides nothing.
    was_closed: bool,
    /// Deadline of the call, and its error then.
    until: Option<Instant>,
    overdue: Errno,
}

impl Waiting {
    /// # Errors
    /// Errors of eventfd(2).
    pub(crate) fn new() -> io::Result<Self> {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { added: Mutex::default(), wake, replaced: Mutex::default(), count: AtomicU64::new(0) })
    }

    /// Keeps a call until there is a result.
    pub(crate) fn add(&self, call: Call, wait: Wait) {
        let mut added = self.added.lock().expect("no panic under this lock");
        if added.len() >= MAX_WAITING_CALLS {
            return call.finish(Err(Errno::NOBUFS));
        }
        let checked = Instant::now();
        let until = wait.limit.map(|limit| checked + limit);
        let Wait { on, inode, overdue, .. } = wait;
        added.push(Waiter {
            call,
            on,
            inode,
            is_new: true,
            was_early: false,
            checked,
            was_closed: false,
            until,
            overdue,
        });
        drop(added);
        self.wake();
    }

    /// Returns the number of overlay descriptors that were replaced so far.
    pub(crate) fn count_replaced(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Notes that a descriptor has left the socket with this inode, which may be closed. The kernel does not
    /// report that to waiting calls, so they are tried again.
    pub(crate) fn note_replaced(&self, inode: u64) {
        // Increment first, because calls that are not among the waiting ones yet check the number.
        self.count.fetch_add(1, Ordering::Release);
        self.replaced.lock().expect("no panic under this lock").push(inode);
        self.wake();
    }

    /// Wakes the serving thread.
    pub(crate) fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Serves the calls until `stopped` returns true.
    pub(crate) fn serve(&self, context: &Context, stopped: impl Fn() -> bool) {
        let mut waiters: Vec<Waiter> = Vec::new();
        let mut looked = Instant::now();
        while !stopped() {
            let step = CHECK_INTERVAL.max(LOOK_FOR_EACH * waiters.len() as u32);
            let timeout = if waiters.is_empty() { None } else { Some(step) };
            let ready = self.poll(&waiters, timeout);
            let now = Instant::now();
            let is_time = now >= looked + step;
            if is_time {
                looked = now;
            }
            let replaced = std::mem::take(&mut *self.replaced.lock().expect("no panic under this lock"));
            let mut ready = ready.into_iter();
            waiters = waiters
                .into_iter()
                .filter_map(|waiter| {
                    let is_ready = ready.next().unwrap_or(false);
                    waiter.look(context, is_ready, &replaced, is_time, now)
                })
                .collect();
            let mut added = self.added.lock().expect("no panic under this lock");
            for waiter in added.drain(..) {
                match waiters.len() < MAX_WAITING_CALLS {
                    true => waiters.push(waiter),
                    false => waiter.call.finish(Err(Errno::NOBUFS)),
                }
            }
        }
    }

    /// Returns which calls are ready, after `timeout` at most.
    fn poll(&self, waiters: &[Waiter], timeout: Option<Duration>) -> Vec<bool> {
        let mut fds = vec![PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
        fds.extend(waiters.iter().map(|waiter| match &waiter.on {
            Some(set) if !waiter.was_early => PollFd::from_borrowed_fd(set.as_fd(), PollFlags::IN),
            // A call that depends on time alone polls an existing descriptor for no events.
            _ => PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::empty()),
        }));
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        // Check them even after an interruption.
        let _ = rustix::event::poll(&mut fds, timeout.as_ref());
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        fds[1..].iter().map(|fd| !fd.revents().is_empty()).collect()
    }
}

impl Waiter {
    /// Tries the call if it is ready or its socket was replaced, and at regular times checks that it still
    /// waits. Returns `None` if it is over.
    fn look(
        mut self,
        context: &Context,
        is_ready: bool,
        replaced: &[u64],
        is_time: bool,
        now: Instant,
    ) -> Option<Self> {
        if is_time && !self.call.target.is_waiting() {
            return None;
        }
        let is_late =
            std::mem::take(&mut self.is_new) && self.call.replaced != context.waiting.count_replaced();
        let is_outdated = is_late || replaced.contains(&self.inode);
        if is_ready || is_outdated || (is_time && (self.on.is_none() || self.was_early)) {
            (self.checked, self.was_closed) = (now, false);
            match self.call.attempt(context) {
                Ok(Step::Wait(wait)) => {
                    (self.on, self.inode, self.is_new, self.was_early) =
                        (wait.on, wait.inode, true, is_ready);
                }
                result => {
                    self.call.finish(result);
                    return None;
                }
            }
        }
        if self.until.is_some_and(|until| until <= now) {
            self.call.finish(Err(self.overdue));
            return None;
        }
        if is_time && now >= self.checked + CHECK {
            self.checked = now;
            let is_closed = self.is_closed();
            if std::mem::replace(&mut self.was_closed, is_closed) && is_closed {
                // The kernel must not make the call, because the number may be another file's by now.
                let received = self.call.received;
                self.call.target.answer(if received > 0 { Ok(received) } else { Err(Errno::BADF) });
                return None;
            }
        }
        if is_time && self.call.target.has_signal() {
            match self.call.received {
                0 => self.call.target.interrupt(self.until.is_some()),
                _ => self.call.finish(Err(Errno::INTR)),
            }
            return None;
        }
        Some(self)
    }

    /// Returns true if the program's number is not the socket's any more.
    fn is_closed(&self) -> bool {
        let local = self.on.as_ref().map(|_| self.call.local());
        match local {
            Some(Ok(local)) => local.inode() != self.inode,
            Some(Err(error)) => error == Errno::BADF,
            None => false,
        }
    }
}
