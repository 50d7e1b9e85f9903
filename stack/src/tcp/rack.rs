//! RACK: loss detection by time (RFC 8985 section 6).

use super::scoreboard::{Newest, Run};
use crate::host::clock::{Time, micros_since};

/// Number of recoveries for which a wider reordering window is kept (RFC 8985 6.2 step 4).
const WIDE_WINDOW_RECOVERIES: u8 = 16;

/// Divisor of the decay of `late`: each reordered packet that is less late removes this part of the
/// difference.
const LATE_SHARE: u32 = 64;

/// The state of RACK.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rack {
    newest: Newest,
    /// Newest delivery among packets that were sent once.
    original: Newest,
    /// Round-trip times of `newest` and `original`, microseconds.
    rtt: u32,
    original_rtt: u32,
    /// End of the highest delivered data, now and before the present moment. Both are needed because the
    /// acknowledgements of one batch report ranges in any order, which is no reordering.
    highest: u64,
    highest_before: u64,
    moment: Time,
    /// Offset up to which further duplicates count as the same round trip.
    widened_until: u64,
    reordered: bool,
    quarters: u8,
    persist: u8,
    /// Decaying maximum of the round-trip times of reordered packets, microseconds.
    late: u32,
}

/// Value that sorts before every transmission.
const NONE: Newest = (Time::ZERO, 0);

impl Default for Rack {
    fn default() -> Self {
        Self {
            newest: NONE,
            original: NONE,
            rtt: 0,
            original_rtt: 0,
            highest: 0,
            highest_before: 0,
            moment: Time::ZERO,
            widened_until: 0,
            reordered: false,
            quarters: 0,
            persist: 0,
            late: 0,
        }
    }
}

impl Rack {
    /// Notes the delivery of a run.
    pub(crate) fn on_delivered(&mut self, now: Time, run: &Run, min_rtt: Option<u64>) {
        if self.moment != now {
            self.moment = now;
            self.highest_before = self.highest;
        }
        let rtt = micros_since(now, run.snapshot.sent);
        // A late retransmission is expected; only an overtaken first transmission shows reordering.
        if run.end < self.highest_before && !run.resent {
            self.reordered = true;
            self.note_late(rtt);
        }
        self.highest = self.highest.max(run.end);
        // Faster than any round trip: the original has arrived, not the retransmission.
        if run.resent && min_rtt.is_some_and(|min| rtt < min) {
            return;
        }
        let this = (run.snapshot.sent, run.end);
        // The value saturates at about an hour.
        let rtt = u32::try_from(rtt).unwrap_or(u32::MAX);
        // RFC 8985 6.2 step 2: of equal times, the higher end was sent later.
        if this > self.newest {
            (self.newest, self.rtt) = (this, rtt);
        }
        if !run.resent && this > self.original {
            (self.original, self.original_rtt) = (this, rtt);
        }
    }

    /// Notes the round-trip time of a reordered packet.
    fn note_late(&mut self, rtt: u64) {
        let rtt = u32::try_from(rtt).unwrap_or(u32::MAX);
        // Rounded up, so that the maximum decays to the present lateness and does not stop above it.
        let less = self.late.saturating_sub(rtt).div_ceil(LATE_SHARE);
        self.late = rtt.max(self.late - less);
    }

    /// Returns true if reordering was seen.
    pub(crate) fn has_reordered(&self) -> bool {
        self.reordered
    }

    /// Discards measurements of retransmissions, because the first transmissions have arrived after all.
    pub(crate) fn distrust_resent(&mut self) {
        if self.original != NONE {
            // The time of such a retransmission is too new: it would make everything sent before it look
            // lost.
            (self.newest, self.rtt) = (self.original, self.original_rtt);
        }
    }

    /// Notes that the peer received data twice: the retransmission was too early.
    pub(crate) fn on_duplicate(&mut self, una: u64, nxt: u64) {
        // At most once per round trip: one early recovery can cause many duplicates.
        if una >= self.widened_until {
            self.widened_until = nxt;
            self.quarters = self.quarters.max(1).saturating_add(1);
        }
        self.persist = WIDE_WINDOW_RECOVERIES;
    }

    /// Notes the end of a recovery.
    pub(crate) fn on_recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.quarters = 1;
        }
    }

    /// Returns the newest transmission that was delivered.
    pub(crate) fn newest(&self) -> Option<Newest> {
        (self.newest != NONE).then_some(self.newest)
    }

    /// Returns the time in microseconds after which an unacknowledged transmission counts as lost, once later
    /// data was delivered. `eager` is set during a recovery, or when three segments' worth was delivered out
    /// of order.
    pub(crate) fn patience(&self, eager: bool, min_rtt: Option<u64>, srtt: Option<u64>) -> u64 {
        // RFC 8985 6.2 step 4: without reordering seen, three segments out of order are sign enough of a
        // loss.
        if !self.reordered && eager {
            return self.rtt.into();
        }
        let quarter = min_rtt.unwrap_or(0) / 4;
        // RFC 8985 6.2 step 4 bounds the window by the smoothed round trip, which in Linux includes late
        // packets. Here it excludes late packets, so `late` is a second bound.
        let most = srtt.unwrap_or(quarter).max(self.late.into());
        let rtt = u64::from(self.rtt);
        // Where a few packets overtake all others, quarters of their short round trip never add up to the
        // delay of the others. A spurious retransmission reveals this case.
        let late = if self.quarters > 1 { u64::from(self.late) * 9 / 8 } else { 0 };
        let window = (quarter * u64::from(self.quarters.max(1))).max(late.saturating_sub(rtt));
        rtt + window.min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::super::rate::Snapshot;
    use super::super::scoreboard::Fate;
    use super::*;

    const MS: u64 = 1000;

    fn at(millis: i64) -> Time {
        Time::from_millis(millis)
    }

    fn run(start: u64, end: u64, sent: i64, resent: bool) -> Run {
        let sent = at(sent);
        let snapshot = Snapshot {
            sent,
            first_sent: sent,
            delivered: 0,
            delivered_at: sent,
            in_flight: 0,
            lost: 0,
            app_limited: false,
        };
        Run { start, end, segment: 10, fate: Fate::InFlight, resent, snapshot }
    }

    #[test]
    fn the_newest_delivery_is_the_one_sent_last() {
        let mut rack = Rack::default();
        rack.on_delivered(at(50), &run(0, 10, 10, false), None);
        rack.on_delivered(at(60), &run(20, 30, 12, false), None);
        rack.on_delivered(at(60), &run(10, 20, 12, true), Some(49 * MS));
        assert_eq!(rack.newest(), Some((at(12), 30)), "the retransmission has not had the time");
        assert_eq!(rack.patience(true, None, None), 48_000);
    }

    #[test]
    fn only_what_comes_later_than_higher_data_is_reordered() {
        let mut rack = Rack::default();
        rack.on_delivered(at(50), &run(20, 30, 10, false), None);
        rack.on_delivered(at(50), &run(0, 10, 10, false), None);
        assert!(!rack.reordered, "both were reported at one moment");
        rack.on_delivered(at(51), &run(10, 20, 10, false), None);
        assert!(rack.reordered);
        assert_eq!(rack.patience(true, Some(40 * MS), Some(50 * MS)), 50_000);
    }

    #[test]
    fn the_window_grows_to_what_late_packets_take_and_no_further() {
        let mut rack = Rack::default();
        let patience = |rack: &Rack| rack.patience(false, Some(2 * MS), Some(3 * MS));
        // A packet is reordered and takes 12 ms; the others take 2 ms.
        let overtaken = |rack: &mut Rack, now: i64, offset: u64| {
            rack.on_delivered(at(now - 1), &run(offset + 10, offset + 20, now - 3, false), Some(2 * MS));
            rack.on_delivered(at(now), &run(offset, offset + 10, now - 12, false), Some(2 * MS));
        };
        overtaken(&mut rack, 50, 0);
        assert_eq!(patience(&rack), 2500, "nothing was sent again in vain");
        for round in 0..200 {
            rack.on_duplicate(round * 100, round * 100 + 100);
        }
        assert_eq!(patience(&rack), 14_000);
        // Packets are still reordered, but no longer as late.
        for round in 1..1000 {
            let (now, offset) = (100 * round, 100 * round as u64);
            rack.on_delivered(at(now - 1), &run(offset + 10, offset + 20, now - 3, false), Some(2 * MS));
            rack.on_delivered(at(now), &run(offset, offset + 10, now - 4, false), Some(2 * MS));
        }
        assert_eq!(patience(&rack), 6000);
    }

    #[test]
    fn duplicates_widen_the_window_once_per_round_trip_and_for_a_while() {
        let mut rack = Rack { reordered: true, ..Rack::default() };
        let patience = |rack: &Rack| rack.patience(false, Some(40 * MS), Some(100 * MS));
        assert_eq!(patience(&rack), 10_000);
        rack.on_duplicate(0, 100);
        rack.on_duplicate(50, 200);
        assert_eq!(patience(&rack), 20_000);
        rack.on_duplicate(100, 200);
        assert_eq!(patience(&rack), 30_000);
        for _ in 0..WIDE_WINDOW_RECOVERIES {
            rack.on_recovered();
        }
        assert_eq!(patience(&rack), 10_000);
    }
}
