//! `cargo xtask stress`: runs every test many times beside busy processes, to find the ones that fail now and
//! then.
//!
//! One pass measures each test's duration. Tests below a second are repeated often, because they are cheap
//! and most of the suite. All others are repeated a few times. The final report names each test that failed,
//! with the number of failures.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{io, thread};

use clap::Args;

use super::command::run as run_command;
use super::outcome::Outcome;
use crate::cleanup::Guard;
use crate::{Result, cargo, root};

/// Examples for `cargo xtask stress --help`.
pub(crate) const EXAMPLES: &str = "Examples:
  cargo xtask stress                                    all tests, for a night
  cargo xtask stress --minutes 30 -E 'package(peersock-socket-server)'
  cargo xtask stress --part 2/5                         the second fifth of the tests
  cargo xtask stress --times 200 -E 'test(=connect::shutdown_ends_an_attempt_that_is_waited_for)'";

/// Duration below which tests are repeated often.
const MAX_SHORT_TEST: Duration = Duration::from_secs(1);

/// Options of `stress`.
#[derive(Args)]
pub(crate) struct Options {
    /// Repeat tests that take less than a second this many times
    #[arg(long, default_value_t = 50)]
    times: u32,
    /// Repeat all other tests this many times
    #[arg(long, default_value_t = 3)]
    long_times: u32,
    /// Number of busy processes beside the tests
    #[arg(long, default_value_t = 4)]
    busy: u32,
    /// Start no further repetition after MINUTES
    #[arg(long, default_value_t = 600)]
    minutes: u64,
    /// Run only this part of the tests, such as 2/5
    #[arg(long, value_name = "K/N")]
    part: Option<String>,
    /// Run only the tests that this filterset of cargo-nextest selects
    #[arg(short = 'E', long, value_name = "FILTERSET", default_value = "all()")]
    filter: String,
}

/// Repeats the tests. Returns false if one failed.
/// Fails if cargo-nextest is missing, or the tests do not build.
pub(crate) fn run(options: &Options) -> Result<bool> {
    // Busy processes would make minutes of it hours, and tests that build a library themselves would time
    // out.
    for arguments in [
        &["build", "--workspace", "--lib", "--bins", "--examples"][..],
        &["nextest", "run", "--workspace", "--no-run"],
    ] {
        let mut build = cargo();
        build.args(arguments);
        if !run_command(build)?.0 {
            return Err("the tests do not build".into());
        }
    }
    let deadline = Instant::now() + Duration::from_secs(60 * options.minutes);
    let mut failures = BTreeMap::new();
    let _busy = (0..options.busy).map(|_| busy_process()).collect::<io::Result<Vec<_>>>()?;
    let first = round(options, &options.filter, &mut failures)?;
    let is_long = |seconds: f64| seconds >= MAX_SHORT_TEST.as_secs_f64();
    let long: Vec<_> =
        first.durations.iter().filter(|(_, time)| is_long(*time)).map(|(name, _)| exact(name)).collect();
    let long = if long.is_empty() { "none()".to_owned() } else { long.join(" + ") };
    let mut runs = (1, 1);
    while runs.0 < options.times && Instant::now() < deadline {
        round(options, &format!("({}) - ({long})", options.filter), &mut failures)?;
        runs.0 += 1;
        // Spread the long tests over the time, in step with the short ones.
        let due = 1
            + (options.long_times.saturating_sub(1)) * (runs.0 - 1) / options.times.saturating_sub(1).max(1);
        if runs.1 < due && Instant::now() < deadline {
            round(options, &format!("({}) & ({long})", options.filter), &mut failures)?;
            runs.1 += 1;
        }
    }
    println!(
        "\n{} tests: the short ones ran {} times, the long ones {}",
        first.durations.len(),
        runs.0,
        runs.1
    );
    for (name, times) in &failures {
        println!("FAILED {times} times: {name}");
    }
    println!("{} passed, {} failed", first.durations.len().saturating_sub(failures.len()), failures.len());
    Ok(failures.is_empty())
}

/// Runs the tests once, and counts failures by name.
fn round(options: &Options, filter: &str, failures: &mut BTreeMap<String, u32>) -> Result<Outcome> {
    // Path from .config/nextest.toml.
    let junit = root().join("target/nextest/default/junit.xml");
    let _ = fs::remove_file(&junit);
    let threads = thread::available_parallelism().map_or(1, |count| 3 * count.get());
    let mut command = cargo();
    command.args(["nextest", "run", "--workspace", "--ignore-default-filter", "--no-tests", "pass"]);
    command.args(["--status-level", "fail", "--final-status-level", "none", "--show-progress", "none"]);
    command.args(["--test-threads", &threads.to_string(), "-E", filter]);
    if let Some(part) = &options.part {
        command.args(["--partition", &format!("hash:{part}")]);
    }
    let (success, _) = run_command(command)?;
    let Ok(xml) = fs::read_to_string(junit) else {
        // No test was chosen.
        return if success { Ok(Outcome::default()) } else { Err("the tests did not run".into()) };
    };
    let outcome = Outcome::from_junit(&xml)?;
    for (name, _) in &outcome.failed {
        *failures.entry(name.clone()).or_default() += 1;
    }
    Ok(outcome)
}

/// Returns the filterset of one test, from its name in the JUnit file: `BINARY TEST`.
fn exact(name: &str) -> String {
    let (binary, test) = name.split_once(' ').unwrap_or(("", name));
    format!("(binary_id(={binary}) & test(={test}))")
}

/// Starts a process that uses all processor time it can get.
fn busy_process() -> io::Result<Guard> {
    let mut command = Command::new("sh");
    command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
    Guard::spawn(&mut command).map(|(_, guard)| guard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_named_by_its_binary_and_its_path() {
        assert_eq!(
            exact("peersock-cli::run web::curl"),
            "(binary_id(=peersock-cli::run) & test(=web::curl))"
        );
    }
}
