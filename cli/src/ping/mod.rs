//! `peersock ping`

mod means;
mod tally;

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use peersock::PeerStatus;
use signal_hook::consts::SIGINT;

use crate::args::{NetworkArgs, SharedNodeArgs, parse_seconds};
use crate::failure::{Failure, Outcome};
use crate::output::print;
use crate::path::{Path, peer_at};
use crate::reach;
use means::{Echo, Lost, Request};
use tally::{Summary, Tally, millis};

/// Payload of a request in bytes, the default of other ping programs.
const PAYLOAD: u16 = 56;

/// Default number of requests until a direct path must exist.
const COUNT_UNTIL_DIRECT: u64 = 30;

/// Measure the round-trip time to a member of a network with ICMP echo requests
///
/// Also reports the path of the packets: direct, or relayed by a root. The node that programs share sends the
/// requests, so its own path is measured. If one runs with the state directory, its only network need not be
/// named; otherwise this command starts one. The exit status is 0 if at least one reply arrived, also after
/// Ctrl-C.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock ping -n ff0001ffff000000 fd12:3456:789a:…
  peersock ping -c 100 -i 0.01 -n office.toml alpha
  peersock ping --until-direct -n office.toml alpha
  peersock ping alpha                               # by the running node, in its only network
  peersock ping --json -c 10 -n office.toml 10.7.0.1 | jq .median_ms")]
pub(crate) struct Args {
    /// IP address, or the name of a member of a static or managed network
    address: String,

    #[command(flatten)]
    network: NetworkArgs,

    #[command(flatten)]
    node: SharedNodeArgs,

    /// Stop as soon as the path is direct, with status 0
    ///
    /// The status is 1 if no direct path is found within --count requests (30 unless set).
    #[arg(long)]
    until_direct: bool,

    /// Stop after COUNT requests [default: at Ctrl-C]
    #[arg(short, long, value_name = "COUNT", value_parser = parse_count)]
    count: Option<u64>,

    /// Send a request every SECONDS
    #[arg(short, long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "1")]
    interval: Duration,

    /// Wait up to SECONDS for each reply; a running node waits for 60 at most
    #[arg(short = 'W', long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "2")]
    wait: Duration,

    /// Send BYTES of payload in each request
    #[arg(short, long, value_name = "BYTES", default_value_t = PAYLOAD, value_parser = clap::value_parser!(u16).range(..=65_507))]
    size: u16,

    /// Give up if the peer is not found within SECONDS [default: 15, with a DHT 60]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,

    /// Print only one JSON object, at the end
    ///
    /// The object has an `error` after a failure, or if the command is stopped before a reply.
    /// docs/use/STATUS.md explains the fields.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let tally = Arc::new(Mutex::new(None::<Tally>));
    let summary = Arc::new(Summary::new(args.json));
    let measured = measure(args, &tally, &summary);
    match &measured {
        Ok(()) => summary.print(&tally, None)?,
        // The failure is also reported on stderr.
        Err(failure) if !failure.is_output_closed() => drop(summary.print(&tally, Some(failure.message()))),
        Err(_) => {}
    }
    measured
}

/// JSON error text after a signal before the first reply.
const STOPPED: &str = "stopped by a signal before there was a reply";

/// Lock of stdout, held while printing.
static PRINTING: Mutex<()> = Mutex::new(());

fn measure(args: &Args, tally: &Arc<Mutex<Option<Tally>>>, summary: &Arc<Summary>) -> Outcome {
    let (interrupted, summary) = (Arc::clone(tally), Arc::clone(summary));
    let json = args.json;
    let mut means = means::means(args, move |signal, node| {
        // Keeps the lock, so that no line follows the statistics; other threads block until the process ends.
        std::mem::forget(PRINTING.lock());
        let replies = match &mut *interrupted.lock().expect("no panic under this lock") {
            Some(tally) => {
                tally.peer = node.and_then(|node| peer_at(node, tally.address)).or(tally.peer.take());
                if !json {
                    // Ignores errors, because the process is about to end.
                    let _ = tally.print_end();
                }
                tally.round_trips.len()
            }
            None => 0,
        };
        let _ = summary.print(&interrupted, (replies == 0).then_some(STOPPED));
        if signal == SIGINT && replies > 0 { 0 } else { 128 + signal }
    })?;
    let (address, whom) = (means.address(), means.whom());
    let peer = means.find(args.timeout, json)?;
    *tally.lock().expect("no panic under this lock") = Some(Tally::new(address));
    if !json {
        print(format_args!("PING {whom} in network {}: {} bytes", means.network(), args.size))?;
    }

    let (mut sequence, mut is_lost) = (0u64, false);
    let count = args.count.or(args.until_direct.then_some(COUNT_UNTIL_DIRECT));
    look_at_path(peer, tally, json)?;
    while count.is_none_or(|count| sequence < count) {
        if sequence > 0 {
            thread::sleep(args.interval.saturating_sub(tally_of(tally, |tally| tally.last.elapsed())));
        }
        sequence += 1;
        tally_of(tally, Tally::sending);
        let is_last = count == Some(sequence);
        let Echo { reply, too_small, peer } =
            means.echo(&Request { sequence, size: args.size, wait: args.wait, is_last })?;
        if let Ok(pong) = &reply {
            tally_of(tally, |tally| tally.round_trips.push(pong.round_trip));
        }
        is_lost = reply.is_err();
        let printing = PRINTING.lock();
        match reply {
            _ if json => {}
            Ok(pong) => print(format_args!(
                "{} bytes from {address}: seq={sequence} hlim={} time={:.3} ms",
                pong.len,
                pong.hop_limit,
                millis(pong.round_trip)
            ))?,
            Err(Lost::TimedOut) => {
                print(format_args!("no reply to seq={sequence} within {} s", args.wait.as_secs_f64()))?;
            }
            Err(Lost::Error(error)) => print(format_args!("seq={sequence}: {error}"))?,
        }
        drop(printing);
        if too_small {
            return Err(carries_too_little());
        }
        let is_direct = look_at_path(peer, tally, json)?;
        if args.until_direct && is_direct && tally_of(tally, |tally| !tally.round_trips.is_empty()) {
            break;
        }
    }
    if is_lost && means.is_too_small() {
        return Err(carries_too_little());
    }
    let path = tally_of(tally, |tally| tally.path.clone());
    let replies = tally_of(tally, |tally| tally.round_trips.len());
    if !json {
        // Locks in the same order as the signal handler.
        let _printing = PRINTING.lock();
        tally_of(tally, |tally| tally.print_end())?;
    }
    means.close()?;
    match replies {
        1.. if args.until_direct && !path.as_ref().is_some_and(Path::is_direct) => Err(Failure::new(
            format_args!("no direct path to {whom} was found"),
            "give it longer with --count, or look for the obstacle with `peersock netcheck` on both sides",
        )),
        0 => Err(Failure::new(
            format_args!("{whom} did not reply"),
            "check that the peer still runs, or give it longer with --wait",
        )),
        _ => Ok(()),
    }
}

/// Returns the failure if the path carries too little, which only a lost request can mean.
fn carries_too_little() -> Failure {
    reach::carries_too_little("requests do not arrive", "")
}

/// Notes the state of the peer, and prints its path if that has changed. Returns true if it is direct.
fn look_at_path(peer: Option<PeerStatus>, tally: &Mutex<Option<Tally>>, json: bool) -> Outcome<bool> {
    let Some(peer) = peer else { return Ok(false) };
    // Without a session there is no current path, and the last one counts.
    let path = Path::of(&peer);
    tally_of(tally, |tally| tally.peer = Some(peer));
    let Some(path) = path else { return Ok(false) };
    let is_direct = path.is_direct();
    let before = tally_of(tally, |tally| tally.path.replace(path.clone()));
    if !json && before.as_ref() != Some(&path) {
        let _printing = PRINTING.lock();
        print(format_args!("path {}: {path}", if before.is_some() { "changed" } else { "taken" }))?;
    }
    Ok(is_direct)
}

/// Accesses the tally, which exists once the peer was found.
fn tally_of<T>(tally: &Mutex<Option<Tally>>, use_it: impl FnOnce(&mut Tally) -> T) -> T {
    use_it(tally.lock().expect("no panic under this lock").as_mut().expect("set before the first request"))
}

fn parse_count(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "give a number from 1 on".to_owned())
}
