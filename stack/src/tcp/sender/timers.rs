//! The sender's timers.

use super::{Sender, Undo};
use crate::host::clock::{Time, after_micros, earlier};
use crate::tcp::congestion::{Algorithm, Phase};

/// What the sender's timer is set for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// RFC 6298.
    Retransmission,
    /// RFC 8985 section 7: the tail of what was sent may be lost.
    Probe,
    /// RFC 9293 3.8.6.1: the peer's window is closed.
    Window,
}

/// How long a peer may hold the acknowledgement of a single segment back (RFC 8985 7.2: WCDelAckT),
/// microseconds.
const WORST_ACK_DELAY: u64 = 200_000;

/// A probe goes out no sooner, microseconds.
const MIN_PROBE: u64 = 2_000;

impl Sender {
    /// Sets the timer for what is outstanding. `restart`: there was progress, so it starts anew.
    pub(super) fn arm(&mut self, now: Time, restart: bool) {
        if self.board.is_empty() {
            let blocked = self.is_blocked();
            match self.timer {
                Some((_, Timer::Window)) if blocked => {}
                _ => self.timer = blocked.then(|| (self.rtt.timeout_from(now), Timer::Window)),
            }
            return;
        }
        let standing = matches!(self.timer, Some((_, Timer::Retransmission | Timer::Probe)));
        if standing && !restart {
            return;
        }
        let timeout = self.rtt.timeout_from(now);
        self.timer = Some((timeout, Timer::Retransmission));
        if let Some(delay) = self.probe_delay() {
            let probe = after_micros(now, delay);
            if probe < timeout {
                self.timer = Some((probe, Timer::Probe));
            }
        }
    }

    /// Whether the peer's window alone keeps back what waits, a FIN included: it is closed, or too small to
    /// be worth it.
    fn is_blocked(&self) -> bool {
        let queued = self.end();
        let room = self.edge.saturating_sub(self.nxt);
        self.nxt < queued && (room == 0 || (room < self.mss && self.edge < queued && !self.is_half(room)))
    }

    /// Whether everything that was sent has arrived, and the peer has too little room for the rest.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.board.is_empty() && self.is_blocked()
    }

    /// Whether everything that was sent has arrived, and the peer has no room for the rest.
    pub(crate) fn is_shut_out(&self) -> bool {
        self.waits_for_room() && self.edge <= self.nxt
    }

    /// RFC 8985 7.2, microseconds, if a probe may go out at all.
    fn probe_delay(&self) -> Option<u64> {
        let quiet = self.phase == Phase::Open && self.board.sacked() == 0 && self.board.lost() == 0;
        if !self.sack || !quiet || self.probe.is_some() || self.rtt.backoff() > 0 {
            return None;
        }
        let lone = self.board.in_flight() <= self.mss && self.unsent() == 0;
        let slack = if lone { WORST_ACK_DELAY } else { MIN_PROBE };
        Some((self.rtt.smoothed_micros()? * 2).max(MIN_PROBE) + slack)
    }

    /// When [`run_timers`](Self::run_timers) has something to do.
    pub(crate) fn next_timer(&self) -> Option<Time> {
        earlier(self.timer.map(|(at, _)| at), self.reorder)
    }

    /// Does what is due.
    pub(crate) fn run_timers(&mut self, now: Time) {
        if self.reorder.is_some_and(|at| at <= now) {
            self.detect_losses(now);
            self.arm(now, false);
        }
        let Some((_, timer)) = self.timer.filter(|(at, _)| *at <= now) else { return };
        self.timer = None;
        match timer {
            Timer::Retransmission => self.time_out(now),
            Timer::Probe => {
                self.loss_probe_due = true;
                self.timer = Some((self.rtt.timeout_from(now), Timer::Retransmission));
            }
            Timer::Window => {
                self.rtt.back_off();
                if self.edge > self.nxt {
                    self.little_due = true;
                } else {
                    self.window_probe_due = true;
                }
                self.arm(now, false);
            }
        }
    }

    /// RFC 6298 5.4 to 5.6, RFC 5681 3.1.
    fn time_out(&mut self, now: Time) {
        if self.board.is_empty() {
            return;
        }
        if self.board.is_reneged() {
            self.board.forget_sacked();
        }
        let again = self.phase == Phase::Loss;
        self.rtt.back_off();
        let lost = self.lose_all(now);
        self.phase = Phase::Loss;
        self.recover = self.nxt;
        self.probe = None;
        self.duplicates = 0;
        // The second timeout in a row is no mistake about the first transmission any more.
        self.undo = Undo { bytes: lost, armed: !again, timeout: !again && self.sack };
        let view = self.view(now);
        self.congestion.on_timeout(&view);
    }

    /// Everything in flight is to leave again, at once; gives how many bytes.
    fn lose_all(&mut self, now: Time) -> u64 {
        let mut lost = 0;
        self.board.lose_all(|run| lost += run.len());
        self.sampler.on_lost(lost);
        self.loss_probe_due = false;
        self.reorder = None;
        self.pace.reset();
        self.timer = Some((self.rtt.timeout_from(now), Timer::Retransmission));
        lost
    }

    /// The path has come back: what is outstanding leaves again at once, and the peer's silence was nobody's
    /// congestion.
    ///
    /// After a timeout the window is one as after a pause, `initial_window` at least (RFC 5681 4.1), and not
    /// of one segment: that is for a path that is congested.
    pub(crate) fn expedite(&mut self, now: Time, initial_window: u64) {
        let stalled = self.rtt.backoff() > 0;
        self.rtt.reset_backoff();
        self.pace.reset();
        if self.board.is_empty() {
            self.window_probe_due = self.is_blocked() && self.edge <= self.nxt;
            return;
        }
        self.lose_all(now);
        if stalled {
            self.congestion.on_revived(initial_window);
        }
        // What the peer has got before, and could not acknowledge, is no sign that the rest is under way.
        self.undo = Undo::default();
    }
}
