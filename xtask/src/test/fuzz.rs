//! Runs each fuzz target for a short while, from its committed corpus.
//!
//! cargo-fuzz needs compiler flags that are unstable, so `RUSTC_BOOTSTRAP=1` lets the stable compiler take them. What a run
//! finds is kept in the build folder, not among the committed inputs.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::command::{check, run as run_command, works};
use super::outcome::Outcome;
use super::workspace::Workspace;
use crate::{Result, cargo, root};

/// How long each target runs, seconds.
const SECONDS: u32 = 5;

/// Runs all targets.
///
/// # Errors
///
/// When they do not build.
pub(super) fn run(workspace: &Workspace) -> Result<Outcome> {
    let fuzz = root().join("fuzz");
    if !works(cargo_fuzz(workspace, &["--version"])?) && !install(workspace)? {
        return Ok(Outcome::skipped("fuzz", "cargo-fuzz is neither installed nor installable here"));
    }
    let (listed, targets) = run_command(cargo_fuzz(workspace, &["list"])?)?;
    if !listed || !run_command(cargo_fuzz(workspace, &["build"])?)?.0 {
        return Err("the fuzz targets do not build".into());
    }
    let mut outcome = Outcome::default();
    for target in targets.lines() {
        let found = workspace.target.join("fuzz-corpus").join(target);
        fs::create_dir_all(&found)?;
        let mut command = cargo_fuzz(workspace, &["run", target])?;
        // The first folder takes what is found, all of them are read.
        command.arg(&found);
        let corpus = fuzz.join("corpus").join(target);
        if corpus.is_dir() {
            command.arg(corpus);
        }
        command.args(["--", "-verbosity=0", "-print_final_stats=1"]);
        command.arg(format!("-max_total_time={SECONDS}"));
        outcome.add(check(&format!("fuzz target {target}"), command)?);
    }
    Ok(outcome)
}

/// `cargo fuzz …`, also if it is only installed in the build folder.
fn cargo_fuzz(workspace: &Workspace, arguments: &[&str]) -> Result<Command> {
    let mut command = cargo();
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([tools(&workspace.target).join("bin")]);
    command.env("PATH", env::join_paths(folders)?).env("RUSTC_BOOTSTRAP", "1");
    command.arg("fuzz").args(arguments);
    Ok(command)
}

/// False if there is no network, or no compiler for it.
fn install(workspace: &Workspace) -> Result<bool> {
    println!("cargo-fuzz is missing: installing it into the build folder");
    let mut command = cargo();
    command.args(["install", "--quiet", "--locked", "cargo-fuzz", "--root"]).arg(tools(&workspace.target));
    Ok(run_command(command)?.0)
}

fn tools(target: &Path) -> std::path::PathBuf {
    target.join("tools")
}
