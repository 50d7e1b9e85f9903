//! Time that the machine was suspended, and the end of a suspension.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// Measurement of suspensions from the start on: CLOCK_BOOTTIME includes them, CLOCK_MONOTONIC, which
/// [`Instant`] uses, does not.
#[derive(Debug)]
pub(crate) struct Suspension {
    /// Start by both clocks.
    start: (Duration, Instant),
    /// Last reported suspension time in milliseconds.
    told: AtomicU64,
    /// Descriptor that becomes readable when the wall clock jumps, as it does at the end of a suspension;
    /// `None` if the system lacks it.
    watch: Option<OwnedFd>,
}

/// Reading of the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) now: Instant,
    /// Total time that the machine was suspended since the start.
    pub(crate) suspended: Duration,
    /// True if the last suspension was not reported before.
    pub(crate) is_news: bool,
}

/// Threshold below which a difference is no suspension, but time that passed between the two readings.
const MIN_SUSPENSION: Duration = Duration::from_millis(100);

impl Suspension {
    pub(crate) fn new() -> Suspension {
        let watch = watch().map_err(|error| tracing::debug!(%error, "the end of a suspension is seen late"));
        Suspension { start: read(), told: AtomicU64::new(0), watch: watch.ok() }
    }

    /// Returns the current time, with the suspensions.
    pub(crate) fn now(&self) -> Reading {
        let (boottime, now) = read();
        self.reading(boottime, now)
    }

    fn reading(&self, boottime: Duration, now: Instant) -> Reading {
        let suspended = self.total(boottime, now);
        if suspended.is_zero() {
            return Reading { now, suspended, is_news: false };
        }
        let millis = u64::try_from(suspended.as_millis()).unwrap_or(u64::MAX);
        // Several threads read the clocks, but only one of them must report a suspension.
        let told = self.told.fetch_max(millis, Ordering::Relaxed);
        Reading { now, suspended, is_news: millis >= told.saturating_add(MIN_SUSPENSION.as_millis() as u64) }
    }

    fn total(&self, boottime: Duration, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.start.1);
        let total = boottime.saturating_sub(self.start.0).saturating_sub(elapsed);
        if total < MIN_SUSPENSION { Duration::ZERO } else { total }
    }

    /// Returns the descriptor that becomes readable at the end of a suspension.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// Rearms the descriptor. Call it when the descriptor is readable.
    pub(crate) fn watch_again(&self) {
        if let Some(watch) = &self.watch {
            // The read fails with ECANCELED after each jump of the clock, which rearms the timer.
            let _ = rustix::io::read(watch, &mut [0u8; 8]);
        }
    }
}

/// Makes a timer of the wall clock that never expires, but is cancelled when that clock jumps
/// (timerfd_create(2)).
fn watch() -> rustix::io::Result<OwnedFd> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
    let never = Timespec { tv_sec: i64::MAX, tv_nsec: 0 };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: never };
    timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &once)?;
    Ok(timer)
}

/// Reads both clocks.
fn read() -> (Duration, Instant) {
    // In this order, a thread interrupted in between finds a shorter suspension, and the rest the next time.
    // From the C library, because rustix calls the vDSO directly, which Valgrind lacks. Without such a clock
    // the machine never appears suspended.
    let boottime = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    (boottime, Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_was_not_suspended_while_this_ran() {
        let suspension = Suspension::new();
        assert_eq!(suspension.now().suspended, Duration::ZERO);
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(
            suspension.as_fd().expect("Linux has it"),
            rustix::event::PollFlags::IN,
        )];
        let now = Some(&Timespec { tv_sec: 0, tv_nsec: 0 });
        assert_eq!(rustix::event::poll(&mut fds, now).expect("a descriptor"), 0, "the timer never ends");
    }

    #[test]
    fn what_only_one_clock_counts_is_suspension() {
        let (millis, instant) = (Duration::from_millis, Instant::now());
        let suspension = started(millis(900_000), instant);
        let measure = |boottime, monotonic: u64| {
            suspension.total(millis(boottime), instant + millis(monotonic - 500_000)).as_millis()
        };
        assert_eq!(measure(1_900_000, 1_500_000), 0);
        assert_eq!(measure(1_900_099, 1_500_000), 0);
        assert_eq!(measure(1_900_000, 1_500_050), 0);
        assert_eq!(measure(1_907_250, 1_500_000), 7250);
    }

    #[test]
    fn each_suspension_is_news_once() {
        let (seconds, instant) = (Duration::from_secs, Instant::now());
        let suspension = started(seconds(0), instant);
        let is_news =
            |boottime, monotonic| suspension.reading(seconds(boottime), instant + seconds(monotonic)).is_news;
        let readings = [(1, 1), (9, 2), (10, 3), (12, 5), (20, 5), (21, 6)];
        let news = readings.map(|(boottime, monotonic)| is_news(boottime, monotonic));
        assert_eq!(news, [false, true, false, false, true, false]);
        // A thread that was interrupted between the readings finds a shorter suspension.
        assert!(!is_news(21, 8));
        assert!(!is_news(24, 9));
    }

    fn started(boottime: Duration, at: Instant) -> Suspension {
        Suspension { start: (boottime, at), told: AtomicU64::new(0), watch: None }
    }
}
