//! Tests in Miri, an interpreter that finds undefined behaviour: aliasing, alignment, what is not
//! initialised, what was freed.
//!
//! It knows few system calls: the profile `default-miri` of `.config/nextest.toml`, which nextest takes by
//! itself, says which tests can run there.

use std::process::Command;

use super::command::{nextest, works};
use super::outcome::Outcome;
use super::workspace::Workspace;
use crate::{Result, root};

/// Crates of which there are tests to run: those with pointers, and the locks. The other cores have no unsafe
/// code, as the step `sources` sees.
const CRATES: [&str; 3] = ["peersock-bsd", "peersock-fd", "peersock-primitives"];

/// The reason why it may be missing.
const WITHOUT: &str =
    "Miri is not installed (rustup toolchain install nightly --component miri,rust-src), or cargo-nextest";

/// Runs them.
///
/// # Errors
///
/// Fails if nextest reports nothing.
pub(super) fn check(workspace: &Workspace) -> Result<Outcome> {
    if !works(nightly(&["miri", "--version"])) || !works(nightly(&["nextest", "--version"])) {
        return Ok(Outcome::skipped("miri", WITHOUT));
    }
    let mut command = nightly(&["miri", "nextest", "run", "--lib", "--no-fail-fast", "--target-dir"]);
    command.arg(workspace.target.join("miri"));
    command.args(CRATES.iter().flat_map(|name| ["--package", name]));
    // Property tests look for where their failures are kept; a few cases take it long enough.
    command.env("MIRIFLAGS", "-Zmiri-disable-isolation").env("PROPTEST_CASES", "4");
    nextest(command, "default-miri", "miri: the test run")
}

/// `cargo …` of the nightly toolchain, which alone has Miri.
fn nightly(arguments: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).args(arguments).current_dir(root());
    // Those of the toolchain that runs this program.
    for variable in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(variable);
    }
    command
}
