//! The steps, in order.

use std::process::Command;
use std::thread;

use super::command::{check, has_component, nextest, run, run_to_end};
use super::outcome::Outcome;
use super::workspace::{self, Workspace};
use super::{
    bare, bindings, dependencies, dist, examples, fuzz, miri, python, python_pass, readme, sanitizers, sizes,
    slow, sources,
};
use crate::{Result, cargo};

/// Number of random seeds that the simulation runs in `cargo xtask test`, and in all of `cargo xtask ci`.
const QUICK_SEEDS: u32 = 100;
const ALL_SEEDS: u32 = 2000;

/// The part of the checks that one command runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// `cargo xtask test`.
    Quick,
    /// `cargo xtask ci --rest`: everything but [`Part::Quick`].
    Rest,
    /// `cargo xtask ci`.
    All,
}

/// The commands that run a step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// `cargo xtask test` runs the whole step.
    Quick,
    /// `cargo xtask test` runs a part of the step, and `cargo xtask ci` the whole.
    Both,
    /// `cargo xtask ci` runs the step.
    Ci,
    /// The step runs only if `--only` names it.
    Named,
}

impl When {
    /// Returns true if a step runs in this part.
    pub(super) fn is_in(self, part: Part) -> bool {
        match self {
            When::Quick => part != Part::Rest,
            When::Both => true,
            When::Ci => part != Part::Quick,
            When::Named => false,
        }
    }

    /// Names the command, for people.
    pub(super) fn command(self) -> &'static str {
        match self {
            When::Quick => "cargo xtask test",
            When::Both => "cargo xtask test and ci",
            When::Ci => "cargo xtask ci",
            When::Named => "--only, for nights",
        }
    }
}

/// One step.
pub(super) struct Step {
    /// Name for `--only`.
    pub(super) name: &'static str,
    /// Purpose, for people.
    pub(super) what: &'static str,
    /// Commands that run the step.
    pub(super) when: When,
    /// Runs one part of the step. An error counts as one failure.
    pub(super) run: fn(&Workspace, Part) -> Result<Outcome>,
}

/// All steps, in order.
pub(super) const STEPS: &[Step] = &[
    Step { name: "format", what: "rustfmt would change nothing", when: When::Quick, run: format },
    Step {
        name: "sources",
        what: "every crate takes the shared lints; the cores are pure; texts are for people",
        when: When::Quick,
        run: |workspace, _| sources::check(workspace),
    },
    Step {
        name: "header",
        what: "the C library's header is what its source code makes",
        when: When::Quick,
        run: header,
    },
    Step { name: "clippy", what: "lints of all crates, warnings are errors", when: When::Quick, run: clippy },
    Step {
        name: "tests",
        what: "unit, property and integration tests, and the fuzzers' corpora",
        when: When::Both,
        run: tests,
    },
    Step {
        name: "simulation",
        what: "both cores in virtual time, random seeds",
        when: When::Both,
        run: simulation,
    },
    Step {
        name: "python-pass",
        what: "the Python package as it was just built: sockets, asyncio, and a program that is run",
        when: When::Quick,
        run: |workspace, _| python_pass::check(workspace),
    },
    Step {
        name: "deny",
        what: "licences, sources and advisories of the dependencies",
        when: When::Ci,
        run: |workspace, _| dependencies::check(workspace),
    },
    Step { name: "doctests", what: "the examples in the documentation", when: When::Ci, run: doctests },
    Step { name: "docs", what: "the documentation builds, warnings are errors", when: When::Ci, run: docs },
    Step {
        name: "examples",
        what: "the example programs, each in a separate network, and the one with tonic",
        when: When::Ci,
        run: |workspace, _| examples::check(workspace),
    },
    Step {
        name: "python",
        what: "the Python package as a wheel: types, its tests, and CPython's own on the overlay",
        when: When::Ci,
        run: |workspace, _| python::check(workspace),
    },
    Step {
        name: "bindings",
        what: "the packages for Go and Node.js: their own tests, with the C library as it is installed",
        when: When::Ci,
        run: |workspace, _| bindings::check(workspace),
    },
    Step {
        name: "readme",
        what: "every command of the README and the tours of docs/use, as written there",
        when: When::Ci,
        run: |workspace, _| readme::check(workspace),
    },
    Step {
        name: "dist",
        what: "packages and archives, each installed where there is nothing else",
        when: When::Ci,
        run: |workspace, _| dist::check(workspace),
    },
    Step {
        name: "bare",
        what: "how the two commands begin where there is only Rust and a C compiler",
        when: When::Ci,
        run: |workspace, _| bare::check(workspace),
    },
    Step {
        name: "sizes",
        what: "the library with few features: its crates, the size of a program, each feature alone",
        when: When::Ci,
        run: |workspace, _| sizes::check(workspace),
    },
    Step {
        name: "fuzz",
        what: "every fuzz target for a few seconds",
        when: When::Ci,
        run: |workspace, _| fuzz::run(workspace),
    },
    Step {
        name: "packages",
        what: "what cargo xtask dist makes, with link-time optimisation",
        when: When::Named,
        run: packages,
    },
    Step {
        name: "slow",
        what: "tests that take minutes, or measure",
        when: When::Named,
        run: |workspace, _| slow::check(workspace),
    },
    Step {
        name: "sanitizers",
        what: "crates with unsafe code, and the C library in programs, with the sanitizer of addresses",
        when: When::Named,
        run: |workspace, _| sanitizers::check(workspace),
    },
    Step {
        name: "miri",
        what: "tests that need few system calls, in an interpreter that finds undefined behaviour",
        when: When::Named,
        run: |workspace, _| miri::check(workspace),
    },
];

fn format(_: &Workspace, _: Part) -> Result<Outcome> {
    if !has_component("fmt") {
        return Ok(Outcome::skipped("format", "rustfmt is not installed (rustup component add rustfmt)"));
    }
    let mut command = cargo();
    command.args(["fmt", "--all", "--check"]);
    check("cargo fmt --all --check", command)
}

fn header(_: &Workspace, _: Part) -> Result<Outcome> {
    Ok(match crate::header::is_current()? {
        true => Outcome::passed(),
        false => Outcome::failed("the header is stale: run cargo xtask header"),
    })
}

fn clippy(_: &Workspace, _: Part) -> Result<Outcome> {
    if !has_component("clippy") {
        return Ok(Outcome::skipped("clippy", "clippy is not installed (rustup component add clippy)"));
    }
    let mut command = cargo();
    command.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    check("clippy", command)
}

fn tests(workspace: &Workspace, part: Part) -> Result<Outcome> {
    // The tests in C link with the library.
    let (built, _) = run(workspace::build())?;
    let mut command = cargo();
    if built {
        command.env("PEERSOCK_LIBRARIES", workspace.target.join("debug"));
    }
    if !has_component("nextest") {
        println!("cargo-nextest is not installed: cargo test does it, one program after another");
        command.args(["test", "--workspace", "--no-fail-fast"]).args(match part {
            // cargo test has no filter, so the unit tests are the quick part.
            Part::Quick => &["--lib", "--bins"][..],
            Part::Rest => &["--test", "*"],
            Part::All => &["--lib", "--bins", "--tests"],
        });
        command.args(["--", "--show-output"]);
        let ended = run_to_end(command)?;
        let outcome = Outcome::from_libtest(&ended.output);
        return Ok(ended.counted("tests", outcome));
    }
    // Many tests wait: three per processor use it better than one.
    let threads = thread::available_parallelism().map_or(1, |count| 3 * count.get());
    command.args(["nextest", "run", "--workspace", "--test-threads", &threads.to_string()]);
    // The default filter of .config/nextest.toml selects the quick part.
    command.args(match part {
        Part::Quick => &[][..],
        Part::Rest => &["--ignore-default-filter", "-E", "not default()"],
        Part::All => &["--ignore-default-filter"],
    });
    nextest(command, "default", "tests")
}

fn doctests(_: &Workspace, _: Part) -> Result<Outcome> {
    let mut command = cargo();
    command.args(["test", "--workspace", "--doc", "--no-fail-fast"]);
    let ended = run_to_end(command)?;
    let outcome = Outcome::from_libtest(&ended.output);
    Ok(ended.counted("doctests", outcome))
}

fn docs(_: &Workspace, _: Part) -> Result<Outcome> {
    let mut command = cargo();
    command.args(["doc", "--workspace", "--no-deps", "--features", "peersock/axum,peersock/hyper"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    check("documentation", command)
}

fn simulation(workspace: &Workspace, part: Part) -> Result<Outcome> {
    // Use the development profile, which optimises the simulator, and the whole workspace, because that is
    // built already.
    if !run(workspace::build())?.0 {
        return Ok(Outcome::failed("the simulator does not build"));
    }
    let mut command = Command::new(workspace.target.join("debug/peersock-sim"));
    let (first, count) = match part {
        Part::Quick => (0, QUICK_SEEDS),
        Part::Rest => (QUICK_SEEDS, ALL_SEEDS - QUICK_SEEDS),
        Part::All => (0, ALL_SEEDS),
    };
    command.args(["run", "--from", &first.to_string(), "--seeds", &count.to_string()]);
    let ended = run_to_end(command)?;
    let outcome = Outcome::from_last_line("simulation seed", &ended.output)?;
    Ok(ended.counted("simulation", outcome))
}

fn packages(_: &Workspace, _: Part) -> Result<Outcome> {
    let mut command = cargo();
    command.args(["xtask", "dist"]);
    check("cargo xtask dist", command)
}
