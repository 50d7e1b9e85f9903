//! Bandwidth probing in a cycle: `Down` drains the queue, `Cruise` keeps the rate and leaves room for others,
//! `Refill` fills the pipe again, and `Up` tries more.

use std::time::Duration;

use crate::host::clock::{Time, after};
use crate::tcp::congestion::{Ack, View};

use super::{Bbr, BbrState};

/// Minimum time between probes; each adds a random time of up to a second.
const PROBE_WAIT: Duration = Duration::from_secs(2);

/// Maximum number of round trips between probes. Reno flows need one round trip per segment to regain the
/// window that a probe took.
const PROBE_ROUNDS: u64 = 63;

/// Position of a flow in the cycle.
#[derive(Debug)]
pub(super) struct Cycle {
    started: Time,
    wait: Duration,
    /// Round trips since the last probe.
    rounds: u64,
    /// True after a probe until everything sent in it is acknowledged.
    ending: bool,
    /// True while losses and acknowledgements may belong to the last probe, and the probe is not known to be
    /// too high.
    pub(super) samples: bool,
    /// Base-2 logarithm of the segments by which a probe raises the bound per window.
    slope: u32,
    /// Acknowledged bytes per byte of growth of the bound, and the bytes counted towards the next.
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
        // Random, so that flows do not probe in step.
        self.rounds = self.random.below(2);
        self.wait = PROBE_WAIT + Duration::from_micros(self.random.below(1_000_000));
        self.started = now;
        self.step = u64::MAX;
        self.end_probe();
    }

    /// Ends the probe; only data already in flight still shows its effect.
    pub(super) fn end_probe(&mut self) {
        self.ending = true;
    }

    pub(super) fn on_round(&mut self) {
        self.rounds = self.rounds.saturating_add(1);
    }

    /// Returns true if everything sent in the last probe is acknowledged now.
    pub(super) fn has_ended(&mut self, round_begins: bool) -> bool {
        let ended = self.ending && round_begins;
        if ended {
            self.ending = false;
            self.samples = false;
        }
        ended
    }

    /// Returns the growth of the long-term bound for `acked` bytes. The growth doubles with each round trip.
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
        // Bounded, because the shift above would overflow.
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

    /// Moves to the next state of the cycle when it is due.
    pub(super) fn advance_cycle(&mut self, view: &View, ack: &Ack) {
        if !self.pipe.reached {
            return;
        }
        // True if the bound, not the path, limits the rate. Computed before the bound grows with this
        // acknowledgement.
        let at_bound = self.usage.is_full() && self.window >= self.bounds.long_term;
        self.adapt_long_term(view, ack, at_bound);
        let rate = ack.sample.rate.unwrap_or(0);
        match self.state {
            BbrState::Down | BbrState::Cruise if self.cycle.is_over(view.now, self.probe_rounds()) => {
                self.start_refill(view.delivered);
            }
            BbrState::Down if self.is_drained(view.in_flight) => self.state = BbrState::Cruise,
            // After a whole round trip with a full pipe, so that losses in the probe are due to the probe.
            BbrState::Refill if self.rounds.begins => self.start_up(view.delivered, rate),
            // The bound still grows, so the rate could not grow yet, and the pipe is not full.
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

/// Xorshift generator. It only spreads the probes of different flows, so quality and secrecy do not matter.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // The state must not be zero; the factor separates adjacent seeds.
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
