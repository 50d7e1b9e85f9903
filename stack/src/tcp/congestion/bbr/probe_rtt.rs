//! Periodic draining of the queue, to measure the path's minimum round-trip time.

use std::time::Duration;

use crate::host::clock::{Time, after};
use crate::tcp::congestion::{Ack, View};

use super::{Bbr, BbrState, MIN_SEGMENTS};

/// Time for which the queue is kept empty, at least a round trip.
const DURATION: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
pub(super) struct ProbeRtt {
    /// End of the measurement; `None` until the queue is empty.
    done: Option<Time>,
    /// True after a round trip with an empty queue.
    round: bool,
    /// Value of `delivered` up to which samples show the drained path and not its bandwidth.
    pub(super) limited_until: u64,
}

impl Bbr {
    pub(super) fn check_probe_rtt(&mut self, view: &View, ack: &Ack) {
        // After idling the queue is empty, so ordinary samples measure the path.
        if self.state != BbrState::ProbeRtt && self.round_trip.expired && !self.restarted {
            self.start_probe_rtt(view.delivered);
        }
        if self.state == BbrState::ProbeRtt {
            self.probe_rtt.limited_until = view.delivered.saturating_add(view.in_flight);
            match self.probe_rtt.done {
                None if view.in_flight <= self.probe_rtt_window() => {
                    self.probe_rtt.done = Some(after(view.now, DURATION));
                    self.probe_rtt.round = false;
                    self.rounds.restart(view.delivered);
                }
                None => {}
                Some(_) => {
                    self.probe_rtt.round |= self.rounds.begins;
                    if self.probe_rtt.round {
                        self.end_probe_rtt(view);
                    }
                }
            }
        }
        if ack.delivered > 0 {
            self.restarted = false;
        }
    }

    fn start_probe_rtt(&mut self, delivered: u64) {
        self.save_window();
        self.state = BbrState::ProbeRtt;
        self.probe_rtt.done = None;
        self.cycle.end_probe();
        self.rounds.restart(delivered);
    }

    /// Leaves the state if the measurement is complete.
    pub(super) fn end_probe_rtt(&mut self, view: &View) {
        if self.probe_rtt.done.is_none_or(|done| view.now <= done) {
            return;
        }
        self.round_trip.renew(view.now);
        self.restore_window();
        self.bounds.lift_short_term();
        if self.pipe.reached {
            self.start_down(view.now, view.delivered);
            // The queue is empty already, so Cruise follows without draining.
            self.state = BbrState::Cruise;
        } else {
            self.start_startup();
        }
    }

    /// Returns the window during the measurement.
    pub(super) fn probe_rtt_window(&self) -> u64 {
        self.bdp(self.parameters.probe_rtt_window).max(MIN_SEGMENTS * self.mss)
    }
}
