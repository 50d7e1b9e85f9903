//! Runs each fuzz target for a short while, from its committed corpus.
//!
//! cargo-fuzz needs compiler flags that are unstable, so `RUSTC_BOOTSTRAP=1` lets the stable compiler take
//! them. A run's findings are kept in the build folder, not among the committed inputs.

use std::fs;
use std::num::NonZero;
use std::process::Command;
use std::thread;

use super::command::{check, run as run_command, works};
use super::outcome::Outcome;
use super::tools::{installation, provide, tool};
use super::workspace::Workspace;
use crate::{Result, root};

/// Run time of each target in seconds.
const SECONDS: u32 = 5;

/// Runs all targets.
/// Fails if the targets do not build.
pub(super) fn run(workspace: &Workspace) -> Result<Outcome> {
    if !has_compiler() {
        return Ok(Outcome::skipped("fuzz", "the fuzzers' runtime needs a compiler for C++"));
    }
    if !provide(workspace, "fuzz")? {
        return Ok(Outcome::skipped("fuzz", "cargo-fuzz is neither installed nor installable here"));
    }
    let (listed, targets) = run_command(cargo_fuzz(workspace, &["list"])?)?;
    if !listed || !run_command(cargo_fuzz(workspace, &["build"])?)?.0 {
        return Err("the fuzz targets do not build".into());
    }
    let mut outcome = Outcome::default();
    let targets: Vec<&str> = targets.lines().collect();
    // A fuzzer uses one processor.
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    for together in targets.chunks(processors) {
        let outcomes = thread::scope(|scope| {
            let runs: Vec<_> = together
                .iter()
                .map(|target| scope.spawn(|| run_one(workspace, target).map_err(|error| error.to_string())))
                .collect();
            runs.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        for (one, target) in outcomes.into_iter().zip(together) {
            outcome.add(one.map_err(|_| format!("fuzz target {target}: a panic"))??);
        }
    }
    Ok(outcome)
}

/// Returns the commands that build the targets, preceded by cargo-fuzz if it is missing; none if this machine
/// cannot build them.
/// Fails if the search path is broken.
pub(super) fn builds(workspace: &Workspace) -> Result<Vec<Command>> {
    if !has_compiler() {
        return Ok(Vec::new());
    }
    let mut commands = Vec::new();
    if !works(tool(workspace, "fuzz", &["--version"])?) {
        commands.push(installation(workspace, "fuzz"));
    }
    commands.push(cargo_fuzz(workspace, &["build"])?);
    Ok(commands)
}

/// Returns true if there is a C++ compiler, which the fuzzers' runtime needs.
fn has_compiler() -> bool {
    let mut compiler = Command::new("c++");
    compiler.arg("--version");
    works(compiler)
}

fn run_one(workspace: &Workspace, target: &str) -> Result<Outcome> {
    let found = workspace.target.join("fuzz-corpus").join(target);
    fs::create_dir_all(&found)?;
    let mut command = cargo_fuzz(workspace, &["run", target])?;
    // The first folder receives findings, and all folders are read.
    command.arg(&found);
    let corpus = root().join("fuzz/corpus").join(target);
    if corpus.is_dir() {
        command.arg(corpus);
    }
    command.args(["--", "-verbosity=0", "-print_final_stats=1"]);
    command.arg(format!("-max_total_time={SECONDS}"));
    check(&format!("fuzz target {target}"), command)
}

/// Returns the command `cargo fuzz …`.
fn cargo_fuzz(workspace: &Workspace, arguments: &[&str]) -> Result<Command> {
    let mut command = tool(workspace, "fuzz", arguments)?;
    command.env("RUSTC_BOOTSTRAP", "1");
    // Most of the time goes into building, and a run of seconds gains little from optimisation.
    command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    Ok(command)
}
