//! RACK: loss detection by time (RFC 8985 section 6).

use super::scoreboard::{Newest, Run};
use crate::host::clock::{Time, micros_since};

/// Recoveries for which a wider reordering window is kept (RFC 8985 6.2 step 4).
const PERSIST: u8 = 16;

/// With each overtaken packet that is less late, this part of the difference is forgotten.
const LATE_SHARE: u32 = 64;

/// The state of RACK.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rack {
    newest: Newest,
    /// The same among those that were sent once.
    original: Newest,
    /// The round trips of both, microseconds.
    rtt: u32,
    original_rtt: u32,
    /// The end of the highest data that was delivered, now and before the present moment: acknowledgements of
    /// one batch report ranges in any order, which is no reordering.
    highest: u64,
    highest_before: u64,
    moment: Time,
    /// Until this is acknowledged, further duplicates are of the same round trip.
    widened_until: u64,
    reordered: bool,
    quarters: u8,
    persist: u8,
    /// About the longest that overtaken packets have lately been under way, microseconds.
    late: u32,
}

/// Before every transmission.
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
    /// A run has been delivered.
    pub(crate) fn on_delivered(&mut self, now: Time, run: &Run, min_rtt: Option<u64>) {
        if self.moment != now {
            self.moment = now;
            self.highest_before = self.highest;
        }
        let rtt = micros_since(now, run.snapshot.sent);
        if run.end < self.highest_before && !run.resent {
            self.reordered = true;
            self.note_late(rtt);
        }
        self.highest = self.highest.max(run.end);
        // Too soon for the retransmission: it is the original that has arrived.
        if run.resent && min_rtt.is_some_and(|min| rtt < min) {
            return;
        }
        let this = (run.snapshot.sent, run.end);
        // More than an hour counts as an hour.
        let rtt = u32::try_from(rtt).unwrap_or(u32::MAX);
        if this > self.newest {
            (self.newest, self.rtt) = (this, rtt);
        }
        if !run.resent && this > self.original {
            (self.original, self.original_rtt) = (this, rtt);
        }
    }

    /// A packet has been overtaken, and was under way for so long.
    fn note_late(&mut self, rtt: u64) {
        let rtt = u32::try_from(rtt).unwrap_or(u32::MAX);
        let less = self.late.saturating_sub(rtt).div_ceil(LATE_SHARE);
        self.late = rtt.max(self.late - less);
    }

    /// Whether packets have overtaken others.
    pub(crate) fn has_reordered(&self) -> bool {
        self.reordered
    }

    /// What was sent again had not been lost: what arrived of it were the first transmissions.
    pub(crate) fn distrust_resent(&mut self) {
        if self.original != NONE {
            (self.newest, self.rtt) = (self.original, self.original_rtt);
        }
    }

    /// Something was received twice: it had been sent again too soon.
    pub(crate) fn on_duplicate(&mut self, una: u64, nxt: u64) {
        if una >= self.widened_until {
            self.widened_until = nxt;
            self.quarters = self.quarters.max(1).saturating_add(1);
        }
        self.persist = PERSIST;
    }

    /// A recovery has ended.
    pub(crate) fn on_recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.quarters = 1;
        }
    }

    /// The newest transmission that was delivered.
    pub(crate) fn newest(&self) -> Option<Newest> {
        (self.newest != NONE).then_some(self.newest)
    }

    /// How long after its transmission, in microseconds, something counts as lost when later data has been
    /// delivered. `eager`: a loss is being repaired already, or as much as three segments was delivered out
    /// of order.
    pub(crate) fn patience(&self, eager: bool, min_rtt: Option<u64>, srtt: Option<u64>) -> u64 {
        if !self.reordered && eager {
            return self.rtt.into();
        }
        let quarter = min_rtt.unwrap_or(0) / 4;
        // RFC 8985 6.2 step 4 bounds the window by the smoothed round trip, which in Linux late packets make
        // longer. Here they do not, so that what they have taken counts beside it.
        let most = srtt.unwrap_or(quarter).max(self.late.into());
        let rtt = u64::from(self.rtt);
        // Where a few packets overtake all others, quarters of their round trip never add up to what the others
        // take, which is known once some was sent again in vain.
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
        // A packet is overtaken, and takes 12 ms where others take 2.
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
        // Packets are still overtaken, but are no longer so late.
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
        for _ in 0..PERSIST {
            rack.on_recovered();
        }
        assert_eq!(patience(&rack), 10_000);
    }
}
