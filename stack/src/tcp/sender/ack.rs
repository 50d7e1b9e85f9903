//! Processing of acknowledgements.

use std::time::Duration;

use super::{Sender, Undo};
use crate::host::clock::{Time, since};
use crate::tcp::congestion::{Ack, Algorithm, Cause, Lost, Phase};
use crate::tcp::rate::NewestDelivered;
use crate::tcp::scoreboard::{Fate, Run};

/// An acceptable acknowledgement, in stream offsets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acknowledgement<'a> {
    pub(crate) ack: u64,
    /// SACK blocks between `ack` and the end of the sent data.
    pub(crate) blocks: &'a [(u64, u64)],
    /// Duplicate reported by the peer (RFC 2883).
    pub(crate) duplicate: Option<(u64, u64)>,
    /// ECE flag of RFC 3168.
    pub(crate) ece: bool,
    /// Round-trip time measured by timestamps (RFC 7323).
    pub(crate) rtt: Option<Duration>,
    /// True if the segment has no data, no FIN and no change of the window.
    pub(crate) pure: bool,
}

/// Data delivered by one acknowledgement.
#[derive(Default)]
struct Delivery {
    bytes: u64,
    /// Transmission time of the newest segment that was sent once.
    newest_sent: Option<Time>,
    /// Transmission time of the newest such segment without a gap before it.
    newest_in_order: Option<Time>,
    /// Newest transmission of all.
    newest: NewestDelivered,
    /// Bytes marked lost that arrived without a retransmission.
    found: u64,
}

impl Sender {
    /// Processes an acknowledgement.
    pub(crate) fn on_ack(&mut self, now: Time, ack: &Acknowledgement<'_>) {
        let prior_in_flight = self.board.in_flight();
        let lost_before = self.sampler.lost();
        let acked = ack.ack.saturating_sub(self.una);
        let delivery = self.deliver(now, ack);
        self.una = self.una.max(ack.ack);
        self.queue.drop_until(self.una);
        let newest = delivery.newest_sent.map(|sent| since(now, sent));
        // Karn's algorithm: a retransmitted segment measures nothing, unless a timestamp tells which copy was
        // answered.
        let rtt = newest.or(ack.rtt.filter(|_| acked > 0));
        if let Some(rtt) = rtt {
            self.rtt.sample(now, rtt);
        }
        // A reordered packet's RTT is too short to describe the path, so skip it.
        let has_overtaken = self.rack.has_reordered() && delivery.newest_in_order != delivery.newest_sent;
        let path_rtt = rtt.filter(|_| !has_overtaken);
        if acked > 0 {
            self.progress = now;
            self.rtt.reset_backoff();
            self.duplicates = 0;
        }
        self.end_phase(now);
        self.find_spurious(now, ack, &delivery);
        if !self.sack {
            self.count_duplicate(now, ack, acked);
        }
        self.detect_losses(now);
        self.judge_probe(now, ack);
        self.react_to_mark(now, ack.ece);
        let sample = self.sampler.finish(&delivery.newest, self.rtt.min_micros());
        let event = Ack {
            acked,
            delivered: delivery.bytes,
            lost: self.sampler.lost().saturating_sub(lost_before),
            prior_in_flight,
            rtt: path_rtt,
            sample,
        };
        if acked > 0 || delivery.bytes > 0 || event.lost > 0 {
            let view = self.view(now);
            self.congestion.on_ack(&view, &event);
            self.window_limited = false;
        }
        self.arm(now, acked > 0 || delivery.bytes > 0);
    }

    /// Marks delivered data on the scoreboard.
    fn deliver(&mut self, now: Time, ack: &Acknowledgement<'_>) -> Delivery {
        let mut delivery = Delivery::default();
        let min_rtt = self.rtt.min_micros();
        let Self { board, sampler, rack, .. } = self;
        let mut delivered = |run: &Run| {
            delivery.bytes += run.len();
            sampler.on_delivered(now, &mut delivery.newest, &run.snapshot, run.end, run.len());
            rack.on_delivered(now, run, min_rtt);
            if !run.resent {
                delivery.newest_sent = delivery.newest_sent.max(Some(run.snapshot.sent));
                if run.end <= ack.ack {
                    delivery.newest_in_order = delivery.newest_in_order.max(Some(run.snapshot.sent));
                }
            }
            if run.fate == Fate::Lost {
                delivery.found += run.len();
            }
        };
        board.acknowledge(ack.ack, &mut delivered);
        for &(start, end) in ack.blocks {
            board.sack(start, end, &mut delivered);
        }
        delivery
    }

    /// Ends the phase once everything in flight at its beginning is acknowledged (RFC 6675 section 5, RFC
    /// 5681 3.1).
    fn end_phase(&mut self, now: Time) {
        if self.phase != Phase::Open && self.una >= self.recover {
            self.phase = Phase::Open;
            self.rack.on_recovered();
            let view = self.view(now);
            self.congestion.on_recovered(&view);
        }
    }

    /// Looks for signs of spurious losses: the data arrives without a retransmission (F-RTO, RFC 5682), or
    /// twice (RFC 2883).
    fn find_spurious(&mut self, now: Time, ack: &Acknowledgement<'_>, delivery: &Delivery) {
        let mut spurious = delivery.found;
        self.sampler.on_found(delivery.found);
        if let Some((start, end)) = ack.duplicate {
            self.rack.on_duplicate(self.una, self.nxt);
            // The duplicate of a loss probe was to be expected (RFC 8985 7.4).
            if self.probe.is_none_or(|probe| end != probe.end) {
                spurious += end - start;
            }
        }
        if spurious == 0 || !self.undo.armed {
            return;
        }
        self.undo.bytes = self.undo.bytes.saturating_sub(spurious);
        if self.undo.timeout && delivery.found > 0 {
            // The timer was too fast, so everything it marked lost is judged again.
            self.sampler.on_found(self.board.find_lost());
            self.rack.distrust_resent();
            self.undo.bytes = 0;
        }
        if self.undo.bytes == 0 {
            self.undo = Undo::default();
            self.phase = Phase::Open;
            let view = self.view(now);
            self.congestion.on_undo(&view);
        }
    }

    /// Detects losses (RFC 8985 6.2 step 5) and starts fast recovery.
    pub(super) fn detect_losses(&mut self, now: Time) {
        self.reorder = None;
        // Without SACK, cumulative acknowledgements reveal little about the order of arrival (RFC 8985
        // section 4).
        if !self.sack || self.board.is_empty() {
            return;
        }
        let Some(newest) = self.rack.newest() else { return };
        // RFC 6675 section 4: three segments, of which the last may be short.
        let eager = self.phase != Phase::Open || self.board.sacked() > 2 * self.mss;
        let patience = self.rack.patience(eager, self.rtt.min_micros(), self.rtt.smoothed_micros());
        let patience = i64::try_from(patience).unwrap_or(i64::MAX);
        let overdue = Time::from_micros(now.total_micros().saturating_sub(patience));
        let before = self.sampler.lost();
        let mut view = self.view(now);
        let Self { board, sampler, congestion, .. } = self;
        let waiting = board.detect(newest, overdue, |run| {
            sampler.on_lost(run.len());
            // The algorithm sees each loss with the state at that moment.
            view.in_flight -= run.len().min(view.in_flight);
            view.lost += run.len();
            let lost = Lost { bytes: run.len(), snapshot: run.snapshot };
            congestion.on_lost(&view, &lost);
        });
        self.reorder = waiting.map(|sent| Time::from_micros(sent.total_micros().saturating_add(patience)));
        let lost = self.sampler.lost() - before;
        if lost > 0 {
            self.begin_recovery(now, lost);
        }
    }

    fn begin_recovery(&mut self, now: Time, lost: u64) {
        self.undo.bytes += lost;
        if self.phase != Phase::Open {
            return;
        }
        self.phase = Phase::Recovery;
        self.recover = self.nxt;
        self.undo = Undo { bytes: lost, armed: true, timeout: false };
        let view = self.view(now);
        self.congestion.on_congestion(&view, Cause::Loss);
    }

    /// Detects losses without SACK.
    fn count_duplicate(&mut self, now: Time, ack: &Acknowledgement<'_>, acked: u64) {
        let outstanding = !self.board.is_empty();
        if acked == 0 && ack.pure && outstanding {
            self.duplicates += 1;
        }
        // Three duplicates reveal one (RFC 5681 3.2), and a partial acknowledgement in recovery reveals the
        // next (RFC 6582).
        let third = self.duplicates == 3 && self.phase == Phase::Open;
        let part = acked > 0 && self.phase == Phase::Recovery;
        if outstanding && (third || part) {
            let mut lost = 0;
            self.board.lose_first(self.mss, |run| lost += run.len());
            self.sampler.on_lost(lost);
            if lost > 0 {
                self.begin_recovery(now, lost);
                // Without SACK no duplicates are reported, so nothing could revoke the loss.
                self.undo.armed = false;
            }
        }
    }

    /// Judges a loss probe (RFC 8985 7.4): a retransmission that was needed counts as a loss.
    fn judge_probe(&mut self, now: Time, ack: &Acknowledgement<'_>) {
        let Some(probe) = self.probe.filter(|probe| ack.ack >= probe.end) else { return };
        if !probe.resent || ack.duplicate.is_some() {
            self.probe = None;
        } else if ack.ack > probe.end {
            self.probe = None;
            if self.phase == Phase::Open {
                let view = self.view(now);
                self.congestion.on_congestion(&view, Cause::Loss);
                // The probe has repaired the loss already, so only the window shrinks.
                self.congestion.on_recovered(&view);
            }
        } else if ack.pure {
            self.probe = None;
        }
    }

    /// Reacts to ECE, with at most one reduction per window of data (RFC 3168 6.1.2).
    fn react_to_mark(&mut self, now: Time, ece: bool) {
        if !ece || self.una < self.marked_until || self.phase != Phase::Open {
            return;
        }
        self.marked_until = self.nxt;
        self.tell_reduced = true;
        let view = self.view(now);
        self.congestion.on_congestion(&view, Cause::Mark);
    }
}
