//! Checks if the machine was idle otherwise during a measurement.
//!
//! A measurement is disturbed if the host took processors away (steal), or if other processes used more than
//! [`LIMIT`]. `docs/measured/PERFORMANCE.md` defines the accounting.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use super::figures::Spread;
use super::processor_time::Sample;
use crate::Result;

/// Share of one processor from which steal or other processes' time counts as a disturbance.
pub(crate) const LIMIT: f64 = 0.05;
/// Share of one processor from which invisible processes' time counts. That time is a difference of
/// tick-based kernel times, so smaller values are indistinguishable from chance.
const UNSEEN_LIMIT: f64 = 0.25;
/// Minimum time of watching the machine, because processor time comes in ticks of 10 ms.
pub(crate) const WINDOW: Duration = Duration::from_millis(500);

/// Disturbance of one measurement, in shares of one processor: on two processors at most 2.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Disturbance {
    /// Time that the host gave to others while this virtual machine wanted to run.
    pub(crate) steal: f64,
    /// Time of processes that the benchmark did not start.
    pub(crate) others: f64,
}

impl Disturbance {
    /// Returns true if the machine was idle except for the benchmark.
    pub(crate) fn is_idle(self) -> bool {
        self.steal < LIMIT && self.others < LIMIT
    }

    /// Returns the greater share of each kind.
    pub(crate) fn max(self, other: Disturbance) -> Disturbance {
        Disturbance { steal: self.steal.max(other.steal), others: self.others.max(other.others) }
    }

    /// Returns the disturbance between two samples. `ticks` is the number of clock ticks in a second.
    fn between(first: &Sample, last: &Sample, elapsed: Duration, ticks: u64) -> Disturbance {
        let share = |used: u64| used as f64 / ticks as f64 / elapsed.as_secs_f64().max(1e-9);
        // A sum shrinks if a process ended without a parent that waits for it.
        let used = |of: fn(&Sample) -> u64| of(last).saturating_sub(of(first));
        let (own, others, kernel) = (used(|s| s.own), used(|s| s.others), used(|s| s.kernel));
        let unseen = share(used(|s| s.busy).saturating_sub(own + others + kernel));
        let unseen = if unseen < UNSEEN_LIMIT { 0.0 } else { unseen };
        Disturbance { steal: share(used(|s| s.steal)), others: share(others) + unseen }
    }
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (steal, others) = (self.steal * 100.0, self.others * 100.0);
        write!(f, "steal {steal:.1} %, other processes {others:.1} % of one processor")
    }
}

/// The machine, watched since [`Watch::start`].
pub(crate) struct Watch {
    start: Instant,
    first: Sample,
}

impl Watch {
    /// Starts to watch.
    /// Errors: `/proc` cannot be read.
    pub(crate) fn start() -> Result<Watch> {
        Ok(Watch { first: Sample::now()?, start: Instant::now() })
    }

    /// Returns the time watched so far.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Returns the disturbance. It first waits until [`WINDOW`] has passed since the start.
    /// Errors: `/proc` cannot be read.
    pub(crate) fn finish(self) -> Result<Disturbance> {
        thread::sleep(WINDOW.saturating_sub(self.elapsed()));
        let (last, elapsed) = (Sample::now()?, self.elapsed());
        let ticks = rustix::param::clock_ticks_per_second();
        Ok(Disturbance::between(&self.first, &last, elapsed, ticks))
    }
}

/// Disturbances of the rounds of one figure, or of all measurements of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Disturbances(Vec<Disturbance>);

impl Disturbances {
    /// Returns their number, idle ones included.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the number of measurements during which the machine was not idle.
    pub(crate) fn not_idle(&self) -> usize {
        self.0.iter().filter(|disturbance| !disturbance.is_idle()).count()
    }

    /// Returns the spreads of steal and of other processes' time, percent of one processor; None without
    /// data.
    pub(crate) fn spreads(&self) -> Option<[Spread; 2]> {
        let spread = |of: fn(&Disturbance) -> f64| {
            Spread::of(&self.0.iter().map(|disturbance| of(disturbance) * 100.0).collect::<Vec<_>>())
        };
        Some([spread(|d| d.steal)?, spread(|d| d.others)?])
    }

    /// Returns the spreads as texts for a table, median and maximum with a slash between them.
    pub(crate) fn columns(&self) -> [String; 2] {
        let texts = self.spreads().map(|both| both.map(|s| format!("{:.1}/{:.1}", s.median, s.max)));
        texts.unwrap_or_default()
    }

    /// Returns the mark of a figure, which is empty if the machine was idle in all its rounds.
    pub(crate) fn mark(&self) -> String {
        match self.not_idle() {
            0 => String::new(),
            disturbed => format!("* {disturbed} of {} not idle", self.len()),
        }
    }
}

impl FromIterator<Disturbance> for Disturbances {
    fn from_iter<T: IntoIterator<Item = Disturbance>>(disturbances: T) -> Self {
        Disturbances(disturbances.into_iter().collect())
    }
}

/// Watcher of all measurements of a run, which repeats the disturbed ones.
pub(crate) struct Watcher {
    repeats: u32,
    /// Disturbance of each measurement that counts.
    pub(crate) counted: Disturbances,
    /// Number of repetitions.
    pub(crate) repeated: u32,
}

impl Watcher {
    /// Makes a watcher that repeats a disturbed measurement up to `repeats` times.
    pub(crate) fn new(repeats: u32) -> Watcher {
        Watcher { repeats, counted: Disturbances::default(), repeated: 0 }
    }

    /// Measures, with repetitions. If all attempts were disturbed, the least disturbed one counts.
    /// Fails with the errors of `measure`, which are not repeated; or `/proc` cannot be read.
    pub(crate) fn measure<T>(&mut self, mut measure: impl FnMut() -> Result<T>) -> Result<(T, Disturbance)> {
        self.attempts(|| {
            let watch = Watch::start()?;
            let value = measure()?;
            Ok((value, watch.finish()?))
        })
    }

    fn attempts<T>(
        &mut self,
        mut attempt: impl FnMut() -> Result<(T, Disturbance)>,
    ) -> Result<(T, Disturbance)> {
        let mut best = attempt()?;
        for _ in 0..self.repeats {
            if best.1.is_idle() {
                break;
            }
            self.repeated += 1;
            let next = attempt()?;
            // The figure itself must not decide, or the luckiest one would count.
            if next.1.steal + next.1.others < best.1.steal + best.1.others {
                best = next;
            }
        }
        self.counted.0.push(best.1);
        Ok(best)
    }

    /// Returns one or two lines of text about whether the machine was idle.
    pub(crate) fn summary(&self) -> String {
        let Some([steal, others]) = self.counted.spreads() else {
            return "Nothing was measured.".to_owned();
        };
        let (all, disturbed) = (self.counted.len(), self.counted.not_idle());
        let verdict = match disturbed {
            0 => format!("The machine was idle in all {all} measurements"),
            _ => format!("* The machine was NOT IDLE in {disturbed} of {all} measurements"),
        };
        let repeated = match self.repeated {
            0 => String::new(),
            times => format!(", after {times} repetitions"),
        };
        format!(
            "{verdict}{repeated}. Steal: median {:.1} %, at most {:.1} % of one processor;\n\
             other processes: median {:.1} %, at most {:.1} %. From {:.0} % on it is not idle.",
            steal.median,
            steal.max,
            others.median,
            others.max,
            LIMIT * 100.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Disturbance = Disturbance { steal: 0.01, others: 0.02 };

    fn busy(others: f64) -> Disturbance {
        Disturbance { steal: 0.0, others }
    }

    /// Returns the disturbance for the usage within two seconds of 100 ticks.
    fn between(last: Sample) -> Disturbance {
        let first = Sample { busy: 1000, steal: 1000, own: 1000, others: 1000, kernel: 1000 };
        let last = Sample {
            busy: first.busy + last.busy,
            steal: first.steal + last.steal,
            own: first.own + last.own,
            others: first.others + last.others,
            kernel: first.kernel + last.kernel,
        };
        Disturbance::between(&first, &last, Duration::from_secs(2), 100)
    }

    #[test]
    fn times_become_shares_of_one_processor() {
        let sample = Sample { busy: 310, steal: 50, own: 200, others: 100, kernel: 10 };
        assert_eq!(between(sample), Disturbance { steal: 0.25, others: 0.5 });
    }

    #[test]
    fn the_benchmarks_own_work_and_the_kernels_do_not_disturb() {
        let sample = Sample { busy: 400, steal: 0, own: 340, others: 0, kernel: 60 };
        assert_eq!(between(sample), Disturbance::default());
        // Many kernels count interrupts in the processes' times, but no kernel counts them in the machine's
        // busy time.
        assert_eq!(between(Sample { busy: 100, own: 180, ..Sample::default() }), Disturbance::default());
    }

    #[test]
    fn what_cannot_be_seen_counts_when_it_is_more_than_chance() {
        let unseen = |ticks: u64| between(Sample { busy: 200 + ticks, own: 200, ..Sample::default() });
        assert_eq!(unseen(49), Disturbance::default());
        assert_eq!(unseen(50), busy(0.25));
    }

    #[test]
    fn a_sum_that_has_shrunk_is_nothing() {
        let first = Sample { others: 1000, ..Sample::default() };
        let disturbance = Disturbance::between(&first, &Sample::default(), Duration::from_secs(1), 100);
        assert_eq!(disturbance, Disturbance::default());
    }

    #[test]
    fn steal_or_others_from_the_limit_on_disturb() {
        assert!(IDLE.is_idle());
        assert!(Disturbance { steal: 0.049, others: 0.049 }.is_idle());
        assert!(!Disturbance { steal: 0.05, others: 0.0 }.is_idle());
        assert!(!Disturbance { steal: 0.0, others: 0.05 }.is_idle());
    }

    #[test]
    fn a_figure_is_marked_with_the_number_of_its_disturbed_rounds() {
        let rounds = Disturbances::from_iter([IDLE, busy(0.5), busy(1.0)]);
        assert_eq!(rounds.mark(), "* 2 of 3 not idle");
        assert_eq!(rounds.columns(), ["0.0/1.0", "50.0/100.0"]);
        assert_eq!(Disturbances::from_iter([IDLE]).mark(), "");
    }

    /// Runs a watcher with these attempts. Returns the number of the kept attempt, the total, and the
    /// watcher.
    fn kept(repeats: u32, attempts: &[Disturbance]) -> (usize, usize, Watcher) {
        let mut watcher = Watcher::new(repeats);
        let mut made = 0;
        let result = watcher.attempts(|| {
            made += 1;
            Ok((made, attempts[made - 1]))
        });
        (result.expect("a measurement").0, made, watcher)
    }

    #[test]
    fn disturbed_measurements_are_repeated_until_one_was_not() {
        let (kept, made, watcher) = kept(5, &[busy(1.0), busy(0.5), IDLE, IDLE]);
        assert_eq!((kept, made, watcher.repeated), (3, 3, 2));
        assert!(watcher.summary().starts_with("The machine was idle in all 1 measurements, after 2 rep"));
    }

    #[test]
    fn the_least_disturbed_one_counts_and_is_marked_if_none_was_idle() {
        let (kept, made, watcher) = kept(2, &[busy(1.0), busy(0.5), busy(0.7), IDLE]);
        assert_eq!((kept, made), (2, 3));
        assert_eq!(watcher.counted, Disturbances::from_iter([busy(0.5)]));
        assert!(watcher.summary().starts_with("* The machine was NOT IDLE in 1 of 1 measurements"));
    }

    #[test]
    fn without_repetitions_the_first_one_counts() {
        let (kept, made, watcher) = kept(0, &[busy(1.0), IDLE]);
        assert_eq!((kept, made, watcher.repeated), (1, 1, 0));
    }

    #[test]
    fn a_measurement_that_fails_is_not_repeated() {
        let mut watcher = Watcher::new(5);
        let mut made = 0;
        let result = watcher.attempts(|| -> Result<((), Disturbance)> {
            made += 1;
            Err("broken".into())
        });
        assert!(result.is_err());
        assert_eq!((made, watcher.counted.len()), (1, 0));
    }
}
