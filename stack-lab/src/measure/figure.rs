//! A number of every run, and what is made of many.

use crate::{Outcome, Scenario, Time};

/// What is taken from an outcome. Goodput is of the direction from clients to servers, counted where it is
/// read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// All connections' payload over what the path can carry from the first connect to the end.
    Share,
    /// Jain's index of all connections' payload after the mark: 1 if all have the same, 1/n if one has all.
    Jain,
    /// One connection's payload after the mark over an equal part of what the path can carry.
    FairShare(usize),
    /// The mean time in the queue over the round-trip time.
    QueueDelay,
    /// Packets that the queue dropped over all that came to it.
    SelfMadeLoss,
    /// Milliseconds from the first connection's connect to its last byte; the whole length if that did not
    /// come.
    Completion,
    /// Seconds in which the reader of some connection got nothing, at the longest.
    LongestStall,
}

impl Quantity {
    /// Its unit.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Share => "of capacity",
            Self::Jain => "index",
            Self::FairShare(_) => "of fair share",
            Self::QueueDelay => "BDP",
            Self::SelfMadeLoss => "of packets",
            Self::Completion => "ms",
            Self::LongestStall => "s",
        }
    }

    /// Takes it from an outcome.
    pub fn of(self, scenario: &Scenario, outcome: &Outcome) -> f64 {
        let connections = &outcome.connections;
        let after_mark = |index: usize| connections[index].up.bytes_after_mark as f64;
        match self {
            Self::Share => {
                let started = connections.iter().map(|connection| connection.started).min().unwrap_or(0);
                let bytes: u64 = connections.iter().map(|connection| connection.up.bytes).sum();
                bytes as f64 / scenario.capacity(started, outcome.ended)
            }
            Self::Jain => {
                let all = || (0..connections.len()).map(after_mark);
                let (sum, squares) = (all().sum::<f64>(), all().map(|bytes| bytes * bytes).sum::<f64>());
                if squares == 0.0 { 0.0 } else { sum * sum / (squares * connections.len() as f64) }
            }
            Self::FairShare(index) => {
                let capacity = scenario.capacity(scenario.mark, outcome.ended);
                after_mark(index) * connections.len() as f64 / capacity
            }
            Self::QueueDelay => {
                let queue = &outcome.queue;
                queue.waited / queue.passed.max(1) as f64 / scenario.rtts[0] as f64
            }
            Self::SelfMadeLoss => {
                let queue = &outcome.queue;
                queue.dropped as f64 / (queue.passed + queue.dropped).max(1) as f64
            }
            Self::Completion => {
                let first = &connections[0];
                milliseconds(first.up.finished.unwrap_or(outcome.ended) - first.started)
            }
            Self::LongestStall => {
                let longest = connections.iter().map(|connection| connection.up.longest_stall).max();
                milliseconds(longest.unwrap_or(0)) / 1e3
            }
        }
    }
}

fn milliseconds(time: Time) -> f64 {
    time as f64 / 1e6
}

/// What is expected of the runs of one scenario.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// The median is at least this.
    Median(f64),
    /// The median is under this.
    MedianUnder(f64),
    /// The smallest is at least this.
    Worst(f64),
    /// The largest is at most this.
    AllAtMost(f64),
    /// The smallest is over half of the median.
    WorstOverHalfMedian,
}

/// One quantity over all runs of one scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// For example `goodput_share/100mbit_40ms_loss0.1`.
    pub name: String,
    /// For example `of capacity`.
    pub unit: &'static str,
    /// The runs, in order of size.
    sorted: Vec<f64>,
    /// What is expected.
    pub targets: Vec<Target>,
}

impl Figure {
    /// Makes a figure of at least one run.
    pub fn new(name: &str, unit: &'static str, mut values: Vec<f64>, targets: &[Target]) -> Self {
        values.sort_by(f64::total_cmp);
        Self { name: name.to_owned(), unit, sorted: values, targets: targets.to_vec() }
    }

    /// The smallest, not a number if there were no runs.
    pub fn min(&self) -> f64 {
        self.sorted.first().copied().unwrap_or(f64::NAN)
    }

    /// The largest.
    pub fn max(&self) -> f64 {
        self.sorted.last().copied().unwrap_or(f64::NAN)
    }

    /// The middle one, or the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        let middle = self.sorted.len() / 2;
        let Some(&upper) = self.sorted.get(middle) else { return f64::NAN };
        if self.sorted.len() % 2 == 1 { upper } else { (self.sorted[middle - 1] + upper) / 2.0 }
    }

    /// Whether it is as expected.
    pub fn meets(&self, target: Target) -> bool {
        match target {
            Target::Median(least) => self.median() >= least,
            Target::MedianUnder(bound) => self.median() < bound,
            Target::Worst(least) => self.min() >= least,
            Target::AllAtMost(most) => self.max() <= most,
            Target::WorstOverHalfMedian => self.min() > self.median() / 2.0,
        }
    }

    /// Whether it is all that is expected.
    pub fn is_ok(&self) -> bool {
        self.targets.iter().all(|target| self.meets(*target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConnectionOutcome, StreamOutcome, ms};

    #[test]
    fn targets_are_of_the_median_or_of_the_worst() {
        let figure = Figure::new("f", "", vec![4.0, 1.0, 3.0, 2.0], &[]);
        assert_eq!((figure.min(), figure.median(), figure.max()), (1.0, 2.5, 4.0));
        let met = [Target::Median(2.5), Target::MedianUnder(2.6), Target::Worst(1.0), Target::AllAtMost(4.0)];
        assert!(met.iter().all(|target| figure.meets(*target)));
        let missed =
            [Target::Median(2.6), Target::MedianUnder(2.5), Target::Worst(1.1), Target::AllAtMost(3.9)];
        assert!(!missed.iter().any(|target| figure.meets(*target)));
        assert!(!figure.meets(Target::WorstOverHalfMedian));
    }

    #[test]
    fn jain_is_one_for_equals_and_a_half_for_one_of_two() {
        let of = |shares: [u64; 2]| {
            let connection = |bytes| {
                let up = StreamOutcome { bytes, bytes_after_mark: bytes, ..StreamOutcome::default() };
                ConnectionOutcome { started: 0, up, down: StreamOutcome::default(), failure: None }
            };
            let connections = shares.map(connection).to_vec();
            let outcome = Outcome {
                connections,
                queue: Default::default(),
                lost: [0; 2],
                ended: ms(1000),
                left_behind: 0,
            };
            Quantity::Jain.of(&Scenario::new(1e6, ms(10)), &outcome)
        };
        assert_eq!((of([7, 7]), of([7, 0])), (1.0, 0.5));
    }
}
