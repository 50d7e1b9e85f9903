//! The project's own commands, run as `cargo xtask …`:
//!
//! - `cargo xtask test` checks everything once, in minutes, `cargo xtask ci` checks the rest as well, and
//!   `cargo xtask stress` repeats the tests on a busy machine ([`mod@test`]);
//! - `cargo xtask bench` measures peersock beside the kernel, quinn and the encrypted-UDP limit
//!   ([`mod@bench`]);
//! - `cargo xtask cells` runs real processes behind every pair of kinds of NATs ([`cells`]);
//! - `cargo xtask header` makes the C library's header ([`header`]); `cargo xtask install` installs the
//!   library ([`install`]);
//! - `cargo xtask dist` makes the products for users ([`dist`]);
//! - `cargo xtask record` records the demonstration for the README ([`record`]);
//! - `cargo xtask bench tcp` measures peersock's TCP alone, over impaired links in virtual time.
//!
//! Commands leave nothing behind. The processes and namespaces they create are registered in [`cleanup`] and
//! removed at the end, also after an error or Ctrl-C.
#![allow(clippy::print_stdout, reason = "a program whose results go to standard output")]

use std::path::Path;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

mod bench;
mod cells;
mod cleanup;
mod dist;
mod header;
mod install;
mod process;
mod record;
mod test;
mod xml;

/// Result of a command. The error is a text for the user.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Builds, checks and measures peersock.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check everything once, in minutes; the last line counts what passed, failed and was skipped
    #[command(after_help = test::EXAMPLES)]
    Test(test::Options),
    /// Check everything: the steps of `test`, and all steps that take longer
    #[command(after_help = test::CI_EXAMPLES)]
    Ci(test::CiOptions),
    /// Repeat the tests beside busy processes, and list tests that ever failed
    #[command(after_help = test::STRESS_EXAMPLES)]
    Stress(test::StressOptions),
    /// Measure peersock, kernel TCP, quinn and the encrypted-UDP limit
    #[command(after_help = bench::EXAMPLES)]
    Bench(bench::Options),
    /// Run real processes behind every pair of kinds of NATs, in network namespaces
    #[command(after_help = cells::EXAMPLES)]
    Cells(cells::Options),
    /// Make the C library's header from its source code
    Header,
    /// Build the C library, and install it with its headers and its files for pkg-config and CMake
    #[command(after_help = install::EXAMPLES)]
    Install(install::Options),
    /// Make the packages for users in target/packages: archives, packages, and the list of dependencies
    #[command(after_help = dist::EXAMPLES)]
    Dist(dist::Options),
    /// Run the demonstration, and draw what it prints as docs/demo.svg
    Record,
    /// Set a network device's offloads (used by `bench` inside its namespaces)
    #[command(hide = true)]
    Offloads(bench::OffloadOptions),
    /// Play a tour of docs/use in this folder (used by `test` inside its namespaces)
    #[command(hide = true)]
    Tour(test::TourOptions),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Test(options) => with_cleanup(|| test::test(&options)),
        Task::Ci(options) => with_cleanup(|| test::ci(&options)),
        Task::Stress(options) => with_cleanup(|| test::stress(&options)),
        Task::Bench(options) => with_cleanup(|| bench::run(&options)),
        Task::Cells(options) => cells::run(&options),
        Task::Header => header::write().map(|()| true),
        Task::Install(options) => install::run(&options).map(|()| true),
        Task::Dist(options) => dist::run(&options).map(|()| true),
        Task::Record => record::run().map(|()| true),
        Task::Tour(options) => with_cleanup(|| test::play(&options)),
        Task::Offloads(options) => bench::set_offloads(&options).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("xtask: {e}");
            ExitCode::FAILURE
        }
    }
}

fn with_cleanup(task: impl FnOnce() -> Result<bool>) -> Result<bool> {
    cleanup::on_interrupt()?;
    task()
}

/// Returns the workspace's root folder.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// Returns the cargo that runs this, in the workspace's root.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}
