//! The receiving half of a connection: the queue for the application, the window, and when to acknowledge.

mod window;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use super::byte_queue::ByteQueue;
use super::chunk_pool::ChunkPool;
use super::memory::{LEAST_BUFFER, Share};
use super::reassembly::Reassembly;
use crate::host::clock::{Time, after};

/// How long an acknowledgement may wait for data to ride on (RFC 1122 4.2.3.2: under 500 ms), as in Linux.
const ACK_DELAY: Duration = Duration::from_millis(40);

/// How long the acknowledgement of a segment at the beginning may wait for an application that acts at once.
const HOLD: Duration = Duration::from_millis(10);

/// So many segments at the beginning are acknowledged at once, for the peer's slow start, as in Linux.
const QUICK: u8 = 16;

/// What a receive buffer that adapts itself starts with, bytes.
const INITIAL_LIMIT: usize = 256 << 10;

/// A receive buffer's bytes while memory is short, unless it holds more already.
const PRESSED_LIMIT: usize = 16 << 10;

/// The receive buffer holds so many times what arrives in a round trip: with less, a loss halves the rate.
const BDPS: u64 = 4;

/// The buffer's need is measured over this time at least.
const MIN_ROUND: Duration = Duration::from_millis(1);

/// Bytes copied out of order that are counted together at least, while there is a gap: all connections share
/// the counter, so it is not touched for each packet.
const MANY_REORDERED: u32 = 64 << 10;

/// The receiving half. Offsets are the stream's: data begins at 1.
pub(crate) struct Receiver {
    /// What has arrived in order and the application has not read.
    queue: ByteQueue,
    /// What has arrived out of order, while there is any.
    reassembly: Option<Box<Reassembly>>,
    /// What follows the last urgent byte (RFC 9293 3.8.5), or followed it.
    urgent: u64,
    /// Where the peer's FIN is, once it has come; and whether everything before it has.
    fin: Option<NonZeroU64>,
    finished: bool,
    /// The peer may send up to here.
    edge: u64,
    /// For lack of memory it was told, or is to be, that it may send nothing.
    closed: bool,
    /// Log2 of the unit of the window field, but for SYNs.
    pub(crate) scale: u8,
    /// Bytes that the application's queue may hold now, and at most.
    limit: usize,
    most: usize,
    /// The present round of measuring: its end, and what had been read at its beginning. While there is
    /// something to read it ends about when the application has last read, or when the first of it came.
    round_end: Time,
    round_start: u64,
    answer: Answer,
    /// TCP_QUICKACK, and segments that are still acknowledged at once.
    quick: u8,
    /// The application acts at once on what comes: it answers, or comes back to wait.
    prompt: bool,
    /// An acknowledgement waits for that.
    held: bool,
    /// When data came last.
    heard: Time,
    /// Bytes that arrived since the last acknowledgement.
    unanswered: u64,
    /// The last acknowledgement that was sent.
    acked: u64,
}

/// When an acknowledgement is to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    No,
    By(Time),
    Now,
}

impl Receiver {
    /// A receiver with a buffer of a fixed size, or of one that grows to `most` bytes. Without `room` it
    /// begins small.
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

    /// Where the queue's chunks come from and go to.
    pub(crate) fn set_chunk_pool(&mut self, pool: &Arc<ChunkPool>) {
        self.queue.set_pool(pool);
    }

    /// The next offset that is expected.
    pub(crate) fn nxt(&self) -> u64 {
        self.queue.end() + u64::from(self.finished)
    }

    /// The first offset that the peer may not send.
    pub(crate) fn edge(&self) -> u64 {
        self.edge
    }

    /// The last acknowledgement that was sent.
    pub(crate) fn acked(&self) -> u64 {
        self.acked
    }

    /// Whether any data has come in order.
    pub(crate) fn has_received(&self) -> bool {
        self.queue.end() > 1
    }

    /// The peer's FIN has come with everything before it.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Takes in `data` from offset `start` on, as much of it as lies in the window and there is memory for,
    /// and the FIN behind it. `false` if memory was lacking.
    pub(crate) fn on_segment(
        &mut self,
        now: Time,
        (start, data, fin): (u64, &[u8], bool),
        mss: u64,
        memory: &Share,
    ) -> bool {
        let end = start + data.len() as u64;
        let next = self.nxt();
        if fin && end <= self.edge.max(next) && self.fin.is_none() {
            self.fin = NonZeroU64::new(end);
        }
        let last = self.fin.map_or(u64::MAX, NonZeroU64::get).min(self.edge.max(next));
        let wanted = &data[..(last.saturating_sub(start)).min(data.len() as u64) as usize];
        let data = self.admit(start, wanted, memory);
        let refused = data.len() < wanted.len();
        if refused && start <= next {
            self.close_window();
        }
        if self.queue.len() == 0 {
            self.round_end = self.round_end.max(now);
        }
        let gap = self.has_gap();
        if !data.is_empty() {
            self.insert(start, data, memory);
        }
        if self.fin.is_some_and(|fin| fin.get() == self.queue.end()) {
            self.finished = true;
            self.reassembly = None;
        }
        self.unanswered += data.len() as u64;
        self.heard = now;
        let in_order = self.nxt() > next && !gap && !self.has_gap();
        let quick = self.quick > 0;
        self.quick = self.quick.saturating_sub(1);
        // The sender of more than one segment may send the last one again before an answer comes.
        let held = self.prompt && self.unanswered <= mss;
        if fin || !in_order || self.unanswered >= 2 * mss || refused || (quick && !held) {
            self.answer = Answer::Now;
        } else if quick {
            self.hold(now);
        } else if self.answer == Answer::No {
            self.answer = Answer::By(after(now, ACK_DELAY));
        }
        !refused
    }

    /// As much of `data` as there is memory for. What came out of order waits with its sender while memory is
    /// short; what continues the queue is refused only when there is none left, and the application has more
    /// to read than [`LEAST_BUFFER`].
    fn admit<'a>(&mut self, start: u64, data: &'a [u8], memory: &Share) -> &'a [u8] {
        let ahead = start > self.queue.end();
        let known = self.queue.end().saturating_sub(start).min(data.len() as u64) as usize;
        let least = known + LEAST_BUFFER.saturating_sub(self.queue.len());
        if (!ahead && data.len() <= least) || memory.has_room() {
            return data;
        }
        // What was offered stays; the window moves on as a small one.
        self.limit = self.limit.min(PRESSED_LIMIT);
        match ahead {
            true => &[],
            false if memory.is_full() => &data[..least],
            false => data,
        }
    }

    /// Forgets what came out of order; `false` if there was nothing. Its sender still has it (RFC 2018
    /// section 8).
    pub(crate) fn prune(&mut self) -> bool {
        self.reassembly.take_if(|reassembly| !reassembly.is_empty()).is_some()
    }

    /// Since when the application has not read what it could.
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
        // What came before the window was closed may go beyond its end.
        self.edge = self.edge.max(self.queue.end());
        if reassembly.is_empty() || reassembly.copied() >= MANY_REORDERED {
            memory.note_reordered(reassembly.take_copied());
        }
        self.drop_reassembly();
    }

    /// Whether something is missing before what has arrived.
    fn has_gap(&self) -> bool {
        self.reassembly.as_ref().is_some_and(|reassembly| !reassembly.is_empty())
    }

    /// Whether an acknowledgement has something to report that none before has.
    fn has_news(&self) -> bool {
        self.reassembly.as_ref().is_some_and(|reassembly| reassembly.has_news())
    }

    fn drop_reassembly(&mut self) {
        if !self.has_blocks() {
            self.reassembly = None;
        }
    }

    /// The peer says that its data is urgent up to `end`. What lies behind the reader says nothing.
    pub(crate) fn on_urgent(&mut self, end: u64) {
        self.urgent = self.urgent.max(end);
    }

    /// Bytes from the reader to the end of the urgent data.
    pub(crate) fn urgent_left(&self) -> u64 {
        let end = if self.finished { self.urgent.min(self.queue.end()) } else { self.urgent };
        end.saturating_sub(self.queue.start())
    }

    /// How much of a buffer of `len` bytes may be filled: nothing beyond the mark, which is before the last
    /// urgent byte.
    fn up_to_mark(&self, len: usize) -> usize {
        match self.urgent_left() {
            0 | 1 => len,
            left => len.min(usize::try_from(left - 1).unwrap_or(len)),
        }
    }

    /// `start..end` has come once more.
    pub(crate) fn on_duplicate(&mut self, start: u64, end: u64) {
        self.reassembly.get_or_insert_default().on_duplicate(start, end);
    }

    /// Asks for an acknowledgement at once.
    pub(crate) fn acknowledge_now(&mut self) {
        self.answer = Answer::Now;
    }

    /// Has the acknowledgement wait for the application, but not long.
    fn hold(&mut self, now: Time) {
        let until = after(now, HOLD);
        self.answer = match self.answer {
            Answer::No => Answer::By(until),
            Answer::By(at) => Answer::By(at.min(until)),
            Answer::Now => return,
        };
        self.held = true;
    }

    /// Whether the application is prompt.
    pub(crate) fn set_prompt(&mut self, on: bool) {
        self.prompt = on;
    }

    /// The application waits for data: what is held for it leaves.
    pub(crate) fn release(&mut self) {
        if std::mem::take(&mut self.held) {
            self.answer = Answer::Now;
        }
    }

    /// Data leaves. If it answers what has come just now, acknowledgements can ride on answers from now on.
    pub(crate) fn on_answered(&mut self, now: Time) {
        if now < after(self.heard, ACK_DELAY) {
            self.quick = 0;
        }
    }

    /// TCP_QUICKACK: acknowledge at once for a while, or not.
    pub(crate) fn set_quick(&mut self, on: bool) {
        self.quick = if on { QUICK } else { 0 };
        if on && self.answer != Answer::No {
            self.answer = Answer::Now;
        }
    }

    /// Whether an acknowledgement is due: something to report, or a window that has opened enough (RFC 1122
    /// 4.2.3.3).
    pub(crate) fn is_answer_due(&self, now: Time, mss: u64) -> bool {
        match self.answer {
            Answer::Now => true,
            Answer::By(at) if at <= now => true,
            _ => self.has_news() || self.has_opened(mss),
        }
    }

    /// When an acknowledgement is due by itself.
    pub(crate) fn answer_at(&self) -> Option<Time> {
        match self.answer {
            Answer::By(at) => Some(at),
            Answer::No | Answer::Now => None,
        }
    }

    /// A segment leaves that acknowledges everything.
    pub(crate) fn on_acknowledged(&mut self) {
        self.acked = self.nxt();
        self.unanswered = 0;
        self.held = false;
        self.answer = Answer::No;
    }

    /// At most `most` blocks of what came out of order go with it.
    pub(crate) fn report(&mut self, most: usize, block: impl FnMut(u64, u64)) {
        if let Some(reassembly) = &mut self.reassembly {
            reassembly.report(most, block);
            self.drop_reassembly();
        }
    }

    /// The peer wants no such blocks.
    pub(crate) fn report_nothing(&mut self) {
        if let Some(reassembly) = &mut self.reassembly {
            reassembly.forget_news();
            self.drop_reassembly();
        }
    }

    /// Whether there are blocks to report with the next acknowledgement.
    pub(crate) fn has_blocks(&self) -> bool {
        self.has_news() || self.has_gap()
    }

    /// How many separate ranges have come out of order.
    pub(crate) fn ranges(&self) -> usize {
        self.reassembly.as_ref().map_or(0, |reassembly| reassembly.ranges())
    }

    /// Bytes that the application can read.
    pub(crate) fn readable(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn read(&mut self, now: Time, buf: &mut [u8], rtt: Option<Duration>, room: bool) -> usize {
        let most = self.up_to_mark(buf.len());
        let read = self.queue.read(&mut buf[..most]);
        self.adapt(now, rtt, room);
        read
    }

    /// As [`Self::read`], of bytes that were copied where they lie.
    pub(crate) fn consume(&mut self, now: Time, length: usize, rtt: Option<Duration>, room: bool) {
        self.queue.drop_until(self.queue.start() + length as u64);
        self.adapt(now, rtt, room);
    }

    /// What one read may take, in as many pieces as it lies in.
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

    /// Throws away what is there.
    pub(crate) fn discard(&mut self) {
        self.queue.drop_until(u64::MAX);
    }

    /// Makes the buffer large enough for what the application reads in a round trip, several times over.
    fn adapt(&mut self, now: Time, rtt: Option<Duration>, room: bool) {
        if now < self.round_end {
            return;
        }
        let read = self.queue.start() - self.round_start;
        let wanted = usize::try_from(BDPS * read).unwrap_or(usize::MAX);
        if wanted > self.limit && room {
            self.limit = wanted.min(self.most);
        }
        self.round_start = self.queue.start();
        self.round_end = after(now, rtt.unwrap_or(Duration::from_millis(100)).max(MIN_ROUND));
    }

    /// The buffer's present limit, bytes.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes of memory that it occupies, bookkeeping aside.
    pub(crate) fn allocated(&self) -> usize {
        self.queue.allocated() + self.reassembly.as_ref().map_or(0, |reassembly| reassembly.allocated())
    }
}
