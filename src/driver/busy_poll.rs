//! Busy polling: how long a thread that waits for packets looks for them before it sleeps.
//!
//! To be woken takes longer than most of what happens between a packet and its answer: two context switches,
//! and on a virtual machine whose processor has gone to sleep an interrupt by way of the host. Who looks
//! instead hears at once, but spends a processor's time meanwhile.
//!
//! [`Looking`] finds out by itself where that is so, as the halt polling of hypervisors does. Waits that end
//! soon make it try; it goes on while what it looks for comes within [`PAYS`] on average. It does not look
//! while much is carried, for then throughput counts, nor where others want the processor.

use std::time::{Duration, Instant};

use crate::sys::poll::Looked;

/// What comes within this time, on average, is worth looking for: a thread that has to be woken on both sides
/// takes about as long, so that a round trip becomes at most half as long by it.
const PAYS: Duration = Duration::from_micros(50);

/// The longest look. What comes on average within [`PAYS`] seldom takes longer than this.
const LONGEST: Duration = Duration::from_micros(100);

/// The longest look of a trial, and of waits that call for one: an answer of somebody who has to be woken
/// first. If both sides try, both become faster.
const LONGEST_TRIAL: Duration = Duration::from_micros(150);

/// So many short waits, more or less in a row, begin a trial.
const SHORT_WAITS: u8 = 8;

/// Waits of a trial.
const TRIAL: u16 = 24;

/// The time from a trial that has failed to the next one; it doubles with each that fails.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Looks that ended well, after which the pauses begin with the first one again.
const PROVEN: u16 = 4096;

/// More datagrams than these between two waits are bulk data.
const BULK: u64 = 12;

/// A thread that looks and cannot for so long was put aside for somebody who works without a pause. Those who
/// are woken by what it has sent take less.
const PUT_ASIDE: Duration = Duration::from_micros(500);

/// What being put aside once counts, where each wait without that takes one away, and what is too much: that
/// happens now and then on a quiet machine, too.
const CROWDING: u16 = 250;
const CROWDED: u16 = 700;

/// How long the threads of a node look for packets before they sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BusyPoll {
    /// As [`Looking`] finds right.
    Adaptive,
    /// Always for so long. Zero: never.
    For(Duration),
}

impl BusyPoll {
    /// What becomes of it where so many processors are.
    pub(crate) fn on(self, processors: usize) -> BusyPoll {
        match self {
            // What is looked for needs the processor.
            BusyPoll::Adaptive if processors < 2 => BusyPoll::For(Duration::ZERO),
            busy_poll => busy_poll,
        }
    }
}

/// Decides for one thread that waits again and again.
#[derive(Debug)]
pub(super) struct Looking {
    busy_poll: BusyPoll,
    phase: Phase,
    /// How long it looked, on average over the last waits.
    mean: Duration,
    pause: Duration,
    /// How often it was put aside lately.
    crowding: u16,
    /// When the wait began, and for how long it was to look; `None` of a wait that says nothing.
    wait: Option<(Instant, Duration)>,
    /// Datagrams carried until the last wait.
    carried: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It does not look; counts short waits.
    Sleeping { short: u8, until: Option<Instant> },
    /// It looks; counts waits.
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

    /// A wait begins. `carried` counts the datagrams that the node has sent and received. Returns how long to
    /// look before sleeping.
    pub(super) fn begin(&mut self, carried: impl FnOnce() -> u64) -> Duration {
        match self.busy_poll {
            BusyPoll::For(time) => time,
            BusyPoll::Adaptive => self.begin_at(Instant::now(), carried()),
        }
    }

    /// The wait has ended, with whatever was waited for or without.
    pub(super) fn end(&mut self, looked: Looked) {
        if self.wait.is_some() {
            self.end_at(Instant::now(), looked);
        }
    }

    fn begin_at(&mut self, now: Instant, carried: u64) -> Duration {
        let is_bulk = carried.wrapping_sub(std::mem::replace(&mut self.carried, carried)) > BULK;
        let time = match self.phase {
            _ if is_bulk => {
                self.wait = None;
                return Duration::ZERO;
            }
            Phase::Sleeping { .. } => Duration::ZERO,
            Phase::Looking { waits } if waits < TRIAL => LONGEST_TRIAL,
            Phase::Looking { .. } => LONGEST,
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
                let part = u32::from(*waits).min(8);
                self.mean = self.mean * (part - 1) / part + spent / part;
                let fails = *waits >= TRIAL && self.mean > PAYS;
                if *waits == PROVEN {
                    self.pause = FIRST_PAUSE;
                }
                self.crowding = match looked.longest_gap > PUT_ASIDE {
                    true => self.crowding.saturating_add(CROWDING),
                    false => self.crowding.saturating_sub(1),
                };
                if fails || self.crowding > CROWDED {
                    self.phase = Phase::Sleeping { short: 0, until: Some(now + self.pause) };
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
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

    /// A thread whose waits end after the times that it is told.
    struct Thread {
        looking: Looking,
        now: Instant,
        carried: u64,
        /// For how long it has looked in all.
        looked: Duration,
    }

    impl Thread {
        fn new() -> Thread {
            let looking = Looking::new(BusyPoll::Adaptive.on(2));
            Thread { looking, now: Instant::now(), carried: 0, looked: AT_ONCE }
        }

        /// Waits; what it waits for, `datagrams`, comes after `after`. Returns how long it was to look.
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
        // The other one looks, too, by now.
        assert_eq!(thread.waits(10_000, US * 10), LONGEST);
        // A while without anything costs one look.
        assert_eq!(thread.waits(1, Duration::from_secs(60)), LONGEST);
        assert_eq!(thread.waits(10, US * 10), LONGEST);
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
        // Nor while somebody looks already.
        thread.waits(100, US * 10);
        assert_eq!(thread.wait(US * 10, BULK + 1, AT_ONCE), LONGEST);
        assert_eq!(thread.wait(US * 10, 1, AT_ONCE), AT_ONCE);
        assert_eq!(thread.wait(US * 10, 1, AT_ONCE), LONGEST);
    }

    #[test]
    fn others_that_want_the_processor_get_it() {
        let mut thread = Thread::new();
        thread.waits(100, US * 10);
        // Once in a while is nothing.
        for _ in 0..100 {
            thread.wait(US * 10, 2, PUT_ASIDE * 2);
            assert_eq!(thread.waits(300, US * 10), LONGEST);
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
