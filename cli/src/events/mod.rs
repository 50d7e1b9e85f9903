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

/// Print what happens at a running node, a line for each event, until Ctrl-C
///
/// Peers that are found, connect, disconnect and are gone, their paths when they change, roots that are
/// reached and lost, networks that are joined and left, and the node's own end and start: when it ends, the
/// next one is waited for. The node that runs with the state directory is asked each second, and what differs
/// from the time before is printed: what comes and goes in between is not noticed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock events
  peersock events --json | jq -r 'select(.event == \"path-changed\") | .peer.address'
  peersock events --interval 0.2")]
pub(crate) struct Args {
    #[command(flatten)]
    state: StateArgs,

    /// Ask the node every so many seconds
    #[arg(short, long, value_name = "SECONDS", value_parser = parse_interval, default_value = "1")]
    interval: Duration,

    /// Print a JSON object in each line; docs/use/STATUS.md explains the fields
    #[arg(long)]
    json: bool,
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
            Err(ManagementError::Io { source, .. })
                if matches!(source.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                continue;
            }
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
