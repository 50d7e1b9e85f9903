//! The sending half of a connection: queued data, data in flight, losses, and timers.
//!
//! * `ack`: processing of acknowledgements (RFC 6675, RFC 8985, RFC 2883).
//! * `output`: choice of the next segment.
//! * `timers`: retransmission timeout (RFC 6298), loss probe (RFC 8985 section 7), window probe (RFC 9293
//!   3.8.6.1).

mod ack;
mod output;
mod pace;
mod timers;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use ack::Acknowledgement;
pub(crate) use output::Plan;

use self::pace::Pace;
use self::timers::Timer;
use super::byte_queue::ByteQueue;
use super::chunk_pool::ChunkPool;
use super::congestion::{Algorithm, CongestionControl, Controller, Phase, View};
use super::rack::Rack;
use super::rate::Sampler;
use super::rtt::Rtt;
use super::scoreboard::Scoreboard;
use crate::host::clock::Time;

/// Initial window, segments (RFC 6928).
pub(crate) const INITIAL_WINDOW: u64 = 10;

/// Sending half of a connection. Offsets are stream offsets: data begins at 1.
pub(crate) struct Sender {
    /// Data from the oldest unacknowledged byte to the last byte that the application has written.
    queue: ByteQueue,
    board: Scoreboard,
    /// Oldest unacknowledged offset, and the next offset to be sent for the first time.
    una: u64,
    nxt: u64,
    /// End of the urgent data, even if past; and true if the peer must learn of it at once (RFC 9293 3.8.5).
    urgent: u64,
    urgent_due: bool,
    /// Offset of the FIN, once the application has finished.
    fin: Option<NonZeroU64>,
    /// Offset at which the peer's window ends, and the largest window that it has offered.
    edge: u64,
    largest_window: u64,
    /// Payload of a full segment.
    mss: u64,
    /// Maximum bytes in flight besides the congestion window: the share of the peer's receive buffer.
    cap: u64,
    /// Maximum number of segments in a burst.
    max_segments: u64,
    /// True if the peer reports SACK blocks.
    pub(crate) sack: bool,
    sampler: Sampler,
    pub(crate) rtt: Rtt,
    rack: Rack,
    congestion: Controller,
    phase: Phase,
    /// Offset whose acknowledgement ends the phase.
    recover: u64,
    undo: Undo,
    timer: Option<(Time, Timer)>,
    /// End of the reordering window of the oldest candidate for loss.
    reorder: Option<Time>,
    /// True if a loss probe must leave; and the last probe that did.
    loss_probe_due: bool,
    probe: Option<Probe>,
    /// True if a window probe or keep-alive must leave.
    pub(crate) window_probe_due: bool,
    /// True if the peer's window has been small for so long that even a partial segment may leave (RFC 9293
    /// 3.8.6.2.1).
    little_due: bool,
    pace: Pace,
    /// Number of consecutive duplicate acknowledgements of a peer without SACK.
    duplicates: u32,
    /// True if the congestion window has limited sending since the last acknowledgement.
    window_limited: bool,
    pub(crate) nodelay: bool,
    /// State of TCP_CORK: `Some` if set, with the time since which a partial segment waits.
    cork: Option<Option<Time>>,
    /// True if the last write was larger than a burst, so that more will probably follow.
    large_write: bool,
    /// End of the last segment that was not full (Minshall's refinement of Nagle's algorithm).
    small_end: u64,
    last_sent: Time,
    /// Time of the last acknowledgement, or of the first transmission of the oldest outstanding data.
    progress: Time,
    /// State of ECN (RFC 3168): the offset up to which marks belong to the same window, and true if CWR must
    /// be sent.
    marked_until: u64,
    pub(crate) tell_reduced: bool,
    retransmits: u32,
}

/// Evidence about losses that may be spurious.
#[derive(Debug, Clone, Copy, Default)]
struct Undo {
    /// Bytes marked lost since the phase began that have not been shown to be delivered late or twice.
    bytes: u64,
    /// True if there is a reduction to undo.
    armed: bool,
    /// True if the phase began with a retransmission timeout.
    timeout: bool,
}

/// An outstanding loss probe.
#[derive(Debug, Clone, Copy)]
struct Probe {
    /// Value of SND.NXT after it left.
    end: u64,
    /// True if the probe was a retransmission.
    resent: bool,
}

impl Sender {
    /// Creates a sender for data that starts at offset 1, after the handshake.
    pub(crate) fn new(now: Time, algorithm: CongestionControl, mss: u64, initial_window: u64) -> Self {
        Self {
            queue: ByteQueue::new(1),
            board: Scoreboard::default(),
            una: 1,
            nxt: 1,
            urgent: 0,
            urgent_due: false,
            fin: None,
            edge: 1,
            largest_window: 0,
            mss,
            cap: u64::MAX,
            max_segments: 1,
            sack: false,
            sampler: Sampler::new(now),
            rtt: Rtt::new(),
            rack: Rack::default(),
            congestion: algorithm.start(now, mss, initial_window),
            phase: Phase::Open,
            recover: 0,
            undo: Undo::default(),
            timer: None,
            reorder: None,
            loss_probe_due: false,
            probe: None,
            window_probe_due: false,
            little_due: false,
            pace: Pace::default(),
            duplicates: 0,
            window_limited: false,
            nodelay: false,
            cork: None,
            large_write: false,
            small_end: 0,
            last_sent: now,
            progress: now,
            marked_until: 0,
            tell_reduced: false,
            retransmits: 0,
        }
    }

    /// Starts congestion control after the handshake, when the peer's segment size is known.
    pub(crate) fn begin(&mut self, now: Time, algorithm: CongestionControl, mss: u64, initial_window: u64) {
        self.mss = mss;
        self.congestion = algorithm.start(now, mss, initial_window);
        self.sampler = Sampler::new(now);
    }

    /// Replaces the congestion control algorithm and keeps the present window.
    pub(crate) fn set_congestion(&mut self, now: Time, algorithm: CongestionControl) {
        let window = self.congestion.window();
        self.congestion = algorithm.start(now, self.mss, window);
    }

    /// Queues a copy of `data`.
    pub(crate) fn write(&mut self, data: &[u8]) {
        self.large_write = data.len() as u64 >= self.max_segments * self.mss;
        self.queue.append(data);
    }

    /// Drops queued and outstanding data.
    pub(crate) fn give_up(&mut self) {
        self.queue.drop_until(self.queue.end());
        self.board = Scoreboard::default();
        self.timer = None;
        self.reorder = None;
    }

    /// Marks all queued data as urgent.
    pub(crate) fn mark_urgent(&mut self) {
        self.urgent = self.queue.end();
        self.urgent_due = true;
    }

    /// Returns the end of the urgent data while some of it is not acknowledged.
    pub(crate) fn urgent_end(&self) -> Option<u64> {
        (self.urgent > self.una).then_some(self.urgent)
    }

    /// Returns true if the peer must learn of urgent data that cannot leave yet.
    pub(crate) fn is_urgent_due(&self) -> bool {
        self.urgent_due && self.urgent > self.nxt
    }

    /// Notes that the peer learns of urgent data, or must learn of it `again`.
    pub(crate) fn set_urgent_due(&mut self, again: bool) {
        self.urgent_due = again;
    }

    /// Sends a FIN after the queued data.
    pub(crate) fn finish(&mut self) {
        // A second call must not move the FIN, which may have been sent already.
        self.fin = self.fin.or(NonZeroU64::new(self.queue.end()));
    }

    /// Sets the limits of path and peer: payload of a full segment, segments of a burst, bytes in flight.
    pub(crate) fn set_limits(&mut self, mss: u64, max_segments: u64, cap: u64) {
        self.mss = mss.max(1);
        self.max_segments = max_segments.max(1);
        // At least one byte, so that a peer with a tiny buffer slows the flow down and does not stop it.
        self.cap = cap.max(1);
    }

    /// Sets the end of the peer's window.
    pub(crate) fn set_window(&mut self, now: Time, edge: u64) {
        // RFC 9293 3.8.6.2.1: half of the largest window seen is worth a segment, because the peer's buffer
        // may be smaller than one.
        self.largest_window = self.largest_window.max(edge.saturating_sub(self.una));
        let opened = edge > self.edge;
        let was_shut = self.is_shut();
        self.edge = edge;
        if opened && was_shut {
            // The peer has dropped the data that was in flight.
            self.expedite(now, INITIAL_WINDOW * self.mss);
        }
        // An open window ends the probing and its backoff.
        if opened && matches!(self.timer, Some((_, Timer::Window))) {
            self.timer = None;
            self.rtt.reset_backoff();
        }
        self.arm(now, false);
    }

    /// Returns true if the peer has withdrawn its window from all outstanding data (RFC 9293 3.8.6). It has
    /// dropped that data, or will.
    pub(crate) fn is_shut(&self) -> bool {
        // RFC 9293 3.8.6 discourages this, but a peer without memory does it, and must not cost the
        // connection.
        !self.board.is_empty() && self.edge <= self.una
    }

    pub(crate) fn una(&self) -> u64 {
        self.una
    }

    pub(crate) fn nxt(&self) -> u64 {
        self.nxt
    }

    /// Returns the bytes queued by the application and not acknowledged.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Returns the bytes queued by the application and never sent.
    pub(crate) fn unsent(&self) -> usize {
        (self.queue.end() - self.nxt.min(self.queue.end())) as usize
    }

    /// Returns the bytes of data and FIN sent and neither acknowledged, SACKed nor lost.
    pub(crate) fn in_flight(&self) -> u64 {
        self.board.in_flight()
    }

    /// Returns the end of the peer's window.
    pub(crate) fn edge(&self) -> u64 {
        self.edge
    }

    pub(crate) fn largest_window(&self) -> u64 {
        self.largest_window
    }

    /// Sets the pool for the queue's chunks.
    pub(crate) fn set_chunk_pool(&mut self, pool: &Arc<ChunkPool>) {
        self.queue.set_pool(pool);
    }

    /// Returns the end of the queued data.
    pub(crate) fn queued_end(&self) -> u64 {
        self.queue.end()
    }

    /// Returns the time since which no sent data was acknowledged. `None` if nothing is outstanding, or the
    /// peer's window is shut.
    pub(crate) fn stalled_since(&self) -> Option<Time> {
        // A peer that shuts its window is not silent: window probes show whether it is there.
        (!self.board.is_empty() && !self.is_shut()).then_some(self.progress)
    }

    pub(crate) fn progress(&self) -> Time {
        self.progress
    }

    /// Returns true if the FIN has been acknowledged.
    pub(crate) fn fin_acked(&self) -> bool {
        self.fin.is_some_and(|fin| self.una > fin.get())
    }

    /// Returns true if sent data lacks an acknowledgement, or unsent data waits.
    pub(crate) fn awaits_ack(&self) -> bool {
        !self.board.is_empty() || self.unsent() > 0
    }

    pub(crate) fn retransmits(&self) -> u64 {
        self.retransmits.into()
    }

    pub(crate) fn allocated(&self) -> usize {
        self.queue.allocated() + self.board.allocated()
    }

    /// Returns the congestion window, bytes.
    pub(crate) fn window(&self) -> u64 {
        self.congestion.window()
    }

    pub(crate) fn slow_start_threshold(&self) -> Option<u64> {
        self.congestion.slow_start_threshold()
    }

    pub(crate) fn pacing_rate(&self) -> Option<u64> {
        self.congestion.pacing_rate()
    }

    pub(crate) fn lost(&self) -> u64 {
        self.board.lost()
    }

    pub(crate) fn sacked(&self) -> u64 {
        self.board.sacked()
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.sampler.delivered()
    }

    pub(crate) fn mss(&self) -> u64 {
        self.mss
    }

    /// Sets TCP_CORK.
    pub(crate) fn set_cork(&mut self, on: bool) {
        self.cork = on.then_some(None);
    }

    /// Takes the handshake's round-trip time as a sample.
    pub(crate) fn handshake_took(&mut self, now: Time, rtt: Duration) {
        self.rtt.sample(now, rtt);
    }

    fn view(&self, now: Time) -> View {
        View {
            now,
            mss: self.mss,
            in_flight: self.board.in_flight(),
            delivered: self.sampler.delivered(),
            lost: self.sampler.lost(),
            una: self.una,
            nxt: self.nxt,
            srtt: self.rtt.smoothed(),
            window_limited: self.window_limited,
        }
    }
}
