//! Pacing: the time of the next burst.

use std::time::Duration;

use crate::host::clock::Time;
use crate::tcp::arithmetic::{length, scaled};

/// Delay of a burst that does not delay the next one, because timers have a resolution of a millisecond and
/// threads wake late.
const CREDIT_NANOS: i64 = 2_000_000;

/// Longest delay by one burst, as in Linux: the rate may turn out to be higher.
const LONGEST_NANOS: u64 = 1_000_000_000;

/// Duration of a burst at the pacing rate.
const QUANTUM: Duration = Duration::from_millis(1);

/// Clock that advances by the sending time of each burst.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    /// Time of the next burst, nanoseconds of the stack's time.
    next: i64,
}

impl Pace {
    /// Returns the time of the next burst if it lies in the future.
    pub(crate) fn blocked_until(&self, now: Time) -> Option<Time> {
        // Rounded up, because a timer at the lower microsecond would come too early.
        let until = (self.next + 999) / 1000;
        (until > now.total_micros()).then(|| Time::from_micros(until))
    }

    /// Notes `bytes` sent now at `rate` bytes per second.
    pub(crate) fn on_sent(&mut self, now: Time, bytes: u64, rate: Option<u64>) {
        let Some(rate) = rate else { return };
        let nanos = scaled(bytes, 1_000_000_000, rate);
        let earliest = now.total_micros() * 1000 - CREDIT_NANOS;
        self.next = self.next.max(earliest).saturating_add(nanos.min(LONGEST_NANOS) as i64);
    }

    /// Lets the next burst leave at once.
    pub(crate) fn reset(&mut self) {
        self.next = 0;
    }

    /// Returns the maximum bytes of one burst, at least two segments.
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
        // The credit lets three milliseconds' worth leave at once after a pause.
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
