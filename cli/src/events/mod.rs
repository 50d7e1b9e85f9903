//! `peersock events`

mod changes;

use std::io::ErrorKind;
use std::thread;
use std::time::Duration;

use peersock::management::ManagementError;
use serde::Serialize;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use crate::args::StateArgs;
use crate::failure::{Failure, Outcome, has_ended};
use crate::output::{note, print};
use crate::signals;
use crate::status::{Look, parse_interval};
use changes::{Change, changes};

/// Print the events of a running node, one per line, until Ctrl-C
///
/// Events are: a peer is found, connects, disconnects or is gone; a path changes; a root is reached or lost;
/// a network is joined or left; the node ends or starts. After the node ends, the command waits for the next
/// one. It asks the node that runs with the state directory each second and prints the differences, so a
/// change that is undone between two requests is missed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock events
  peersock events --json | jq -r 'select(.event == \"path-changed\") | .peer.address'
  peersock events --interval 0.2")]
pub(crate) struct Args {
    /// Ask the node every SECONDS
    #[arg(short, long, value_name = "SECONDS", value_parser = parse_interval, default_value = "1")]
    interval: Duration,

    /// Print one JSON object per line; docs/use/STATUS.md explains the fields
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    state: StateArgs,
}

/// An event with its time.
#[derive(Serialize)]
struct Timed<'a> {
    /// Time of detection: UTC, in RFC 3339 format.
    time: &'a str,
    #[serde(flatten)]
    change: &'a Change,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let path = args.state.path_to_ask()?;
    // Fails at the start if no node runs, because the directory may be the wrong one.
    let first = Look::at(&path)?;
    signals::end_after(|| {}).map_err(Failure::from)?;
    note(format_args!("watching node {}; Ctrl-C ends", first.answer.node_id));
    let mut before = Some(first);
    loop {
        thread::sleep(args.interval);
        let now = match Look::try_at(&path)? {
            Ok(look) => Some(look),
            Err(error) if has_ended(&error) => None,
            // The node is busy or stopped; changes meanwhile are seen when it answers again.
            Err(ManagementError::Silent { .. }) => continue,
            Err(ManagementError::Io { source, .. }) if source.kind() == ErrorKind::TimedOut => continue,
            Err(error) => return Err(error.into()),
        };
        for change in changes(before.as_ref(), now.as_ref()) {
            print(line(&change, args.json)?)?;
        }
        before = now;
    }
}

fn line(change: &Change, json: bool) -> Outcome<String> {
    let mut time = String::new();
    // Writing to a string cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    match json {
        true => serde_json::to_string(&Timed { time: &time, change })
            .map_err(|error| Failure::output(error.into())),
        false => Ok(format!("{time} {change}")),
    }
}
