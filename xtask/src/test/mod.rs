//! `cargo xtask test` and `cargo xtask ci`: the checks, in the order in which mistakes are cheapest to find.
//!
//! `test` is for every change and for newcomers: it takes minutes and has one pass of everything. `ci` has
//! all checks. [`steps`] lists the steps and the commands that run them. A failed step does not stop the
//! others. [`outcome`] counts results, [`sources`] checks our source code, and [`dependencies`] checks that
//! of others. [`readme`] and [`dist`] try the commands and packages that users get, and [`fuzz`] runs the
//! fuzz targets. The builds that later steps need run while tests wait ([`ahead`]). A test that cannot run on
//! this machine prints a line `SKIP name: reason` and counts as skipped.

use std::time::{Duration, Instant};

use clap::Args;

mod ahead;
mod alone;
mod bare;
mod bindings;
mod command;
mod debug_forms;
mod dependencies;
mod dist;
mod examples;
mod faces;
mod folders;
mod fuzz;
mod links;
mod log_fields;
mod messages;
mod miri;
mod network_files;
mod outcome;
mod preload_sources;
mod prose;
mod python;
mod python_pass;
mod readme;
mod sanitizers;
mod sizes;
mod slow;
mod sources;
mod steps;
mod stress;
mod threads;
mod tools;
mod workspace;

use ahead::Ahead;
use outcome::Outcome;
pub(crate) use readme::{TourOptions, play};
use steps::{Part, STEPS, Step};
pub(crate) use stress::{EXAMPLES as STRESS_EXAMPLES, Options as StressOptions, run as stress};
use workspace::Workspace;

use crate::Result;

/// Examples for `cargo xtask test --help`.
pub(crate) const EXAMPLES: &str = "Examples:
  cargo xtask test                      a pass of everything, in minutes
  cargo xtask test --list               the steps, and which command runs each
  cargo xtask test --only clippy,tests  two of them
  cargo xtask test --only slow,sanitizers,miri
                                        steps that take minutes, or measure: for nights

`cargo xtask ci` runs everything else as well.
A test that cannot run on this machine prints 'SKIP name: reason' and is counted as skipped.";

/// Examples for `cargo xtask ci --help`.
pub(crate) const CI_EXAMPLES: &str = "Examples:
  cargo xtask ci                        everything except the steps for nights
  cargo xtask ci --rest                 the part of it that `cargo xtask test` leaves out
  cargo xtask ci --only tests,python    two steps, whole

A test that cannot run on this machine prints 'SKIP name: reason' and is counted as skipped.";

/// Number of tests that the final report names with their durations.
const SLOWEST: usize = 20;

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

/// Options of `ci`.
#[derive(Args)]
pub(crate) struct CiOptions {
    #[command(flatten)]
    common: Options,
    /// Leave out the checks of `cargo xtask test`
    #[arg(long)]
    rest: bool,
}

fn step_names() -> clap::builder::PossibleValuesParser {
    STEPS.iter().map(|step| step.name).into()
}

/// Runs the steps of `cargo xtask test`. Returns false if a step failed.
/// Fails if the workspace itself cannot be read.
pub(crate) fn test(options: &Options) -> Result<bool> {
    run(options, Part::Quick)
}

/// Runs the steps of `cargo xtask ci`. Returns false if a step failed.
/// Fails if the workspace itself cannot be read.
pub(crate) fn ci(options: &CiOptions) -> Result<bool> {
    run(&options.common, if options.rest { Part::Rest } else { Part::All })
}

/// One step that has run.
struct Done {
    name: &'static str,
    took: Duration,
    counts: String,
}

fn run(options: &Options, part: Part) -> Result<bool> {
    if options.list {
        for step in STEPS {
            println!("{:<12} {:<24} {}", step.name, step.when.command(), step.what);
        }
        return Ok(true);
    }
    let workspace = Workspace::read()?;
    let mut total = Outcome::default();
    let is_chosen = |step: &Step| match options.only.as_slice() {
        [] => step.when.is_in(part),
        only => only.iter().any(|only| only == step.name),
    };
    if options.only.is_empty() && part != Part::Quick {
        total.add(slow::skipped(&workspace)?);
    }
    let chosen: Vec<_> = STEPS.iter().filter(|step| is_chosen(step)).collect();
    let names: Vec<_> = chosen.iter().map(|step| step.name).collect();
    let (mut ahead, mut done) = (Ahead::default(), Vec::new());
    for (number, step) in chosen.into_iter().enumerate() {
        println!("\n=== {}: {}", step.name, step.what);
        let start = Instant::now();
        ahead.prepare(step.name, &names[number + 1..], &workspace)?;
        let outcome =
            (step.run)(&workspace, part).unwrap_or_else(|e| Outcome::failed(format!("{}: {e}", step.name)));
        let took = start.elapsed();
        println!("--- {}: {outcome} ({:.1} s)", step.name, took.as_secs_f64());
        done.push(Done { name: step.name, took, counts: outcome.to_string() });
        total.add(outcome);
    }
    report(&total, &done, options.only.is_empty());
    Ok(total.failed.is_empty())
}

/// Prints the steps with their times, the slowest tests, the skipped checks with reasons, and the failures.
fn report(total: &Outcome, done: &[Done], is_whole: bool) {
    println!("\nseconds  step");
    for step in done {
        println!("{:7.1}  {:<12} {}", step.took.as_secs_f64(), step.name, step.counts);
    }
    let elsewhere = STEPS.iter().filter(|step| is_whole && done.iter().all(|done| done.name != step.name));
    for step in elsewhere {
        println!("      -  {:<12} runs by {}", step.name, step.when.command());
    }
    let slowest = total.slowest(SLOWEST);
    if !slowest.is_empty() {
        println!("\nseconds  the slowest of {} tests", total.durations.len());
    }
    for (name, seconds) in slowest {
        println!("{seconds:7.1}  {name}");
    }
    println!();
    for (what, reason) in &total.skipped {
        println!("skipped {what}: {reason}");
    }
    for (what, text) in &total.failed {
        println!("FAILED {what}");
        // Repeat it, because a reader of a long log looks at its end.
        for line in text.lines() {
            println!("    {line}");
        }
    }
    println!("{total}");
}
