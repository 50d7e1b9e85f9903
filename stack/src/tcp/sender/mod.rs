//! The sending half of a connection: what is queued, what is on its way, what is lost, and when to do
//! something.
//!
//! * `ack`: what an acknowledgement changes (RFC 6675, RFC 8985, RFC 2883).
//! * `output`: what leaves next.
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
use super::connection::INITIAL_WINDOW;
use super::rack::Rack;
use super::rate::Sampler;
use super::rtt::Rtt;
use super::scoreboard::Scoreboard;
use crate::host::clock::Time;

/// The sending half. Offsets are the stream's: data begins at 1.
pub(crate) struct Sender {
    /// From the oldest byte without an acknowledgement to the last one that the application has given.
    queue: ByteQueue,
    board: Scoreboard,
    /// The oldest offset without an acknowledgement, and the next one to be sent for the first time.
    una: u64,
    nxt: u64,
    /// Where the urgent data ends, or ended; and whether the peer is to be told of it at once (RFC 9293
    /// 3.8.5).
    urgent: u64,
    urgent_due: bool,
    /// Where the FIN is, once the application has finished.
    fin: Option<NonZeroU64>,
    /// The peer takes nothing from here on; and the largest window that it has offered.
    edge: u64,
    largest_window: u64,
    /// Payload of a full segment.
    mss: u64,
    /// Most bytes in flight, whatever the congestion window: the share of the peer's receive buffer.
    cap: u64,
    /// Most segments of a burst.
    max_segments: u64,
    /// The peer reports SACK blocks.
    pub(crate) sack: bool,
    sampler: Sampler,
    pub(crate) rtt: Rtt,
    rack: Rack,
    congestion: Controller,
    phase: Phase,
    /// The phase ends when this is acknowledged.
    recover: u64,
    undo: Undo,
    timer: Option<(Time, Timer)>,
    /// When the reordering window of the oldest candidate ends.
    reorder: Option<Time>,
    /// A loss probe is to leave; and the one that did.
    loss_probe_due: bool,
    probe: Option<Probe>,
    /// A window probe or keep-alive is to leave.
    pub(crate) window_probe_due: bool,
    /// The peer's window has been too small for long: what fits leaves (RFC 9293 3.8.6.2.1).
    little_due: bool,
    pace: Pace,
    /// Duplicate acknowledgements in a row, of a peer without SACK.
    duplicates: u32,
    /// The congestion window has kept data back since the last acknowledgement.
    window_limited: bool,
    pub(crate) nodelay: bool,
    /// TCP_CORK: since when a partial segment waits, if it is set.
    cork: Option<Option<Time>>,
    /// The last write was larger than a burst: more will follow.
    large_write: bool,
    /// The end of the last segment that was not full (Minshall's refinement of Nagle's algorithm).
    small_end: u64,
    last_sent: Time,
    /// When something was last acknowledged, or the oldest of what is not left for the first time.
    progress: Time,
    /// ECN (RFC 3168): until this is acknowledged, marks are of the same window; and CWR is to be told.
    marked_until: u64,
    pub(crate) tell_reduced: bool,
    retransmits: u32,
}

/// What is known of losses that may have been none.
#[derive(Debug, Clone, Copy, Default)]
struct Undo {
    /// Bytes that were marked lost since the phase began and that nothing has shown to be delivered twice or
    /// late.
    bytes: u64,
    /// There is something to take back.
    armed: bool,
    /// It began with a retransmission timeout.
    timeout: bool,
}

/// A loss probe under way.
#[derive(Debug, Clone, Copy)]
struct Probe {
    /// SND.NXT when it had left.
    end: u64,
    /// It sent something again.
    resent: bool,
}

impl Sender {
    /// A sender for data that starts at offset 1, after the handshake.
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

    /// The handshake is done: the peer's largest segment is known.
    pub(crate) fn begin(&mut self, now: Time, algorithm: CongestionControl, mss: u64, initial_window: u64) {
        self.mss = mss;
        self.congestion = algorithm.start(now, mss, initial_window);
        self.sampler = Sampler::new(now);
    }

    /// Another algorithm takes over with the window that there is.
    pub(crate) fn set_congestion(&mut self, now: Time, algorithm: CongestionControl) {
        let window = self.congestion.window();
        self.congestion = algorithm.start(now, self.mss, window);
    }

    /// Queues a copy of `data`.
    pub(crate) fn write(&mut self, data: &[u8]) {
        self.large_write = data.len() as u64 >= self.max_segments * self.mss;
        self.queue.append(data);
    }

    /// Forgets what is queued and what is under way.
    pub(crate) fn give_up(&mut self) {
        self.queue.drop_until(self.queue.end());
        self.board = Scoreboard::default();
        self.timer = None;
        self.reorder = None;
    }

    /// What is queued is urgent.
    pub(crate) fn mark_urgent(&mut self) {
        self.urgent = self.queue.end();
        self.urgent_due = true;
    }

    /// Where the urgent data ends, while some of it is not acknowledged.
    pub(crate) fn urgent_end(&self) -> Option<u64> {
        (self.urgent > self.una).then_some(self.urgent)
    }

    /// Whether the peer is to be told of urgent data although that cannot leave.
    pub(crate) fn is_urgent_due(&self) -> bool {
        self.urgent_due && self.urgent > self.nxt
    }

    /// The peer is told of urgent data; or, with `again`, it is to be.
    pub(crate) fn set_urgent_due(&mut self, again: bool) {
        self.urgent_due = again;
    }

    /// Sends a FIN after what is queued.
    pub(crate) fn finish(&mut self) {
        self.fin = self.fin.or(NonZeroU64::new(self.queue.end()));
    }

    /// What the path and the peer take now: payload of a full segment, segments of a burst, bytes in flight.
    pub(crate) fn set_limits(&mut self, mss: u64, max_segments: u64, cap: u64) {
        self.mss = mss.max(1);
        self.max_segments = max_segments.max(1);
        self.cap = cap.max(1);
    }

    /// The peer takes nothing at or after offset `edge`.
    pub(crate) fn set_window(&mut self, now: Time, edge: u64) {
        self.largest_window = self.largest_window.max(edge.saturating_sub(self.una));
        let opened = edge > self.edge;
        let was_shut = self.is_shut();
        self.edge = edge;
        if opened && was_shut {
            // The peer has dropped what was under way.
            self.expedite(now, INITIAL_WINDOW * self.mss);
        }
        if opened && matches!(self.timer, Some((_, Timer::Window))) {
            self.timer = None;
            self.rtt.reset_backoff();
        }
        self.arm(now, false);
    }

    /// Whether the peer has taken its window back from something that was sent, to the oldest byte of it (RFC
    /// 9293 3.8.6): it has dropped that, or will.
    pub(crate) fn is_shut(&self) -> bool {
        !self.board.is_empty() && self.edge <= self.una
    }

    pub(crate) fn una(&self) -> u64 {
        self.una
    }

    pub(crate) fn nxt(&self) -> u64 {
        self.nxt
    }

    /// Bytes queued by the application and not acknowledged.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Bytes queued by the application and never sent.
    pub(crate) fn unsent(&self) -> usize {
        (self.queue.end() - self.nxt.min(self.queue.end())) as usize
    }

    /// Bytes of data, FIN included, sent and neither acknowledged, SACKed nor lost.
    pub(crate) fn in_flight(&self) -> u64 {
        self.board.in_flight()
    }

    /// The peer takes nothing at or after this offset; and the most that it has ever taken at once, bytes.
    pub(crate) fn edge(&self) -> u64 {
        self.edge
    }

    pub(crate) fn largest_window(&self) -> u64 {
        self.largest_window
    }

    /// Where the queue's chunks come from and go to.
    pub(crate) fn set_chunk_pool(&mut self, pool: &Arc<ChunkPool>) {
        self.queue.set_pool(pool);
    }

    /// The end of what is queued.
    pub(crate) fn queued_end(&self) -> u64 {
        self.queue.end()
    }

    /// Since when nothing of what was sent has been acknowledged; `None` if nothing waits for that, or only
    /// for the peer's window.
    pub(crate) fn stalled_since(&self) -> Option<Time> {
        (!self.board.is_empty() && !self.is_shut()).then_some(self.progress)
    }

    pub(crate) fn progress(&self) -> Time {
        self.progress
    }

    /// Whether the FIN has been acknowledged.
    pub(crate) fn fin_acked(&self) -> bool {
        self.fin.is_some_and(|fin| self.una > fin.get())
    }

    /// Whether anything that was sent lacks an acknowledgement, or waits for the peer's window.
    pub(crate) fn awaits_ack(&self) -> bool {
        !self.board.is_empty() || self.unsent() > 0
    }

    pub(crate) fn retransmits(&self) -> u64 {
        self.retransmits.into()
    }

    pub(crate) fn allocated(&self) -> usize {
        self.queue.allocated() + self.board.allocated()
    }

    /// The congestion window, bytes.
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

    /// TCP_CORK.
    pub(crate) fn set_cork(&mut self, on: bool) {
        self.cork = on.then_some(None);
    }

    /// How long ago `sent` was, as a round trip for the estimator: of the handshake.
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
