//! Measures the library's cost for a small program without any of its features: crates, processor time and
//! bytes.
//!
//! The program is built outside of the workspace, as users build their programs. It has the default profile
//! and an empty target folder, so this takes a minute or two. The library is also checked with each feature
//! alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command::{check as step, run};
use super::outcome::Outcome;
use super::workspace::Workspace;
use crate::{Result, cargo, root};

/// Maximum number of crates in the tree, including build scripts' and macros' crates and the program itself.
const MAX_CRATES: usize = 90;

/// Maximum size of the program in bytes, without symbols.
const MAX_BYTES: u64 = 6_000_000;

/// Measures the program, and checks the features.
/// Fails if the folder cannot be made, or cargo's output cannot be parsed.
pub(super) fn check(workspace: &Workspace) -> Result<Outcome> {
    let program = Program::make(&workspace.target.join("sizes"))?;
    let mut outcome = Outcome::default();

    let before = children_seconds()?;
    let (is_built, _) = run(program.cargo(&["build", "--release", "--locked"]))?;
    let seconds = children_seconds()? - before;
    if !is_built {
        return Ok(Outcome::failed("sizes: the program does not build"));
    }
    let crates = program.crates()?;
    let bytes = fs::metadata(program.target.join("release/small"))?.len();
    println!("sizes: {crates} crates, {seconds:.0} s of processor time, {bytes} bytes");
    outcome.add(Outcome::of(format!("sizes: {crates} crates, {MAX_CRATES} at most"), crates <= MAX_CRATES));
    outcome.add(Outcome::of(format!("sizes: {bytes} bytes, {MAX_BYTES} at most"), bytes <= MAX_BYTES));

    for feature in std::iter::once(String::new()).chain(features()?) {
        let mut command = cargo();
        command.args(["clippy", "--package", "peersock", "--no-default-features", "--features", &feature]);
        command.args(["--", "-D", "warnings"]);
        let alone = if feature.is_empty() { "without features" } else { &format!("with {feature} alone") };
        outcome.add(step(&format!("sizes: the library {alone}"), command)?);
    }
    // The errors for a missing feature are tested without that feature.
    let mut tests = cargo();
    tests.args(["test", "--package", "peersock", "--lib", "--no-default-features"]);
    outcome.add(step("sizes: the tests of the library without features", tests)?);
    Ok(outcome)
}

/// A project of ten lines that depends on the library by its path.
struct Program {
    folder: PathBuf,
    target: PathBuf,
}

impl Program {
    fn make(folder: &Path) -> Result<Program> {
        // Remove all files of earlier runs.
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder.join("src"))?;
        let manifest = format!(
            "[package]\nname = \"small\"\nedition = \"2024\"\n\n[dependencies]\n\
             peersock = {{ path = {:?}, default-features = false }}\n\n[workspace]\n",
            root()
        );
        fs::write(folder.join("Cargo.toml"), manifest)?;
        fs::write(folder.join("src/main.rs"), SOURCE)?;
        // Use the versions that everything else is tested with.
        fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock"))?;
        let program = Program { folder: folder.to_owned(), target: folder.join("target") };
        // Remove the entries that this program lacks, so that later commands need no registry.
        run(program.cargo(&["update", "--offline", "--workspace", "--quiet"]))?;
        Ok(program)
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = cargo();
        command.args(arguments).current_dir(&self.folder);
        command.env("CARGO_TARGET_DIR", &self.target).env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
        command
    }

    /// Counts the crates that the program is built of.
    fn crates(&self) -> Result<usize> {
        let tree = ["tree", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"];
        let output = self.cargo(&tree).output()?;
        if !output.status.success() {
            return Err(format!("cargo tree: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        // Keep name and version, because paths and repetition marks may follow.
        let of_line = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let crates: BTreeSet<_> = String::from_utf8(output.stdout)?.lines().map(of_line).collect();
        Ok(crates.len())
    }
}

/// Returns the library's features, all but `default`.
fn features() -> Result<Vec<String>> {
    let manifest: toml::Table = toml::from_str(&fs::read_to_string(root().join("Cargo.toml"))?)?;
    let features = manifest["features"].as_table().ok_or("the library has no features")?;
    Ok(features.keys().filter(|name| *name != "default").cloned().collect())
}

/// Returns the processor time of all children that have ended, in seconds.
fn children_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // proc_pid_stat(5): cutime and cstime are the 14th and 15th fields behind the name, which may contain
    // blanks.
    let (_, behind_name) = stat.rsplit_once(')').ok_or("/proc/self/stat is not understood")?;
    let ticks = behind_name.split_whitespace().skip(13).take(2).map(str::parse::<u64>);
    let ticks = ticks.sum::<std::result::Result<u64, _>>()?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Source of the program, which joins a network and connects to a member.
const SOURCE: &str = r#"use std::io::{Read, Write};

use peersock::Network;
use peersock::blocking::TcpStream;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    peersock::node()?.join(Network::ad_hoc("ff00500050000000".parse()?))?;
    let mut stream = TcpStream::connect("alpha:80")?;
    stream.write_all(b"hello")?;
    println!("{}", stream.bytes().count());
    Ok(())
}
"#;
