//! Values of runs, and figures made of many runs.

use crate::{Outcome, Scenario, Time};

/// Quantity taken from an outcome. Goodput is that from clients to servers, counted at the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// Payload of all connections, divided by the path's capacity from the first connect to the end.
    Share,
    /// Jain's index of the connections' payload after the mark: 1 if all are equal, 1/n if one has
    /// everything.
    Jain,
    /// Payload of one connection after the mark, divided by an equal share of the path's capacity.
    FairShare(usize),
    /// Smallest [`Quantity::FairShare`] of all connections.
    SmallestShare,
    /// Largest [`Quantity::FairShare`] of all connections.
    LargestShare,
    /// Median of the queue's length over time: [`QueueStatistics::median_wait`], milliseconds.
    ///
    /// [`QueueStatistics::median_wait`]: crate::link::QueueStatistics::median_wait
    Wait,
    /// Mean time in the queue, divided by the round-trip time.
    QueueDelay,
    /// Packets that the queue dropped, divided by all packets that arrived at it.
    SelfMadeLoss,
    /// Milliseconds from the first connection's connect to its last byte; the whole duration if that byte did
    /// not arrive.
    Completion,
    /// Longest time in seconds in which the reader of a connection got nothing.
    LongestStall,
}

impl Quantity {
    /// Returns the unit.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Share => "of capacity",
            Self::Jain => "index",
            Self::FairShare(_) | Self::SmallestShare | Self::LargestShare => "of fair share",
            Self::QueueDelay => "BDP",
            Self::SelfMadeLoss => "of packets",
            Self::Completion | Self::Wait => "ms",
            Self::LongestStall => "s",
        }
    }

    /// Returns the quantity in an outcome.
    pub fn of(self, scenario: &Scenario, outcome: &Outcome) -> f64 {
        let connections = &outcome.connections;
        let after_mark = |index: usize| connections[index].up.bytes_after_mark as f64;
        let fair_share = |index: usize| {
            let capacity = scenario.capacity(scenario.mark, outcome.ended);
            after_mark(index) * connections.len() as f64 / capacity
        };
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
            Self::FairShare(index) => fair_share(index),
            Self::SmallestShare => (0..connections.len()).map(fair_share).fold(f64::INFINITY, f64::min),
            Self::LargestShare => (0..connections.len()).map(fair_share).fold(0.0, f64::max),
            Self::Wait => milliseconds(outcome.queue.median_wait),
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

/// Target for the runs of one scenario.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// The median is at least this.
    Median(f64),
    /// The median is less than this.
    MedianUnder(f64),
    /// The minimum is at least this.
    Worst(f64),
    /// The maximum is at most this.
    AllAtMost(f64),
    /// The minimum is over half of the median.
    WorstOverHalfMedian,
    /// The median should be at least this. It is not reached yet, so a miss is no failure.
    AimMedian(f64),
    /// The median should be less than this. It is not reached yet, so a miss is no failure.
    AimMedianUnder(f64),
}

impl Target {
    /// Returns true if a miss is a failure.
    pub fn is_required(self) -> bool {
        !matches!(self, Self::AimMedian(_) | Self::AimMedianUnder(_))
    }
}

/// One quantity over all runs of one scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Name, for example `goodput_share/100mbit_40ms_loss0.1`.
    pub name: String,
    /// Unit, for example `of capacity`.
    pub unit: &'static str,
    /// Values of the runs, sorted.
    sorted: Vec<f64>,
    /// Targets of the figure.
    pub targets: Vec<Target>,
}

impl Figure {
    /// Creates a figure of at least one run.
    pub fn new(name: &str, unit: &'static str, mut values: Vec<f64>, targets: &[Target]) -> Self {
        values.sort_by(f64::total_cmp);
        Self { name: name.to_owned(), unit, sorted: values, targets: targets.to_vec() }
    }

    /// Returns the minimum, NaN if there were no runs.
    pub fn min(&self) -> f64 {
        self.sorted.first().copied().unwrap_or(f64::NAN)
    }

    /// Returns the maximum.
    pub fn max(&self) -> f64 {
        self.sorted.last().copied().unwrap_or(f64::NAN)
    }

    /// Returns the median: the middle value, or the mean of the two middle values.
    pub fn median(&self) -> f64 {
        let middle = self.sorted.len() / 2;
        let Some(&upper) = self.sorted.get(middle) else { return f64::NAN };
        if self.sorted.len() % 2 == 1 { upper } else { (self.sorted[middle - 1] + upper) / 2.0 }
    }

    /// Returns true if the figure meets `target`.
    pub fn meets(&self, target: Target) -> bool {
        match target {
            Target::Median(least) | Target::AimMedian(least) => self.median() >= least,
            Target::MedianUnder(bound) | Target::AimMedianUnder(bound) => self.median() < bound,
            Target::Worst(least) => self.min() >= least,
            Target::AllAtMost(most) => self.max() <= most,
            Target::WorstOverHalfMedian => self.min() > self.median() / 2.0,
        }
    }

    /// Returns true if the figure has a required target.
    pub fn is_judged(&self) -> bool {
        self.targets.iter().any(|target| target.is_required())
    }

    /// Returns true if the figure meets all required targets.
    pub fn is_ok(&self) -> bool {
        self.targets.iter().all(|target| !target.is_required() || self.meets(*target))
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
    fn a_missed_aim_is_no_failure() {
        let figure = |targets: &[Target]| Figure::new("f", "", vec![2.0], targets);
        let aims = [Target::AimMedian(3.0), Target::AimMedianUnder(1.0)];
        let aimed = figure(&aims);
        assert!(!aims.iter().any(|aim| aimed.meets(*aim)));
        assert!(aimed.is_ok() && !aimed.is_judged());
        let judged = figure(&[Target::AimMedian(3.0), Target::Median(2.5)]);
        assert!(!judged.is_ok() && judged.is_judged());
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
