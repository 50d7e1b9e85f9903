use std::fmt;
use std::time::Duration;

use super::{CATCH_UP, CLOCK_TOLERANCE};

/// Wall-clock time in milliseconds since the Unix epoch, without leap seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixTime(u64);

impl UnixTime {
    /// Returns the time that is this many milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Returns the time that is `by` later, at most the last one that the type holds.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// Returns the time that is `by` earlier, at least the epoch.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(millis(by)))
    }

    /// Returns the time by which a statement is judged that was signed at `signed`. A clock that is a little
    /// behind must not refuse what others have just signed: it counts as up to [`CATCH_UP`] later for this
    /// statement.
    #[must_use]
    pub fn for_statement(self, signed: Self) -> Self {
        self.max(signed.min(self.plus(CATCH_UP)))
    }

    /// Returns the time from `earlier` to this one; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl From<Duration> for UnixTime {
    fn from(since_epoch: Duration) -> Self {
        Self(millis(since_epoch))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Number of a signed statement: the milliseconds since the Unix epoch at which it was signed, or one more
/// than the last number of the same signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Serial(u64);

impl Serial {
    /// Returns the serial with this number.
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Returns the serial of a statement that is signed at `now` after one with `last`.
    pub fn next(now: UnixTime, last: Option<Self>) -> Self {
        Self(last.map_or(now.0, |last| now.0.max(last.0.saturating_add(1))))
    }

    /// Returns the time at which the statement was signed.
    pub const fn time(self) -> UnixTime {
        UnixTime(self.0)
    }

    /// Returns true if a statement with this serial may count at `now`, where clocks differ.
    pub(super) fn has_begun(self, now: UnixTime) -> bool {
        self.0 <= now.plus(CLOCK_TOLERANCE).0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}
