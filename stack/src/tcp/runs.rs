//! Runs of a scoreboard: an ordered list in chunks.
//!
//! A peer's SACK blocks decide where runs are split and joined, and how many there are. Chunks bound the
//! cost: a change in the middle moves at most one chunk's runs, however long the list is.

use std::collections::VecDeque;

use super::scoreboard::Run;

/// Maximum number of runs in a chunk. A larger chunk is split.
const CHUNK: usize = 64;

/// Gapless runs in stream order. Only an empty list has an empty chunk, `first`.
#[derive(Debug, Default)]
pub(super) struct Runs {
    first: VecDeque<Run>,
    /// Further chunks; most lists have none.
    rest: Option<Box<Rest>>,
}

#[derive(Debug, Default)]
struct Rest {
    chunks: VecDeque<VecDeque<Run>>,
    /// Number of runs in `chunks`.
    runs: usize,
}

/// Position of a run. A change before the position invalidates it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    chunk: usize,
    index: usize,
}

impl Runs {
    pub(super) fn len(&self) -> usize {
        self.first.len() + self.rest.as_ref().map_or(0, |rest| rest.runs)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    pub(super) fn front(&self) -> Option<&Run> {
        self.first.front()
    }

    /// Returns the position of the first run, if it exists.
    pub(super) fn start(&self) -> At {
        At { chunk: 0, index: 0 }
    }

    /// Returns the position of the first run that ends after `offset`, if it exists.
    pub(super) fn find(&self, offset: u64) -> At {
        let before = |run: &Run| run.end <= offset;
        // Two binary searches, over chunks and in one chunk, keep an acknowledgement cheap with ten thousand
        // runs.
        let full = |chunk: &VecDeque<Run>| chunk.back().is_some_and(before);
        let chunk = match &self.rest {
            Some(rest) if full(&self.first) => 1 + rest.chunks.partition_point(full),
            _ => 0,
        };
        At { chunk, index: self.chunk(chunk).map_or(0, |chunk| chunk.partition_point(before)) }
    }

    pub(super) fn get(&self, at: At) -> Option<&Run> {
        self.chunk(at.chunk)?.get(at.index)
    }

    pub(super) fn get_mut(&mut self, at: At) -> Option<&mut Run> {
        self.chunk_mut(at.chunk)?.get_mut(at.index)
    }

    /// Returns the position of the next run, if it exists.
    pub(super) fn next(&self, at: At) -> At {
        count(1);
        let len = self.chunk(at.chunk).map_or(0, VecDeque::len);
        if at.index + 1 < len || at.chunk + 1 == self.chunks() {
            At { index: at.index + 1, ..at }
        } else {
            At { chunk: at.chunk + 1, index: 0 }
        }
    }

    /// Returns the position of the previous run.
    pub(super) fn previous(&self, at: At) -> Option<At> {
        match at {
            At { index: 1.., .. } => Some(At { index: at.index - 1, ..at }),
            At { chunk: 0, .. } => None,
            At { chunk, .. } => {
                let chunk = chunk - 1;
                Some(At { chunk, index: self.chunk(chunk)?.len().checked_sub(1)? })
            }
        }
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Run> {
        self.first.iter().chain(self.rest.iter().flat_map(|rest| &rest.chunks).flatten())
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Run> {
        self.first.iter_mut().chain(self.rest.iter_mut().flat_map(|rest| &mut rest.chunks).flatten())
    }

    pub(super) fn push_back(&mut self, run: Run) {
        let Some(rest) = &mut self.rest else {
            if self.first.capacity() == 0 {
                // A request-response connection has one run at a time.
                self.first.reserve_exact(1);
            }
            if self.first.len() < CHUNK {
                return self.first.push_back(run);
            }
            let rest = Rest { chunks: VecDeque::from([VecDeque::from([run])]), runs: 1 };
            self.rest = Some(Box::new(rest));
            return;
        };
        rest.runs += 1;
        match rest.chunks.back_mut().filter(|last| last.len() < CHUNK) {
            Some(last) => last.push_back(run),
            None => rest.chunks.push_back(VecDeque::from([run])),
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<Run> {
        let run = self.first.pop_front()?;
        if !self.first.is_empty() {
            return Some(run);
        }
        // The first chunk must not be empty while others exist, because `is_empty` looks at it alone.
        if let Some(rest) = &mut self.rest {
            self.first = rest.chunks.pop_front().unwrap_or_default();
            rest.runs -= self.first.len();
            if rest.chunks.is_empty() {
                self.rest = None;
            }
        } else if self.first.capacity() > 16 {
            self.first = VecDeque::new();
        }
        Some(run)
    }

    /// Inserts `run` after the run at `at`. Returns the new positions of both.
    pub(super) fn insert_behind(&mut self, at: At, run: Run) -> (At, At) {
        let Some(chunk) = self.chunk_mut(at.chunk) else { return (at, at) };
        let (index, len) = (at.index + 1, chunk.len());
        chunk.insert(index, run);
        // A full chunk is halved, so that both halves have room for many insertions.
        let half = (len >= CHUNK).then(|| chunk.split_off(CHUNK / 2));
        count(index.min(len - at.index) + half.as_ref().map_or(0, VecDeque::len));
        if let (1.., Some(rest)) = (at.chunk, &mut self.rest) {
            rest.runs += 1;
        }
        let Some(half) = half else { return (at, At { index, ..at }) };
        let rest = self.rest.get_or_insert_default();
        rest.runs += if at.chunk == 0 { half.len() } else { 0 };
        rest.chunks.insert(at.chunk, half);
        let settled = |index: usize| match index.checked_sub(CHUNK / 2) {
            Some(index) => At { chunk: at.chunk + 1, index },
            None => At { index, ..at },
        };
        (settled(at.index), settled(index))
    }

    /// Removes a run other than the first.
    pub(super) fn remove(&mut self, at: At) {
        let Some(chunk) = self.chunk_mut(at.chunk) else { return };
        count(at.index.min(chunk.len().saturating_sub(at.index + 1)));
        let removed = chunk.remove(at.index).is_some();
        let empty = chunk.is_empty();
        let (1.., Some(rest)) = (at.chunk, &mut self.rest) else { return };
        rest.runs -= usize::from(removed);
        if empty {
            rest.chunks.remove(at.chunk - 1);
        }
        if rest.chunks.is_empty() {
            self.rest = None;
        }
    }

    fn chunks(&self) -> usize {
        1 + self.rest.as_ref().map_or(0, |rest| rest.chunks.len())
    }

    fn chunk(&self, chunk: usize) -> Option<&VecDeque<Run>> {
        match chunk.checked_sub(1) {
            None => Some(&self.first),
            Some(chunk) => self.rest.as_ref()?.chunks.get(chunk),
        }
    }

    fn chunk_mut(&mut self, chunk: usize) -> Option<&mut VecDeque<Run>> {
        match chunk.checked_sub(1) {
            None => Some(&mut self.first),
            Some(chunk) => self.rest.as_mut()?.chunks.get_mut(chunk),
        }
    }
}

#[cfg(not(test))]
fn count(_: usize) {}

#[cfg(test)]
pub(super) use work::count;

/// Counters of the cost of changes.
#[cfg(test)]
pub(super) mod work {
    use std::cell::Cell;

    thread_local! {
        static RUNS: Cell<usize> = const { Cell::new(0) };
    }

    /// Counts runs that were moved or visited.
    pub(in crate::tcp) fn count(runs: usize) {
        RUNS.set(RUNS.get() + runs);
    }

    /// Returns the count since the last call in this thread, and resets it.
    pub(in crate::tcp) fn take() -> usize {
        RUNS.take()
    }
}
