//! Waiting for file descriptors: `poll(2)` with a deadline, and an eventfd as wake-up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::Wake;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, Timespec};
pub(crate) use rustix::event::{PollFd, PollFlags};

/// Waits until a descriptor is readable or `timeout` (none: for ever) has passed. Interruptions count as a
/// wake-up.
pub(crate) fn readable(fds: &mut [PollFd<'_>], timeout: Option<Duration>) {
    let timeout = timeout.map(timespec);
    // Errors other than EINTR are not possible for descriptors that the caller owns; the caller checks again
    // in any case.
    let _ = rustix::event::poll(fds, timeout.as_ref());
}

/// Waits like [`readable`], but busy-polls for the time `busy` before it sleeps.
pub(crate) fn readable_busy(fds: &mut [PollFd<'_>], busy: Duration, timeout: Option<Duration>) -> Looked {
    let looked = look_for(fds, timeout.map_or(busy, |timeout| timeout.min(busy)));
    if !looked.found {
        readable(fds, timeout);
    }
    looked
}

/// Polls for the time `busy`, without sleeping, until a descriptor is readable. Yields to other threads that
/// want the processor.
pub(crate) fn look_for(fds: &mut [PollFd<'_>], busy: Duration) -> Looked {
    let mut looked = Looked { found: false, longest_gap: Duration::ZERO };
    if busy.is_zero() {
        return looked;
    }
    let begin = Instant::now();
    let mut last = begin;
    loop {
        if matches!(rustix::event::poll(fds, Some(&timespec(Duration::ZERO))), Ok(n) if n > 0) {
            looked.found = true;
        }
        let now = Instant::now();
        looked.longest_gap = looked.longest_gap.max(now.saturating_duration_since(last));
        last = now;
        if looked.found || now.saturating_duration_since(begin) >= busy {
            return looked;
        }
        // A flood of datagrams must not take the processor from other threads.
        rustix::thread::sched_yield();
    }
}

/// Result of busy polling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Looked {
    /// True if a descriptor became readable.
    pub(crate) found: bool,
    /// Longest time between two polls.
    pub(crate) longest_gap: Duration,
}

/// Waits until `fd` is writable; returns false if `timeout` passes first.
pub(crate) fn writable(fd: BorrowedFd<'_>, timeout: Duration) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    matches!(rustix::event::poll(&mut fds, Some(&timespec(timeout))), Ok(n) if n > 0)
}

pub(crate) fn timespec(timeout: Duration) -> Timespec {
    Timespec { tv_sec: timeout.as_secs().min(i64::MAX as u64) as i64, tv_nsec: timeout.subsec_nanos().into() }
}

/// Wake-up of another thread's `poll` (eventfd(2)), also usable as a [`Waker`](std::task::Waker).
#[derive(Debug)]
pub struct Wakeup {
    fd: OwnedFd,
}

impl Wakeup {
    /// Makes a descriptor that is not readable.
    ///
    /// # Errors
    /// Returns EMFILE, ENFILE.
    pub fn new() -> io::Result<Wakeup> {
        Ok(Wakeup { fd: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// Makes the descriptor readable until [`Wakeup::clear`].
    pub fn wake(&self) {
        // EAGAIN means that the counter is full, so the descriptor is already readable.
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }

    /// Makes the descriptor unreadable.
    pub fn clear(&self) {
        let _ = rustix::io::read(&self.fd, &mut [0u8; 8]);
    }
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        Wakeup::wake(&self);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        Wakeup::wake(self);
    }
}

impl AsFd for Wakeup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn what_comes_while_a_thread_looks_ends_that() {
        let wakeup = Wakeup::new().expect("an eventfd");
        thread::scope(|scope| {
            scope.spawn(|| wakeup.wake());
            let mut fds = [PollFd::new(&wakeup, PollFlags::IN)];
            assert!(look_for(&mut fds, Duration::from_secs(60)).found);
        });
    }

    #[test]
    fn a_thread_looks_for_the_time_it_is_told() {
        let wakeup = Wakeup::new().expect("an eventfd");
        let mut fds = [PollFd::new(&wakeup, PollFlags::IN)];
        let begin = Instant::now();
        assert!(!look_for(&mut fds, Duration::from_millis(20)).found);
        assert!(begin.elapsed() >= Duration::from_millis(20));
        assert!(!look_for(&mut fds, Duration::ZERO).found);
        // A deadline comes first.
        readable_busy(&mut fds, Duration::from_secs(600), Some(Duration::from_millis(1)));
        // So does a pending wake-up.
        wakeup.wake();
        readable_busy(&mut fds, Duration::ZERO, None);
    }
}
