//! The Rust code with the compiler's address sanitizer, which finds out-of-bounds accesses, uses after free,
//! and leaks.
//!
//! The tests of the crates with unsafe code are built with it, and so is the C library, which the library's
//! test programs load. Those programs are built with the C compiler's sanitizers, whose runtime is used then.
//! `RUSTC_BOOTSTRAP=1` makes the stable compiler accept unstable flags, as for the fuzzers.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::command::{has_component, nextest, run};
use super::outcome::Outcome;
use super::workspace::{self, Workspace};
use crate::{Result, cargo, root};

/// Crates whose tests are built with the sanitizer.
const CRATES: [&str; 6] = [
    "peersock-bsd",
    "peersock-socket-server",
    "peersock-fd",
    "peersock-preload",
    "peersock-primitives",
    "peersock-seccomp",
];

/// Builds and runs the tests.
/// Fails if Cargo cannot be started, or nextest reports nothing.
pub(super) fn check(workspace: &Workspace) -> Result<Outcome> {
    let Some(host) = host()? else {
        return Ok(Outcome::skipped(
            "sanitizers",
            "this compiler has no sanitizer of addresses for its host",
        ));
    };
    let target = workspace.target.join("sanitizers");
    let mut tests = with_sanitizer(&["nextest", "run", "--lib"], &host, &target);
    tests.args(CRATES.iter().flat_map(|name| ["--package", name]));
    let mut outcome = slowly(tests, "the crates with unsafe code")?;

    let library = with_sanitizer(&["build", "--package", "peersock-ffi", "--lib"], &host, &target);
    if !run(library)?.0 || !run(workspace::build())?.0 {
        outcome.add(Outcome::failed("sanitizers: the C library does not build"));
        return Ok(outcome);
    }
    let folder = target.join(&host).join("debug");
    // The tests' programs search for the launcher beside the library. The launcher is the usual build.
    let launcher = folder.join("peersock");
    let _ = fs::remove_file(&launcher);
    std::os::unix::fs::symlink(workspace.target.join("debug/peersock"), &launcher)?;
    let mut programs = cargo();
    programs.args(["nextest", "run", "--package", "peersock-ffi"]).env("PEERSOCK_LIBRARIES", folder);
    programs.args(["-E", "test(/::with_sanitizers$/)"]);
    outcome.add(slowly(programs, "programs in C")?);
    Ok(outcome)
}

/// Returns the host's name in the compiler's notation, if there is a runtime for it.
fn host() -> Result<Option<String>> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--print", "host-tuple", "--print", "target-libdir"]).current_dir(root());
    let output = rustc.output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut lines = text.lines();
    let (Some(host), Some(libraries)) = (lines.next(), lines.next()) else { return Ok(None) };
    let has_runtime = fs::read_dir(libraries)?
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().ends_with("_rt.asan.a"));
    Ok(has_runtime.then(|| host.to_owned()))
}

/// Returns cargo with the sanitizer. The explicit target keeps build scripts and macros free of it.
fn with_sanitizer(arguments: &[&str], host: &str, target: &Path) -> Command {
    let mut command = cargo();
    command.args(arguments).args(["--target", host, "--target-dir"]).arg(target);
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=address");
    // The sanitizer's reports contain source lines.
    command.env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
    command
}

/// Runs tests with the nightly profile.
fn slowly(mut command: Command, what: &str) -> Result<Outcome> {
    let what = format!("sanitizers: {what}");
    if !has_component("nextest") {
        return Ok(Outcome::skipped(&what, "cargo-nextest is not installed"));
    }
    command.args(["--profile", "slow", "--ignore-default-filter", "--no-fail-fast"]);
    nextest(command, "slow", &what)
}
