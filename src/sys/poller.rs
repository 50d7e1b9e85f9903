//! Poller of the engine thread: descriptors of many kinds, and one timer.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData};
pub use rustix::event::epoll::{Event, EventFlags};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};

use super::poll::{self, Looked, PollFd, PollFlags, timespec};

/// Limit of events that are taken from the kernel at once.
const EVENTS: usize = 256;

/// Descriptors that the engine thread waits for (epoll(7)), each with a token.
///
/// The driver uses tokens from [`Poller::OWN`] on; those below belong to the
/// [attachment](crate::attach::Attached).
pub struct Poller {
    epoll: OwnedFd,
    timer: OwnedFd,
}

impl Poller {
    /// First token of the driver.
    pub const OWN: u64 = 1 << 63;
    /// Token of the timer.
    pub(crate) const TIMER: u64 = u64::MAX;

    pub(crate) fn new() -> io::Result<Poller> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        // This clock goes on while the machine is suspended, because sessions end then, and beacons are due.
        // For deadlines by CLOCK_MONOTONIC the timer may fire early, and is set again.
        let timer = rustix::time::timerfd_create(TimerfdClockId::Boottime, flags)?;
        let poller = Poller { epoll, timer };
        poller.add(poller.timer.as_fd(), Self::TIMER, EventFlags::IN)?;
        Ok(poller)
    }

    /// Adds a descriptor, until it is closed or removed.
    ///
    /// # Errors
    /// Returns the errors of epoll_ctl(2).
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token), flags)?)
    }

    /// Changes the events of a descriptor that was added. Events that are already pending are reported again.
    ///
    /// # Errors
    /// Returns the errors of epoll_ctl(2).
    pub fn modify(&self, fd: BorrowedFd<'_>, token: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(token), flags)?)
    }

    /// Removes a descriptor.
    pub fn remove(&self, fd: BorrowedFd<'_>) {
        // The descriptor may never have been added.
        let _ = epoll::delete(&self.epoll, fd);
    }
}

/// Sleep state of the engine thread, which alone waits on the poller.
pub(crate) struct Sleeper<'a> {
    poller: &'a Poller,
    room: [MaybeUninit<Event>; EVENTS],
    /// Time at which the timer fires. It is not reset while that is early enough, because deadlines move with
    /// every packet, nearly always later, and each reset is a system call.
    armed: Option<Instant>,
}

impl<'a> Sleeper<'a> {
    pub(crate) fn new(poller: &'a Poller) -> Sleeper<'a> {
        Sleeper { poller, room: [const { MaybeUninit::uninit() }; EVENTS], armed: None }
    }

    /// Sleeps until an event, or `deadline`; may return early without one.
    pub(crate) fn sleep(&mut self, deadline: Option<Instant>) -> &[Event] {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let at_once = timespec(Duration::ZERO);
        let timeout = match (left, deadline) {
            // A deadline that has passed needs no timer.
            (Some(Duration::ZERO), _) => Some(&at_once),
            (Some(left), Some(deadline)) => {
                if self.armed.is_none_or(|armed| armed > deadline) {
                    self.arm(left);
                    self.armed = Some(deadline);
                }
                None
            }
            _ => None,
        };
        // After EINTR the caller checks again.
        let (events, _) = match epoll::wait(&self.poller.epoll, &mut self.room[..], timeout) {
            Ok(taken) => taken,
            Err(_) => return &[],
        };
        if events.iter().any(|event| event.data.u64() == Poller::TIMER) {
            self.armed = None;
            let _ = rustix::io::read(&self.poller.timer, &mut [0u8; 8]);
        }
        events
    }

    /// Polls for events for the time `busy`, at most until `deadline`, without sleeping.
    pub(crate) fn look_for(&self, busy: Duration, deadline: Option<Instant>) -> Looked {
        // Usually zero, which saves reading the clock.
        let busy = match deadline {
            Some(deadline) if !busy.is_zero() => busy.min(deadline.saturating_duration_since(Instant::now())),
            _ => busy,
        };
        poll::look_for(&mut [PollFd::new(&self.poller.epoll, PollFlags::IN)], busy)
    }

    fn arm(&self, left: Duration) {
        let once = Itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(left) };
        // Only invalid times fail.
        let _ = rustix::time::timerfd_settime(&self.poller.timer, TimerfdTimerFlags::empty(), &once);
    }
}

#[cfg(test)]
mod tests {
    use super::super::poll::Wakeup;
    use super::*;

    #[test]
    fn an_earlier_deadline_takes_the_place_of_a_later_one() {
        let poller = Poller::new().expect("an epoll set");
        let wakeup = Wakeup::new().expect("an eventfd");
        poller.add(wakeup.as_fd(), 7, EventFlags::IN).expect("it is added");
        wakeup.wake();
        let mut sleeper = Sleeper::new(&poller);
        assert_eq!(sleeper.sleep(Some(Instant::now() + Duration::from_secs(3600))).len(), 1);
        wakeup.clear();
        let soon = Instant::now() + Duration::from_millis(5);
        while Instant::now() < soon {
            sleeper.sleep(Some(soon));
        }
        assert!(sleeper.sleep(Some(Instant::now())).is_empty(), "the timer has been taken note of");
    }

    #[test]
    fn events_have_their_token_until_the_descriptor_is_removed() {
        let poller = Poller::new().expect("an epoll set");
        let wakeup = Wakeup::new().expect("an eventfd");
        poller.add(wakeup.as_fd(), 7, EventFlags::IN).expect("it is added");
        wakeup.wake();
        let mut sleeper = Sleeper::new(&poller);
        let tokens: Vec<u64> = sleeper.sleep(None).iter().map(|event| event.data.u64()).collect();
        assert_eq!(tokens, [7]);
        poller.remove(wakeup.as_fd());
        poller.remove(wakeup.as_fd());
        assert!(sleeper.sleep(Some(Instant::now())).is_empty());
    }
}
