//! NewReno: RFC 5681 and RFC 6582.

use super::{Ack, Algorithm, Cause, Lost, Phase, View};

#[derive(Debug)]
pub(crate) struct Reno {
    mss: u64,
    window: u64,
    threshold: u64,
}

impl Reno {
    pub(crate) fn new(mss: u64, initial_window: u64) -> Self {
        Self { mss, window: initial_window, threshold: u64::MAX }
    }
}

impl Algorithm for Reno {
    fn on_sent(&mut self, _view: &View, _bytes: u64) {}

    fn on_lost(&mut self, _view: &View, _lost: &Lost) {}

    fn on_congestion(&mut self, view: &View, _cause: Cause) {
        self.mss = view.mss;
        self.threshold = (self.window / 2).max(2 * self.mss);
        self.window = self.threshold;
    }

    fn on_timeout(&mut self, view: &View) {
        self.mss = view.mss;
        self.threshold = (self.window / 2).max(2 * self.mss);
        self.window = self.mss;
    }

    fn on_ack(&mut self, view: &View, ack: &Ack) {
        self.mss = view.mss;
        if view.phase == Phase::Recovery || !view.window_limited {
            return;
        }
        if self.window < self.threshold {
            self.window += ack.acked;
        } else {
            self.window += (self.mss * ack.acked / self.window).max(1);
        }
    }

    fn on_recovered(&mut self, _view: &View) {}

    fn on_undo(&mut self, _view: &View) {}

    fn on_idle(&mut self, _view: &View) {}

    fn window(&self) -> u64 {
        self.window
    }

    fn slow_start_threshold(&self) -> Option<u64> {
        (self.threshold != u64::MAX).then_some(self.threshold)
    }

    fn pacing_rate(&self) -> Option<u64> {
        None
    }
}
