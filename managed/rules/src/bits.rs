//! Sets of rules.

/// Number of words of a set.
const WORDS: usize = Bits::CAPACITY / 64;

/// Set of rules, by their places in the file from 0 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bits([u64; WORDS]);

impl Bits {
    /// Number of rules that a set can have.
    pub(crate) const CAPACITY: usize = 1024;

    /// Set without any rule.
    pub(crate) const NONE: Bits = Bits([0; WORDS]);

    /// Adds a rule. Its place is below the capacity.
    pub(crate) fn insert(&mut self, rule: usize) {
        self.0[rule / 64] |= 1 << (rule % 64);
    }

    /// Removes a rule.
    pub(crate) fn remove(&mut self, rule: usize) {
        self.0[rule / 64] &= !(1 << (rule % 64));
    }

    /// Adds all rules of another set.
    pub(crate) fn unite(&mut self, other: &Bits) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }

    /// Returns the rules of both sets.
    #[must_use]
    pub(crate) fn and(mut self, other: &Bits) -> Bits {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= other);
        self
    }

    /// Returns the rules of this set alone.
    #[must_use]
    pub(crate) fn without(mut self, other: &Bits) -> Bits {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= !other);
        self
    }

    /// Returns the first rule.
    pub(crate) fn first(&self) -> Option<usize> {
        let word = self.0.iter().position(|word| *word != 0)?;
        Some(64 * word + self.0[word].trailing_zeros() as usize)
    }

    /// Returns the rules in order.
    pub(crate) fn iter(mut self) -> impl Iterator<Item = usize> {
        std::iter::from_fn(move || {
            let first = self.first()?;
            self.remove(first);
            Some(first)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_the_first_and_the_last_rule() {
        let mut bits = Bits::NONE;
        assert_eq!(bits.first(), None);
        for rule in [1023, 64, 63, 0] {
            bits.insert(rule);
            assert_eq!(bits.first(), Some(rule));
        }
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 63, 64, 1023]);
        bits.remove(0);
        let mut other = Bits::NONE;
        other.insert(64);
        other.insert(65);
        assert_eq!(bits.and(&other).iter().collect::<Vec<_>>(), [64]);
        assert_eq!(bits.without(&other).iter().collect::<Vec<_>>(), [63, 1023]);
        bits.unite(&other);
        assert_eq!(bits.iter().collect::<Vec<_>>(), [63, 64, 65, 1023]);
    }
}
