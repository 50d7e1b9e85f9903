//! Busy polling: the time that a thread polls for packets before it sleeps.
//!
//! A wake-up takes longer than most steps between a packet and its answer: two context switches, and on a
//! virtual machine whose processor is idle an interrupt by way of the host. A polling thread gets a packet at
//! once, but uses a processor meanwhile.
//!
//! [`Looking`] adapts to where that pays, like the halt polling of hypervisors. Short waits start a trial;
//! polling continues while packets come within [`MAX_PAYING_WAIT`] on average. It stops during bulk
//! transfers, where throughput counts, and where other threads need the processor.

use std::time::{Duration, Instant};

use crate::sys::poll::Looked;

/// Average wait up to which polling pays: a wake-up on each side takes about as long, so polling can halve a
/// round trip.
const MAX_PAYING_WAIT: Duration = Duration::from_micros(50);

/// Limit of one poll. Waits with an average within [`MAX_PAYING_WAIT`] rarely take longer.
const MAX_POLL: Duration = Duration::from_micros(100);

/// Limit of one poll in a trial, and of waits that start one: the answer of a peer that must be woken first.
/// If both sides try, both become faster.
const LONGEST_TRIAL: Duration = Duration::from_micros(150);

/// Number of short waits, roughly in a row, that start a trial.
const SHORT_WAITS: u8 = 8;

/// Number of waits of a trial.
const TRIAL_WAITS: u16 = 24;

/// Minimum and maximum pause after a failed trial; the pause doubles with each failure.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Number of successful polls after which the pause is reset.
const POLLS_UNTIL_PROVEN: u16 = 4096;

/// Number of datagrams between two waits above which they count as bulk data.
const BULK: u64 = 12;

/// Gap in polling that means that the scheduler gave the processor to a continuously running thread. Threads
/// woken by this one's packets take less.
const PUT_ASIDE: Duration = Duration::from_micros(500);

/// Weight of one such gap, where each wait without one subtracts 1, and the limit. Gaps also happen
/// occasionally on a quiet machine.
const GAP_WEIGHT: u16 = 250;
const MAX_GAP_WEIGHT: u16 = 700;

/// Busy-polling time of a node's threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BusyPoll {
    /// Adaptive, see [`Looking`].
    Adaptive,
    /// Always this long. Zero: never.
    For(Duration),
}

impl BusyPoll {
    /// Adjusts the setting to the number of processors.
    pub(crate) fn on(self, processors: usize) -> BusyPoll {
        match self {
            // On one processor the awaited work needs the processor that polling would use.
            BusyPoll::Adaptive if processors < 2 => BusyPoll::For(Duration::ZERO),
            busy_poll => busy_poll,
        }
    }
}

/// Decision for one thread that waits repeatedly.
#[derive(Debug)]
pub(super) struct Looking {
    busy_poll: BusyPoll,
    phase: Phase,
    /// Mean polling time of the last waits.
    mean: Duration,
    pause: Duration,
    /// Weight of the recent gaps.
    crowding: u16,
    /// Start of the wait, and its polling time; `None` for a wait that is not counted.
    wait: Option<(Instant, Duration)>,
    /// Number of datagrams carried until the last wait.
    carried: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No polling; counts short waits.
    Sleeping { short: u8, until: Option<Instant> },
    /// Polling; counts waits.
    Looking { waits: u16 },
}

impl Looking {
    pub(super) fn new(busy_poll: BusyPoll) -> Looking {
        Looking {
            busy_poll,
            phase: Phase::Sleeping { short: 0, until: None },
            mean: Duration::ZERO,
            pause: FIRST_PAUSE,
            crowding: 0,
            wait: None,
            carried: 0,
        }
    }

    /// Begins a wait. `carried` returns the number of datagrams that the node has sent and received. Returns
    /// the time to poll before sleeping.
    pub(super) fn begin(&mut self, carried: impl FnOnce() -> u64) -> Duration {
        match self.busy_poll {
            BusyPoll::For(time) => time,
            BusyPoll::Adaptive => self.begin_at(Instant::now(), carried()),
        }
    }

    /// Ends the wait, with or without an event.
    pub(super) fn end(&mut self, looked: Looked) {
        if self.wait.is_some() {
            self.end_at(Instant::now(), looked);
        }
    }

    fn begin_at(&mut self, now: Instant, carried: u64) -> Duration {
        // During bulk transfers a wake-up handles many packets, so polling gains nothing.
        let is_bulk = carried.wrapping_sub(std::mem::replace(&mut self.carried, carried)) > BULK;
        let time = match self.phase {
            _ if is_bulk => {
                self.wait = None;
                return Duration::ZERO;
            }
            Phase::Sleeping { .. } => Duration::ZERO,
            Phase::Looking { waits } if waits < TRIAL_WAITS => LONGEST_TRIAL,
            Phase::Looking { .. } => MAX_POLL,
        };
        self.wait = Some((now, time));
        time
    }

    fn end_at(&mut self, now: Instant, looked: Looked) {
        let Some((begun, time)) = self.wait.take() else { return };
        let waited = now.saturating_duration_since(begun);
        match &mut self.phase {
            Phase::Sleeping { short, .. } if waited > LONGEST_TRIAL => *short /= 2,
            Phase::Sleeping { short, until } => {
                *short = short.saturating_add(1);
                if *short >= SHORT_WAITS && until.is_none_or(|until| until <= now) {
                    self.phase = Phase::Looking { waits: 0 };
                    (self.mean, self.crowding) = (Duration::ZERO, 0);
                }
            }
            Phase::Looking { waits } => {
                *waits = waits.saturating_add(1);
                let spent = if looked.found { waited.min(time) } else { time };
                // Roughly the mean of the last eight waits.
                let part = u32::from(*waits).min(8);
                self.mean = self.mean * (part - 1) / part + spent / part;
                let fails = *waits >= TRIAL_WAITS && self.mean > MAX_PAYING_WAIT;
                if *waits == POLLS_UNTIL_PROVEN {
                    self.pause = FIRST_PAUSE;
                }
                self.crowding = match looked.longest_gap > PUT_ASIDE {
                    true => self.crowding.saturating_add(GAP_WEIGHT),
                    false => self.crowding.saturating_sub(1),
                };
                if fails || self.crowding > MAX_GAP_WEIGHT {
                    self.phase = Phase::Sleeping { short: 0, until: Some(now + self.pause) };
                    self.pause = (self.pause * 2).min(MAX_PAUSE);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);
    const AT_ONCE: Duration = Duration::ZERO;

    /// Thread whose waits end after given times.
    struct Thread {
        looking: Looking,
        now: Instant,
        carried: u64,
        /// Total polling time.
        looked: Duration,
    }

    impl Thread {
        fn new() -> Thread {
            let looking = Looking::new(BusyPoll::Adaptive.on(2));
            Thread { looking, now: Instant::now(), carried: 0, looked: AT_ONCE }
        }

        /// Waits; the event, `datagrams`, comes after `after`. Returns the polling time.
        fn wait(&mut self, after: Duration, datagrams: u64, longest_gap: Duration) -> Duration {
            let time = self.looking.begin_at(self.now, self.carried);
            self.now += after;
            self.carried += datagrams;
            self.looked += time.min(after);
            self.looking.end_at(self.now, Looked { found: after <= time, longest_gap });
            time
        }

        fn waits(&mut self, times: usize, after: Duration) -> Duration {
            (0..times).map(|_| self.wait(after, 2, AT_ONCE)).last().unwrap_or_default()
        }
    }

    #[test]
    fn who_is_answered_soon_looks_and_goes_on_looking() {
        let mut thread = Thread::new();
        assert_eq!(thread.waits(8, US * 60), AT_ONCE);
        assert_eq!(thread.waits(1, US * 60), LONGEST_TRIAL);
        // By now the other side polls, too.
        assert_eq!(thread.waits(10_000, US * 10), MAX_POLL);
        // A long pause costs one poll.
        assert_eq!(thread.waits(1, Duration::from_secs(60)), MAX_POLL);
        assert_eq!(thread.waits(10, US * 10), MAX_POLL);
    }

    #[test]
    fn trials_that_fail_become_rare() {
        let mut thread = Thread::new();
        let begin = thread.now;
        thread.waits(300_000, US * 100);
        let all = thread.now.saturating_duration_since(begin);
        assert!(thread.looked < all / 100, "{:?} of {all:?}", thread.looked);
    }

    #[test]
    fn long_waits_and_bulk_data_are_not_looked_for() {
        let mut thread = Thread::new();
        thread.waits(1000, Duration::from_millis(1));
        for _ in 0..1000 {
            thread.wait(US * 10, BULK + 1, AT_ONCE);
        }
        assert_eq!(thread.looked, AT_ONCE);
        // Nor while a poll is running.
        thread.waits(100, US * 10);
        assert_eq!(thread.wait(US * 10, BULK + 1, AT_ONCE), MAX_POLL);
        assert_eq!(thread.wait(US * 10, 1, AT_ONCE), AT_ONCE);
        assert_eq!(thread.wait(US * 10, 1, AT_ONCE), MAX_POLL);
    }

    #[test]
    fn others_that_want_the_processor_get_it() {
        let mut thread = Thread::new();
        thread.waits(100, US * 10);
        // Occasional gaps do not matter.
        for _ in 0..100 {
            thread.wait(US * 10, 2, PUT_ASIDE * 2);
            assert_eq!(thread.waits(300, US * 10), MAX_POLL);
        }
        for _ in 0..3 {
            thread.wait(US * 10, 2, PUT_ASIDE * 2);
        }
        assert_eq!(thread.waits(1, US * 10), AT_ONCE);
    }

    #[test]
    fn what_is_said_counts_and_one_processor_is_too_few() {
        let mut always = Looking::new(BusyPoll::For(US * 7).on(1));
        assert_eq!(always.begin(|| unreachable!("it does not matter")), US * 7);
        let mut never = Looking::new(BusyPoll::Adaptive.on(1));
        assert_eq!(never.begin(|| unreachable!("it does not matter")), AT_ONCE);
    }
}
