//! Start-up: the rate doubles every round trip until the pipe is full; then the resulting queue drains.

use crate::tcp::congestion::{Ack, View};

use super::model::percent;
use super::{Bbr, BbrState};

/// Growth of the delivery rate in percent, and the number of round trips without it after which the pipe is
/// full.
const MIN_GROWTH_PERCENT: u64 = 125;
const ROUNDS_WITHOUT_GROWTH: u32 = 3;

/// Pacing rate that doubles the delivery rate every round trip, in percent of the measured bandwidth: 4 ln 2.
pub(super) const SLOWEST_DOUBLING: u64 = 277;

/// Pacing rate of two windows per round trip, like slow start in Linux. At the slowest doubling rate a window
/// takes three quarters of a round trip to leave, so short transfers would take longer than with slow start.
pub(super) const STARTUP_PACING_PERCENT: u64 = 400;

/// Number of acknowledgements revealing losses in a round trip that ends start-up, if the threshold is
/// passed.
const LOSS_EVENTS: u32 = 6;

/// Detector of a delivery rate that no longer grows.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    /// True once the pipe has ever been full.
    pub(super) reached: bool,
    /// True if the pipe is full in the present probe.
    pub(super) full: bool,
    rate: u64,
    rounds: u32,
}

impl Pipe {
    /// Starts a new detection, for rates above `rate`.
    pub(super) fn restart(&mut self, rate: u64) {
        self.full = false;
        self.rounds = 0;
        self.rate = rate;
    }

    pub(super) fn on_ack(&mut self, rate: Option<u64>, app_limited: bool, round_begins: bool) {
        // A rate that the application limits says nothing about the pipe.
        if self.full || app_limited {
            return;
        }
        if let Some(rate) = rate
            && rate >= percent(self.rate, MIN_GROWTH_PERCENT)
        {
            self.restart(rate);
        } else if round_begins {
            self.rounds += 1;
            self.full = self.rounds >= ROUNDS_WITHOUT_GROWTH;
            self.reached |= self.full;
        }
    }
}

impl Bbr {
    pub(super) fn start_startup(&mut self) {
        self.state = BbrState::Startup;
    }

    pub(super) fn check_startup(&mut self, view: &View, ack: &Ack) {
        if self.state == BbrState::Startup {
            self.check_startup_loss(view, ack);
            if self.pipe.reached {
                self.state = BbrState::Drain;
            }
        }
        // The queue that start-up has made is gone once no more is in flight than the path holds.
        if self.state == BbrState::Drain && view.in_flight <= self.target(100) {
            self.start_down(view.now, view.delivered);
        }
    }

    /// Ends start-up at loss during a whole round trip or at a router's mark, which show a full pipe before
    /// the rate does.
    fn check_startup_loss(&mut self, view: &View, ack: &Ack) {
        let lossy = self.loss_round.ends
            && self.loss_round.events >= LOSS_EVENTS
            && self.loss_round.begins_at(self.pardoned)
            && self.loss_round.exceeds(self.parameters.startup_loss_threshold, view.delivered);
        let less = self.shows_less(ack.sample.app_limited, ack.sample.prior_delivered);
        if lossy && self.hasty {
            // The haste may be the cause, because a short queue overflows long before the pipe is full.
            self.hasty = false;
            self.pardoned = view.delivered.saturating_add(view.in_flight);
            // Until the pipe is full the rate only rises, so the faster one must be forgotten.
            self.pacing_rate = None;
            return;
        }
        if (lossy || self.loss_round.marked) && !less {
            self.pipe.reached = true;
            self.bounds.long_term = self.bdp(100).max(self.loss_round.delivered);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_full_after_three_round_trips_without_growth() {
        let mut pipe = Pipe::default();
        for rate in [100, 200, 400, 450, 490] {
            pipe.on_ack(Some(rate), false, true);
            assert!(!pipe.full);
        }
        pipe.on_ack(Some(495), false, false);
        assert!(!pipe.full);
        pipe.on_ack(Some(495), false, true);
        assert!(pipe.full && pipe.reached);
        pipe.restart(495);
        assert!(!pipe.full && pipe.reached);
    }

    #[test]
    fn an_application_with_nothing_to_send_does_not_fill_it() {
        let mut pipe = Pipe::default();
        for _ in 0..10 {
            pipe.on_ack(Some(100), true, true);
        }
        assert!(!pipe.full);
    }
}
