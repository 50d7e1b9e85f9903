//! Trials that run in every round, and their figures.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use peersock_stack_lab::measure::{Figure, Target};

use super::ends::Sender;
use super::{PREFIX, Round};

/// All trials of a run.
pub(crate) type Trials = Vec<Trial>;

/// Key of values: a sender, and the transfer's size in bytes, 0 for endless flows.
pub(crate) type Series = (Sender, u64);

/// Measurement that a trial makes in a round.
pub(crate) trait Subject {
    /// Measures the wanted series, and possibly others.
    fn measure(&self, round: Round, wanted: &BTreeSet<Series>) -> io::Result<Samples>;
}

/// Results of a round.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    pub(crate) values: BTreeMap<Series, Vec<f64>>,
    /// Largest share of late packets of its links.
    pub(crate) late: f64,
}

impl Samples {
    /// Adds values measured over a link with this share of late packets.
    pub(crate) fn add(&mut self, series: Series, values: Vec<f64>, late: f64) {
        self.values.entry(series).or_default().extend(values);
        self.late = self.late.max(late);
    }

    /// Adds the values of another.
    pub(crate) fn merge(&mut self, other: Self) {
        for (series, values) in other.values {
            self.add(series, values, other.late);
        }
    }
}

/// A subject with its figures.
pub(crate) struct Trial {
    /// Title, for example `goodput 50mbit_40ms_loss1`.
    pub(crate) title: String,
    /// Maximum number of rounds; further rounds skip the trial.
    pub(crate) most_rounds: u64,
    subject: Box<dyn Subject>,
    figures: Vec<Wanted>,
    rounds: Vec<Samples>,
}

struct Wanted {
    name: String,
    unit: &'static str,
    summary: Summary,
    targets: Vec<Target>,
}

/// Computation of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Summary {
    /// All values of all rounds.
    Each(Series),
    /// Percentile of all rounds together.
    Of(Percentile, Series),
    /// Ratio of peersock's median to another sender's, for each round.
    Medians(Series),
    /// Ratio of peersock's percentile to another sender's, over all rounds together.
    Ratio(Percentile, Series),
    /// Share of late packets in each round.
    Late,
}

/// Percentage of values that are smaller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Percentile(pub(crate) u8);

impl Percentile {
    pub(crate) const MEDIAN: Self = Self(50);

    /// Returns the percentile, interpolated between two values.
    fn of<'a>(self, values: impl IntoIterator<Item = &'a f64>) -> f64 {
        let mut sorted: Vec<f64> = values.into_iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
        let place = last as f64 * f64::from(self.0) / 100.0;
        let (lower, upper) = (sorted[place as usize], sorted[place.ceil() as usize]);
        lower + (upper - lower) * place.fract()
    }
}

impl Summary {
    /// Returns the series that must be measured.
    fn series(self) -> Vec<Series> {
        match self {
            Self::Each(series) | Self::Of(_, series) => vec![series],
            Self::Medians(series) | Self::Ratio(_, series) => vec![(Sender::Peersock, series.1), series],
            Self::Late => Vec::new(),
        }
    }

    fn values(self, rounds: &[Samples]) -> Vec<f64> {
        let all = |series: Series| rounds.iter().flat_map(move |round| &round.values[&series]);
        let of_all = |percentile: Percentile, series| percentile.of(all(series));
        let ours = |theirs: Series| (Sender::Peersock, theirs.1);
        match self {
            Self::Each(series) => all(series).copied().collect(),
            Self::Of(percentile, series) => vec![of_all(percentile, series)],
            Self::Medians(theirs) => {
                let of = |round: &Samples, series| Percentile::MEDIAN.of(&round.values[&series]);
                rounds.iter().map(|round| of(round, ours(theirs)) / of(round, theirs)).collect()
            }
            Self::Ratio(percentile, theirs) => {
                vec![of_all(percentile, ours(theirs)) / of_all(percentile, theirs)]
            }
            Self::Late => rounds.iter().map(|round| round.late).collect(),
        }
    }
}

impl Trial {
    /// Requirement on the link's timing, without which the figures mean nothing. A busy machine misses it.
    pub(crate) const PUNCTUAL: &[Target] = &[Target::AllAtMost(0.02)];

    pub(crate) fn new(title: impl Into<String>, subject: impl Subject + 'static) -> Self {
        let subject = Box::new(subject);
        Self { title: title.into(), most_rounds: u64::MAX, subject, figures: Vec::new(), rounds: Vec::new() }
    }

    /// Adds a figure.
    #[must_use]
    pub(crate) fn with(
        mut self,
        name: &str,
        unit: &'static str,
        summary: Summary,
        targets: &[Target],
    ) -> Self {
        let name = format!("{PREFIX}{name}");
        self.figures.push(Wanted { name, unit, summary, targets: targets.to_vec() });
        self
    }

    /// Returns the names of its figures.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.figures.iter().map(|figure| figure.name.as_str())
    }

    /// Removes unwanted figures.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.figures.retain(|figure| wanted(&figure.name));
    }

    /// Runs the trial once for its figures; returns a summary.
    pub(crate) fn run(&mut self, round: Round) -> io::Result<String> {
        let wanted = self.figures.iter().flat_map(|figure| figure.summary.series()).collect();
        let samples = self.subject.measure(round, &wanted)?;
        let value = |((sender, bytes), values): (&Series, &Vec<f64>)| {
            let size = if *bytes == 0 { String::new() } else { format!(" {} kB", bytes / 1000) };
            format!("{}{size} {:.3}, ", sender.name(), Percentile::MEDIAN.of(values))
        };
        let values: String = samples.values.iter().map(value).collect();
        let text = format!("{values}{:.1} % of packets late", samples.late * 100.0);
        self.rounds.push(samples);
        Ok(text)
    }

    /// Returns the figures of all rounds.
    pub(crate) fn figures(&self) -> impl Iterator<Item = Figure> {
        self.figures.iter().map(|Wanted { name, unit, summary, targets }| {
            Figure::new(name, unit, summary.values(&self.rounds), targets)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_lies_between_the_two_numbers_next_to_it() {
        let values: Vec<f64> = (0..=20).rev().map(f64::from).collect();
        assert_eq!(Percentile(95).of(&values), 19.0);
        assert_eq!(Percentile(95).of(&[1.0, 2.0]), 1.95);
        assert_eq!(Percentile::MEDIAN.of(&[3.0]), 3.0);
        assert!(Percentile::MEDIAN.of(&[]).is_nan());
    }

    #[test]
    fn a_ratio_is_of_the_same_round_or_of_all_and_needs_both_senders() {
        let (ours, theirs) = ((Sender::Peersock, 7), (Sender::Bbr, 7));
        let round = |a, b| Samples { values: [(ours, vec![a]), (theirs, vec![b])].into(), late: 0.0 };
        let rounds = [round(2.0, 1.0), round(3.0, 6.0)];
        assert_eq!(Summary::Medians(theirs).series(), [ours, theirs]);
        assert_eq!(Summary::Medians(theirs).values(&rounds), [2.0, 0.5]);
        assert_eq!(Summary::Ratio(Percentile(100), theirs).values(&rounds), [0.5]);
    }
}
