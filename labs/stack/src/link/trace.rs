//! Variable rates as on radio links.
//!
//! These are not recordings. They follow from a seed and change as much as recordings of Wi-Fi and LTE. So
//! everyone has the same traces and knows their content.

use crate::{Random, Time, ms};

/// Interval of changes to another level.
const LEVEL: Time = ms(1000);
/// Factor between two levels.
const FACTOR: f64 = 4.0;
/// Interval of changes within a level.
const CHANGE_INTERVAL: Time = ms(100);

/// A rate that goes up or down by a factor of four every second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trace {
    /// Rate of the highest level, bits per second on the wire.
    pub top: f64,
    /// Number of levels, at least two, starting with the highest. Two levels alternate; with more, each step
    /// up or down is random.
    pub levels: u32,
    /// Maximum relative deviation from a level's rate, drawn anew every tenth of a second.
    pub fading: f64,
}

impl Trace {
    /// Returns a trace that alternates between full rate and a quarter of it.
    pub fn swings(top: f64) -> Self {
        Self { top, levels: 2, fading: 0.0 }
    }

    /// Returns a trace of a walk between two rooms: another modulation every second, and fading.
    pub fn wifi(top: f64) -> Self {
        Self { top, levels: 2, fading: 0.2 }
    }

    /// Returns a trace of a drive through cells: down to a sixteenth of the rate.
    pub fn lte(top: f64) -> Self {
        Self { top, levels: 3, fading: 0.2 }
    }

    /// Returns the rates with their times for this duration; the same for the same seed.
    pub fn steps(&self, seed: u64, lasting: Time) -> Vec<(Time, f64)> {
        let mut random = Random::new(seed);
        let mut level = 0;
        let mut steps = Vec::new();
        for second in 0..lasting.div_ceil(LEVEL) {
            let rate = self.top / FACTOR.powi(level as i32);
            let fades = if self.fading > 0.0 { LEVEL / CHANGE_INTERVAL } else { 1 };
            for fade in 0..fades {
                let part = 1.0 + self.fading * (2.0 * random.unit() - 1.0);
                steps.push((second * LEVEL + fade * CHANGE_INTERVAL, rate * part));
            }
            let down = level == 0 || level + 1 < self.levels && random.chance(0.5);
            level = if down { level + 1 } else { level - 1 };
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: u64 = 2000;

    /// Returns the mean of the steps, which have equal durations.
    fn mean(trace: Trace) -> f64 {
        let steps = trace.steps(1, ms(1000) * SECONDS);
        steps.iter().map(|(_, rate)| rate).sum::<f64>() / steps.len() as f64
    }

    #[test]
    fn the_mean_is_that_of_the_levels() {
        assert_eq!(mean(Trace::swings(100.0)), 62.5);
        assert!((mean(Trace::wifi(100.0)) - 62.5).abs() < 0.5, "{}", mean(Trace::wifi(100.0)));
        // A quarter of the time on the highest level, half on the middle, a quarter on the lowest.
        assert!((mean(Trace::lte(100.0)) - 39.06).abs() < 2.0, "{}", mean(Trace::lte(100.0)));
    }

    #[test]
    fn every_second_it_changes_by_a_factor_of_four_and_fades_in_between() {
        let plain = Trace { fading: 0.0, ..Trace::lte(64.0) };
        let steps = plain.steps(3, ms(1000) * SECONDS);
        assert_eq!(steps.len() as u64, SECONDS);
        for pair in steps.windows(2) {
            assert_eq!(pair[1].0 - pair[0].0, ms(1000));
            assert!([0.25, 4.0].contains(&(pair[1].1 / pair[0].1)), "{pair:?}");
        }
        let fading = Trace::wifi(64.0).steps(3, ms(2000));
        assert_eq!(fading.len(), 20);
        assert!(fading[..10].iter().all(|(_, rate)| (51.2..76.8).contains(rate)), "{fading:?}");
        assert!(fading[10..].iter().all(|(_, rate)| (12.8..19.2).contains(rate)), "{fading:?}");
        assert_eq!(fading, Trace::wifi(64.0).steps(3, ms(2000)));
        assert_ne!(fading, Trace::wifi(64.0).steps(4, ms(2000)));
    }
}
