//! The sender's scoreboard (RFC 6675): data that was sent and is not acknowledged. It also keeps the order of
//! transmissions for loss detection (RFC 8985).
//!
//! A run is data that was sent together, until acknowledgements or losses distinguish its segments. Runs are
//! split at segment boundaries only, and adjacent SACKed runs are joined. So the work for an acknowledgement
//! grows with the new information in it, not with the window.

use std::collections::VecDeque;

use super::rate::Snapshot;
use super::runs::{At, Runs};
use crate::host::clock::Time;

/// Maximum number of runs that a peer's SACK blocks may create. SACK is advice (RFC 2018 section 5), so
/// blocks that would make more are ignored. At 10 % loss a window of 64 MiB makes about 10,000. A start-up
/// that overflows a queue makes up to 25,000.
const MAX_SACKED_RUNS: usize = 1 << 15;

/// Number of runs at which no new data is sent. Only tiny segments reach it.
const MAX_RUNS: usize = 1 << 16;

/// Part of the stream that was sent at one time and has one fate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Payload of each segment but the last, bytes.
    pub(crate) segment: u64,
    pub(crate) fate: Fate,
    /// True if the last transmission was a retransmission.
    pub(crate) resent: bool,
    /// Snapshot of the last transmission.
    pub(crate) snapshot: Snapshot,
}

/// State of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    InFlight,
    /// Received by the peer out of order.
    Sacked,
    /// Lost, to be retransmitted.
    Lost,
}

impl Run {
    pub(crate) fn len(&self) -> u64 {
        self.end - self.start
    }
}

/// One transmission, for loss detection. It still concerns the runs that were last sent at this time.
#[derive(Debug, Clone, Copy)]
struct Transmission {
    sent: Time,
    start: u64,
    end: u64,
}

/// Newest delivered transmission: by time, then by offset within one burst.
pub(crate) type Newest = (Time, u64);

/// Scoreboard of a sender (see the module). Offsets are stream offsets; a FIN counts as one byte.
#[derive(Debug, Default)]
pub(crate) struct Scoreboard {
    runs: Runs,
    in_flight: u64,
    sacked: u64,
    lost: u64,
    /// Offset before which no run is lost.
    lost_from: u64,
    /// Transmissions in order of time. Entries that concern no run are dropped when they reach the front.
    order: VecDeque<Transmission>,
}

impl Scoreboard {
    /// Returns the bytes sent and neither acknowledged, SACKed nor lost.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Returns the bytes that await retransmission.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Returns the bytes that the peer has out of order.
    pub(crate) fn sacked(&self) -> u64 {
        self.sacked
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Returns true if the maximum number of runs is reached.
    pub(crate) fn is_full(&self) -> bool {
        self.runs.len() >= MAX_RUNS
    }

    /// Returns the bytes of memory that the runs occupy.
    pub(crate) fn allocated(&self) -> usize {
        self.runs.len() * size_of::<Run>()
    }

    /// Adds new data that is sent now; it follows the data before.
    pub(crate) fn push(&mut self, start: u64, end: u64, segment: u64, snapshot: Snapshot) {
        if self.order.capacity() == 0 {
            // A request-response connection has one transmission at a time.
            self.order.reserve_exact(1);
        }
        // A segment size of 0 would be a divisor in `sack` and `last`.
        let run = Run { start, end, segment: segment.max(1), fate: Fate::InFlight, resent: false, snapshot };
        self.in_flight += run.len();
        self.runs.push_back(run);
        self.order.push_back(Transmission { sent: snapshot.sent, start, end });
    }

    /// Removes everything before `to`. Calls `delivered` for the parts that were not SACKed before.
    pub(crate) fn acknowledge(&mut self, to: u64, mut delivered: impl FnMut(&Run)) {
        while let Some(first) = self.runs.front().copied()
            && first.start < to
        {
            if first.end > to {
                self.split(self.runs.start(), to);
                continue;
            }
            self.runs.pop_front();
            *self.bytes_of(first.fate) -= first.len();
            // SACKed parts were counted as delivered when the SACK block came.
            if first.fate != Fate::Sacked {
                delivered(&first);
            }
        }
        // Only the front: entries behind it are dropped when their turn comes, which keeps the cost per
        // acknowledgement constant.
        while self.order.front().is_some_and(|entry| entry.end <= to) {
            self.order.pop_front();
        }
        if self.runs.is_empty() {
            self.order.clear();
            if self.order.capacity() > 16 {
                self.order = VecDeque::new();
            }
        }
    }

    /// Marks `start..end` as SACKed. Calls `delivered` for the newly SACKed parts; partial segments are
    /// ignored.
    pub(crate) fn sack(&mut self, start: u64, end: u64, mut delivered: impl FnMut(&Run)) {
        let mut at = self.runs.find(start);
        while let Some(run) = self.runs.get(at).copied()
            && run.start < end
        {
            if run.fate == Fate::Sacked {
                at = self.runs.next(at);
                continue;
            }
            // Whole segments, from the first that starts within the block to the last that ends within it.
            let skipped = start.saturating_sub(run.start).div_ceil(run.segment) * run.segment;
            let from = run.start + skipped;
            let to = if end >= run.end {
                run.end
            } else {
                run.start + (end - run.start) / run.segment * run.segment
            };
            let splits = from > run.start || to < run.end;
            // A hostile peer could otherwise make this end keep a run for each byte in flight.
            if from >= to || (splits && self.runs.len() >= MAX_SACKED_RUNS) {
                at = self.runs.next(at);
                continue;
            }
            if from > run.start {
                at = self.split(at, from).1;
            }
            if to < run.end {
                at = self.split(at, to).0;
            }
            let Some(part) = self.runs.get_mut(at) else { return };
            let run = *part;
            part.fate = Fate::Sacked;
            *self.bytes_of(run.fate) -= run.len();
            self.sacked += run.len();
            delivered(&run);
            // Joined at once, so that the number of runs follows the number of gaps and not that of SACK
            // blocks.
            at = self.join(at);
            at = self.runs.next(at);
        }
    }

    /// Detects losses among transmissions older than `newest` (RFC 8985 6.2 step 5). Everything sent at
    /// `overdue` or earlier is lost and passed to `lost`. Returns the time of the oldest other transmission.
    pub(crate) fn detect(
        &mut self,
        newest: Newest,
        overdue: Time,
        mut lost: impl FnMut(&Run),
    ) -> Option<Time> {
        while let Some(entry) = self.order.front().copied() {
            // Transmissions of one burst have the same time, so the offset decides between them (RFC 8985
            // 6.2).
            let end = match entry.sent.cmp(&newest.0) {
                std::cmp::Ordering::Less => entry.end,
                std::cmp::Ordering::Equal => entry.end.min(newest.1),
                std::cmp::Ordering::Greater => return None,
            };
            if end <= entry.start {
                return None;
            }
            // An entry with nothing in flight since its time was delivered, lost or sent again.
            let Some(first) = self.in_flight_since(entry.sent, entry.start, end) else {
                self.advance_order(end);
                continue;
            };
            // The order is by time, so every later entry is younger.
            if entry.sent > overdue {
                return Some(entry.sent);
            }
            self.lose(first, entry.sent, end, &mut lost);
            self.advance_order(end);
        }
        None
    }

    /// Marks the front transmission as handled up to `end`.
    fn advance_order(&mut self, end: u64) {
        if let Some(entry) = self.order.front_mut() {
            entry.start = end;
            if entry.start >= entry.end {
                self.order.pop_front();
            }
        }
    }

    /// Returns the first run in `start..end` that is in flight since `sent`.
    fn in_flight_since(&self, sent: Time, start: u64, end: u64) -> Option<At> {
        let mut at = self.runs.find(start);
        while let Some(run) = self.runs.get(at)
            && run.start < end
        {
            if run.fate == Fate::InFlight && run.snapshot.sent == sent {
                return Some(at);
            }
            at = self.runs.next(at);
        }
        None
    }

    /// Marks everything in flight since `sent` as lost, from the run at `at` up to `end`.
    fn lose(&mut self, mut at: At, sent: Time, end: u64, lost: &mut impl FnMut(&Run)) {
        while let Some(run) = self.runs.get(at).copied()
            && run.start < end
        {
            if run.fate == Fate::InFlight && run.snapshot.sent == sent {
                if run.end > end {
                    at = self.split(at, end).0;
                }
                self.lose_run(at, lost);
            }
            at = self.runs.next(at);
        }
    }

    fn lose_run(&mut self, at: At, lost: &mut impl FnMut(&Run)) {
        let Some(run) = self.runs.get_mut(at) else { return };
        run.fate = Fate::Lost;
        let run = *run;
        self.in_flight -= run.len();
        // With nothing lost, the old mark means nothing.
        self.lost_from = if self.lost == 0 { run.start } else { self.lost_from.min(run.start) };
        self.lost += run.len();
        lost(&run);
    }

    /// Marks everything in flight as lost and passes it to `lost`.
    pub(crate) fn lose_all(&mut self, mut lost: impl FnMut(&Run)) {
        let mut at = self.runs.start();
        while let Some(run) = self.runs.get(at) {
            if run.fate == Fate::InFlight {
                self.lose_run(at, &mut lost);
            }
            at = self.runs.next(at);
        }
        // Nothing is in flight any more, so every entry is void.
        self.order.clear();
    }

    /// Marks the first `bytes` as lost after duplicate acknowledgements of a peer without SACK, and passes
    /// them to `lost`.
    pub(crate) fn lose_first(&mut self, bytes: u64, mut lost: impl FnMut(&Run)) {
        let Some(first) = self.runs.front().copied().filter(|first| first.fate == Fate::InFlight) else {
            return;
        };
        let mut at = self.runs.start();
        if first.len() > bytes {
            at = self.split(at, first.start + bytes).0;
        }
        self.lose_run(at, &mut lost);
    }

    /// Clears all SACKed marks, because the peer has dropped its out-of-order data (RFC 2018 section 8).
    pub(crate) fn forget_sacked(&mut self) {
        for run in self.runs.iter_mut().filter(|run| run.fate == Fate::Sacked) {
            run.fate = Fate::InFlight;
        }
        self.in_flight += std::mem::take(&mut self.sacked);
    }

    /// Returns true if the oldest byte is SACKed.
    pub(crate) fn is_reneged(&self) -> bool {
        // A peer that still had this byte would acknowledge it.
        self.runs.front().is_some_and(|first| first.fate == Fate::Sacked)
    }

    /// Marks everything lost and not yet retransmitted as in flight again. Returns the number of bytes.
    pub(crate) fn find_lost(&mut self) -> u64 {
        for run in self.runs.iter_mut().filter(|run| run.fate == Fate::Lost) {
            run.fate = Fate::InFlight;
        }
        let found = std::mem::take(&mut self.lost);
        self.in_flight += found;
        // The entries of lost runs have left the order, so it is built anew.
        let in_flight = self.runs.iter().filter(|run| run.fate == Fate::InFlight);
        let transmission =
            |run: &Run| Transmission { sent: run.snapshot.sent, start: run.start, end: run.end };
        self.order = in_flight.map(transmission).collect();
        self.order.make_contiguous().sort_by_key(|entry| (entry.sent, entry.start));
        found
    }

    /// Returns the first run that awaits retransmission.
    pub(crate) fn next_lost(&mut self) -> Option<Run> {
        if self.lost == 0 {
            return None;
        }
        let mut at = self.runs.find(self.lost_from);
        while let Some(run) = self.runs.get(at) {
            if run.fate == Fate::Lost {
                self.lost_from = run.start;
                return Some(*run);
            }
            at = self.runs.next(at);
        }
        None
    }

    /// Returns the last segment in flight or lost, for a tail loss probe (RFC 8985 7.3).
    pub(crate) fn last(&self) -> Option<Run> {
        // The peer has the SACKed tail already, so a probe with it would show nothing.
        let run = self.runs.iter().rev().find(|run| run.fate != Fate::Sacked)?;
        let before = run.len().saturating_sub(1) / run.segment * run.segment;
        Some(Run { start: run.start + before, ..*run })
    }

    /// Notes the retransmission of `start..end`, which lies within one run.
    pub(crate) fn resend(&mut self, start: u64, end: u64, segment: u64, snapshot: Snapshot) {
        let mut at = self.runs.find(start);
        let Some(run) = self.runs.get(at).copied() else { return };
        if run.start < start {
            at = self.split(at, start).1;
        }
        if run.end > end {
            at = self.split(at, end).0;
        }
        let Some(run) = self.runs.get_mut(at) else { return };
        let (fate, len) = (run.fate, run.len());
        *run = Run { segment: segment.max(1), fate: Fate::InFlight, resent: true, snapshot, ..*run };
        *self.bytes_of(fate) -= len;
        self.in_flight += len;
        // The next search skips this run.
        if self.lost_from == start {
            self.lost_from = end;
        }
        self.order.push_back(Transmission { sent: snapshot.sent, start, end });
    }

    fn bytes_of(&mut self, fate: Fate) -> &mut u64 {
        match fate {
            Fate::InFlight => &mut self.in_flight,
            Fate::Sacked => &mut self.sacked,
            Fate::Lost => &mut self.lost,
        }
    }

    /// Splits a run in two. Returns their positions.
    fn split(&mut self, at: At, offset: u64) -> (At, At) {
        let Some(run) = self.runs.get_mut(at) else { return (at, at) };
        let second = Run { start: offset, ..*run };
        // The rest of the burst was sent after this part, so it does not count as in flight before it.
        run.snapshot.in_flight = run.snapshot.in_flight.saturating_sub(run.end - offset);
        run.end = offset;
        self.runs.insert_behind(at, second)
    }

    /// Joins a SACKed run with its SACKed neighbours; returns its new position.
    fn join(&mut self, at: At) -> At {
        let sacked = |run: &&Run| run.fate == Fate::Sacked;
        let next = self.runs.next(at);
        if let Some(end) = self.runs.get(next).filter(sacked).map(|run| run.end) {
            self.runs.remove(next);
            self.extend(at, end);
        }
        let end = self.runs.get(at).map(|run| run.end);
        if let (Some(before), Some(end)) = (self.runs.previous(at), end)
            && self.runs.get(before).filter(sacked).is_some()
        {
            self.runs.remove(at);
            self.extend(before, end);
            return before;
        }
        at
    }

    fn extend(&mut self, at: At, end: u64) {
        if let Some(run) = self.runs.get_mut(at) {
            run.end = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::runs::work;
    use super::*;

    const SEGMENT: u64 = 10;

    fn snapshot(millis: u64) -> Snapshot {
        let at = Time::from_millis(millis as i64);
        Snapshot {
            sent: at,
            first_sent: at,
            delivered: 0,
            delivered_at: at,
            in_flight: 0,
            lost: 0,
            app_limited: false,
        }
    }

    /// State of one segment.
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Segment {
        fate: Fate,
        sent: u64,
        resent: bool,
    }

    proptest! {
        /// Compares the scoreboard with a list of single segments that is scanned in full each time.
        #[test]
        fn it_agrees_with_a_list_of_segments(
            steps in prop::collection::vec((0u8..8, 0u64..60, 1u64..30), 1..120),
        ) {
            let mut board = Scoreboard::default();
            let mut model: Vec<Segment> = Vec::new();
            let (mut una, mut now) = (0usize, 0u64);
            for (what, from, count) in steps {
                now += 1;
                let all = model.len();
                let mut told = 0;
                let mut expected = 0;
                match what {
                    0 | 1 => {
                        let start = all as u64 * SEGMENT;
                        board.push(start, start + count * SEGMENT, SEGMENT, snapshot(now));
                        let new = Segment { fate: Fate::InFlight, sent: now, resent: false };
                        model.extend(std::iter::repeat_n(new, count as usize));
                    }
                    2 => {
                        let to = (una + count as usize / 2).min(all);
                        board.acknowledge(to as u64 * SEGMENT, |run| told += run.len());
                        let new = model[una..to].iter().filter(|one| one.fate != Fate::Sacked);
                        expected = new.count() as u64 * SEGMENT;
                        una = to;
                    }
                    3 | 4 => {
                        let start = (una + 1 + from as usize).min(all);
                        let end = (start + count as usize).min(all);
                        // Partial segments at the edges are ignored.
                        let (ragged, cut) = (from % 2 * 3, count % 2 * 4);
                        if start < end {
                            let bytes = (start as u64 * SEGMENT - ragged, end as u64 * SEGMENT - cut);
                            board.sack(bytes.0, bytes.1, |run| told += run.len());
                            let end = if cut > 0 { end - 1 } else { end };
                            for one in &mut model[start..end] {
                                expected += if one.fate == Fate::Sacked { 0 } else { SEGMENT };
                                one.fate = Fate::Sacked;
                            }
                        }
                    }
                    5 => {
                        let (newest, overdue) = (now.saturating_sub(from / 8), now.saturating_sub(count));
                        let at = |millis: u64| Time::from_millis(millis as i64);
                        let next = board.detect((at(newest), 0), at(overdue), |run| told += run.len());
                        let old = |one: &&mut Segment| one.fate == Fate::InFlight && one.sent < newest;
                        let mut waiting = None::<u64>;
                        for one in model[una..].iter_mut().filter(old) {
                            if one.sent <= overdue {
                                one.fate = Fate::Lost;
                                expected += SEGMENT;
                            } else {
                                waiting = Some(waiting.map_or(one.sent, |sent| sent.min(one.sent)));
                            }
                        }
                        prop_assert_eq!(next, waiting.map(at));
                    }
                    6 => {
                        let found = board.next_lost();
                        let first = (una..all).find(|&at| model[at].fate == Fate::Lost);
                        prop_assert_eq!(found.map(|run| run.start), first.map(|at| at as u64 * SEGMENT));
                        if let Some(run) = found {
                            let end = run.end.min(run.start + count * SEGMENT);
                            board.resend(run.start, end, SEGMENT, snapshot(now));
                            for one in &mut model[(run.start / SEGMENT) as usize..(end / SEGMENT) as usize] {
                                *one = Segment { fate: Fate::InFlight, sent: now, resent: true };
                            }
                        }
                    }
                    _ if count > 25 => {
                        board.lose_all(|run| told += run.len());
                        for one in model[una..].iter_mut().filter(|one| one.fate == Fate::InFlight) {
                            one.fate = Fate::Lost;
                            expected += SEGMENT;
                        }
                    }
                    _ if count > 20 => {
                        board.find_lost();
                        for one in model[una..].iter_mut().filter(|one| one.fate == Fate::Lost) {
                            one.fate = Fate::InFlight;
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(told, expected);
                let bytes = |fate| model[una..].iter().filter(|one| one.fate == fate).count() as u64 * SEGMENT;
                prop_assert_eq!(board.in_flight(), bytes(Fate::InFlight));
                prop_assert_eq!(board.sacked(), bytes(Fate::Sacked));
                prop_assert_eq!(board.lost(), bytes(Fate::Lost));
                let last = (una..model.len()).rev().find(|&at| model[at].fate != Fate::Sacked);
                prop_assert_eq!(board.last().map(|run| run.start), last.map(|at| at as u64 * SEGMENT));
            }
        }
    }

    #[test]
    fn a_burst_is_split_where_the_newest_delivery_is() {
        let mut board = Scoreboard::default();
        board.push(0, 100, SEGMENT, snapshot(1));
        board.sack(50, 60, |_| {});
        let mut lost = Vec::new();
        let now = Time::from_secs(9);
        assert_eq!(board.detect((snapshot(1).sent, 60), now, |run| lost.push((run.start, run.end))), None);
        assert_eq!(lost, [(0, 50)]);
        assert_eq!((board.in_flight(), board.lost(), board.sacked()), (40, 50, 10));
    }

    /// A peer that SACKs every other segment from both ends inwards makes each block split a run in the
    /// middle.
    #[test]
    fn the_work_for_a_block_does_not_grow_with_the_runs() {
        let segments = 40_000;
        for segment in [36, 1300] {
            let mut board = Scoreboard::default();
            board.push(0, segments * segment, segment, snapshot(1));
            let mut worst = 0;
            let mut ends = (1, segments - 2);
            while ends.0 < ends.1 {
                for at in [ends.0, ends.1] {
                    work::take();
                    board.sack(at * segment, (at + 1) * segment, |_| {});
                    worst = worst.max(work::take());
                }
                ends = (ends.0 + 2, ends.1 - 2);
            }
            assert!(worst < 300, "{worst} runs were moved or looked at for one block");
            assert!(board.runs.len() <= MAX_SACKED_RUNS + 2, "{} runs", board.runs.len());
            assert!(
                board.sacked() >= segment * (MAX_SACKED_RUNS as u64 / 2 - 2),
                "what has a place is noted"
            );
            // A block that fills the gaps needs no new run and joins existing ones.
            board.sack(segment, segments * segment, |_| {});
            assert_eq!((board.runs.len(), board.in_flight()), (2, segment));
            board.acknowledge(segments * segment, |_| {});
            assert!(board.is_empty() && board.in_flight() == 0 && board.sacked() == 0);
        }
    }

    /// Sends the blocks in one direction and from the middle outwards, with retransmissions of lost data.
    #[test]
    fn the_work_is_bounded_in_any_order() {
        let segments = 10_000u64;
        let orders: [fn(u64) -> u64; 3] = [|at| at, |at| 9_998 - at, |at| (at * 3_571) % 10_000];
        for order in orders {
            let mut board = Scoreboard::default();
            board.push(0, segments * SEGMENT, SEGMENT, snapshot(1));
            let mut worst = 0;
            for at in (0..segments).step_by(2).map(order).filter(|at| *at > 0) {
                work::take();
                board.sack(at * SEGMENT, (at + 1) * SEGMENT, |_| {});
                worst = worst.max(work::take());
            }
            assert!(worst < 300, "{worst} runs for one block");
            board.detect((snapshot(2).sent, 0), Time::from_secs(9), |_| {});
            work::take();
            let mut resent = 0;
            while let Some(run) = board.next_lost() {
                board.resend(run.start, run.end.min(run.start + SEGMENT), SEGMENT, snapshot(3));
                resent += 1;
            }
            let work = work::take();
            assert!(work < 300 * resent, "{work} runs for {resent} retransmissions");
            board.acknowledge(segments * SEGMENT, |_| {});
            assert!(board.is_empty());
        }
    }

    #[test]
    fn sacking_a_window_piece_by_piece_leaves_one_run() {
        let mut board = Scoreboard::default();
        board.push(0, 100_000, SEGMENT, snapshot(1));
        for at in (1..10_000).rev() {
            board.sack(at * SEGMENT, (at + 1) * SEGMENT, |_| {});
        }
        assert_eq!(board.runs.len(), 2);
    }
}
