//! The steps, in order.

use std::fs;
use std::process::Command;
use std::thread;

use super::command::{check, run, works};
use super::outcome::Outcome;
use super::workspace::{self, Workspace};
use super::{bare, bindings, dependencies, dist, fuzz, python, readme, slow, sources};
use crate::{Result, cargo, root};

/// How many random seeds the simulation runs.
const SIMULATION_SEEDS: &str = "2000";

/// One step.
pub(super) struct Step {
    /// What `--only` calls it.
    pub(super) name: &'static str,
    /// What it does, for people.
    pub(super) what: &'static str,
    /// Does it. An error counts as one failure.
    pub(super) run: fn(&Workspace) -> Result<Outcome>,
}

/// The step that runs only if it is named.
pub(super) const SLOW: &str = "slow";

/// All of them.
pub(super) const STEPS: &[Step] = &[
    Step { name: "format", what: "rustfmt would change nothing", run: format },
    Step {
        name: "sources",
        what: "every crate takes the shared lints; the cores are pure; texts are for people",
        run: sources::check,
    },
    Step { name: "header", what: "the C library's header is what its source code makes", run: header },
    Step { name: "clippy", what: "lints of all crates, warnings are errors", run: clippy },
    Step {
        name: "deny",
        what: "licences, sources and advisories of the dependencies",
        run: dependencies::check,
    },
    Step {
        name: "tests",
        what: "unit, property and integration tests, and the fuzzers' corpora",
        run: tests,
    },
    Step { name: "doctests", what: "the examples in the documentation", run: doctests },
    Step { name: "docs", what: "the documentation builds, warnings are errors", run: docs },
    Step { name: "examples", what: "the example programs build", run: examples },
    Step {
        name: "python",
        what: "the Python package as a wheel: types, its tests, and CPython's own on the overlay",
        run: python::check,
    },
    Step {
        name: "bindings",
        what: "the packages for Go and Node.js: their own tests, with the C library as it is installed",
        run: bindings::check,
    },
    Step { name: "simulation", what: "both cores in virtual time, random seeds", run: simulation },
    Step { name: "demo", what: "two real processes on this machine, end to end", run: demo },
    Step {
        name: "readme",
        what: "every command of the README and the guide's tours, run as they stand there",
        run: readme::check,
    },
    Step {
        name: "dist",
        what: "packages and archives, each installed where there is nothing else",
        run: dist::check,
    },
    Step {
        name: "bare",
        what: "how the two commands begin where there is only Rust and a C compiler",
        run: bare::check,
    },
    Step { name: "fuzz", what: "every fuzz target for a few seconds", run: fuzz::run },
    Step { name: SLOW, what: "only if it is named: tests that take minutes, or measure", run: slow::check },
];

fn format(_: &Workspace) -> Result<Outcome> {
    if !has_component("fmt") {
        return Ok(Outcome::skipped("format", "rustfmt is not installed (rustup component add rustfmt)"));
    }
    let mut command = cargo();
    command.args(["fmt", "--all", "--check"]);
    check("cargo fmt --all --check", command)
}

/// Whether the compiler came with `cargo NAME`: some come alone.
fn has_component(name: &str) -> bool {
    let mut version = cargo();
    version.args([name, "--version"]);
    works(version)
}

fn header(_: &Workspace) -> Result<Outcome> {
    Ok(match crate::header::is_current()? {
        true => Outcome::passed(),
        false => Outcome::failed("the header is stale: run cargo xtask header"),
    })
}

fn clippy(_: &Workspace) -> Result<Outcome> {
    if !has_component("clippy") {
        return Ok(Outcome::skipped("clippy", "clippy is not installed (rustup component add clippy)"));
    }
    let mut command = cargo();
    command.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    check("clippy", command)
}

fn tests(workspace: &Workspace) -> Result<Outcome> {
    // The tests in C link with the library.
    let (built, _) = run(workspace::build())?;
    let mut command = cargo();
    if built {
        command.env("PEERSOCK_LIBRARIES", workspace.target.join("debug"));
    }
    let mut version = cargo();
    version.args(["nextest", "--version"]);
    if !works(version) {
        println!("cargo-nextest is not installed: cargo test does it, one program after another");
        command.args(["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]);
        command.args(["--", "--show-output"]);
        let (success, output) = run(command)?;
        return counted(success, Outcome::from_libtest(&output));
    }
    // Where .config/nextest.toml has it written.
    let junit = root().join("target/nextest/default/junit.xml");
    let _ = fs::remove_file(&junit);
    // Many tests wait for something: three per processor use it better than one.
    let threads = thread::available_parallelism().map_or(1, |count| 3 * count.get());
    command.args(["nextest", "run", "--workspace", "--test-threads", &threads.to_string()]);
    let (success, _) = run(command)?;
    let xml = fs::read_to_string(junit).map_err(|_| "the tests did not run")?;
    counted(success, Outcome::from_junit(&xml)?)
}

fn doctests(_: &Workspace) -> Result<Outcome> {
    let mut command = cargo();
    command.args(["test", "--workspace", "--doc", "--no-fail-fast"]);
    let (success, output) = run(command)?;
    counted(success, Outcome::from_libtest(&output))
}

fn docs(_: &Workspace) -> Result<Outcome> {
    let mut command = cargo();
    command.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
    check("documentation", command)
}

fn examples(_: &Workspace) -> Result<Outcome> {
    check("examples", workspace::build())
}

fn simulation(workspace: &Workspace) -> Result<Outcome> {
    // With the profile of development, in which it is optimised, and with the whole workspace: so it is built
    // already.
    if !run(workspace::build())?.0 {
        return Ok(Outcome::failed("the simulator does not build"));
    }
    let mut command = Command::new(workspace.target.join("debug/peersock-sim"));
    command.args(["run", "--seeds", SIMULATION_SEEDS]);
    let (success, output) = run(command)?;
    counted(success, Outcome::from_last_line("simulation seed", &output)?)
}

fn demo(_: &Workspace) -> Result<Outcome> {
    let mut command = cargo();
    command.args(["run", "--release", "--", "demo"]);
    check("cargo run --release -- demo", command)
}

/// A runner that fails without naming a failed test has failed itself.
fn counted(success: bool, mut outcome: Outcome) -> Result<Outcome> {
    if !success && outcome.failed.is_empty() {
        outcome.add(Outcome::failed("the test run, before or after its tests"));
    }
    Ok(outcome)
}
