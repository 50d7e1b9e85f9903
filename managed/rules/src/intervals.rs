//! Sets of rules by a number, for ranges that overlap: ports, and blocks of addresses.

use std::ops::RangeInclusive;

use crate::bits::Bits;

/// Set of rules for every number.
///
/// The bounds of all ranges cut the numbers into intervals, and each interval has one set. So a lookup is a
/// binary search, however many ranges contain the number.
#[derive(Debug)]
pub(crate) struct Intervals {
    /// First numbers of the intervals, ascending from 0 on.
    starts: Vec<u128>,
    sets: Vec<Bits>,
}

impl Intervals {
    /// Builds the sets of rules from their ranges. `always` is in every set.
    pub(crate) fn new(always: Bits, ranges: &[(usize, RangeInclusive<u128>)]) -> Self {
        // A rule may have ranges that overlap, so the sweep counts the open ones of each.
        let mut bounds: Vec<(u128, usize, bool)> = Vec::with_capacity(2 * ranges.len());
        for (rule, range) in ranges {
            bounds.push((*range.start(), *rule, true));
            bounds.extend(range.end().checked_add(1).map(|behind| (behind, *rule, false)));
        }
        bounds.sort_unstable();
        let mut intervals = Self { starts: vec![0], sets: vec![always] };
        let mut open = vec![0_u32; Bits::CAPACITY];
        let mut set = always;
        for (at, rule, begins) in bounds {
            match begins {
                true => open[rule] += 1,
                false => open[rule] -= 1,
            }
            match open[rule] {
                0 => set.remove(rule),
                _ => set.insert(rule),
            }
            intervals.put(at, set);
        }
        intervals
    }

    /// Sets the set from a number on, which is the last interval's first one or a higher one.
    fn put(&mut self, start: u128, set: Bits) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.sets.pop();
        }
        if self.sets.last() != Some(&set) {
            self.starts.push(start);
            self.sets.push(set);
        }
    }

    /// Returns the rules for a number. `probe` is called for each comparison.
    pub(crate) fn lookup(&self, number: u128, mut probe: impl FnMut()) -> &Bits {
        let behind = self.starts.partition_point(|start| {
            probe();
            *start <= number
        });
        &self.sets[behind - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_the_rules_whose_ranges_contain_it() {
        let mut always = Bits::NONE;
        always.insert(9);
        let ranges = [
            (0, 10..=20),
            (0, 15..=30),
            (1, 20..=20),
            (1, 0..=0),
            (2, 21..=u128::MAX),
            (3, 0..=u128::MAX),
            (4, u128::MAX..=u128::MAX),
        ];
        let intervals = Intervals::new(always, &ranges);
        for number in (0..40).chain([u128::MAX - 1, u128::MAX]) {
            let mut expected = always;
            let matching = ranges.iter().filter(|(_, range)| range.contains(&number));
            matching.for_each(|(rule, _)| expected.insert(*rule));
            assert_eq!(*intervals.lookup(number, || {}), expected, "{number}");
        }
    }

    #[test]
    fn a_rule_that_is_in_every_set_has_no_ranges() {
        let mut always = Bits::NONE;
        always.insert(3);
        let intervals = Intervals::new(always, &[]);
        assert_eq!(*intervals.lookup(0, || {}), always);
        assert_eq!(*intervals.lookup(u128::MAX, || {}), always);
    }
}
