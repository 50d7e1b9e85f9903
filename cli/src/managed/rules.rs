//! `peersock network rules`: files of access rules, and the rules of a network.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use peersock::overlay::membership::UnixTime;
use peersock_rules::{Failure as TestFailure, Problem, RuleFile, RuleSet};
use serde_json::{Value, json};

use super::admin::{self, ApplyArgs, ClearArgs, ShowArgs};
use super::duration;
use crate::failure::{Failure, Outcome};
use crate::output::{note, print};

/// Check and apply files of access rules
///
/// Members enforce the rules of their network at both ends of each flow. docs/reference/RULES.md describes
/// the file and what it means.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network rules check rules.toml
  peersock network rules apply rules.toml
  peersock why alpha beta:5432")]
pub(crate) struct RulesArgs {
    #[command(subcommand)]
    command: RulesCommand,
}

#[derive(Subcommand)]
enum RulesCommand {
    Check(Check),
    Apply(ApplyArgs),
    Show(ShowArgs),
    Clear(ClearArgs),
}

/// Check a file of access rules, and run the tests in it
///
/// Needs no network and no running node. The exit status is 0 if the file has no error and passes its tests,
/// and 1 otherwise. Rules without effect are warnings.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network rules check rules.toml
  peersock network rules check rules.toml --json | jq '.errors'")]
struct Check {
    /// The file of rules
    file: PathBuf,

    /// Print a JSON object, also about a file with errors
    #[arg(long)]
    json: bool,
}

pub(crate) fn rules(args: &RulesArgs) -> Outcome {
    match &args.command {
        RulesCommand::Check(args) => check(args),
        RulesCommand::Apply(args) => admin::apply(args),
        RulesCommand::Show(args) => admin::show(args),
        RulesCommand::Clear(args) => admin::clear(args),
    }
}

fn check(args: &Check) -> Outcome {
    let bytes = read(&args.file)?;
    let name = args.file.display().to_string();
    match RuleFile::parse(&bytes) {
        Ok(file) => {
            let failures = file.failures();
            match args.json {
                true => print(good_json(&name, &file, &failures))?,
                false => show(&name, &file, &failures)?,
            }
            let is_passed = failures.is_empty();
            end(is_passed, args.json, &name, "passes not all of its tests", "correct the rules, or the tests")
        }
        Err(problems) => {
            match args.json {
                true => print(wrong_json(&name, &problems))?,
                false => problems.iter().for_each(|problem| note(at_its_place(&name, problem, ""))),
            }
            let hint = "correct the file; docs/reference/RULES.md describes it";
            end(false, args.json, &name, "is no valid file of rules", hint)
        }
    }
}

/// Returns a file that can be applied, and its bytes.
pub(super) fn checked(path: &Path) -> Outcome<(Vec<u8>, RuleFile)> {
    let (bytes, name) = (read(path)?, path.display().to_string());
    let file = RuleFile::parse(&bytes).map_err(|problems| {
        problems.iter().for_each(|problem| note(at_its_place(&name, problem, "")));
        let hint = "correct the file; docs/reference/RULES.md describes it";
        Failure::new(format_args!("{name} is no valid file of rules"), hint)
    })?;
    file.warnings.iter().for_each(|warning| note(at_its_place(&name, warning, "warning: ")));
    let failures = file.failures();
    failures.iter().for_each(|failure| note(format_args!("{name}: {failure}")));
    match failures.is_empty() {
        true => Ok((bytes, file)),
        false => Err(Failure::new(
            format_args!("{name} passes not all of its tests, so it is not applied"),
            "correct the rules, or the tests",
        )),
    }
}

/// Returns the time at which rules of a version were applied, for people: `14:03 (5 min ago)`.
pub(crate) fn since(version: u64, now: UnixTime) -> String {
    let at = UnixTime::from_millis(version);
    let ago = duration::shown(now.since(at));
    match admin::shown(at, now) {
        Some(at) => format!("{at} ({ago} ago)"),
        None => format!("{ago} ago"),
    }
}

/// Reads a file up to the byte that is one too many.
fn read(path: &Path) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    let max = RuleFile::MAX_LEN as u64 + 1;
    let read = File::open(path).and_then(|file| file.take(max).read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(|error| {
        Failure::usage(
            format_args!("cannot read {}: {error}", path.display()),
            "give the file of rules, as `peersock network rules check rules.toml`",
        )
    })
}

/// Ends the command. JSON says already what is wrong.
fn end(is_good: bool, has_said: bool, name: &str, fault: &str, hint: &str) -> Outcome {
    match (is_good, has_said) {
        (true, _) => Ok(()),
        (false, true) => Err(Failure::silent(1)),
        (false, false) => Err(Failure::new(format_args!("{name} {fault}"), hint)),
    }
}

fn show(name: &str, file: &RuleFile, failures: &[TestFailure]) -> Outcome {
    for warning in &file.warnings {
        note(at_its_place(name, warning, "warning: "));
    }
    for failure in failures {
        note(format_args!("{name}: {failure}"));
    }
    let (rules, tests) = (file.rules.rules().len(), file.tests.len());
    print(format_args!(
        "{name}: default {}, {rules} {}, {} of {tests} {} passed; members are sent {} of {} bytes",
        file.rules.default_action(),
        if rules == 1 { "rule" } else { "rules" },
        tests - failures.len(),
        if tests == 1 { "test" } else { "tests" },
        file.rules.encode().len(),
        RuleSet::MAX_LEN,
    ))
}

/// Returns a problem in the form that editors find the place by.
fn at_its_place(name: &str, problem: &Problem, kind: &str) -> String {
    let Problem { line, column, text, hint } = problem;
    format!("{name}:{line}:{column}: {kind}{text}\nhint: {hint}")
}

fn good_json(name: &str, file: &RuleFile, failures: &[TestFailure]) -> Value {
    let failed = failures.iter().map(|failure| {
        let rule = failure.decision.rule.zip(failure.rule.as_ref());
        json!({
            "line": failure.line,
            "flow": failure.flow,
            "expect": failure.expect.to_string(),
            "decision": failure.decision.action.to_string(),
            "rule": rule.map(|(place, text)| json!({ "number": place.number, "line": place.line, "text": text })),
        })
    });
    json!({
        "file": name,
        "valid": true,
        "passed": failures.is_empty(),
        "default": file.rules.default_action().to_string(),
        "rules": file.rules.rules().len(),
        "tests": file.tests.len(),
        "bytes": file.rules.encode().len(),
        "errors": [],
        "warnings": problems_json(&file.warnings),
        "failures": failed.collect::<Vec<_>>(),
    })
}

fn wrong_json(name: &str, problems: &[Problem]) -> Value {
    json!({ "file": name, "valid": false, "passed": false, "errors": problems_json(problems) })
}

fn problems_json(problems: &[Problem]) -> Vec<Value> {
    let one = |Problem { line, column, text, hint }: &Problem| json!({ "line": line, "column": column, "text": text, "hint": hint });
    problems.iter().map(one).collect()
}
