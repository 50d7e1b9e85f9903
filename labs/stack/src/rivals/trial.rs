//! What is tried in every round, and the figures that are made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use peersock_stack_lab::measure::{Figure, Target};

use super::ends::Sender;
use super::{PREFIX, Round};

/// All trials of a run.
pub(crate) type Trials = Vec<Trial>;

/// Whose numbers: a sender's, with transfers of so many bytes, 0 if they are endless.
pub(crate) type Series = (Sender, u64);

/// What a trial does in a round.
pub(crate) trait Subject {
    /// Measures these, and perhaps others.
    fn measure(&self, round: Round, wanted: &BTreeSet<Series>) -> io::Result<Samples>;
}

/// What a round gives.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    pub(crate) values: BTreeMap<Series, Vec<f64>>,
    /// The share of packets that the latest of its links has handed over late.
    pub(crate) late: f64,
}

impl Samples {
    /// Adds numbers that were measured over a link of which this share of packets was late.
    pub(crate) fn add(&mut self, series: Series, values: Vec<f64>, late: f64) {
        self.values.entry(series).or_default().extend(values);
        self.late = self.late.max(late);
    }

    /// Adds those of another.
    pub(crate) fn merge(&mut self, other: Self) {
        for (series, values) in other.values {
            self.add(series, values, other.late);
        }
    }
}

/// A subject with its figures.
pub(crate) struct Trial {
    /// For example `goodput 50mbit_40ms_loss1`.
    pub(crate) title: String,
    /// It is left out of more rounds than these.
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

/// What a figure is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Summary {
    /// All numbers of all rounds.
    Each(Series),
    /// One number of all rounds together.
    Of(Percentile, Series),
    /// The median of each round, ours over that of another sender.
    Medians(Series),
    /// One number of all rounds together, ours over that of another sender.
    Ratio(Percentile, Series),
    /// The share of packets that the link has handed over late, of each round.
    Late,
}

/// Percent of the numbers that are smaller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Percentile(pub(crate) u8);

impl Percentile {
    pub(crate) const MEDIAN: Self = Self(50);

    /// Between two numbers it is in proportion.
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
    /// What must be measured for it.
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
    /// What a link must be like for its figures to mean anything. It is not if the machine has other things
    /// to do.
    pub(crate) const PUNCTUAL: &[Target] = &[Target::AllAtMost(0.02)];

    pub(crate) fn new(title: impl Into<String>, subject: impl Subject + 'static) -> Self {
        let subject = Box::new(subject);
        Self { title: title.into(), most_rounds: u64::MAX, subject, figures: Vec::new(), rounds: Vec::new() }
    }

    /// With one more figure.
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

    /// The names of its figures.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.figures.iter().map(|figure| figure.name.as_str())
    }

    /// Forgets the figures that are not wanted.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.figures.retain(|figure| wanted(&figure.name));
    }

    /// Does it once more, as far as its figures need it, and says what came of it.
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

    /// What came of all rounds.
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
