//! Benchmark scenarios of the project, with their measures and targets.

mod catalogue;
mod figure;
mod glob;
mod rough;
mod runner;
mod table;

pub use catalogue::catalogue;
pub use figure::{Figure, Quantity, Target};
pub use glob::matches;
pub use runner::{Settings, run};
pub use table::{table, write_json};

use crate::Scenario;

/// A named scenario and its measures.
#[derive(Debug, Clone)]
pub struct Case {
    /// Suffix of the names of its figures, for example `100mbit_40ms_loss0.1`.
    pub name: String,
    /// Scenario to run.
    pub scenario: Scenario,
    /// Number of runs per requested seed.
    pub runs_per_seed: u64,
    /// Maximum number of seeds, because a second of a fast link takes long.
    pub most_seeds: u64,
    /// Figures to measure.
    pub measures: Vec<Measure>,
}

/// One figure of a [`Case`].
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// Name, for example `goodput_share/100mbit_40ms_loss0.1`.
    pub name: String,
    /// Quantity that is measured.
    pub quantity: Quantity,
    /// Targets of the figure.
    pub targets: Vec<Target>,
}

impl Case {
    fn new(name: impl Into<String>, scenario: Scenario) -> Self {
        Self { name: name.into(), scenario, runs_per_seed: 1, most_seeds: u64::MAX, measures: Vec::new() }
    }

    /// Returns the number of runs for this number of seeds.
    fn runs(&self, seeds: u64) -> u64 {
        seeds.min(self.most_seeds) * self.runs_per_seed
    }

    /// Adds a figure, named after the quantity and the case.
    fn measure(self, prefix: &str, quantity: Quantity, targets: &[Target]) -> Self {
        let name = format!("{prefix}/{}", self.name);
        self.measure_as(name, quantity, targets)
    }

    fn measure_as(mut self, name: String, quantity: Quantity, targets: &[Target]) -> Self {
        self.measures.push(Measure { name, quantity, targets: targets.to_vec() });
        self
    }
}
