//! What leaves next.

use std::time::Duration;

use super::pace::Pace;
use super::{Probe, Sender};
use crate::host::clock::{Time, after, since};
use crate::tcp::congestion::{Algorithm, Phase};

/// A round trip, microseconds, on a path where sending few large bursts is worth a wait.
const SHORT: u64 = 1000;

/// How long TCP_CORK holds a partial segment back, as Linux.
const CORK: Duration = Duration::from_millis(200);

/// What the sender wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Send `start..end`; the FIN counts as a byte.
    Send { start: u64, end: u64, again: bool },
    /// Send a segment that makes the peer answer: it lies before its window.
    WindowProbe,
    /// Nothing before this time, or before something happens.
    Wait(Option<Time>),
}

impl Sender {
    /// What leaves now.
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
            // Once its time is over it is a window that keeps the data back.
            let uncorked = self.cork.flatten().map(|since| after(since, CORK));
            return Plan::Wait(uncorked.filter(|&at| at > now));
        }
        plan
    }

    /// Whether there is nothing to send, whatever windows and pacing let leave. If so it has the effects that
    /// [`plan`](Self::plan) would have.
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

    /// How far a retransmission of `start..end` goes if the peer's window has shrunk meanwhile (RFC 9293
    /// 3.8.6). The oldest byte is sent in any case: it probes the window.
    fn fitting_end(&self, start: u64, end: u64) -> Option<u64> {
        match start < self.edge {
            true => Some(end.min(self.edge)),
            false => (start <= self.una).then_some(end),
        }
    }

    /// RFC 8985 7.3: a new segment if there is one, else the last one again. Of one that left before the path
    /// shrank, its end: a probe is one packet.
    fn plan_probe(&self) -> Option<Plan> {
        let end = self.sendable_end().min(self.nxt + self.mss);
        if end > self.nxt {
            return Some(Plan::Send { start: self.nxt, end, again: false });
        }
        let last = self.board.last()?;
        let start = last.start.max(last.end.saturating_sub(self.mss));
        Some(Plan::Send { start, end: last.end, again: true })
    }

    /// The end of what is queued. A FIN counts: it takes no room in the peer's buffer, but it does in its
    /// window.
    pub(super) fn end(&self) -> u64 {
        self.fin.map_or(self.queue.end(), |fin| fin.get() + 1)
    }

    /// The same as far as the peer's window lets it leave.
    fn sendable_end(&self) -> u64 {
        self.end().min(self.edge)
    }

    fn plan_new(&mut self, now: Time) -> Plan {
        let end = self.sendable_end();
        if end <= self.nxt || self.board.is_full() {
            // If it is the peer's window, it is probed.
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
        // Before the burst is cut to the window: RFC 5681 4.1.
        if self.board.is_empty() && now > self.rtt.timeout_from(self.last_sent) {
            let view = self.view(now);
            self.congestion.on_idle(&view);
            self.last_sent = now;
        }
        self.limit(now, self.nxt, end, false)
    }

    /// Whether a segment that is not full may leave: RFC 9293 3.8.6.2.1, with Minshall's refinement of
    /// Nagle's algorithm. `whole`: nothing more is queued behind it.
    fn may_send_little(&mut self, now: Time, whole: bool) -> bool {
        if !whole {
            return self.little_due || self.is_half(self.sendable_end() - self.nxt);
        }
        if self.board.is_empty() && self.cork.is_none() {
            return true;
        }
        if self.fin.is_some() || self.urgent > self.nxt {
            return true;
        }
        if let Some(since_when) = &mut self.cork {
            let since_when = *since_when.get_or_insert(now);
            return since(now, since_when) >= CORK;
        }
        self.nodelay || self.small_end <= self.una
    }

    /// Whether this is a good part of the largest window that the peer has ever offered.
    pub(super) fn is_half(&self, length: u64) -> bool {
        length >= self.largest_window / 2
    }

    /// Cuts `start..end` to what congestion control, the cap and pacing let leave now.
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
            // Acknowledgements are on their way and make room for a whole burst.
            () if in_flight >= 2 * wanted && self.is_short() => 0,
            // With nothing in flight no acknowledgement will open the window further.
            () if in_flight == 0 => full.max(wanted.min(self.mss)),
            () => full,
        };
        if length == 0 && free >= wanted {
            return Plan::Wait(None);
        }
        if length == 0 {
            if window <= self.cap {
                self.window_limited = true;
            } else {
                self.sampler.limit(in_flight);
            }
            return Plan::Wait(None);
        }
        if let Some(until) = self.pace.blocked_until(now) {
            return Plan::Wait(Some(until));
        }
        Plan::Send { start, end: start + length, again }
    }

    /// Whether the rest of a large write is better sent with the next one: on a path so short that bursts
    /// cost more than waiting. An acknowledgement releases it if nothing else does.
    fn is_worth_waiting(&self, wanted: u64, burst: u64) -> bool {
        self.is_short()
            && self.large_write
            && self.fin.is_none()
            && self.urgent <= self.nxt
            && wanted < burst
            && self.board.in_flight() >= burst
    }

    fn is_short(&self) -> bool {
        self.rtt.smoothed_micros().is_some_and(|srtt| srtt < SHORT)
    }

    /// Whole segments, unless it is all that there is.
    fn round(&self, wanted: u64, available: u64) -> u64 {
        if wanted == available {
            // The last one waits behind full ones if Nagle's algorithm wants it to; it decides next time.
            let rest = wanted % self.mss;
            let pressing = self.nodelay || self.fin.is_some() || self.urgent > self.nxt;
            let alone = wanted < self.mss || pressing;
            return if rest == 0 || alone || self.cork.is_none() { wanted } else { wanted - rest };
        }
        (wanted / self.mss * self.mss).max(wanted.min(self.mss))
    }

    /// There is nothing to send, or the peer or its share keep it back: samples say nothing about the path.
    fn note_limited(&mut self) {
        if self.board.lost() == 0 && self.board.in_flight() < self.congestion.window() {
            self.sampler.limit(self.board.in_flight());
        }
    }

    /// The length of the data of `start..end`, without a FIN, and whether there is one.
    pub(crate) fn measure(&self, start: u64, end: u64) -> (usize, bool) {
        let fin = self.fin.is_some_and(|fin| end > fin.get());
        ((end - start) as usize - usize::from(fin), fin)
    }

    /// Fills `buf` with the data from `start` on.
    pub(crate) fn copy(&self, start: u64, buf: &mut [u8]) {
        let copied = self.queue.copy(start, buf);
        debug_assert_eq!(copied, buf.len(), "the queue holds what is outstanding");
    }

    /// `start..end` leaves now.
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
        // The window counts as used up if there is no room for one more segment.
        if self.board.in_flight() + self.mss > self.congestion.window() {
            self.window_limited = true;
        }
        self.last_sent = now;
        self.pace.on_sent(now, length, self.congestion.pacing_rate());
        // New data moves a probe that waits (RFC 8985 7.2); the retransmission timer stays (RFC 6298 5.1).
        let probing = matches!(self.timer, Some((_, super::Timer::Probe)));
        self.arm(now, (probing && !again) || (again && self.phase == Phase::Loss));
    }
}
