//! The scenarios that the project is judged by, what is measured in them, and their targets.

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

/// A scenario under a name, and what is measured in it.
#[derive(Debug, Clone)]
pub struct Case {
    /// The names of its figures end with this, for example `100mbit_40ms_loss0.1`.
    pub name: String,
    /// What is tried.
    pub scenario: Scenario,
    /// How many seeds are run for each that is asked for.
    pub runs_per_seed: u64,
    /// More seeds than these are not run: a second of a fast link takes long.
    pub most_seeds: u64,
    /// What is measured.
    pub measures: Vec<Measure>,
}

/// One figure of a [`Case`].
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// For example `goodput_share/100mbit_40ms_loss0.1`.
    pub name: String,
    /// What it is.
    pub quantity: Quantity,
    /// What is expected of it.
    pub targets: Vec<Target>,
}

impl Case {
    fn new(name: impl Into<String>, scenario: Scenario) -> Self {
        Self { name: name.into(), scenario, runs_per_seed: 1, most_seeds: u64::MAX, measures: Vec::new() }
    }

    /// How many runs there are with so many seeds.
    fn runs(&self, seeds: u64) -> u64 {
        seeds.min(self.most_seeds) * self.runs_per_seed
    }

    /// Measures one more figure, under the quantity's name and the case's.
    fn measure(self, prefix: &str, quantity: Quantity, targets: &[Target]) -> Self {
        let name = format!("{prefix}/{}", self.name);
        self.measure_as(name, quantity, targets)
    }

    fn measure_as(mut self, name: String, quantity: Quantity, targets: &[Target]) -> Self {
        self.measures.push(Measure { name, quantity, targets: targets.to_vec() });
        self
    }
}
