//! Dispatch to a connection's algorithm.

use crate::host::clock::Time;

use super::bbr::{self, Bbr};
use super::cubic::{self, Cubic};
use super::loss_based::{self, LossBased};
use super::reno::{self, Reno};
use super::{Ack, Algorithm, Cause, CongestionControl, Lost, View};

/// A connection's algorithm. It is an enum because window and rate are read several times per packet, which
/// makes dynamic dispatch costly. The algorithm's state is allocated at the first event.
pub(crate) enum Controller {
    New(Start),
    Bbr(Box<Bbr>),
    Cubic(Box<LossBased<Cubic>>),
    Reno(Box<LossBased<Reno>>),
}

/// Parameters with which an algorithm starts. They fit `u32`, because no window exceeds 1 GiB (RFC 7323 2.3).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    control: CongestionControl,
    now: Time,
    mss: u32,
    initial_window: u32,
}

impl Start {
    fn begin(self) -> Controller {
        let Self { control, now, .. } = self;
        let (mss, initial_window) = (self.mss.into(), self.initial_window.into());
        match control {
            CongestionControl::Bbr => Controller::Bbr(Box::new(Bbr::adapted(now, mss, initial_window))),
            CongestionControl::Bbr3 => Controller::Bbr(Box::new(Bbr::published(now, mss, initial_window))),
            CongestionControl::Cubic => Controller::Cubic(Box::new(cubic::start(mss, initial_window))),
            CongestionControl::Reno => Controller::Reno(Box::new(reno::start(mss, initial_window))),
        }
    }

    fn window(&self) -> u64 {
        let (mss, initial_window) = (self.mss.into(), self.initial_window.into());
        match self.control {
            CongestionControl::Bbr | CongestionControl::Bbr3 => bbr::first_window(mss, initial_window),
            CongestionControl::Cubic | CongestionControl::Reno => {
                loss_based::first_window(mss, initial_window)
            }
        }
    }
}

impl Controller {
    pub(super) fn new(control: CongestionControl, now: Time, mss: u64, initial_window: u64) -> Self {
        // Thousands of idle connections keep these parameters, and half the size is half the memory.
        let fit = |bytes| u32::try_from(bytes).unwrap_or(u32::MAX);
        Self::New(Start { control, now, mss: fit(mss), initial_window: fit(initial_window) })
    }

    /// Returns the algorithm, started if necessary, to report an event to it.
    fn begun(&mut self) -> &mut dyn Algorithm {
        match self {
            Self::New(start) => {
                *self = start.begin();
                self.begun()
            }
            Self::Bbr(one) => &mut **one,
            Self::Cubic(one) => &mut **one,
            Self::Reno(one) => &mut **one,
        }
    }
}

impl Algorithm for Controller {
    fn on_sent(&mut self, view: &View, bytes: u64) {
        self.begun().on_sent(view, bytes);
    }

    fn on_lost(&mut self, view: &View, lost: &Lost) {
        self.begun().on_lost(view, lost);
    }

    fn on_congestion(&mut self, view: &View, cause: Cause) {
        self.begun().on_congestion(view, cause);
    }

    fn on_timeout(&mut self, view: &View) {
        self.begun().on_timeout(view);
    }

    fn on_ack(&mut self, view: &View, ack: &Ack) {
        self.begun().on_ack(view, ack);
    }

    fn on_recovered(&mut self, view: &View) {
        self.begun().on_recovered(view);
    }

    fn on_undo(&mut self, view: &View) {
        self.begun().on_undo(view);
    }

    fn on_revived(&mut self, initial_window: u64) {
        self.begun().on_revived(initial_window);
    }

    fn on_idle(&mut self, view: &View) {
        self.begun().on_idle(view);
    }

    fn window(&self) -> u64 {
        match self {
            Self::New(start) => start.window(),
            Self::Bbr(one) => one.window(),
            Self::Cubic(one) => one.window(),
            Self::Reno(one) => one.window(),
        }
    }

    fn slow_start_threshold(&self) -> Option<u64> {
        match self {
            Self::New(_) | Self::Bbr(_) => None,
            Self::Cubic(one) => one.slow_start_threshold(),
            Self::Reno(one) => one.slow_start_threshold(),
        }
    }

    fn pacing_rate(&self) -> Option<u64> {
        match self {
            Self::New(_) => None,
            Self::Bbr(one) => one.pacing_rate(),
            Self::Cubic(one) => one.pacing_rate(),
            Self::Reno(one) => one.pacing_rate(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_algorithm_answers_as_when_it_has_begun() {
        for control in CongestionControl::ALL {
            for (mss, initial_window) in [(1388, 13_880), (1388, 0), (0, 0), (536, u32::MAX)] {
                let start = Start { control, now: Time::from_secs(1), mss, initial_window };
                let (new, begun) = (Controller::New(start), start.begin());
                let answers =
                    |one: &Controller| (one.window(), one.slow_start_threshold(), one.pacing_rate());
                assert_eq!(answers(&new), answers(&begun), "{control} {mss} {initial_window}");
            }
        }
    }
}
