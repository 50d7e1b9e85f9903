//! The receiving half of a connection: the queue for the application, the window, and the acknowledgements.

mod window;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use super::byte_queue::ByteQueue;
use super::chunk_pool::ChunkPool;
use super::memory::{LEAST_BUFFER, Share};
use super::reassembly::Reassembly;
use crate::host::clock::{Time, after};

/// Maximum delay of an acknowledgement that waits for data to carry it (RFC 1122 4.2.3.2: under 500 ms), as
/// in Linux.
const ACK_DELAY: Duration = Duration::from_millis(40);

/// Maximum delay of an early acknowledgement for a prompt application.
const MAX_EARLY_ACK_DELAY: Duration = Duration::from_millis(10);

/// Number of segments at the beginning that are acknowledged at once, for the peer's slow start, as in Linux.
const QUICK: u8 = 16;

/// Initial size of an automatic receive buffer, bytes.
const INITIAL_LIMIT: usize = 256 << 10;

/// Size of a receive buffer while memory is short, unless it holds more already, bytes.
const PRESSED_LIMIT: usize = 16 << 10;

/// Receive buffer as a multiple of the bytes that arrive in a round trip. With less, a loss halves the rate.
const BDPS: u64 = 4;

/// Minimum time over which the need for buffer is measured.
const MIN_ROUND: Duration = Duration::from_millis(1);

/// Number of reordered bytes that are counted together while there is a gap, because all connections share
/// the counter.
const MANY_REORDERED: u32 = 64 << 10;

/// Receiving half of a connection. Offsets are stream offsets: data begins at 1.
pub(crate) struct Receiver {
    /// Data that arrived in order and is not read.
    queue: ByteQueue,
    /// Data that arrived out of order, if any.
    reassembly: Option<Box<Reassembly>>,
    /// Offset after the last urgent byte (RFC 9293 3.8.5), even if that byte has been read.
    urgent: u64,
    /// Offset of the peer's FIN, once it has arrived; and true if everything before it has arrived, too.
    fin: Option<NonZeroU64>,
    finished: bool,
    /// Offset up to which the peer may send.
    edge: u64,
    /// True if a closed window was sent, or must be, for lack of memory.
    closed: bool,
    /// Base-2 logarithm of the unit of the window field, except in SYNs.
    pub(crate) scale: u8,
    /// Bytes that the queue may hold now, and at most.
    limit: usize,
    most: usize,
    /// Present round of measurement: its end, and the read offset at its start. While data is unread, it ends
    /// about when the application last read, or when the first unread byte arrived.
    round_end: Time,
    round_start: u64,
    answer: Answer,
    /// Number of further segments that are acknowledged at once (TCP_QUICKACK).
    quick: u8,
    /// True if the application acts at once on arriving data: it answers, or waits again.
    prompt: bool,
    /// True if an acknowledgement waits for a prompt application.
    held: bool,
    /// Time of the last data.
    heard: Time,
    /// Bytes that arrived since the last acknowledgement.
    unanswered: u64,
    /// Last acknowledgement that was sent.
    acked: u64,
}

/// Time at which an acknowledgement must leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    No,
    By(Time),
    Now,
}

impl Receiver {
    /// Creates a receiver with a fixed buffer, or with one that grows to `most` bytes. Without `room` it
    /// starts small.
    pub(crate) fn new(now: Time, most: usize, fixed: bool, room: bool) -> Self {
        let initial = match (room, fixed) {
            (false, _) => most.min(PRESSED_LIMIT),
            (true, true) => most,
            (true, false) => most.min(INITIAL_LIMIT),
        };
        Self {
            queue: ByteQueue::new(1),
            reassembly: None,
            urgent: 0,
            fin: None,
            finished: false,
            edge: 1,
            closed: false,
            scale: 0,
            limit: initial,
            most,
            round_end: now,
            round_start: 1,
            answer: Answer::No,
            quick: QUICK,
            prompt: false,
            held: false,
            heard: Time::ZERO,
            unanswered: 0,
            acked: 1,
        }
    }

    /// Sets the pool for the queue's chunks.
    pub(crate) fn set_chunk_pool(&mut self, pool: &Arc<ChunkPool>) {
        self.queue.set_pool(pool);
    }

    /// Returns the next expected offset.
    pub(crate) fn nxt(&self) -> u64 {
        // The FIN takes one number once all data before it has come.
        self.queue.end() + u64::from(self.finished)
    }

    /// Returns the first offset that the peer may not send.
    pub(crate) fn edge(&self) -> u64 {
        self.edge
    }

    /// Returns the last acknowledgement that was sent.
    pub(crate) fn acked(&self) -> u64 {
        self.acked
    }

    /// Returns true if any data has arrived in order.
    pub(crate) fn has_received(&self) -> bool {
        self.queue.end() > 1
    }

    /// Returns true if the peer's FIN and everything before it have arrived.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Stores `data` from offset `start` on and the FIN behind it, as far as window and memory permit.
    /// Returns `false` if memory was lacking.
    pub(crate) fn on_segment(
        &mut self,
        now: Time,
        (start, data, fin): (u64, &[u8], bool),
        mss: u64,
        memory: &Share,
    ) -> bool {
        let end = start + data.len() as u64;
        let next = self.nxt();
        // A FIN outside the window comes again.
        if fin && end <= self.edge.max(next) && self.fin.is_none() {
            self.fin = NonZeroU64::new(end);
        }
        // Nothing counts behind the FIN or outside the window.
        let last = self.fin.map_or(u64::MAX, NonZeroU64::get).min(self.edge.max(next));
        let wanted = &data[..(last.saturating_sub(start)).min(data.len() as u64) as usize];
        let data = self.admit(start, wanted, memory);
        let refused = data.len() < wanted.len();
        // Data out of order is refused sooner, but the window stays open for data that continues the queue.
        if refused && start <= next {
            self.close_window();
        }
        // `unread_since` starts with the first byte that the application can read.
        if self.queue.len() == 0 {
            self.round_end = self.round_end.max(now);
        }
        let gap = self.has_gap();
        if !data.is_empty() {
            self.insert(start, data, memory);
        }
        if self.fin.is_some_and(|fin| fin.get() == self.queue.end()) {
            self.finished = true;
            // Nothing follows the FIN, so no gap can be left.
            self.reassembly = None;
        }
        self.unanswered += data.len() as u64;
        self.heard = now;
        let in_order = self.nxt() > next && !gap && !self.has_gap();
        let quick = self.quick > 0;
        self.quick = self.quick.saturating_sub(1);
        // After more than one segment, the peer's loss probe may repeat the last one before an answer comes.
        let held = self.prompt && self.unanswered <= mss;
        // RFC 5681 4.2: a gap, its filling and every second full segment are acknowledged at once.
        if fin || !in_order || self.unanswered >= 2 * mss || refused || (quick && !held) {
            self.answer = Answer::Now;
        } else if quick {
            self.hold(now);
        } else if self.answer == Answer::No {
            self.answer = Answer::By(after(now, ACK_DELAY));
        }
        !refused
    }

    /// Returns the part of `data` for which there is memory.
    fn admit<'a>(&mut self, start: u64, data: &'a [u8], memory: &Share) -> &'a [u8] {
        let ahead = start > self.queue.end();
        let known = self.queue.end().saturating_sub(start).min(data.len() as u64) as usize;
        let least = known + LEAST_BUFFER.saturating_sub(self.queue.len());
        // While memory is short, out-of-order data is refused, because its sender still has it. Data in order
        // is refused only when memory is full and the application has `LEAST_BUFFER` bytes to read.
        if (!ahead && data.len() <= least) || memory.has_room() {
            return data;
        }
        // The offered window stays valid; its further growth follows the smaller limit.
        self.limit = self.limit.min(PRESSED_LIMIT);
        match ahead {
            true => &[],
            false if memory.is_full() => &data[..least],
            false => data,
        }
    }

    /// Drops out-of-order data; returns `false` if there was none.
    pub(crate) fn prune(&mut self) -> bool {
        // The sender still has the data (RFC 2018 section 8).
        self.reassembly.take_if(|reassembly| !reassembly.is_empty()).is_some()
    }

    /// Returns the time since which the application has not read available data.
    pub(crate) fn unread_since(&self) -> Option<Time> {
        (self.queue.len() > 0).then_some(self.round_end)
    }

    fn insert(&mut self, start: u64, data: &[u8], memory: &Share) {
        if self.reassembly.is_none() && start == self.queue.end() {
            self.queue.append(data);
            return;
        }
        let reassembly = self.reassembly.get_or_insert_default();
        reassembly.insert(start, data, &mut self.queue);
        // Data kept from before the window closed may extend beyond its end.
        self.edge = self.edge.max(self.queue.end());
        if reassembly.is_empty() || reassembly.copied() >= MANY_REORDERED {
            memory.note_reordered(reassembly.take_copied());
        }
        self.drop_reassembly();
    }

    /// Returns true if data before some arrived data is missing.
    fn has_gap(&self) -> bool {
        self.reassembly.as_ref().is_some_and(|reassembly| !reassembly.is_empty())
    }

    /// Returns true if an acknowledgement has something new to report.
    fn has_news(&self) -> bool {
        self.reassembly.as_ref().is_some_and(|reassembly| reassembly.has_news())
    }

    fn drop_reassembly(&mut self) {
        if !self.has_blocks() {
            self.reassembly = None;
        }
    }

    /// Notes that the peer's data is urgent up to `end`. An offset already read has no effect.
    pub(crate) fn on_urgent(&mut self, end: u64) {
        self.urgent = self.urgent.max(end);
    }

    /// Returns the bytes from the reader to the end of the urgent data.
    pub(crate) fn urgent_left(&self) -> u64 {
        // Urgent data behind the FIN never comes.
        let end = if self.finished { self.urgent.min(self.queue.end()) } else { self.urgent };
        end.saturating_sub(self.queue.start())
    }

    /// Limits a read of `len` bytes at the mark before the last urgent byte.
    fn up_to_mark(&self, len: usize) -> usize {
        match self.urgent_left() {
            0 | 1 => len,
            left => len.min(usize::try_from(left - 1).unwrap_or(len)),
        }
    }

    /// Notes that `start..end` has arrived again.
    pub(crate) fn on_duplicate(&mut self, start: u64, end: u64) {
        self.reassembly.get_or_insert_default().on_duplicate(start, end);
    }

    /// Requests an immediate acknowledgement.
    pub(crate) fn acknowledge_now(&mut self) {
        self.answer = Answer::Now;
    }

    /// Delays the acknowledgement for the application by at most [`MAX_EARLY_ACK_DELAY`].
    fn hold(&mut self, now: Time) {
        let until = after(now, MAX_EARLY_ACK_DELAY);
        self.answer = match self.answer {
            Answer::No => Answer::By(until),
            Answer::By(at) => Answer::By(at.min(until)),
            Answer::Now => return,
        };
        self.held = true;
    }

    /// Sets whether the application is prompt.
    pub(crate) fn set_prompt(&mut self, on: bool) {
        self.prompt = on;
    }

    /// Releases a held acknowledgement, because the application waits for data.
    pub(crate) fn release(&mut self) {
        if std::mem::take(&mut self.held) {
            self.answer = Answer::Now;
        }
    }

    /// Notes outgoing data. If it answers recent data, further acknowledgements can ride on answers.
    pub(crate) fn on_answered(&mut self, now: Time) {
        if now < after(self.heard, ACK_DELAY) {
            self.quick = 0;
        }
    }

    /// Sets TCP_QUICKACK: acknowledge at once for a while, or not.
    pub(crate) fn set_quick(&mut self, on: bool) {
        self.quick = if on { QUICK } else { 0 };
        if on && self.answer != Answer::No {
            self.answer = Answer::Now;
        }
    }

    /// Returns true if an acknowledgement is due: there is something to report, or the window has opened
    /// enough (RFC 1122 4.2.3.3).
    pub(crate) fn is_answer_due(&self, now: Time, mss: u64) -> bool {
        match self.answer {
            Answer::Now => true,
            Answer::By(at) if at <= now => true,
            _ => self.has_news() || self.has_opened(mss),
        }
    }

    /// Returns the time at which a delayed acknowledgement is due.
    pub(crate) fn answer_at(&self) -> Option<Time> {
        match self.answer {
            Answer::By(at) => Some(at),
            Answer::No | Answer::Now => None,
        }
    }

    /// Notes an outgoing segment that acknowledges everything.
    pub(crate) fn on_acknowledged(&mut self) {
        self.acked = self.nxt();
        self.unanswered = 0;
        self.held = false;
        self.answer = Answer::No;
    }

    /// Passes at most `most` SACK blocks for the outgoing segment to `block`.
    pub(crate) fn report(&mut self, most: usize, block: impl FnMut(u64, u64)) {
        if let Some(reassembly) = &mut self.reassembly {
            reassembly.report(most, block);
            self.drop_reassembly();
        }
    }

    /// Drops the SACK news, because the peer does not use SACK.
    pub(crate) fn report_nothing(&mut self) {
        if let Some(reassembly) = &mut self.reassembly {
            reassembly.forget_news();
            self.drop_reassembly();
        }
    }

    /// Returns true if the next acknowledgement has SACK blocks.
    pub(crate) fn has_blocks(&self) -> bool {
        self.has_news() || self.has_gap()
    }

    /// Returns the number of separate out-of-order ranges.
    pub(crate) fn ranges(&self) -> usize {
        self.reassembly.as_ref().map_or(0, |reassembly| reassembly.ranges())
    }

    /// Returns the bytes that the application can read.
    pub(crate) fn readable(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn read(&mut self, now: Time, buf: &mut [u8], rtt: Option<Duration>, room: bool) -> usize {
        let most = self.up_to_mark(buf.len());
        let read = self.queue.read(&mut buf[..most]);
        self.adapt(now, rtt, room);
        read
    }

    /// Does the same as [`Self::read`] for bytes that were copied in place.
    pub(crate) fn consume(&mut self, now: Time, length: usize, rtt: Option<Duration>, room: bool) {
        self.queue.drop_until(self.queue.start() + length as u64);
        self.adapt(now, rtt, room);
    }

    /// Returns the bytes of one read, one slice per chunk.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut left = self.up_to_mark(usize::MAX);
        self.queue.pieces().map_while(move |piece| {
            let length = piece.len().min(left);
            left -= length;
            (length > 0).then(|| &piece[..length])
        })
    }

    pub(crate) fn peek(&self, buf: &mut [u8]) -> usize {
        let most = self.up_to_mark(buf.len());
        self.queue.copy(self.queue.start(), &mut buf[..most])
    }

    /// Discards the unread data.
    pub(crate) fn discard(&mut self) {
        self.queue.drop_until(u64::MAX);
    }

    /// Grows the buffer to a multiple of what the application reads in a round trip.
    fn adapt(&mut self, now: Time, rtt: Option<Duration>, room: bool) {
        if now < self.round_end {
            return;
        }
        let read = self.queue.start() - self.round_start;
        let wanted = usize::try_from(BDPS * read).unwrap_or(usize::MAX);
        // The limit only grows here; a shortage of memory lowers it elsewhere.
        if wanted > self.limit && room {
            self.limit = wanted.min(self.most);
        }
        self.round_start = self.queue.start();
        self.round_end = after(now, rtt.unwrap_or(Duration::from_millis(100)).max(MIN_ROUND));
    }

    /// Returns the present limit of the buffer, bytes.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Returns the bytes of memory in use, without bookkeeping.
    pub(crate) fn allocated(&self) -> usize {
        self.queue.allocated() + self.reassembly.as_ref().map_or(0, |reassembly| reassembly.allocated())
    }
}
