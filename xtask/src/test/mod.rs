//! `cargo xtask test`: everything that CI runs, in the order in which mistakes are cheapest to find.
//!
//! A step that fails does not stop the others. [`steps`] lists them; [`outcome`] counts what they did,
//! [`sources`] are the checks of our own source code, [`dependencies`] those of others', [`readme`] and
//! [`dist`] try what users are told and given, and [`fuzz`] runs the fuzz targets. What the later ones need
//! is built while tests wait ([`ahead`]). A test that cannot run on this machine prints a line
//! `SKIP name: reason` and counts as skipped.

use std::time::Instant;

use clap::Args;

mod ahead;
mod bare;
mod bindings;
mod command;
mod debug_forms;
mod dependencies;
mod dist;
mod fuzz;
mod log_fields;
mod network_files;
mod outcome;
mod preload_sources;
mod python;
mod readme;
mod slow;
mod sources;
mod steps;
mod tools;
mod workspace;

use ahead::Ahead;
use outcome::Outcome;
pub(crate) use readme::{TourOptions, play};
use steps::{SLOW, STEPS};
use workspace::Workspace;

use crate::Result;

/// Shown by `--help`.
pub(crate) const EXAMPLES: &str = "Examples:
  cargo xtask test                      everything
  cargo xtask test --list               the steps
  cargo xtask test --only clippy,tests  two of them
  cargo xtask test --only slow          what takes minutes, or measures, and else is counted as skipped

A test that cannot run on this machine prints 'SKIP name: reason' and is counted as skipped.";

/// Options of `test`.
#[derive(Args)]
pub(crate) struct Options {
    /// Print the steps and exit
    #[arg(long)]
    list: bool,
    /// Run only these steps
    #[arg(long, value_delimiter = ',', value_name = "STEP,…", value_parser = step_names())]
    only: Vec<String>,
}

fn step_names() -> clap::builder::PossibleValuesParser {
    STEPS.iter().map(|step| step.name).into()
}

/// Runs the steps. False if something failed.
///
/// # Errors
///
/// When the workspace itself cannot be read.
pub(crate) fn run(options: &Options) -> Result<bool> {
    if options.list {
        for step in STEPS {
            println!("{:<12} {}", step.name, step.what);
        }
        return Ok(true);
    }
    let workspace = Workspace::read()?;
    let mut total = Outcome::default();
    let is_chosen = |name: &str| match options.only.as_slice() {
        [] => name != SLOW,
        only => only.iter().any(|only| only == name),
    };
    if options.only.is_empty() {
        total.add(slow::skipped(&workspace)?);
    }
    let chosen: Vec<_> = STEPS.iter().filter(|step| is_chosen(step.name)).collect();
    let names: Vec<_> = chosen.iter().map(|step| step.name).collect();
    let mut ahead = Ahead::default();
    for (number, step) in chosen.into_iter().enumerate() {
        println!("\n=== {}: {}", step.name, step.what);
        let start = Instant::now();
        ahead.prepare(step.name, &names[number + 1..], &workspace)?;
        let outcome =
            (step.run)(&workspace).unwrap_or_else(|e| Outcome::failed(format!("{}: {e}", step.name)));
        println!("--- {}: {outcome} ({:.1} s)", step.name, start.elapsed().as_secs_f64());
        total.add(outcome);
    }
    println!();
    for (what, reason) in &total.skipped {
        println!("skipped {what}: {reason}");
    }
    for (what, text) in &total.failed {
        println!("FAILED {what}");
        // Again, as whoever sees only the end of a long log needs it.
        for line in text.lines() {
            println!("    {line}");
        }
    }
    println!("{total}");
    Ok(total.failed.is_empty())
}
