//! Pacing: when the next burst may leave.

use std::time::Duration;

use crate::host::clock::Time;
use crate::tcp::arithmetic::{length, scaled};

/// How late a burst may leave and still not move the next one: timers have a resolution of a millisecond, and
/// threads wake when they can.
const CREDIT_NANOS: i64 = 2_000_000;

/// No burst makes the next one wait for longer, as in Linux: meanwhile the rate may turn out to be higher.
const LONGEST_NANOS: u64 = 1_000_000_000;

/// A burst holds what the rate lets leave in this time.
const QUANTUM: Duration = Duration::from_millis(1);

/// A clock that runs as fast as data may leave.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    /// When the next burst may leave, nanoseconds of the stack's time.
    next: i64,
}

impl Pace {
    /// When the next burst may leave, if not yet.
    pub(crate) fn blocked_until(&self, now: Time) -> Option<Time> {
        let until = (self.next + 999) / 1000;
        (until > now.total_micros()).then(|| Time::from_micros(until))
    }

    /// `bytes` leave now at `rate` bytes per second.
    pub(crate) fn on_sent(&mut self, now: Time, bytes: u64, rate: Option<u64>) {
        let Some(rate) = rate else { return };
        let nanos = scaled(bytes, 1_000_000_000, rate);
        let earliest = now.total_micros() * 1000 - CREDIT_NANOS;
        self.next = self.next.max(earliest).saturating_add(nanos.min(LONGEST_NANOS) as i64);
    }

    /// Nothing needs to wait.
    pub(crate) fn reset(&mut self) {
        self.next = 0;
    }

    /// Bytes of one burst at most; two segments at least.
    pub(crate) fn burst(rate: Option<u64>, mss: u64, most: u64) -> u64 {
        let Some(rate) = rate else { return most };
        let quantum = scaled(rate, length(QUANTUM), 1_000_000);
        quantum.max(2 * mss).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Time {
        Time::from_micros(micros)
    }

    #[test]
    fn bursts_leave_at_the_rate_and_late_ones_catch_up() {
        let mut pace = Pace::default();
        let rate = Some(1_000_000);
        assert_eq!(pace.blocked_until(at(10_000)), None);
        // The credit lets three milliseconds' worth leave at once after a rest.
        for _ in 0..3 {
            assert_eq!(pace.blocked_until(at(10_000)), None);
            pace.on_sent(at(10_000), 1000, rate);
        }
        assert_eq!(pace.blocked_until(at(10_000)), Some(at(11_000)));
        pace.on_sent(at(11_700), 1000, rate);
        assert_eq!(pace.blocked_until(at(11_700)), Some(at(12_000)), "being late costs nothing");
        pace.reset();
        assert_eq!(pace.blocked_until(at(11_700)), None);
    }

    #[test]
    fn nothing_waits_for_longer_than_a_second() {
        let mut pace = Pace::default();
        pace.on_sent(at(5_000_000), 100_000, Some(1));
        assert_eq!(pace.blocked_until(at(5_000_000)), Some(at(5_998_000)));
    }

    #[test]
    fn a_burst_is_a_millisecond_s_worth() {
        assert_eq!(Pace::burst(None, 1000, 44_000), 44_000);
        assert_eq!(Pace::burst(Some(12_500_000), 1000, 44_000), 12_500);
        assert_eq!(Pace::burst(Some(1000), 1000, 44_000), 2000);
        assert_eq!(Pace::burst(Some(u64::MAX), 1000, 44_000), 44_000);
    }
}
