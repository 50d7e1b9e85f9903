//! Probing for bandwidth in a cycle: `Down` drains the queue, `Cruise` keeps the rate and leaves others room,
//! `Refill` fills the pipe again, `Up` tries more.

use std::time::Duration;

use crate::host::clock::{Time, after};
use crate::tcp::congestion::{Ack, View};

use super::{Bbr, BbrState};

/// The shortest time between probes; up to a second more is drawn for each.
const PROBE_WAIT: Duration = Duration::from_secs(2);

/// Round trips between probes at most, for the sake of Reno flows: they need one per segment of the window to
/// take back what a probe took.
const PROBE_ROUNDS: u64 = 63;

/// Where in the cycle a flow is.
#[derive(Debug)]
pub(super) struct Cycle {
    started: Time,
    wait: Duration,
    /// Round trips since the last probe.
    rounds: u64,
    /// The probe is over, and not all of it has been acknowledged.
    ending: bool,
    /// What is lost or acknowledged may be of the last probe, which has not been found too high yet.
    pub(super) samples: bool,
    /// By how many segments, as a power of two, a probe raises the bound per window.
    slope: u32,
    /// Bytes acknowledged per byte by which the bound grows, and those that have not made it grow.
    step: u64,
    acked: u64,
    random: Random,
}

impl Cycle {
    pub(super) fn new(now: Time, seed: u64) -> Self {
        Self {
            started: now,
            wait: PROBE_WAIT,
            rounds: 0,
            ending: false,
            samples: false,
            slope: 0,
            step: u64::MAX,
            acked: 0,
            random: Random::new(seed),
        }
    }

    fn restart(&mut self, now: Time) {
        self.rounds = self.random.below(2);
        self.wait = PROBE_WAIT + Duration::from_micros(self.random.below(1_000_000));
        self.started = now;
        self.step = u64::MAX;
        self.end_probe();
    }

    /// There will be no more of what a probe shows than what is in flight.
    pub(super) fn end_probe(&mut self) {
        self.ending = true;
    }

    pub(super) fn on_round(&mut self) {
        self.rounds = self.rounds.saturating_add(1);
    }

    /// Whether all that was sent in the last probe has now been acknowledged.
    pub(super) fn has_ended(&mut self, round_begins: bool) -> bool {
        let ended = self.ending && round_begins;
        if ended {
            self.ending = false;
            self.samples = false;
        }
        ended
    }

    /// By how much the long-term bound grows with `acked` bytes: twice as fast in each round trip.
    pub(super) fn growth(&mut self, acked: u64, round_begins: bool, window: u64, mss: u64) -> u64 {
        self.acked = self.acked.saturating_add(acked);
        let growth = self.acked / self.step;
        self.acked %= self.step;
        if round_begins {
            self.raise_slope(window, mss);
        }
        growth
    }

    fn raise_slope(&mut self, window: u64, mss: u64) {
        self.step = (window / mss.saturating_mul(1 << self.slope).max(1)).max(1);
        self.slope = (self.slope + 1).min(30);
    }

    fn is_over(&self, now: Time, target_segments: u64) -> bool {
        now > after(self.started, self.wait) || self.rounds >= target_segments.clamp(1, PROBE_ROUNDS)
    }
}

impl Bbr {
    pub(super) fn start_down(&mut self, now: Time, delivered: u64) {
        self.loss_round.reset();
        self.cycle.restart(now);
        self.rounds.restart(delivered);
        self.state = BbrState::Down;
    }

    fn start_refill(&mut self, delivered: u64) {
        self.bounds.lift_short_term();
        self.cycle.slope = 0;
        self.cycle.acked = 0;
        self.cycle.ending = false;
        self.rounds.restart(delivered);
        self.state = BbrState::Refill;
    }

    pub(super) fn start_up(&mut self, delivered: u64, rate: u64) {
        self.cycle.ending = false;
        self.cycle.samples = true;
        self.rounds.restart(delivered);
        self.pipe.restart(rate);
        self.state = BbrState::Up;
        self.cycle.raise_slope(self.window, self.mss);
    }

    /// Moves through the cycle.
    pub(super) fn advance_cycle(&mut self, view: &View, ack: &Ack) {
        if !self.pipe.reached {
            return;
        }
        // The bound and not the path keeps the rate from growing. To be seen before the bound grows with
        // this.
        let at_bound = self.usage.is_full() && self.window >= self.bounds.long_term;
        self.adapt_long_term(view, ack, at_bound);
        let rate = ack.sample.rate.unwrap_or(0);
        match self.state {
            BbrState::Down | BbrState::Cruise if self.cycle.is_over(view.now, self.probe_rounds()) => {
                self.start_refill(view.delivered);
            }
            BbrState::Down if self.is_drained(view.in_flight) => self.state = BbrState::Cruise,
            BbrState::Refill if self.rounds.begins => self.start_up(view.delivered, rate),
            BbrState::Up if at_bound => self.pipe.restart(rate),
            BbrState::Up if self.pipe.full => self.start_down(view.now, view.delivered),
            _ => {}
        }
    }

    fn probe_rounds(&self) -> u64 {
        self.bdp(100).min(self.window) / self.mss
    }

    fn is_drained(&self, in_flight: u64) -> bool {
        in_flight <= self.bounds.with_headroom(self.mss).min(self.target(100))
    }
}

/// Xorshift: probes of different flows must not fall together, that is all.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // Never zero; neighbouring seeds are spread out.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % limit.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Time {
        Time::from_micros(micros)
    }

    #[test]
    fn a_cycle_lasts_two_to_three_seconds_or_a_round_trip_per_segment() {
        let mut cycle = Cycle::new(at(0), 7);
        for _ in 0..100 {
            cycle.restart(at(0));
            assert!(!cycle.is_over(at(2_000_000), 1000));
            assert!(cycle.is_over(at(3_000_001), 1000));
        }
        for _ in 0..PROBE_ROUNDS {
            cycle.on_round();
        }
        assert!(cycle.is_over(at(0), 1000));
    }

    #[test]
    fn a_probe_grows_by_one_two_four_segments_a_window() {
        let (window, mss) = (100_000, 1000);
        let mut cycle = Cycle::new(at(0), 7);
        cycle.raise_slope(window, mss);
        for expected in [1000, 2000, 4000, 8000] {
            let grown: u64 = (0..100).map(|segment| cycle.growth(mss, segment == 99, window, mss)).sum();
            assert!(grown.abs_diff(expected) <= expected / 20, "{grown} of {expected}");
        }
    }

    #[test]
    fn different_seeds_wait_differently() {
        let mut waits: Vec<_> = (0..100).map(|seed| Random::new(seed).below(1_000_000)).collect();
        waits.sort_unstable();
        waits.dedup();
        assert!(waits.len() > 45, "{}", waits.len());
    }
}
