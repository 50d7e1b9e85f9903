//! Disjoint, sorted ranges of stream offsets.

use std::collections::VecDeque;

/// Ranges that neither overlap nor touch.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    ranges: VecDeque<(u64, u64)>,
}

impl Ranges {
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Returns the range that contains `offset`.
    pub(crate) fn containing(&self, offset: u64) -> Option<(u64, u64)> {
        let at = self.ranges.partition_point(|range| range.1 <= offset);
        self.ranges.get(at).copied().filter(|range| range.0 <= offset)
    }

    /// Returns the first part of `start..end` that is already in a range.
    pub(crate) fn overlap(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let at = self.ranges.partition_point(|range| range.1 <= start);
        let range = self.ranges.get(at).filter(|range| range.0 < end)?;
        Some((range.0.max(start), range.1.min(end)))
    }

    /// Adds the non-empty range `start..end` and joins it with the ranges that it touches.
    pub(crate) fn insert(&mut self, start: u64, end: u64) {
        // A range that ends exactly at `start` joins, or touching ranges would add up.
        let first = self.ranges.partition_point(|range| range.1 < start);
        let mut joined = (start, end);
        let mut last = first;
        while let Some(range) = self.ranges.get(last)
            && range.0 <= end
        {
            joined = (joined.0.min(range.0), joined.1.max(range.1));
            last += 1;
        }
        match last - first {
            0 => self.ranges.insert(first, joined),
            _ => {
                self.ranges[first] = joined;
                self.ranges.drain(first + 1..last);
            }
        }
    }

    /// Drops everything before `offset`.
    pub(crate) fn drop_until(&mut self, offset: u64) {
        while let Some(first) = self.ranges.front_mut() {
            if first.1 > offset {
                first.0 = first.0.max(offset);
                return;
            }
            self.ranges.pop_front();
        }
        // Frees the memory that past gaps needed.
        self.ranges = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Compares the ranges with a set of single offsets.
        #[test]
        fn ranges_are_the_set_of_what_was_inserted(
            steps in prop::collection::vec((0u64..60, 1u64..12, any::<bool>()), 1..60),
        ) {
            let mut ranges = Ranges::default();
            let mut model = BTreeSet::new();
            for (start, len, drop) in steps {
                if drop && len > 8 {
                    ranges.drop_until(start);
                    model = model.split_off(&start);
                    continue;
                }
                let overlap = (start..start + len).filter(|at| model.contains(at)).min();
                prop_assert_eq!(ranges.overlap(start, start + len).map(|overlap| overlap.0), overlap);
                ranges.insert(start, start + len);
                model.extend(start..start + len);
                for at in 0..80 {
                    let holds = ranges.containing(at).is_some_and(|(from, to)| (from..to).contains(&at));
                    prop_assert_eq!(holds, model.contains(&at));
                }
                let pieces: Vec<_> = ranges.ranges.iter().copied().collect();
                prop_assert!(pieces.windows(2).all(|two| two[0].1 < two[1].0));
            }
        }
    }
}
