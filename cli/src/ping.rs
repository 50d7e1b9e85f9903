//! `peersock ping`

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use peersock::Node;
use peersock::blocking::Ping;
use serde_json::{Value, json};
use signal_hook::consts::SIGINT;

use crate::args::{NetworkArgs, NodeArgs, parse_host, parse_seconds};
use crate::failure::{Failure, Outcome};
use crate::names;
use crate::output::{print, round};
use crate::path::{Path, peer_at, reasons};
use crate::reach;
use crate::root_watch;
use crate::session::Session;

/// Payload of a request in bytes, the default of other ping programs.
const PAYLOAD: u16 = 56;

/// Default number of requests until a direct path must exist.
const COUNT_UNTIL_DIRECT: u64 = 30;

/// Measure the round-trip time to a member of a network with ICMP echo requests
///
/// Also reports the path of the packets: direct, or relayed by a root. The exit status is 0 if at least one
/// reply arrived, also after Ctrl-C.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock ping -n ff0001ffff000000 fd12:3456:789a:…
  peersock ping -c 100 -i 0.01 -n office.toml alpha
  peersock ping --until-direct -n office.toml alpha
  peersock ping --json -c 10 -n office.toml 10.7.0.1 | jq .median_ms")]
pub(crate) struct Args {
    /// IP address, or the name of a member of a static network
    address: String,

    #[command(flatten)]
    network: NetworkArgs,

    #[command(flatten)]
    node: NodeArgs,

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

    /// Wait up to SECONDS for each reply
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

/// The JSON object, which the first thread that knows the outcome prints.
struct Summary {
    /// True until the object is printed.
    is_wanted: AtomicBool,
}

impl Summary {
    fn new(json: bool) -> Summary {
        Summary { is_wanted: AtomicBool::new(json) }
    }

    /// Prints the object, if it is wanted and not yet printed; there may be no tally yet.
    fn print(&self, tally: &Mutex<Option<Tally>>, error: Option<&str>) -> Outcome {
        if !self.is_wanted.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        let tally = tally.lock().expect("no panic under this lock");
        let mut report =
            tally.as_ref().map_or_else(|| json!({ "transmitted": 0, "received": 0 }), Tally::json);
        if let Some(error) = error {
            report["error"] = json!(error);
        }
        print(report)
    }
}

/// JSON error text after a signal before the first reply.
const STOPPED: &str = "stopped by a signal before there was a reply";

/// Lock of stdout, held while printing.
static PRINTING: Mutex<()> = Mutex::new(());

fn measure(args: &Args, tally: &Arc<Mutex<Option<Tally>>>, summary: &Arc<Summary>) -> Outcome {
    let (interrupted, summary) = (Arc::clone(tally), Arc::clone(summary));
    let json = args.json;
    let session = Session::open_until(&args.node, &args.network, move |signal, node| {
        // Keeps the lock, so that no line follows the statistics; other threads block until the process ends.
        std::mem::forget(PRINTING.lock());
        let replies = match &*interrupted.lock().expect("no panic under this lock") {
            Some(tally) => {
                if !json {
                    // Ignores errors, because the process is about to end.
                    let _ = print_end(node, tally);
                }
                tally.round_trips.len()
            }
            None => 0,
        };
        let _ = summary.print(&interrupted, (replies == 0).then_some(STOPPED));
        if signal == SIGINT && replies > 0 { 0 } else { 128 + signal }
    })?;
    let address = parse_host(&session.network, &args.address)?;
    let _roots = root_watch::start(&session.node)?;
    session.wait_peer(address, args.timeout.unwrap_or_else(|| args.node.patience()), json)?;
    let ping = Ping::open_on(&session.node, address)?;
    let whom = names::called(&session.network, address);
    *tally.lock().expect("no panic under this lock") = Some(Tally::new(address));
    if !json {
        print(format_args!("PING {whom} in network {}: {} bytes", session.network.id(), args.size))?;
    }

    let payload: Vec<u8> = (0..args.size).map(|i| i as u8).collect();
    let (mut sequence, mut is_lost) = (0u64, false);
    let count = args.count.or(args.until_direct.then_some(COUNT_UNTIL_DIRECT));
    look_at_path(&session, tally, json)?;
    while count.is_none_or(|count| sequence < count) {
        if sequence > 0 {
            thread::sleep(args.interval.saturating_sub(tally_of(tally, |tally| tally.last.elapsed())));
        }
        sequence += 1;
        tally_of(tally, Tally::sending);
        // The sequence number on the wire has 16 bits; far fewer requests are in flight.
        let result = ping.ping(sequence as u16, &payload, args.wait);
        if let Ok(pong) = &result {
            tally_of(tally, |tally| tally.round_trips.push(pong.round_trip));
        }
        is_lost = result.is_err();
        let printing = PRINTING.lock();
        match result {
            _ if json => {}
            Ok(pong) => print(format_args!(
                "{} bytes from {address}: seq={sequence} hlim={} time={:.3} ms",
                pong.len,
                pong.hop_limit,
                millis(pong.round_trip)
            ))?,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                print(format_args!("no reply to seq={sequence} within {} s", args.wait.as_secs_f64()))?;
            }
            Err(error) => print(format_args!("seq={sequence}: {error}"))?,
        }
        drop(printing);
        check_size(&session, address, is_lost, Duration::ZERO)?;
        let is_direct = look_at_path(&session, tally, json)?;
        if args.until_direct && is_direct && tally_of(tally, |tally| !tally.round_trips.is_empty()) {
            break;
        }
    }
    check_size(&session, address, is_lost, reach::CHECK)?;
    let path = tally_of(tally, |tally| tally.path.clone());
    let replies = tally_of(tally, |tally| tally.round_trips.len());
    if !json {
        // Locks in the same order as the signal handler.
        let _printing = PRINTING.lock();
        tally_of(tally, |tally| print_end(&session.node, tally))?;
    }
    session.close()?;
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

/// Fails if the path carries too little, once a request was lost.
fn check_size(session: &Session, address: IpAddr, is_lost: bool, patience: Duration) -> Outcome {
    match is_lost && session.joined.check_path(address, patience).is_err() {
        true => Err(reach::carries_too_little("requests do not arrive", "")),
        false => Ok(()),
    }
}

/// Checks the current path and prints it if it has changed. Returns true if it is direct.
fn look_at_path(session: &Session, tally: &Mutex<Option<Tally>>, json: bool) -> Outcome<bool> {
    let address = tally_of(tally, |tally| tally.address);
    let Some(peer) = peer_at(&session.node, address) else { return Ok(false) };
    tally_of(tally, |tally| tally.attempts = json!(peer.attempts));
    // Without a session there is no current path, and the last one counts.
    let Some(path) = Path::of(&peer) else { return Ok(false) };
    let is_direct = path.is_direct();
    let before = tally_of(tally, |tally| tally.path.replace(path.clone()));
    if !json && before.as_ref() != Some(&path) {
        let _printing = PRINTING.lock();
        print(format_args!("path {}: {path}", if before.is_some() { "changed" } else { "taken" }))?;
    }
    Ok(is_direct)
}

/// Prints why the path is not direct, and the statistics.
fn print_end(node: &Node, tally: &Tally) -> Outcome {
    for reason in peer_at(node, tally.address).iter().flat_map(reasons) {
        print(format_args!("not direct: {reason}"))?;
    }
    print(format_args!("\n{tally}"))
}

/// Accesses the tally, which exists once the peer was found.
fn tally_of<T>(tally: &Mutex<Option<Tally>>, use_it: impl FnOnce(&mut Tally) -> T) -> T {
    use_it(tally.lock().expect("no panic under this lock").as_mut().expect("set before the first request"))
}

/// Statistics of requests and replies.
struct Tally {
    address: IpAddr,
    begin: Instant,
    /// Time of the last request.
    last: Instant,
    sent: u64,
    round_trips: Vec<Duration>,
    /// Last path taken.
    path: Option<Path>,
    /// Attempts of direct paths, as in `peersock status --json`.
    attempts: Value,
}

impl Tally {
    fn new(address: IpAddr) -> Tally {
        let now = Instant::now();
        let (round_trips, attempts) = (Vec::new(), json!([]));
        Tally { address, begin: now, last: now, sent: 0, round_trips, path: None, attempts }
    }

    fn sending(&mut self) {
        self.sent += 1;
        self.last = Instant::now();
    }

    fn loss_percent(&self) -> f64 {
        match self.sent {
            0 => 0.0,
            sent => 100.0 * (1.0 - self.round_trips.len() as f64 / sent as f64),
        }
    }

    /// Returns minimum, median, mean and maximum.
    fn summary(&self) -> Option<[Duration; 4]> {
        let mut sorted = self.round_trips.clone();
        sorted.sort_unstable();
        let (first, last) = (*sorted.first()?, *sorted.last()?);
        let mean = sorted.iter().sum::<Duration>().div_f64(sorted.len() as f64);
        // Averages the middle two, which are the same element if the count is odd.
        let median = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2;
        Some([first, median, mean, last])
    }

    fn json(&self) -> Value {
        let summary = self.summary().map(|summary| summary.map(exact_millis));
        json!({
            "address": self.address,
            "transmitted": self.sent,
            "received": self.round_trips.len(),
            "loss_percent": round(self.loss_percent(), 3),
            "min_ms": summary.map(|s| s[0]),
            "median_ms": summary.map(|s| s[1]),
            "mean_ms": summary.map(|s| s[2]),
            "max_ms": summary.map(|s| s[3]),
            "path": self.path.as_ref().map(Path::json),
            "attempts": self.attempts,
        })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let received = self.round_trips.len();
        let requests = if self.sent == 1 { "request" } else { "requests" };
        let replies = if received == 1 { "reply" } else { "replies" };
        write!(
            f,
            "--- {} ping statistics ---\n{} {requests} transmitted, {received} {replies} received, \
             {:.0}% loss, time {:.0} ms",
            self.address,
            self.sent,
            self.loss_percent(),
            millis(self.begin.elapsed())
        )?;
        match self.summary().map(|summary| summary.map(millis)) {
            Some([min, median, mean, max]) => {
                write!(f, "\nround trip min/median/mean/max = {min:.3}/{median:.3}/{mean:.3}/{max:.3} ms")
            }
            None => Ok(()),
        }
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Returns milliseconds rounded to the nanosecond, the resolution of clocks.
fn exact_millis(duration: Duration) -> f64 {
    round(millis(duration), 6)
}

fn parse_count(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "give a number from 1 on".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_what_was_lost() {
        let mut tally = Tally::new("fd00::1".parse().unwrap());
        assert!(tally.summary().is_none());
        tally.sending();
        tally.round_trips.push(Duration::from_millis(1));
        let text = tally.to_string();
        assert!(text.contains("1 request transmitted, 1 reply received, 0% loss"), "{text}");
        let mut tally = Tally::new("fd00::1".parse().unwrap());
        for millis in [4, 1, 2] {
            tally.sending();
            tally.round_trips.push(Duration::from_millis(millis));
        }
        tally.sending();
        let text = tally.to_string();
        assert!(text.contains("4 requests transmitted, 3 replies received, 25% loss"), "{text}");
        assert!(text.contains("= 1.000/2.000/2.333/4.000 ms"), "{text}");
        tally.round_trips.push(Duration::from_millis(3));
        assert_eq!(tally.summary().unwrap()[1], Duration::from_micros(2500), "of an even number");
        let json = tally.json();
        assert_eq!((&json["median_ms"], &json["loss_percent"]), (&json!(2.5), &json!(0.0)));
        assert_eq!(json["attempts"], json!([]));
        tally.attempts = json!([{ "address": "192.0.2.1:7420", "outcome": "no answer" }]);
        assert_eq!(tally.json()["attempts"], tally.attempts);
    }
}
