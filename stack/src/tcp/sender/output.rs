//! Choice of the next segment.

use std::time::Duration;

use super::pace::Pace;
use super::{Probe, Sender};
use crate::host::clock::{Time, after, since};
use crate::tcp::congestion::{Algorithm, Phase};

/// Round-trip time, microseconds, below which a few large bursts are worth a wait.
const SHORT_RTT_US: u64 = 1000;

/// Maximum time for which TCP_CORK holds a partial segment, as in Linux.
const CORK: Duration = Duration::from_millis(200);

/// Next action of the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Send `start..end`; the FIN counts as a byte.
    Send { start: u64, end: u64, again: bool },
    /// Send a segment before the peer's window, so that the peer must answer.
    WindowProbe,
    /// Send nothing before this time, or before another event.
    Wait(Option<Time>),
}

impl Sender {
    /// Returns the next action.
    pub(crate) fn plan(&mut self, now: Time) -> Plan {
        if self.window_probe_due {
            return Plan::WindowProbe;
        }
        if self.loss_probe_due {
            if let Some(plan) = self.plan_probe() {
                return plan;
            }
            self.loss_probe_due = false;
        }
        let plan = match self.board.next_lost() {
            Some(lost) => match self.fitting_end(lost.start, lost.end) {
                Some(end) => self.limit(now, lost.start, end, true),
                None => Plan::Wait(None),
            },
            None => self.plan_new(now),
        };
        if plan == Plan::Wait(None) {
            // After the cork's time is over, only a window holds the data back.
            let uncorked = self.cork.flatten().map(|since| after(since, CORK));
            return Plan::Wait(uncorked.filter(|&at| at > now));
        }
        plan
    }

    /// Returns true if there is no data to send, regardless of windows and pacing. In that case it has the
    /// same effects as [`plan`](Self::plan).
    pub(crate) fn rest(&mut self, now: Time) -> bool {
        let wanted =
            self.window_probe_due || self.loss_probe_due || self.board.lost() > 0 || self.end() > self.nxt;
        let rests = !wanted && self.cork.flatten().is_none();
        if rests {
            self.arm(now, false);
            self.note_limited();
        }
        rests
    }

    /// Returns the end of a retransmission of `start..end` if the peer's window has shrunk (RFC 9293 3.8.6).
    fn fitting_end(&self, start: u64, end: u64) -> Option<u64> {
        // The oldest byte is sent in any case, because it probes the window.
        match start < self.edge {
            true => Some(end.min(self.edge)),
            false => (start <= self.una).then_some(end),
        }
    }

    /// Plans a loss probe (RFC 8985 7.3): a new segment if there is one, else the last one again.
    fn plan_probe(&self) -> Option<Plan> {
        let end = self.sendable_end().min(self.nxt + self.mss);
        if end > self.nxt {
            return Some(Plan::Send { start: self.nxt, end, again: false });
        }
        // A probe is one packet, so a segment larger than the present path allows is sent in part.
        let last = self.board.last()?;
        let start = last.start.max(last.end.saturating_sub(self.mss));
        Some(Plan::Send { start, end: last.end, again: true })
    }

    /// Returns the end of the queued data and FIN. A FIN needs no room in the peer's buffer, but it counts in
    /// the window.
    pub(super) fn end(&self) -> u64 {
        self.fin.map_or(self.queue.end(), |fin| fin.get() + 1)
    }

    /// Returns the same, limited by the peer's window.
    fn sendable_end(&self) -> u64 {
        self.end().min(self.edge)
    }

    fn plan_new(&mut self, now: Time) -> Plan {
        let end = self.sendable_end();
        if end <= self.nxt || self.board.is_full() {
            // If the peer's window is the reason, this arms the probe.
            self.arm(now, false);
            self.note_limited();
            return Plan::Wait(None);
        }
        let whole = end >= self.queue.end();
        let length = end - self.nxt;
        if length < self.mss && !self.may_send_little(now, whole) {
            self.arm(now, false);
            self.note_limited();
            return Plan::Wait(None);
        }
        // Before the burst is cut to the window, because an idle period may reduce the window (RFC 5681 4.1).
        if self.board.is_empty() && now > self.rtt.timeout_from(self.last_sent) {
            let view = self.view(now);
            self.congestion.on_idle(&view);
            self.last_sent = now;
        }
        self.limit(now, self.nxt, end, false)
    }

    /// Returns true if a partial segment may leave (RFC 9293 3.8.6.2.1, with Minshall's refinement of Nagle's
    /// algorithm). `whole` is set if it ends the queued data.
    fn may_send_little(&mut self, now: Time, whole: bool) -> bool {
        // RFC 9293 3.8.6.2.1: filling a small window with small pieces would keep it small.
        if !whole {
            return self.little_due || self.is_half(self.sendable_end() - self.nxt);
        }
        if self.board.is_empty() && self.cork.is_none() {
            return true;
        }
        // Nothing follows a FIN, and urgent data must not wait.
        if self.fin.is_some() || self.urgent > self.nxt {
            return true;
        }
        if let Some(since_when) = &mut self.cork {
            let since_when = *since_when.get_or_insert(now);
            return since(now, since_when) >= CORK;
        }
        self.nodelay || self.small_end <= self.una
    }

    /// Returns true if `length` is at least half of the largest window that the peer has ever offered.
    pub(super) fn is_half(&self, length: u64) -> bool {
        length >= self.largest_window / 2
    }

    /// Cuts `start..end` to the limits of congestion control, cap and pacing.
    fn limit(&mut self, now: Time, start: u64, end: u64, again: bool) -> Plan {
        let in_flight = self.board.in_flight();
        let window = self.congestion.window();
        let free = window.min(self.cap).saturating_sub(in_flight);
        let rate = self.congestion.pacing_rate();
        let burst = Pace::burst(rate, self.mss, self.max_segments * self.mss);
        let wanted = (end - start).min(burst);
        let full = wanted.min(free) / self.mss * self.mss;
        let length = match () {
            () if free >= wanted && !again && self.is_worth_waiting(wanted, burst) => 0,
            () if free >= wanted => self.round(wanted, end - start),
            // The acknowledgements of data in flight will make room for a whole burst.
            () if in_flight >= 2 * wanted && self.is_short() => 0,
            // With nothing in flight, no acknowledgement will open the window further.
            () if in_flight == 0 => full.max(wanted.min(self.mss)),
            () => full,
        };
        if length == 0 && free >= wanted {
            return Plan::Wait(None);
        }
        if length == 0 {
            // The cap is no property of the path, so samples under it are marked as limited.
            if window <= self.cap {
                self.window_limited = true;
            } else {
                self.sampler.limit(in_flight);
            }
            return Plan::Wait(None);
        }
        // Pacing comes last, because data kept back by a window waits for an acknowledgement, not for a time.
        if let Some(until) = self.pace.blocked_until(now) {
            return Plan::Wait(Some(until));
        }
        Plan::Send { start, end: start + length, again }
    }

    /// Returns true if the rest of a large write should wait for the next write. On a very short path, a
    /// burst costs more than waiting. At the latest, an acknowledgement releases the rest.
    fn is_worth_waiting(&self, wanted: u64, burst: u64) -> bool {
        self.is_short()
            && self.large_write
            && self.fin.is_none()
            && self.urgent <= self.nxt
            && wanted < burst
            && self.board.in_flight() >= burst
    }

    fn is_short(&self) -> bool {
        self.rtt.smoothed_micros().is_some_and(|srtt| srtt < SHORT_RTT_US)
    }

    /// Rounds `wanted` to whole segments, unless it is all data there is.
    fn round(&self, wanted: u64, available: u64) -> u64 {
        if wanted == available {
            // Under TCP_CORK, a partial segment stays behind and is decided separately.
            let rest = wanted % self.mss;
            let pressing = self.nodelay || self.fin.is_some() || self.urgent > self.nxt;
            let alone = wanted < self.mss || pressing;
            return if rest == 0 || alone || self.cork.is_none() { wanted } else { wanted - rest };
        }
        (wanted / self.mss * self.mss).max(wanted.min(self.mss))
    }

    /// Marks samples as limited by the application or the peer if the congestion window is not the limit.
    fn note_limited(&mut self) {
        if self.board.lost() == 0 && self.board.in_flight() < self.congestion.window() {
            self.sampler.limit(self.board.in_flight());
        }
    }

    /// Returns the length of the data of `start..end` without the FIN, and true if there is a FIN.
    pub(crate) fn measure(&self, start: u64, end: u64) -> (usize, bool) {
        let fin = self.fin.is_some_and(|fin| end > fin.get());
        ((end - start) as usize - usize::from(fin), fin)
    }

    /// Fills `buf` with the data from `start` on.
    pub(crate) fn copy(&self, start: u64, buf: &mut [u8]) {
        let copied = self.queue.copy(start, buf);
        debug_assert_eq!(copied, buf.len(), "the queue holds what is outstanding");
    }

    /// Notes that `start..end` is sent now.
    pub(crate) fn on_sent(&mut self, now: Time, start: u64, end: u64, again: bool) {
        let length = end - start;
        let in_flight = self.board.in_flight();
        let view = self.view(now);
        self.congestion.on_sent(&view, length);
        let snapshot = self.sampler.on_sent(now, in_flight, length);
        if again {
            self.board.resend(start, end, self.mss, snapshot);
            self.retransmits = self.retransmits.saturating_add(1);
        } else {
            if self.board.is_empty() {
                self.progress = now;
            }
            self.board.push(start, end, self.mss, snapshot);
            self.nxt = end;
            self.little_due = false;
            if !length.is_multiple_of(self.mss) {
                self.small_end = end;
            }
            if let Some(since_when) = &mut self.cork {
                *since_when = None;
            }
        }
        if self.loss_probe_due {
            self.loss_probe_due = false;
            self.probe = Some(Probe { end: self.nxt, resent: again });
        }
        // The window counts as used if it has no room for another segment.
        if self.board.in_flight() + self.mss > self.congestion.window() {
            self.window_limited = true;
        }
        self.last_sent = now;
        self.pace.on_sent(now, length, self.congestion.pacing_rate());
        // New data restarts a pending loss probe (RFC 8985 7.2), but not the retransmission timer (RFC 6298
        // 5.1).
        let probing = matches!(self.timer, Some((_, super::Timer::Probe)));
        self.arm(now, (probing && !again) || (again && self.phase == Phase::Loss));
    }
}
