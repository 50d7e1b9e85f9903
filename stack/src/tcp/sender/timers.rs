//! Timers of the sender.

use super::{Sender, Undo};
use crate::host::clock::{Time, after_micros, earlier};
use crate::tcp::congestion::{Algorithm, Phase};

/// Purpose of the sender's timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Retransmission timeout (RFC 6298).
    Retransmission,
    /// Loss probe: the tail of the sent data may be lost (RFC 8985 section 7).
    Probe,
    /// Window probe: the peer's window is closed or too small (RFC 9293 3.8.6.1).
    Window,
}

/// Maximum delay of a single segment's acknowledgement, microseconds (RFC 8985 7.2: WCDelAckT).
const WORST_ACK_DELAY: u64 = 200_000;

/// Minimum delay of a probe, microseconds.
const MIN_PROBE: u64 = 2_000;

impl Sender {
    /// Sets the timer for outstanding data. `restart` is set after progress, which starts the timer anew.
    pub(super) fn arm(&mut self, now: Time, restart: bool) {
        if self.board.is_empty() {
            let blocked = self.is_blocked();
            // A running window timer keeps its time, because each call would otherwise postpone the probe.
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
            // RFC 8985 7.2: the probe must not come after the retransmission timeout.
            if probe < timeout {
                self.timer = Some((probe, Timer::Probe));
            }
        }
    }

    /// Returns true if only the peer's window holds back data or a FIN: it is closed, or too small to be
    /// worth a segment.
    fn is_blocked(&self) -> bool {
        let queued = self.end();
        let room = self.edge.saturating_sub(self.nxt);
        self.nxt < queued && (room == 0 || (room < self.mss && self.edge < queued && !self.is_half(room)))
    }

    /// Returns true if everything sent has arrived, and the peer has too little room for the rest.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.board.is_empty() && self.is_blocked()
    }

    /// Returns true if everything sent has arrived, and the peer has no room for the rest.
    pub(crate) fn is_shut_out(&self) -> bool {
        self.waits_for_room() && self.edge <= self.nxt
    }

    /// Returns the delay of a loss probe in microseconds, if one is allowed (RFC 8985 7.2).
    fn probe_delay(&self) -> Option<u64> {
        let quiet = self.phase == Phase::Open && self.board.sacked() == 0 && self.board.lost() == 0;
        // RFC 8985 7.2: only one probe at a time, with SACK, and outside of recovery.
        if !self.sack || !quiet || self.probe.is_some() || self.rtt.backoff() > 0 {
            return None;
        }
        let lone = self.board.in_flight() <= self.mss && self.unsent() == 0;
        let slack = if lone { WORST_ACK_DELAY } else { MIN_PROBE };
        Some((self.rtt.smoothed_micros()? * 2).max(MIN_PROBE) + slack)
    }

    /// Returns the time at which [`run_timers`](Self::run_timers) has something to do.
    pub(crate) fn next_timer(&self) -> Option<Time> {
        earlier(self.timer.map(|(at, _)| at), self.reorder)
    }

    /// Handles expired timers.
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
                // If the probe gets no answer, the retransmission timer takes over.
                self.timer = Some((self.rtt.timeout_from(now), Timer::Retransmission));
            }
            Timer::Window => {
                // RFC 9293 3.8.6.1: window probes back off as retransmissions do.
                self.rtt.back_off();
                // Where the peer has a little room, a partial segment serves as the probe.
                if self.edge > self.nxt {
                    self.little_due = true;
                } else {
                    self.window_probe_due = true;
                }
                self.arm(now, false);
            }
        }
    }

    /// Handles a retransmission timeout (RFC 6298 5.4 to 5.6, RFC 5681 3.1).
    fn time_out(&mut self, now: Time) {
        if self.board.is_empty() {
            return;
        }
        // RFC 2018 section 8: the peer may drop SACKed data, so a timeout must be able to resend it.
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
        // A second timeout in a row cannot be a mistake about the first transmission.
        self.undo = Undo { bytes: lost, armed: !again, timeout: !again && self.sack };
        let view = self.view(now);
        self.congestion.on_timeout(&view);
    }

    /// Marks everything in flight as lost, to be sent again at once; returns the number of bytes.
    fn lose_all(&mut self, now: Time) -> u64 {
        let mut lost = 0;
        self.board.lose_all(|run| lost += run.len());
        self.sampler.on_lost(lost);
        self.loss_probe_due = false;
        self.reorder = None;
        // The first retransmission must not wait for bursts that are lost.
        self.pace.reset();
        self.timer = Some((self.rtt.timeout_from(now), Timer::Retransmission));
        lost
    }

    /// Sends outstanding data again at once, because the path has come back. The silence was not congestion.
    pub(crate) fn expedite(&mut self, now: Time, initial_window: u64) {
        let stalled = self.rtt.backoff() > 0;
        self.rtt.reset_backoff();
        self.pace.reset();
        if self.board.is_empty() {
            self.window_probe_due = self.is_blocked() && self.edge <= self.nxt;
            return;
        }
        self.lose_all(now);
        // After a timeout the window is that after a pause, at least `initial_window` (RFC 5681 4.1). One
        // segment would be right only for a congested path.
        if stalled {
            self.congestion.on_revived(initial_window);
        }
        // A late acknowledgement of earlier data does not show that the rest is in flight.
        self.undo = Undo::default();
    }
}
