//! Waiting times for data that still must be delivered at the end of a node.

use std::time::{Duration, Instant};

/// Allowed silence of a peer that has undelivered data. A laptop that changes its network, or an answer over
/// a satellite, takes seconds. A peer with a full window is probed at growing intervals.
const MAX_SILENCE: Duration = Duration::from_secs(10);
/// Time that a responsive peer may take nothing.
const MAX_STALL: Duration = Duration::from_secs(30);
/// Time for peers to acknowledge ends of connections when nothing else is left, plus [`ENDS_ROUND_TRIPS`]. A
/// peer without the end gets a reset when the node leaves, and its program treats the data as truncated.
const ENDS: Duration = Duration::from_secs(2);
/// Round-trip times for ends: one for the first transmission, and up to two before its retransmission.
const ENDS_ROUND_TRIPS: u32 = 3;
/// Time limit for a process that peers keep alive by taking data now and then.
const WHOLE: Duration = Duration::from_secs(600);
/// Time without progress after which the node of a continuing program stops waiting.
const DROPPED: Duration = Duration::from_secs(5);

/// Waiting rule for undelivered data at the end of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Linger {
    /// Waits at most this long.
    Within(Duration),
    /// The process ends: waits as long as there is progress, at most ten minutes. A peer that takes nothing
    /// has 30 seconds, and a silent one ten and a round trip.
    Exit,
    /// Waits like [`Linger::Exit`], without the ten minutes, because the user can interrupt it.
    Unlimited,
    /// The program continues: waits like [`Linger::Exit`], but at most five seconds without progress.
    Drop,
}

/// Undelivered data and ends of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Remaining {
    /// Number of unacknowledged bytes.
    pub bytes: u64,
    /// Number of connections that have delivered all bytes and wait for the peer to acknowledge their end.
    pub ends: usize,
    /// Time since the last packet from any peer with undelivered bytes.
    pub silence: Duration,
    /// Longest round-trip time of the connections.
    pub round_trip: Duration,
}

/// Decision when to stop waiting for deliveries.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use peersock::attach::{Linger, Patience, Remaining};
///
/// let begun = Instant::now();
/// let mut patience = Patience::new(Linger::Exit, begun);
/// let mut left = Remaining { bytes: 100, ..Remaining::default() };
/// assert!(!patience.is_over(begun, &left));
/// left.bytes = 99;
/// assert!(!patience.is_over(begun + Duration::from_secs(29), &left), "some of it has arrived");
/// assert!(!patience.is_over(begun + Duration::from_secs(58), &left));
/// assert!(patience.is_over(begun + Duration::from_secs(59), &left));
/// ```
#[derive(Debug)]
pub struct Patience {
    began: Instant,
    /// Fewest undelivered bytes so far, and when that number was reached.
    least: (u64, Instant),
    silent: Duration,
    stalled: Duration,
    ends: Duration,
    whole: Duration,
}

impl Patience {
    /// Begins to wait.
    pub fn new(linger: Linger, now: Instant) -> Self {
        const NEVER: Duration = Duration::MAX;
        let (silent, stalled, ends, whole) = match linger {
            Linger::Within(time) => (NEVER, NEVER, NEVER, time),
            Linger::Exit => (MAX_SILENCE, MAX_STALL, ENDS, WHOLE),
            Linger::Unlimited => (MAX_SILENCE, MAX_STALL, ENDS, NEVER),
            Linger::Drop => (DROPPED, DROPPED, DROPPED, WHOLE),
        };
        Self { began: now, least: (u64::MAX, now), silent, stalled, ends, whole }
    }

    /// Returns true if waiting should stop, because nothing is left or nothing more is expected.
    pub fn is_over(&mut self, now: Instant, left: &Remaining) -> bool {
        if left.bytes == 0 && left.ends == 0 {
            return true;
        }
        if left.bytes < self.least.0 {
            self.least = (left.bytes, now);
        }
        if now.saturating_duration_since(self.began) >= self.whole {
            return true;
        }
        if left.bytes == 0 {
            let since = self.began.max(self.least.1);
            let ends = self.ends.saturating_add(left.round_trip.saturating_mul(ENDS_ROUND_TRIPS));
            return now.saturating_duration_since(since) >= ends;
        }
        let stalled = now.saturating_duration_since(self.least.1);
        let silent = self.silent.saturating_add(left.round_trip);
        // A silent peer gets less time than one that answers without taking data.
        stalled >= self.stalled || (stalled >= silent && left.silence >= silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the waiting time in milliseconds, if `left` is the rest after each millisecond.
    fn lasts(linger: Linger, left: impl Fn(u64) -> Remaining) -> u64 {
        let began = Instant::now();
        let mut patience = Patience::new(linger, began);
        (0..1_000_000)
            .find(|ms| patience.is_over(began + Duration::from_millis(*ms), &left(*ms)))
            .expect("it ends")
    }

    fn waiting(bytes: u64, silence: u64) -> Remaining {
        Remaining { bytes, silence: Duration::from_millis(silence), ..Remaining::default() }
    }

    fn ends(count: usize, round_trip: u64) -> Remaining {
        Remaining { ends: count, round_trip: Duration::from_millis(round_trip), ..Remaining::default() }
    }

    #[test]
    fn nothing_to_deliver_takes_no_time_and_ends_are_sent_a_few_times() {
        for linger in [Linger::Exit, Linger::Unlimited] {
            assert_eq!(lasts(linger, |_| Remaining::default()), 0);
            assert_eq!(lasts(linger, |_| ends(3, 0)), 2000);
            assert_eq!(lasts(linger, |_| ends(1, 6000)), 20_000);
            // An end that was lost twice, on a path with half a second's round trip.
            assert_eq!(lasts(linger, |ms| ends(usize::from(ms < 1900), 500)), 1900);
        }
    }

    #[test]
    fn what_an_outage_holds_up_is_delivered_after_it() {
        for outage in [2500, 6000, 9900] {
            let back = |ms| if ms < outage { waiting(100, ms) } else { Remaining::default() };
            assert_eq!(lasts(Linger::Exit, back), outage);
        }
    }

    #[test]
    fn progress_goes_on_and_a_peer_that_vanished_ends_it() {
        assert_eq!(lasts(Linger::Exit, |ms| waiting(60_000_u64.saturating_sub(ms), 0)), 60_000);
        assert_eq!(lasts(Linger::Exit, |ms| waiting(100, ms)), 10_000);
        assert_eq!(lasts(Linger::Exit, |ms| waiting(100, ms % 5000)), 30_000);
        // The peer was silent before, and has come back.
        assert_eq!(lasts(Linger::Exit, |ms| waiting(100_u64.saturating_sub(ms), 5000)), 100);
    }

    #[test]
    fn who_takes_a_byte_now_and_then_keeps_no_process_for_ever() {
        let trickle = |ms| waiting(1_000_000 - ms / 1000, 0);
        assert_eq!(lasts(Linger::Exit, trickle), 600_000);
        assert_eq!(lasts(Linger::Drop, trickle), 600_000);
        assert_eq!(lasts(Linger::Unlimited, |ms| waiting(900_000_u64.saturating_sub(ms), 0)), 900_000);
    }

    #[test]
    fn a_time_is_kept_whatever_happens_and_a_program_that_goes_on_waits_less() {
        let time = Linger::Within(Duration::from_secs(5));
        for left in [waiting(100, 100_000), waiting(100, 0), ends(1, 0)] {
            assert_eq!(lasts(time, |_| left), 5000);
            assert_eq!(lasts(Linger::Drop, |_| left), 5000);
        }
        assert_eq!(lasts(time, |ms| waiting(60_000_u64.saturating_sub(ms), 0)), 5000);
        assert_eq!(lasts(Linger::Drop, |ms| waiting(60_000_u64.saturating_sub(ms), 0)), 60_000);
        assert_eq!(lasts(Linger::Within(Duration::ZERO), |_| waiting(1, 0)), 0);
    }
}
