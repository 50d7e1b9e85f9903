//! Rate limits by the generic cell rate algorithm. A bucket is one number, the time at which it is full
//! again, so each client can have several.

/// Nanoseconds since the root's start.
pub(crate) type Nanos = u64;

/// Rate of units (bytes, messages) per second, and a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Refill time of one unit, in 1/1024 of a nanosecond: the rounding error stays under 0.1 % up to 1 GB/s.
    per_unit: u64,
    /// Refill time of an empty bucket, in nanoseconds.
    depth: Nanos,
}

const SECOND: u128 = 1_000_000_000;
const FRACTION: u32 = 10;

impl Budget {
    /// Returns a budget of at least one unit per second.
    pub(crate) const fn new(per_second: u32, burst: u32) -> Self {
        let per_second = if per_second == 0 { 1 } else { per_second } as u128;
        let per_unit = ((SECOND << FRACTION) / per_second) as u64;
        Self { per_unit, depth: (burst as u128 * SECOND / per_second) as u64 }
    }

    /// Takes `units` from the bucket that is full at `full_at`; returns false if it has fewer.
    pub(crate) fn take(&self, full_at: &mut Nanos, units: usize, now: Nanos) -> bool {
        let after = self.after(*full_at, units, now);
        let has = after <= now.saturating_add(self.depth);
        if has {
            *full_at = after;
        }
        has
    }

    /// Returns the time that an empty bucket needs to be full.
    pub(crate) fn depth(&self) -> Nanos {
        self.depth
    }

    /// Returns `units` to the bucket.
    pub(crate) fn give(&self, full_at: &mut Nanos, units: u32) {
        *full_at = full_at.saturating_sub(u64::from(units).saturating_mul(self.per_unit) >> FRACTION);
    }

    /// Returns true if [`Self::take`] would succeed.
    pub(crate) fn has(&self, full_at: Nanos, units: usize, now: Nanos) -> bool {
        self.after(full_at, units, now) <= now.saturating_add(self.depth)
    }

    fn after(&self, full_at: Nanos, units: usize, now: Nanos) -> Nanos {
        let cost = (units as u64).saturating_mul(self.per_unit) >> FRACTION;
        // A full bucket does not save up more than its burst.
        full_at.max(now).saturating_add(cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        for (rate, burst) in [(1, 5), (2000, 16_000), (1_000_000_000, 1 << 20)] {
            let budget = Budget::new(rate, burst);
            let mut full_at = 0;
            let start = 7_000_000_000;
            assert!(budget.take(&mut full_at, burst as usize, start));
            assert!(!budget.has(full_at, burst as usize / 10 + 1, start));
            // Ten seconds later ten times the rate came back, or the whole burst.
            let later = start + 10_000_000_000;
            let back = (10 * u64::from(rate)).min(burst.into()) as usize;
            assert!(!budget.has(full_at, back + back / 500 + 1, later), "{rate}");
            assert!(budget.take(&mut full_at, back - back / 500, later), "{rate}");
        }
    }

    #[test]
    fn any_amount_and_time_are_safe() {
        let budget = Budget::new(0, u32::MAX);
        let mut full_at = u64::MAX;
        assert!(budget.take(&mut full_at, usize::MAX, u64::MAX));
        assert!(!Budget::new(1, 1).has(0, usize::MAX, 0));
    }
}
