//! Extremes over a sliding span, kept in two buckets: values older than two spans are forgotten.

/// Largest or smallest value of the last one to two spans. The span may be a time or a count.
#[derive(Debug, Clone)]
pub(super) struct Extreme<const LARGEST: bool> {
    current: u64,
    previous: u64,
    begun: u64,
}

/// Maximum over a span; 0 before the first value.
pub(super) type Largest = Extreme<true>;

/// Minimum over a span; `u64::MAX` before the first value.
pub(super) type Smallest = Extreme<false>;

impl<const LARGEST: bool> Extreme<LARGEST> {
    const NONE: u64 = if LARGEST { 0 } else { u64::MAX };

    pub(super) fn new() -> Self {
        Self { current: Self::NONE, previous: Self::NONE, begun: 0 }
    }

    /// Adds a value at `position`; each bucket covers `span`.
    pub(super) fn insert(&mut self, position: u64, span: u64, value: u64) {
        let age = position.saturating_sub(self.begun);
        if age >= span {
            // After two spans without a value, the present bucket is outdated, too.
            let outdated = age >= span.saturating_mul(2);
            self.previous = if outdated { Self::NONE } else { self.current };
            self.current = Self::NONE;
            self.begun = position;
        }
        self.current = Self::keep(self.current, value);
    }

    /// Begins a new bucket, unless the present one is empty.
    pub(super) fn advance(&mut self) {
        if self.current != Self::NONE {
            self.previous = self.current;
            self.current = Self::NONE;
        }
    }

    pub(super) fn get(&self) -> u64 {
        Self::keep(self.current, self.previous)
    }

    fn keep(one: u64, other: u64) -> u64 {
        if LARGEST { one.max(other) } else { one.min(other) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_forgotten_after_two_spans_at_the_latest() {
        let mut largest = Largest::new();
        largest.insert(100, 10, 7);
        largest.insert(109, 10, 5);
        assert_eq!(largest.get(), 7);
        largest.insert(110, 10, 3);
        assert_eq!(largest.get(), 7);
        largest.insert(120, 10, 1);
        assert_eq!(largest.get(), 3);
        largest.insert(200, 10, 2);
        assert_eq!(largest.get(), 2);
    }

    #[test]
    fn an_empty_bucket_is_not_passed_on() {
        let mut smallest = Smallest::new();
        assert_eq!(smallest.get(), u64::MAX);
        smallest.insert(0, u64::MAX, 4);
        smallest.advance();
        smallest.advance();
        assert_eq!(smallest.get(), 4);
        smallest.insert(0, u64::MAX, 9);
        smallest.advance();
        assert_eq!(smallest.get(), 9);
    }
}
