//! Storage for out-of-order data until the gap before it is filled; reported as SACK blocks (RFC 2018, RFC
//! 2883).

use std::collections::{BTreeMap, VecDeque};

use super::byte_queue::ByteQueue;
use super::options::MAX_BLOCKS;
use super::ranges::Ranges;

/// Maximum number of ranges reported in one round of acknowledgements, each with up to [`MAX_BLOCKS`].
const MAX_RECENT: usize = 8 * MAX_BLOCKS;

/// Maximum number of separate ranges; more are refused. A window of 64 MiB at 5 % loss makes about 2,500. A
/// start-up that overflows a queue with reordering makes up to 12,000.
const MAX_RANGES: usize = 16384;

/// Maximum number of pieces, because each piece costs memory beyond its bytes.
const MAX_PIECES: usize = 4 * MAX_RANGES;

/// Overhead of a piece: its entry in the map and the allocator's share.
const PIECE: usize = 64;

/// Minimum size of a piece that joins the queue as a chunk; smaller pieces are copied into larger chunks.
const WHOLE: usize = 1 << 10;

/// Data beyond the next expected byte.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    /// Data by its first offset; pieces do not overlap.
    pieces: BTreeMap<u64, Vec<u8>>,
    /// Ranges of offsets that `pieces` covers.
    ranges: Ranges,
    /// Offsets in changed ranges that no acknowledgement has reported since, the latest first.
    news: VecDeque<u64>,
    /// Offsets in ranges that were reported, the latest first.
    reported: VecDeque<u64>,
    /// Part that came twice and is not reported yet.
    duplicate: Option<(u64, u64)>,
    /// Bytes allocated, bookkeeping included.
    allocated: usize,
    /// Bytes copied and not counted yet.
    copied: u32,
}

impl Reassembly {
    /// Stores `data`, which starts at `start` and lies within the window. Data that continues `queue` goes
    /// there, together with the pieces after it; other data is kept. Returns `false` if there was no room.
    pub(crate) fn insert(&mut self, start: u64, data: &[u8], queue: &mut ByteQueue) -> bool {
        let end = start + data.len() as u64;
        let next = queue.end();
        if let Some(duplicate) = self.known(start, end, next) {
            self.duplicate = Some(duplicate);
        }
        // A duplicate as a whole, which only the report above concerns.
        if end <= next {
            return true;
        }
        // In order: straight into the queue, without a copy into a piece.
        if start <= next {
            queue.append(&data[(next - start) as usize..]);
            self.continue_with(queue);
            return true;
        }
        self.keep(start, data)
    }

    /// Notes that `start..end` has arrived again.
    pub(crate) fn on_duplicate(&mut self, start: u64, end: u64) {
        self.duplicate = Some((start, end));
    }

    /// Returns the first part of `start..end` that has arrived before.
    fn known(&self, start: u64, end: u64, next: u64) -> Option<(u64, u64)> {
        if start < next && start < end {
            // RFC 2883 section 4: data below the acknowledgement is reported too, because the sender learns
            // of a needless retransmission.
            return Some((start, end.min(next)));
        }
        self.ranges.overlap(start, end)
    }

    /// Moves the pieces that continue `queue` into it.
    fn continue_with(&mut self, queue: &mut ByteQueue) {
        while let Some(first) = self.pieces.first_entry()
            && *first.key() <= queue.end()
        {
            let (start, bytes) = first.remove_entry();
            self.allocated -= bytes.capacity() + PIECE;
            let known = (queue.end() - start) as usize;
            if known == 0 && bytes.len() >= WHOLE {
                queue.push(bytes);
            } else if known < bytes.len() {
                self.copied += (bytes.len() - known) as u32;
                queue.append(&bytes[known..]);
            }
        }
        self.ranges.drop_until(queue.end());
        if self.ranges.is_empty() {
            // No gap is left, so nothing remains to be reported, and the lists free their memory.
            self.news = VecDeque::new();
            self.reported = VecDeque::new();
        }
    }

    fn keep(&mut self, start: u64, data: &[u8]) -> bool {
        let end = start + data.len() as u64;
        // A piece that touches a range makes no new one, so the bound does not refuse it.
        let joins = self.ranges.overlap(start.saturating_sub(1), end + 1).is_some();
        if self.pieces.len() >= MAX_PIECES || (!joins && self.ranges.len() >= MAX_RANGES) {
            return false;
        }
        let mut at = start;
        while at < end {
            let known = self.ranges.overlap(at, end);
            let gap_end = known.map_or(end, |known| known.0);
            if gap_end > at {
                self.keep_piece(at, &data[(at - start) as usize..(gap_end - start) as usize]);
            }
            at = known.map_or(end, |known| known.1);
        }
        // Known parts keep their first copy, so a second one cannot change data that was acknowledged.
        self.ranges.insert(start, end);
        self.note_change(start);
        true
    }

    fn keep_piece(&mut self, start: u64, data: &[u8]) {
        // Consecutive small segments form one piece, because each piece has overhead.
        if let Some((&before, piece)) = self.pieces.range_mut(..start).next_back()
            && before + piece.len() as u64 == start
            // Bounded, because each growth may move the whole piece.
            && piece.len() + data.len() <= 64 << 10
        {
            let (capacity, len) = (piece.capacity(), piece.len());
            piece.extend_from_slice(data);
            self.allocated = self.allocated - capacity + piece.capacity();
            // A reallocation moved the old bytes, too.
            self.copied += (data.len() + if piece.capacity() > capacity { len } else { 0 }) as u32;
            return;
        }
        let piece = data.to_vec();
        self.copied += data.len() as u32;
        self.allocated += piece.capacity() + PIECE;
        self.pieces.insert(start, piece);
    }

    /// Moves the range that contains `offset` to the front of the news, without duplicates.
    fn note_change(&mut self, offset: u64) {
        let changed = self.ranges.containing(offset);
        let before = self.news.iter().position(|&other| self.ranges.containing(other) == changed);
        if let Some(before) = before {
            self.news.remove(before);
        }
        self.news.push_front(offset);
        self.news.truncate(MAX_RECENT);
    }

    /// Returns true if an acknowledgement has something new to report.
    pub(crate) fn has_news(&self) -> bool {
        !self.news.is_empty() || self.duplicate.is_some()
    }

    /// Drops the news, because the peer does not use SACK.
    pub(crate) fn forget_news(&mut self) {
        self.news.clear();
        self.duplicate = None;
    }

    /// Returns true if no gap is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Returns the number of separate ranges.
    pub(crate) fn ranges(&self) -> usize {
        self.ranges.len()
    }

    /// Calls `block` for each block of one acknowledgement, at most `most`. A duplicate comes first (RFC
    /// 2883), then unreported ranges, the latest first, then others (RFC 2018 section 4).
    pub(crate) fn report(&mut self, most: usize, mut block: impl FnMut(u64, u64)) {
        let mut most = most.min(MAX_BLOCKS);
        if let Some((start, end)) = self.duplicate.take() {
            block(start, end);
            // RFC 2883 section 4: the duplicate takes the place of one block.
            most = most.saturating_sub(1);
        }
        let mut blocks = Blocks::default();
        let mut at = 0;
        while blocks.count < most
            && let Some(offset) = self.news.pop_front()
        {
            blocks.push(self.ranges.containing(offset), &mut block);
            // The latest range stays first among the reported ones, too.
            self.reported.insert(at, offset);
            at += 1;
        }
        for &offset in self.reported.iter().skip(at) {
            if blocks.count == most {
                break;
            }
            blocks.push(self.ranges.containing(offset), &mut block);
        }
        self.reported.truncate(MAX_RECENT);
    }

    /// Returns the bytes copied since the last call, and resets the count.
    pub(crate) fn take_copied(&mut self) -> u32 {
        std::mem::take(&mut self.copied)
    }

    /// Returns the bytes copied since [`take_copied`](Self::take_copied).
    pub(crate) fn copied(&self) -> u32 {
        self.copied
    }

    /// Returns the bytes of memory in use.
    pub(crate) fn allocated(&self) -> usize {
        self.allocated
    }
}

/// Blocks of one acknowledgement so far.
#[derive(Default)]
struct Blocks {
    ranges: [(u64, u64); MAX_BLOCKS],
    count: usize,
}

impl Blocks {
    fn push(&mut self, range: Option<(u64, u64)>, block: &mut impl FnMut(u64, u64)) {
        // The range may have been delivered meanwhile, or reported for another offset.
        if let Some(range) = range
            && !self.ranges[..self.count].contains(&range)
        {
            self.ranges[self.count] = range;
            self.count += 1;
            block(range.0, range.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn byte(offset: u64) -> u8 {
        (offset * 7 + (offset >> 8)) as u8
    }

    fn data(start: u64, len: u64) -> Vec<u8> {
        (start..start + len).map(byte).collect()
    }

    fn blocks(reassembly: &mut Reassembly, most: usize) -> Vec<(u64, u64)> {
        let mut blocks = Vec::new();
        reassembly.report(most, |start, end| blocks.push((start, end)));
        blocks
    }

    proptest! {
        /// Segments in any order, overlapping and repeated, give the original stream.
        #[test]
        fn the_stream_comes_out(
            segments in prop::collection::vec((0u64..3000, 1u64..400), 1..80),
            seed: u64,
        ) {
            let (mut reassembly, mut queue) = (Reassembly::default(), ByteQueue::new(1));
            let mut arrived = vec![false; 4000];
            arrived[0] = true;
            for (start, len) in segments {
                let start = start.max(1);
                prop_assert!(reassembly.insert(start, &data(start, len), &mut queue));
                arrived[start as usize..(start + len) as usize].fill(true);
                let next = arrived.iter().position(|there| !there).unwrap() as u64;
                prop_assert_eq!(queue.end(), next);
                prop_assert_eq!(reassembly.is_empty(), !arrived[next as usize..].contains(&true));
                for (start, end) in blocks(&mut reassembly, 1 + (seed % 4) as usize) {
                    prop_assert!(arrived[start as usize..end as usize].iter().all(|there| *there));
                }
            }
            // The missing data arrives at last.
            prop_assert!(reassembly.insert(1, &data(1, 3999), &mut queue));
            let mut out = vec![0; 5000];
            prop_assert_eq!(queue.read(&mut out), 3999);
            prop_assert_eq!(&out[..3999], &data(1, 3999)[..]);
            prop_assert_eq!((reassembly.allocated(), reassembly.is_empty()), (0, true));
        }
    }

    #[test]
    fn every_changed_range_is_reported_once_and_the_latest_first() {
        let (mut reassembly, mut queue) = (Reassembly::default(), ByteQueue::new(0));
        for hole in 1..=6u64 {
            assert!(reassembly.insert(hole * 100, &data(hole * 100, 50), &mut queue));
        }
        assert_eq!(blocks(&mut reassembly, 4), [(600, 650), (500, 550), (400, 450), (300, 350)]);
        assert!(reassembly.has_news());
        let second = blocks(&mut reassembly, 4);
        assert_eq!(second[..2], [(200, 250), (100, 150)]);
        assert!(!reassembly.has_news());
        // A range that grows is news again.
        assert!(reassembly.insert(150, &data(150, 20), &mut queue));
        assert_eq!(blocks(&mut reassembly, 4)[0], (100, 170));
    }

    #[test]
    fn what_comes_twice_is_told() {
        let (mut reassembly, mut queue) = (Reassembly::default(), ByteQueue::new(0));
        reassembly.insert(0, &data(0, 100), &mut queue);
        reassembly.insert(50, &data(50, 20), &mut queue);
        assert_eq!(blocks(&mut reassembly, 4), [(50, 70)]);
        reassembly.insert(200, &data(200, 100), &mut queue);
        blocks(&mut reassembly, 4);
        reassembly.insert(220, &data(220, 10), &mut queue);
        assert_eq!(blocks(&mut reassembly, 4), [(220, 230), (200, 300)]);
    }

    #[test]
    fn a_byte_is_copied_a_bounded_number_of_times_whatever_the_segments_are() {
        for (step, backwards) in [(1u64, false), (7, false), (1400, false), (7, true)] {
            let (mut reassembly, mut queue) = (Reassembly::default(), ByteQueue::new(0));
            let mut starts: Vec<u64> = (1..20_000).step_by(step as usize).collect();
            if backwards {
                starts.reverse();
            }
            let mut len = 0;
            for start in starts {
                len += step;
                assert!(reassembly.insert(start, &data(start, step), &mut queue));
            }
            reassembly.insert(0, &data(0, 1), &mut queue);
            assert_eq!(queue.end(), len + 1);
            let copied = u64::from(reassembly.take_copied());
            assert!((len..=4 * len).contains(&copied), "{copied} for {len} bytes in steps of {step}");
            assert_eq!(reassembly.copied(), 0);
        }
    }

    #[test]
    fn memory_is_bounded_against_crumbs() {
        let (mut reassembly, mut queue) = (Reassembly::default(), ByteQueue::new(0));
        for at in 1..20_000u64 {
            reassembly.insert(2 * at, &[byte(2 * at)], &mut queue);
        }
        assert!(reassembly.ranges.len() <= MAX_RANGES);
        assert!(reassembly.pieces.len() <= MAX_PIECES);
    }
}
