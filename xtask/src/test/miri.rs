//! Tests in Miri, an interpreter that finds undefined behaviour: aliasing, alignment, uninitialised memory,
//! use after free.
//!
//! Miri supports few system calls. The profile `default-miri` of `.config/nextest.toml`, which nextest
//! selects by itself, lists the tests that can run there.

use std::process::Command;

use super::command::{nextest, works};
use super::outcome::Outcome;
use super::workspace::Workspace;
use crate::{Result, root};

/// Crates with tests to run: those with pointers, and the locks. The other cores have no unsafe code, which
/// the step `sources` checks.
const CRATES: [&str; 3] = ["peersock-bsd", "peersock-fd", "peersock-primitives"];

/// Reason for its absence.
const WITHOUT: &str =
    "Miri is not installed (rustup toolchain install nightly --component miri,rust-src), or cargo-nextest";

/// Runs the tests.
/// Fails if nextest reports nothing.
pub(super) fn check(workspace: &Workspace) -> Result<Outcome> {
    if !works(nightly(&["miri", "--version"])) || !works(nightly(&["nextest", "--version"])) {
        return Ok(Outcome::skipped("miri", WITHOUT));
    }
    let mut command = nightly(&["miri", "nextest", "run", "--lib", "--no-fail-fast", "--target-dir"]);
    command.arg(workspace.target.join("miri"));
    command.args(CRATES.iter().flat_map(|name| ["--package", name]));
    // Property tests search for the folder of their failures. Run few cases, because Miri is slow.
    command.env("MIRIFLAGS", "-Zmiri-disable-isolation").env("PROPTEST_CASES", "4");
    nextest(command, "default-miri", "miri: the test run")
}

/// Returns `cargo …` of the nightly toolchain, the only one with Miri.
fn nightly(arguments: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).args(arguments).current_dir(root());
    // These belong to the toolchain that runs this program.
    for variable in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(variable);
    }
    command
}
