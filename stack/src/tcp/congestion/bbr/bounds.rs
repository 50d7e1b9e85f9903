//! Capacity of the path: bounds on the bytes in flight and on the bandwidth.
//!
//! The *long-term* bound is the number of bytes in flight when a probe met congestion. It holds until a probe
//! shows that the path takes more. The *short-term* bounds follow congestion from round to round and end with
//! the next probe.

use crate::host::clock::Time;
use crate::tcp::congestion::{Ack, Lost, View};

use super::losses::is_congestion;
use super::model::percent;
use super::{Bbr, BbrState, MIN_SEGMENTS};

/// Percentage of a bound that remains after congestion.
const BETA: u64 = 70;

/// Percentage of the short-term bound that remains after a round trip with a mark.
const MARK_BETA: u64 = 85;

/// Percentage of the long-term bound that is left free for other flows.
const HEADROOM: u64 = 15;

/// Bounds in bytes in flight and bytes per second, `u64::MAX` for none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) long_term: u64,
    pub(super) short_term: u64,
    pub(super) bandwidth: u64,
}

impl Bounds {
    pub(super) fn none() -> Self {
        Self { long_term: u64::MAX, short_term: u64::MAX, bandwidth: u64::MAX }
    }

    pub(super) fn lift_short_term(&mut self) {
        self.short_term = u64::MAX;
        self.bandwidth = u64::MAX;
    }

    /// Undoes reductions since `before`.
    pub(super) fn restore(&mut self, before: &Bounds) {
        self.long_term = self.long_term.max(before.long_term);
        self.short_term = self.short_term.max(before.short_term);
        self.bandwidth = self.bandwidth.max(before.bandwidth);
    }

    /// Returns the long-term bound minus the headroom for other flows.
    pub(super) fn with_headroom(&self, mss: u64) -> u64 {
        if self.long_term == u64::MAX {
            return u64::MAX;
        }
        let headroom = percent(self.long_term, HEADROOM).max(mss);
        self.long_term.saturating_sub(headroom).max(MIN_SEGMENTS * mss)
    }
}

impl Bbr {
    /// Decides whether a loss is congestion, and whether the current probe caused it.
    pub(super) fn note_loss(&mut self, view: &View, lost: &Lost) {
        // A loss without a queue comes from a bad link, and slowing down would not prevent the next one.
        if self.parameters.sorts_losses && !is_congestion(&self.queue, self.round_trip.min(), view, lost) {
            return;
        }
        self.loss_round.on_lost(view, lost.bytes);
        // No probe is under way that could have caused the loss.
        if !self.cycle.samples {
            return;
        }
        let gone = self.congestion_of(view.lost.saturating_sub(lost.snapshot.lost));
        if self.is_too_high(gone, lost.snapshot.in_flight) {
            let in_flight = self.inflight_at_loss(gone, lost);
            let less = self.shows_less(lost.snapshot.app_limited, lost.snapshot.delivered);
            self.lower_long_term(view.now, view.delivered, in_flight, less);
        }
    }

    /// Returns the part of `lost` bytes that may be congestion.
    fn congestion_of(&self, lost: u64) -> u64 {
        if self.parameters.sorts_losses { lost.min(self.loss_round.recently_lost()) } else { lost }
    }

    fn is_too_high(&self, lost: u64, in_flight: u64) -> bool {
        lost > percent(in_flight, self.parameters.loss_threshold)
    }

    /// Returns the bytes in flight when the loss passed the threshold, somewhere within the lost
    /// transmission.
    fn inflight_at_loss(&self, gone: u64, lost: &Lost) -> u64 {
        let threshold = self.parameters.loss_threshold;
        let before = lost.snapshot.in_flight.saturating_sub(lost.bytes);
        let gone_before = gone.saturating_sub(lost.bytes);
        let room = percent(before, threshold).saturating_sub(gone_before);
        before.saturating_add(room.saturating_mul(100) / (100 - threshold)).min(lost.snapshot.in_flight)
    }

    /// Lowers the long-term bound because too much was in flight. Happens at most once per probe.
    pub(super) fn lower_long_term(&mut self, now: Time, delivered: u64, in_flight: u64, shows_less: bool) {
        // One reaction per probe, because its further losses have the same cause.
        self.cycle.samples = false;
        // A sender with too little data did not reach the limit of the path.
        if !shows_less {
            let target = self.bdp(100).min(self.window);
            self.bounds.long_term = in_flight.max(percent(target, BETA));
        }
        if self.state == BbrState::Up {
            self.start_down(now, delivered);
        }
    }

    /// Lowers the short-term bounds once per round trip with congestion.
    pub(super) fn adapt_short_term(&mut self, delivered: u64) {
        // Probes are exempt, because a probe reacts to congestion with the long-term bound.
        if !self.loss_round.ends || self.is_probing() {
            return;
        }
        let congested = if self.parameters.tolerates_rare_loss {
            self.loss_round.exceeds(self.parameters.loss_threshold, delivered)
        } else {
            self.loss_round.is_lossy()
        };
        if !congested && !self.loss_round.marked {
            return;
        }
        if self.bounds.short_term == u64::MAX {
            self.bounds.short_term = self.window;
        }
        if !congested {
            // A marked packet was delivered, so the delivered bytes do not show the excess.
            self.bounds.short_term = percent(self.bounds.short_term, MARK_BETA);
            return;
        }
        if self.bounds.bandwidth == u64::MAX {
            self.bounds.bandwidth = self.bandwidth.max();
        }
        // Not below what was delivered in the lossy round, because the path carries at least that.
        self.bounds.bandwidth = self.loss_round.rate.max(percent(self.bounds.bandwidth, BETA)).max(1);
        self.bounds.short_term = self.loss_round.delivered.max(percent(self.bounds.short_term, BETA));
    }

    /// Raises the long-term bound by what a probe shows. `at_bound` is set while this bound is used up.
    pub(super) fn adapt_long_term(&mut self, view: &View, ack: &Ack, at_bound: bool) {
        let less = self.shows_less(ack.sample.app_limited, ack.sample.prior_delivered);
        if self.cycle.has_ended(self.rounds.begins) && self.state.is_probe_bw() && !less {
            self.bandwidth.end_cycle();
        }
        if !ack.sample.valid {
            return;
        }
        if self.is_too_high(self.congestion_of(ack.sample.lost), ack.sample.tx_in_flight) {
            if self.cycle.samples {
                self.lower_long_term(view.now, view.delivered, ack.sample.tx_in_flight, less);
            }
            return;
        }
        if self.bounds.long_term == u64::MAX {
            return;
        }
        // The path has borne this much without too much loss.
        self.bounds.long_term = self.bounds.long_term.max(ack.sample.tx_in_flight);
        if self.state == BbrState::Up && at_bound {
            let growth = self.cycle.growth(ack.delivered, self.rounds.begins, self.window, self.mss);
            self.bounds.long_term = self.bounds.long_term.saturating_add(growth);
        }
    }
}
