//! The time by which a controller signs. It never goes back, also if the system's clock was ahead and is
//! right again, and across crashes.
//!
//! Serials are times, and a removal is a serial below which nothing counts. So a controller that signed an
//! earlier time again could not reach what it has signed before. After the clock was set back, the time runs
//! at half the clock's speed until the clock has reached it, as `adjtime` does. Members accept what is up to
//! a day ahead of their clocks.
//!
//! The store has a time that nothing exceeds by more than [`UNWRITTEN`], so a process that finds the clock
//! before it begins behind all that earlier ones have signed. A clock that is further ahead of that time than
//! [`MAX_LEAP`] may be wrong, and nothing is signed by it until somebody confirms it.

use std::time::Duration;

use peersock_overlay::membership::{CLOCK_TOLERANCE, Serial, UnixTime};

use crate::controller::Controller;
use crate::member::millis;
use crate::store::StoreError;

/// Longest time by which a clock may be ahead of the last time in the store without a word of somebody, and
/// by which a controller that serves signs ahead of its clock. Members accept a day; the rest is for their
/// clocks.
pub const MAX_LEAP: Duration = Duration::from_secs(18 * 3600);

/// Time by which what was signed may be after the time in the store, unless the store fails for longer.
pub(crate) const UNWRITTEN: Duration = Duration::from_secs(3600);

/// Interval in which the store's time is written at least while it is ahead of the clock.
const SLOW_WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// Longest step of a clock between two readings that counts as time that has passed.
const MAX_STEP: Duration = CLOCK_TOLERANCE;

/// Number of serials above a member's floor that may be signed where the floor is ahead of the time. Only the
/// store's floor tells of them after a crash.
const SPARE: u64 = 60_000;

/// Judgement of a system's clock by what a controller has done before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClockState {
    /// The controller can serve by it.
    Right,
    /// The clock is this much behind what was signed, so members would refuse the controller. It is behind,
    /// or it was ahead before.
    Behind(Duration),
    /// The clock is this much after the last time in the store. The controller was off for as long, or the
    /// clock is ahead. No node gets a certificate until [`Controller::accept_clock`].
    Leapt(Duration),
}

/// Time of one process, which never goes back.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// Time in the store.
    written: UnixTime,
    /// Last time that was read; 0 before the first one.
    time: UnixTime,
    /// System's clock then.
    seen: UnixTime,
    /// Time and system's clock from which on the time runs at half speed, where the clock is behind it.
    slow_from: (UnixTime, UnixTime),
    /// True if a leap needs a confirmation.
    pub(crate) is_watched: bool,
    /// True in the process that serves, which knows all that is signed since its start.
    pub(crate) is_serving: bool,
    has_leapt: bool,
}

impl Clock {
    /// Takes over the time in the store.
    pub(crate) fn note_written(&mut self, written: UnixTime) {
        self.written = self.written.max(written);
    }

    fn leaps(&self, now: UnixTime) -> bool {
        // A store that fails has an old time, and the clock of this process runs on.
        self.is_watched && now > self.written.max(self.seen).plus(MAX_LEAP)
    }

    /// Returns the time in which nothing is signed yet, for the first reading.
    fn first(&self, now: UnixTime) -> UnixTime {
        if now < self.written || self.leaps(now) { self.written.plus(UNWRITTEN) } else { now }
    }

    /// Returns the time. `now` is the system's clock.
    pub(crate) fn read(&mut self, now: UnixTime) -> UnixTime {
        let is_first = self.time == UnixTime::default();
        if is_first {
            self.time = self.first(now);
        }
        self.has_leapt = self.leaps(now);
        if self.has_leapt {
            return self.time;
        }
        // A clock that is set forward again must not lead the time, of which half a step would count.
        if is_first || now < self.seen || now > self.seen.plus(MAX_STEP) {
            self.slow_from = (self.time, now);
        }
        self.seen = now;
        let (from, at) = self.slow_from;
        self.time = self.time.max(from.plus(now.since(at) / 2)).max(now);
        self.time
    }

    /// Returns the time of the last reading.
    pub(crate) fn last(&self) -> UnixTime {
        self.time
    }

    /// Returns a time that members do not take for one ahead of their clocks: the system's clock, where the
    /// time is ahead of that.
    pub(crate) fn for_members(&self, now: UnixTime) -> UnixTime {
        if self.seen == UnixTime::default() { now } else { now.min(self.seen) }
    }

    /// Returns true if the system's clock was not set back since the last reading.
    pub(crate) fn runs_on(&self, now: UnixTime) -> bool {
        self.seen <= now
    }

    /// Returns true if the system's clock needs a confirmation, so that no node gets a certificate.
    pub(crate) fn has_leapt(&self) -> bool {
        self.has_leapt
    }

    /// Returns the time for the store. A command does not know what the serving process has signed, so it
    /// writes only a clock that is not behind. No process writes a clock that needs a confirmation.
    fn to_write(&self) -> UnixTime {
        match (self.has_leapt, self.is_serving) {
            (true, _) => UnixTime::default(),
            (false, true) => self.time,
            (false, false) => self.seen,
        }
    }

    /// Returns true if the store's time has to be written before much more is signed.
    pub(crate) fn is_write_due(&self) -> bool {
        // Commands count from an hour after the store's time while it is ahead of the clock.
        let pause = if self.time > self.seen { SLOW_WRITE_INTERVAL } else { UNWRITTEN / 2 };
        self.is_serving && !self.has_leapt && self.time > self.written.plus(pause)
    }

    /// Returns true if a certificate may have this serial, for a member with this floor. Renewals go on while
    /// the store fails, so the time itself is always allowed. Serials before it are a member's that asks too
    /// often.
    pub(crate) fn allows(&self, serial: Serial, floor: Serial) -> bool {
        let last = Serial::from_u64(self.time.max(self.written.plus(UNWRITTEN)).as_millis());
        !self.is_serving || serial <= last.max(above(floor, SPARE))
    }

    /// Judges the system's clock, and reads no time.
    fn judge(&self, now: UnixTime) -> ClockState {
        if self.leaps(now) {
            return ClockState::Leapt(now.since(self.written));
        }
        let lag = self.time.max(self.first(now)).since(now);
        if lag > MAX_LEAP { ClockState::Behind(lag) } else { ClockState::Right }
    }
}

/// Returns a serial that is above all that were signed above a floor, at a time.
pub(crate) fn beyond(floor: Serial, now: UnixTime) -> Serial {
    above(floor, if floor.time() > now { SPARE + 1 } else { 1 })
}

fn above(serial: Serial, by: u64) -> Serial {
    Serial::from_u64(serial.as_u64().saturating_add(by))
}

impl Controller {
    /// Asks for a confirmation of a clock that has leapt ahead ([`ClockState::Leapt`]). By default, all
    /// clocks count that are not behind.
    pub fn watch_clock(&mut self) {
        self.memory().clock.is_watched = true;
    }

    /// Judges the system's clock. Call this before [`Self::start`], and while it serves.
    pub fn clock(&mut self, now: UnixTime) -> ClockState {
        let noticed = self.notice();
        self.note_fault(noticed);
        self.memory().clock.judge(now)
    }

    /// Confirms a clock that has leapt. If it is ahead, the controller waits later until the time has come.
    ///
    /// # Errors
    /// Returns a [`StoreError`].
    pub fn accept_clock(&mut self, now: UnixTime, who: &str) -> Result<(), StoreError> {
        self.write(|write, _| {
            write.run("UPDATE network SET served = max(served, ?)", [millis(now)])?;
            write.log(millis(now), who, "clock", "")
        })
    }

    /// Returns the time by which this controller decides and signs. `now` is the system's clock.
    pub(crate) fn time(&mut self, now: UnixTime) -> UnixTime {
        // Another process may have confirmed the clock.
        if self.memory().clock.leaps(now) {
            let noticed = self.notice();
            self.note_fault(noticed);
        }
        let (time, is_due) = {
            let clock = &mut self.memory().clock;
            (clock.read(now), clock.is_write_due())
        };
        if is_due {
            let written = self.write(|_, _| Ok::<_, StoreError>(()));
            self.note_fault(written);
        }
        time
    }

    /// Returns the time that a transaction writes into the store.
    pub(crate) fn time_to_write(&self) -> i64 {
        millis(self.memory().clock.to_write())
    }
}
