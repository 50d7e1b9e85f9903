//! Tests that run only on request (the attribute `ignore`): checks of their reasons, and the run itself.
//!
//! Each reason names the command that runs the test. Tests of `cargo xtask test --only slow` count as skipped
//! in all other runs.

use std::fs;

use super::command::nextest;
use super::outcome::Outcome;
use super::sources::files;
use super::workspace::{Package, Workspace};
use crate::{Result, cargo};

/// Beginning of the attribute, in two pieces, because this file has no such test.
const IGNORE: &str = concat!("#[", "ignore");

/// Prefix of the reasons of the tests that this step runs.
const SLOW: &str = "cargo xtask test --only slow:";

/// Prefix of the reasons of the tests that `cargo xtask cells` runs.
const CELLS: &str = "cargo xtask cells:";

/// Other permitted prefixes, which say what runs these tests.
const ELSEWHERE: [&str; 2] = [CELLS, "run by the test above:"];

/// Filter in nextest's notation that excludes tests run by `cargo xtask cells` or by another test.
const OTHERS: &str = "not (test(/^cells::/) or test(=tls::roots_in_an_environment_of_their_own))";

/// A test that does not run by default.
#[derive(Debug, PartialEq, Eq)]
struct Ignored {
    name: String,
    reason: String,
}

/// Returns this step's tests, each with its reason, and all cells together, as skipped.
/// Fails if a source file cannot be read.
pub(super) fn skipped(workspace: &Workspace) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut has_cells = false;
    for package in &workspace.packages {
        for ignored in ignored_in(package)? {
            has_cells |= ignored.reason.starts_with(CELLS);
            if ignored.reason.starts_with(SLOW) {
                outcome.add(Outcome::skipped(&format!("{} {}", package.name, ignored.name), ignored.reason));
            }
        }
    }
    if has_cells {
        let reason = format!("{CELLS} all of them; some are tried without it");
        outcome.add(Outcome::skipped("natlab's other cells", reason));
    }
    Ok(outcome)
}

/// Returns complaints about a crate's ignored tests whose reasons name nothing that runs them.
/// Fails if a source file cannot be read.
pub(super) fn complaints(package: &Package) -> Result<Vec<String>> {
    let is_run = |reason: &str| reason.starts_with(SLOW) || ELSEWHERE.iter().any(|by| reason.starts_with(by));
    let lost = ignored_in(package)?.into_iter().filter(|ignored| !is_run(&ignored.reason));
    Ok(lost
        .map(|lost| format!("{}: nothing runs {}: its reason names no command", package.name, lost.name))
        .collect())
}

/// Runs the tests sequentially, because some of them measure.
pub(super) fn check(_: &Workspace) -> Result<Outcome> {
    let mut command = cargo();
    command.args(["nextest", "run", "--workspace", "--profile", "slow", "--run-ignored", "only"]);
    // The profile inherits the filter for quick tests.
    command.arg("--ignore-default-filter");
    command.args(["--test-threads", "1", "-E", OTHERS]);
    nextest(command, "slow", "the test run")
}

fn ignored_in(package: &Package) -> Result<Vec<Ignored>> {
    let mut all = Vec::new();
    let folder = package.manifest.parent().ok_or("a manifest lies in a folder")?;
    for part in ["src", "tests"].map(|part| folder.join(part)).iter().filter(|part| part.is_dir()) {
        for file in files(part, &["rs"], &|_| false)? {
            all.extend(ignored(&fs::read_to_string(file)?));
        }
    }
    Ok(all)
}

fn ignored(text: &str) -> impl Iterator<Item = Ignored> {
    text.split(IGNORE).skip(1).map(|rest| {
        let (attribute, rest) = rest.split_once(']').unwrap_or((rest, ""));
        let reason = attribute.split('"').nth(1).unwrap_or_default().to_owned();
        let name = rest.split_once("fn ").map_or("", |(_, rest)| rest);
        let name =
            name.split(|c: char| !(c.is_alphanumeric() || "_$".contains(c))).next().unwrap_or_default();
        Ignored { name: name.to_owned(), reason }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_tests_are_found_with_their_reasons() {
        let text = [
            IGNORE,
            " = \"why\"]\n    async fn one() {}\n#[test]\nfn two() {}\n",
            IGNORE,
            "]\nfn three() {}",
        ];
        let found: Vec<_> = ignored(&text.concat()).collect();
        let wanted = [("one", "why"), ("three", "")];
        let wanted = wanted.map(|(name, reason)| Ignored { name: name.into(), reason: reason.into() });
        assert_eq!(found, wanted);
    }
}
