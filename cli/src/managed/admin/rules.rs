//! `peersock network rules apply`, `show` and `clear`: the access rules of a managed network.

use std::path::PathBuf;

use peersock::management::{self, EffectOfRules, ManagementError};
use peersock::state::StateDir;
use peersock_controller::Controller;
use peersock_rules::{Action, RuleSet};
use serde_json::{Value, json};

use super::super::rules::{checked, since};
use super::super::{now, who};
use super::reach::{self, Effect, Reach};
use super::{OfNetwork, refused};
use crate::failure::{Failure, Outcome};
use crate::output::print;
use crate::stdio;

/// Number of flows that are named before the number of the others.
const MOST_NAMED: usize = 10;

/// Apply a file of access rules: members enforce it at both ends of each flow
///
/// The file is checked and its tests are run first. If the rules would end open flows of the node here, the
/// command names them and ends without a change, unless --yes is given. The running controller tells all
/// members that are connected. The command waits for them, for up to 5 s, and says who knows the rules.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network rules apply rules.toml
  peersock network rules apply rules.toml --yes
  peersock network rules apply rules.toml --json -n team")]
pub(crate) struct ApplyArgs {
    /// The file of rules
    file: PathBuf,

    /// Apply the rules also if they end open flows of the node here
    #[arg(long)]
    yes: bool,

    /// Print a JSON object: version, flows that end, who knows the rules
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    of: OfNetwork,
}

/// Show the file of access rules that was applied
///
/// The controller's machine has the file with its comments and tests.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network rules show > rules.toml
  peersock network rules show --json | jq .version")]
pub(crate) struct ShowArgs {
    /// Print a JSON object: version, time and text of the file
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    of: OfNetwork,
}

/// Allow all flows again: apply a file without rules, whose default is to allow
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network rules clear")]
pub(crate) struct ClearArgs {
    /// Print a JSON object: version, who knows it
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    of: OfNetwork,
}

/// File that refuses nothing.
const EMPTY: &str = "default = \"allow\"\n";

pub(crate) fn apply(args: &ApplyArgs) -> Outcome {
    let (bytes, file) = checked(&args.file)?;
    let mut controller = args.of.open_by_clock()?;
    let effect = preview(&args.of, &controller, &file.rules)?;
    let ends = effect.as_ref().filter(|effect| !effect.ended.is_empty());
    if let Some(effect) = ends {
        if !args.json {
            told(effect).iter().for_each(stdio::note);
        }
        if !args.yes {
            return Err(Failure::new(
                "the rules would end open flows of the node here, so they are not applied",
                "give --yes if that is meant",
            ));
        }
    }
    put(&args.of, &mut controller, (&bytes, &file.rules), effect.as_ref(), args.json)
}

pub(crate) fn clear(args: &ClearArgs) -> Outcome {
    let mut controller = args.of.open_by_clock()?;
    let none = RuleSet::new(Action::Allow, Vec::new()).expect("no rule is a valid set");
    put(&args.of, &mut controller, (EMPTY.as_bytes(), &none), None, args.json)
}

pub(crate) fn show(args: &ShowArgs) -> Outcome {
    let controller = args.of.open()?;
    let Some(stored) = controller.stored_rules().map_err(refused)? else {
        return Err(Failure::new(
            format_args!("{} has no access rules: all flows are allowed", controller.name()),
            "write a file as docs/reference/RULES.md describes, and run `peersock network rules apply FILE`",
        ));
    };
    let text = String::from_utf8_lossy(&stored.file);
    if args.json {
        let seconds = stored.version as f64 / 1e3;
        return print(json!({ "version": stored.version, "applied_at": seconds, "file": text }));
    }
    stdio::note(format_args!("rules of {}", since(stored.version, now())));
    print(text.trim_end())
}

/// Returns which open flows of the node here some rules would end; `None` if no node runs here.
fn preview(of: &OfNetwork, controller: &Controller, rules: &RuleSet) -> Outcome<Option<EffectOfRules>> {
    let path = of.state.path()?;
    match management::effect(&path, controller.network(), &rules.encode()) {
        Ok(effect) => Ok(Some(effect)),
        Err(ManagementError::NotRunning { .. }) => Ok(None),
        // It is another one's node, or of an earlier version: the flows are not known.
        Err(error) => {
            stdio::note(format_args!("which open flows would end is not known: {error}"));
            Ok(None)
        }
    }
}

/// Says which flows rules would end.
fn told(effect: &EffectOfRules) -> Vec<String> {
    let members: std::collections::BTreeSet<_> = effect.ended.iter().map(|one| &one.member).collect();
    let word = |count: usize, word: &str| match count {
        1 => format!("1 {word}"),
        _ => format!("{count} {word}s"),
    };
    let mut lines = vec![format!(
        "ends {} of {} at this node, with {}",
        effect.ended.len(),
        word(effect.flows, "open flow"),
        word(members.len(), "member")
    )];
    lines.extend(effect.ended.iter().take(MOST_NAMED).map(|one| {
        let (from, to) = match one.is_outgoing {
            true => ("here".to_owned(), format!("{}, {}", one.member, one.remote)),
            false => (one.member.clone(), format!("here, {}", one.local)),
        };
        let why =
            one.line.map_or_else(|| "the default".to_owned(), |line| format!("the rule in line {line}"));
        format!("  from {from} to {to}: refused by {why}")
    }));
    if let Some(more) = effect.ended.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
        lines.push(format!("  and {more} more"));
    }
    lines
}

/// Stores rules, and says which members know them.
fn put(
    of: &OfNetwork,
    controller: &mut Controller,
    (file, rules): (&[u8], &RuleSet),
    effect: Option<&EffectOfRules>,
    is_json: bool,
) -> Outcome {
    let encoded = rules.encode();
    let known = known_version(of, controller)?;
    let version = controller.apply_rules(now(), &who(), (file, &encoded), known).map_err(refused)?;
    if !is_json {
        let count = rules.rules().len();
        print(format_args!(
            "rules of {} are applied: default {}, {count} {}",
            since(version, now()),
            rules.default_action(),
            if count == 1 { "rule" } else { "rules" }
        ))?;
    }
    let waited = reach::wait_rules(of, controller, version);
    if is_json {
        // The rules are stored, also if no node can say which members know them.
        print(to_json(version, effect, waited.as_ref().ok()))?;
        return waited.map(drop);
    }
    let name = controller.name();
    let waited = waited?;
    stdio::note(waited.words(&name));
    if matches!(waited.reach, Reach::Members { know, connected, .. } if know < connected) {
        stdio::note(
            "a member of an earlier version knows no rules, and the other end of its flows enforces them",
        );
    }
    Ok(())
}

/// Returns the version of the newest rules that the machine's node has kept.
fn known_version(of: &OfNetwork, controller: &Controller) -> Outcome<Option<u64>> {
    let record = StateDir::membership(&of.state.path()?, controller.network())?;
    let rules = record.into_iter().flat_map(|record| record.rules);
    Ok(rules.map(|signed| signed.head().version()).max())
}

fn to_json(version: u64, effect: Option<&EffectOfRules>, waited: Option<&Effect>) -> Value {
    let (know, connected, members) = match waited.map(|waited| &waited.reach) {
        Some(&Reach::Members { know, connected, all }) => (Some(know), Some(connected), Some(all)),
        _ => (None, None, None),
    };
    let after = know.and(waited).and_then(|waited| u64::try_from(waited.after.as_millis()).ok());
    json!({
        "version": version,
        "applied_at": version as f64 / 1e3,
        "flows": effect.map(|effect| effect.flows),
        "ended": effect.map(|effect| &effect.ended),
        "know": know,
        "connected": connected,
        "members": members,
        "after_ms": after,
    })
}

#[cfg(test)]
mod tests {
    use peersock_rules::RuleFile;

    use super::*;

    #[test]
    fn the_file_of_clear_refuses_nothing() {
        let file = RuleFile::parse(EMPTY.as_bytes()).expect("a valid file");
        let none = RuleSet::new(Action::Allow, Vec::new()).expect("no rule is a valid set");
        assert!(file.rules == none && file.warnings.is_empty());
    }
}
