//! `peersock status`

mod answer;
mod look;
mod show;
mod watch;

use std::path::Path;
use std::time::Duration;

#[cfg(test)]
pub(crate) use answer::tests as fixtures;
pub(crate) use answer::{difference, name, parse, path_words, shown_name, via};
pub(crate) use look::Look;
pub(crate) use show::{age, bytes, conflict, counted, own_conflict, program, sockets, summary};
pub(crate) use watch::{frame, keep_movements, size};

use peersock::management::{self, ManagementError};

use crate::args::{StateArgs, parse_seconds};
use crate::failure::{Failure, Outcome, has_ended};
use crate::output::{note, print};
use crate::status::show::Report;

/// Maximum number of peers listed without --all.
const MOST_PEERS: usize = 50;

/// Show the state of the node that runs with a state directory
///
/// Asks the running node over a socket in the directory; nodes with an ephemeral identity have no socket. A
/// peer is online while a session with it exists, or if it gave a sign within two minutes, and offline
/// otherwise or after a goodbye. A member of a static network of which the node has heard nothing is never
/// seen; `peersock members` asks it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock status
  peersock status --watch
  peersock status --counters
  peersock status --prometheus > node.prom.new && mv node.prom.new /var/lib/node_exporter/node.prom
  peersock status --json | jq '.peers[] | {name, id, state, last_seen_s, rtt_ms}'")]
pub(crate) struct Args {
    /// List all peers, including those of ad-hoc networks that are offline
    ///
    /// Without this option, the list has the first 50 of the others.
    #[arg(long)]
    all: bool,

    /// Print the node's answer as JSON; docs/use/STATUS.md explains the fields
    #[arg(long)]
    json: bool,

    /// Also show the counters
    #[arg(long, conflicts_with = "json")]
    counters: bool,

    /// Print all numbers as text for Prometheus, as node_exporter's textfile collector reads it
    ///
    /// Includes the numbers of up to 50 peers, or of all peers with --all. docs/use/STATUS.md lists the
    /// names.
    #[arg(long, conflicts_with_all = ["json", "counters", "watch"])]
    prometheus: bool,

    /// Refresh the output every SECONDS [default: 2]; exit with status 1 when the node ends
    ///
    /// On a terminal, each output replaces the last one; elsewhere they follow each other.
    #[arg(long, value_name = "SECONDS", value_parser = parse_interval, num_args = 0..=1)]
    #[arg(default_missing_value = "2")]
    watch: Option<Duration>,

    #[command(flatten)]
    state: StateArgs,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let path = args.state.path_to_ask()?;
    match args.watch {
        None => print(report(args, &path, true)?),
        Some(interval) => watch::repeat(interval, !args.json, |first| report(args, &path, first)),
    }
}

/// Returns the failure for a query; a watched node may have ended.
fn failure(error: ManagementError, path: &Path, first: bool) -> Failure {
    if first || !has_ended(&error) {
        return error.into();
    }
    let path = path.display();
    Failure::new(
        format_args!("the node has ended: no node is running with state directory {path} any more"),
        "start it and this command again; `peersock events` waits for the next node by itself",
    )
}

/// Queries the node, and returns its answer as text or JSON. `first` is false for repeated queries.
fn report(args: &Args, path: &Path, first: bool) -> Outcome<String> {
    let most = if args.all || args.json { usize::MAX } else { MOST_PEERS };
    if args.prometheus {
        return Ok(management::prometheus(path, most)?.trim_end().to_owned());
    }
    // All of them are counted, however many are listed.
    let text = management::status(path, usize::MAX).map_err(|error| failure(error, path, first))?;
    if args.json {
        return Ok(text);
    }
    let answer = parse(&text)?;
    if first && let Some(difference) = difference(&answer) {
        note(difference);
    }
    Ok(Report { answer: &answer, all: args.all, most, counters: args.counters }.to_string())
}

/// Parses an interval of queries; it must not be so short that it keeps the node busy.
pub(crate) fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_seconds(text)?;
    match (0.1..=86_400.0).contains(&interval.as_secs_f64()) {
        true => Ok(interval),
        false => Err("give from 0.1 to 86400 seconds, such as 2".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_leaves_the_node_in_peace() {
        assert_eq!(parse_interval("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "0.01", "-1", "1e9", "x"] {
            assert!(parse_interval(text).is_err(), "{text}");
        }
    }
}
