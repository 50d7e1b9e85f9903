//! Common part of the loss-based algorithms: slow start, fast recovery, timeouts, pacing, and undoing false
//! reductions. The algorithms differ in their [`Growth`].

use super::hystart::{HyStart, Step};
use super::prr::Prr;
use super::usage::Usage;
use super::{Ack, Algorithm, Cause, Lost, MAX_SEGMENT, Phase, View, segment};
use crate::tcp::arithmetic::{length, scaled};

/// Minimum of the threshold in segments (RFC 5681 (3.1) equation 4).
const MIN_THRESHOLD_SEGMENTS: u64 = 2;

/// Pacing rate in percent of the window per round trip: while the window doubles, and otherwise. Both exceed
/// 100, because acknowledgements must find waiting data to release, or the window would never be used up.
const SLOW_START_PACING: u64 = 200;
const AVOIDANCE_PACING: u64 = 120;

/// Growth of a window beyond the slow start threshold, and its reduction at congestion. It is `Copy` so that
/// an undo can restore it.
pub(crate) trait Growth: Copy {
    /// Returns the window after congestion.
    fn reduce(&mut self, window: u64) -> u64;

    /// Forgets the path after a retransmission timeout.
    fn on_timeout(&mut self);

    /// Returns the window after `bytes` more were delivered in congestion avoidance. An unused window must
    /// not grow.
    fn grow(&mut self, view: &View, window: u64, bytes: u64, used: bool) -> u64;

    /// Prepares for a new slow start after an idle period.
    fn on_idle(&mut self);
}

#[derive(Debug)]
pub(crate) struct LossBased<G> {
    growth: G,
    mss: u64,
    initial_window: u64,
    window: u64,
    threshold: Option<u64>,
    /// Detector of the end of the first slow start.
    hystart: Option<HyStart>,
    prr: Prr,
    usage: Usage,
    /// Stream offset that ends a round trip.
    round_end: u64,
    pacing_rate: Option<u64>,
    /// Phase of the repair; outside `Open`, the window has already been reduced for everything in flight.
    repair: Phase,
    /// True if the present acknowledgement echoes a mark and so must not open the window (RFC 3168 6.1.2).
    marked: bool,
    before: Before<G>,
}

/// State before congestion.
#[derive(Debug, Clone, Copy)]
struct Before<G> {
    growth: G,
    hystart: Option<HyStart>,
    window: u64,
    threshold: Option<u64>,
}

/// Returns the window with which a connection starts.
pub(super) fn first_window(mss: u64, initial_window: u64) -> u64 {
    initial_window.max(mss.clamp(1, MAX_SEGMENT))
}

impl<G: Growth> LossBased<G> {
    pub(super) fn new(growth: G, hystart: Option<HyStart>, mss: u64, initial_window: u64) -> Self {
        let window = first_window(mss, initial_window);
        let mss = mss.clamp(1, MAX_SEGMENT);
        Self {
            growth,
            mss,
            initial_window: window,
            window,
            threshold: None,
            hystart,
            prr: Prr::default(),
            usage: Usage::default(),
            round_end: 0,
            pacing_rate: None,
            repair: Phase::Open,
            marked: false,
            before: Before { growth, hystart, window, threshold: None },
        }
    }

    fn is_in_slow_start(&self) -> bool {
        self.threshold.is_none_or(|threshold| self.window < threshold)
    }

    fn reduce(&mut self) -> u64 {
        self.before = Before {
            growth: self.growth,
            hystart: self.hystart.take(),
            window: self.window,
            threshold: self.threshold,
        };
        let reduced = self.growth.reduce(self.window);
        let threshold = reduced.max(MIN_THRESHOLD_SEGMENTS.saturating_mul(self.mss));
        self.threshold = Some(threshold);
        threshold
    }

    fn grow(&mut self, view: &View, ack: &Ack) {
        // All delivered bytes count, even if few acknowledgements report them. RFC 3465 limits the growth per
        // acknowledgement to prevent bursts of a window's size; here pacing prevents them.
        let mut bytes = ack.delivered;
        if self.is_in_slow_start() {
            // In slow start the window is always larger than the bytes in flight, so half of it counts as
            // used.
            let used = self.usage.is_full() || self.window < ack.prior_in_flight.saturating_mul(2);
            if !used {
                return;
            }
            let mut room = bytes;
            if let Some(hystart) = &mut self.hystart {
                match hystart.on_ack(view.una, view.nxt, bytes, ack.rtt) {
                    Step::Grow(growth) => room = growth,
                    Step::End => {
                        self.hystart = None;
                        self.threshold = Some(self.window);
                        return;
                    }
                }
            }
            let step = room.min(self.threshold.unwrap_or(u64::MAX).saturating_sub(self.window));
            self.window = self.window.saturating_add(step);
            bytes = room - step;
            if bytes == 0 {
                return;
            }
        }
        self.window = self.growth.grow(view, self.window, bytes, self.usage.is_full());
    }

    fn pace(&mut self, view: &View) {
        let Some(srtt) = view.srtt else { return };
        // As in Linux, the last doubling below the threshold is paced as congestion avoidance.
        let doubling = self.threshold.is_none_or(|threshold| self.window < threshold / 2);
        let gain = if doubling { SLOW_START_PACING } else { AVOIDANCE_PACING };
        let window = scaled(self.window.max(view.in_flight), gain, 100);
        self.pacing_rate = Some(scaled(window, 1_000_000, length(srtt)).max(1));
    }
}

impl<G: Growth> Algorithm for LossBased<G> {
    fn on_sent(&mut self, _view: &View, bytes: u64) {
        if self.repair == Phase::Recovery {
            self.prr.on_sent(bytes);
        }
    }

    fn on_lost(&mut self, _view: &View, _lost: &Lost) {}

    fn on_congestion(&mut self, view: &View, cause: Cause) {
        self.mss = segment(view);
        let threshold = self.reduce();
        match cause {
            Cause::Loss => {
                self.repair = Phase::Recovery;
                self.prr = Prr::new(view.nxt.saturating_sub(view.delivered).max(view.in_flight));
                self.window = view.in_flight.saturating_add(self.mss);
            }
            Cause::Mark => {
                // A mark means no loss, so nothing delays the smaller window.
                self.window = threshold;
                self.marked = true;
            }
        }
    }

    fn on_timeout(&mut self, view: &View) {
        self.mss = segment(view);
        // Losses of retransmissions, or within an already reduced window, do not reduce it again.
        if self.repair == Phase::Open {
            self.reduce();
        }
        self.repair = Phase::Loss;
        self.growth.on_timeout();
        // RFC 5681 3.1: the loss window is one segment.
        self.window = view.in_flight.saturating_add(self.mss);
    }

    fn on_ack(&mut self, view: &View, ack: &Ack) {
        self.mss = segment(view);
        let round_begins = view.una > self.round_end;
        if round_begins {
            self.round_end = view.nxt;
        }
        self.usage.on_ack(view.window_limited, round_begins);
        if self.repair == Phase::Recovery {
            let safe = ack.acked > 0 && ack.lost == 0;
            let threshold = self.threshold.unwrap_or(self.window);
            self.window = self.prr.on_ack(ack.delivered, view.in_flight, threshold, safe, self.mss);
        } else if !std::mem::take(&mut self.marked) {
            self.grow(view, ack);
        }
        // A window below one segment would block the connection.
        self.window = self.window.max(self.mss);
        self.pace(view);
    }

    fn on_recovered(&mut self, _view: &View) {
        // After a timeout the window has regrown from one segment and keeps growing.
        if std::mem::take(&mut self.repair) == Phase::Recovery
            && let Some(threshold) = self.threshold
        {
            self.window = threshold;
        }
    }

    fn on_undo(&mut self, _view: &View) {
        self.repair = Phase::Open;
        self.growth = self.before.growth;
        self.hystart = self.before.hystart;
        // Growth since then stays.
        self.window = self.window.max(self.before.window);
        self.threshold = self.before.threshold;
    }

    fn on_revived(&mut self, initial_window: u64) {
        self.window = self.window.max(initial_window);
    }

    fn on_idle(&mut self, view: &View) {
        // RFC 5681 (4.1): the path is unknown after an idle period. RFC 2861: keep three quarters of the
        // window as the threshold.
        let used = self.window / 4 * 3;
        self.threshold = self.threshold.map(|threshold| threshold.max(used));
        self.window = self.window.min(self.initial_window).max(segment(view));
        self.growth.on_idle();
        self.pace(view);
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn slow_start_threshold(&self) -> Option<u64> {
        self.threshold
    }

    fn pacing_rate(&self) -> Option<u64> {
        self.pacing_rate
    }
}
