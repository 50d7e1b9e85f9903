//! Named figures, one per line: for people, and as JSON for programs.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::figures::{Measured, Row, Spread};
use super::machine::Machine;
use super::table::json_line;
use crate::Result;

/// Printer of figures. Each figure is printed when added, and all are written as JSON at the end.
pub(super) struct Lines {
    json: String,
}

impl Lines {
    /// Prints the head.
    pub(super) fn new(machine: &Machine) -> Lines {
        let head = format!("{:<44} {:<8} {:>10} {:>10} {:>10}", "figure", "unit", "min", "median", "max");
        println!("\n{head} {:>9} {:>11}", "steal %", "others %");
        Lines { json: format!("{}\n", json!({ "machine": machine.json() })) }
    }

    /// Adds a figure with its rounds; does nothing if there are none.
    pub(super) fn add(&mut self, name: &str, unit: &str, rounds: &[Measured]) {
        let Some(row) = Row::of(rounds.iter().copied()) else { return };
        let Spread { min, median, max } = row.spread;
        let ([steal, others], mark) = (row.disturbances.columns(), row.disturbances.mark());
        let figures = format!("{name:<44} {unit:<8} {min:>10.3} {median:>10.3} {max:>10.3}");
        println!("{}", format!("{figures} {steal:>9} {others:>11}  {mark}").trim_end());
        self.json.push_str(&format!("{}\n", json_line(name, unit, &row)));
    }

    /// Adds the ratio of two figures, taken in each round.
    pub(super) fn add_ratio(&mut self, name: &str, of: &[Measured], to: &[Measured]) {
        let ratios: Vec<_> = of.iter().zip(to).map(|(of, to)| (of.0 / to.0, of.1.max(to.1))).collect();
        self.add(name, "ratio", &ratios);
    }

    /// Writes the added figures to a file, one JSON object per line.
    /// Fails if the file cannot be written.
    pub(super) fn write(self, path: Option<&Path>) -> Result<()> {
        let Some(path) = path else { return Ok(()) };
        fs::write(path, self.json).map_err(|e| format!("cannot write {}: {e}", path.display()).into())
    }
}
