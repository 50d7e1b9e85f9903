//! The parent process of the demonstration: starts the others, watches them and reports.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use peersock::overlay::NetworkId;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::content::Content;
use super::fetch::{FAULT, RETRY, hex};
use super::report::{self, Report};
use super::wire::{Findings, Listening, Said};
use peersock_terminal::failure::{Failure, Outcome};
use peersock_terminal::signals;

/// Time limit for everything except the transfer.
const BASE_LIMIT: Duration = Duration::from_secs(60);

/// Minimum rate of a transfer, in bytes per second.
const MIN_BYTES_PER_SECOND: u64 = 2_000_000;

/// Time that a child gets to end when asked.
const GOODBYE: Duration = Duration::from_secs(3);

/// Show that peersock works: two processes on this machine find each other and talk
///
/// Starts two separate processes with new identities. Both join the same ad-hoc network, made up for this
/// run, and find each other. One serves and the other fetches through the encrypted overlay and verifies the
/// data. The demonstration stays on the loopback interface and needs no privilege. The exit status is 0 only
/// if everything worked.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock demo
  peersock demo --size 1GiB
  peersock demo --json | jq .throughput_bits_per_second")]
pub struct Args {
    /// Transfer BYTES: a number, or a number with a unit (KiB, MiB, GiB)
    ///
    /// The fetching process keeps the data in memory.
    #[arg(long, value_name = "BYTES", value_parser = parse_size, default_value = "256MiB")]
    size: u64,

    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the demonstration, and prints its report.
/// Fails if a process cannot be started or fails, the time limit passes, or the content arrives altered.
pub fn run(args: &Args) -> Outcome {
    let (network, seed) = random_network()?;
    let deadline = Instant::now() + BASE_LIMIT + Duration::from_secs(args.size / MIN_BYTES_PER_SECOND);
    let children = Children::default();
    let interrupted = children.clone();
    signals::end_after(move || interrupted.stop())?;

    let result = demonstrate(args, network, seed, &children, deadline);
    children.stop();
    let (server, findings) = result?;
    let sha256 = hex(&Content::new(seed, args.size).sha256());
    let report = Report::new(network, server, findings, &sha256);
    report::print(&report, args.json)?;
    match report.verified {
        true => Ok(()),
        false => Err(Failure::new("what arrived is not what was sent", FAULT)),
    }
}

fn demonstrate(
    args: &Args,
    network: NetworkId,
    seed: u64,
    children: &Children,
    deadline: Instant,
) -> Outcome<(Listening, Findings)> {
    let (sender, lines) = mpsc::channel();
    let common = ["--network", &network.to_string(), "--size", &args.size.to_string()].map(str::to_owned);
    let seed = ["--seed".to_owned(), seed.to_string()];
    children.start(Role::Server, common.iter().chain(&seed), &sender)?;
    children.start(Role::Client, common.iter(), &sender)?;

    let server: Listening = next(&lines, Role::Server, deadline)?;
    children.tell(Role::Client, &format!("[{}]:{}", server.place.address, server.port))?;
    let findings = next(&lines, Role::Client, deadline)?;
    Ok((server, findings))
}

/// Returns the result of one child, or a failure if either child fails. The first reported reason counts,
/// because one child's failure often ends the other, too.
fn next<T: DeserializeOwned>(
    lines: &Receiver<(Role, Option<String>)>,
    role: Role,
    deadline: Instant,
) -> Outcome<T> {
    loop {
        let (from, line) = match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Err(Failure::new(
                    "the demonstration took too long",
                    "give a smaller --size, or more processor time",
                ));
            }
        };
        let Some(line) = line else {
            return Err(Failure::new(
                format_args!("the {} ended before its work was done", from.name()),
                RETRY,
            ));
        };
        let result = match serde_json::from_str(&line) {
            Ok(Said::<Value>::Failed { message, hint }) => {
                let hint = hint.as_deref().unwrap_or(RETRY);
                return Err(Failure::new(format_args!("the {} failed: {message}", from.name()), hint));
            }
            Ok(Said::Done(_)) if from != role => continue,
            Ok(Said::Done(result)) => serde_json::from_value(result),
            Err(error) => Err(error),
        };
        return result.map_err(|error| {
            Failure::new(format_args!("the {} is not understood: {error}", from.name()), FAULT)
        });
    }
}

/// Returns a network that no other node is in, and a seed for the content.
///
/// Only the port range varies in the ID of an ad-hoc network: 30 random bits, on loopback only.
fn random_network() -> Outcome<(NetworkId, u64)> {
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(Failure::no_randomness)?;
    let (ports, seed) = random.split_at(4);
    let first = 1 + u16::from_be_bytes([ports[0], ports[1]]) % 0x7fff;
    let last = 0x8000 | u16::from_be_bytes([ports[2], ports[3]]);
    let seed = seed.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
    let network = NetworkId::ad_hoc(first..=last).expect("the first port is below the last");
    Ok((network, seed))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Server => "serving process",
            Role::Client => "fetching process",
        }
    }

    fn command(self) -> &'static str {
        match self {
            Role::Server => "demo-serve",
            Role::Client => "demo-fetch",
        }
    }
}

/// The started processes. They end when their stdin does, so they cannot outlive this process.
#[derive(Clone, Default)]
struct Children {
    running: Arc<Mutex<Started>>,
}

#[derive(Default)]
struct Started {
    children: Vec<(Role, Child)>,
    /// Set when no more children may be started, because they would be left behind.
    stopped: bool,
}

impl Children {
    /// Starts a child; its lines, and `None` at their end, go to `lines`.
    fn start<'a>(
        &self,
        role: Role,
        args: impl Iterator<Item = &'a String>,
        lines: &Sender<(Role, Option<String>)>,
    ) -> Outcome {
        // Locked until the child is in the list, so that `stop` also ends it.
        let mut running = self.running.lock().expect("no panic under this lock");
        if running.stopped {
            return Err(Failure::new("the demonstration was stopped", RETRY));
        }
        let mut child = Command::new(env::current_exe()?)
            .arg(role.command())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A separate process group: Ctrl-C reaches only the parent, which then ends both in order.
            .process_group(0)
            .spawn()?;
        let stdout = child.stdout.take().expect("stdout is piped");
        running.children.push((role, child));
        drop(running);
        let lines = lines.clone();
        thread::Builder::new().name("lines".into()).spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = lines.send((role, Some(line)));
            }
            let _ = lines.send((role, None));
        })?;
        Ok(())
    }

    fn tell(&self, role: Role, line: &str) -> Outcome {
        let mut running = self.running.lock().expect("no panic under this lock");
        for (_, child) in running.children.iter_mut().filter(|(other, _)| *other == role) {
            if let Some(stdin) = &mut child.stdin {
                writeln!(stdin, "{line}")?;
            }
        }
        Ok(())
    }

    /// Ends all children by closing their stdin, and kills those that do not end in time.
    fn stop(&self) {
        let mut running = self.running.lock().expect("no panic under this lock");
        running.stopped = true;
        for (_, child) in &mut running.children {
            drop(child.stdin.take());
        }
        let deadline = Instant::now() + GOODBYE;
        for (role, mut child) in running.children.drain(..) {
            while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
                thread::sleep(Duration::from_millis(5));
            }
            if let Ok(None) = child.try_wait() {
                tracing::warn!("the {} does not end; killing it", role.name());
                let _ = child.kill();
            }
            let _ = child.wait();
        }
    }
}

impl Drop for Children {
    /// Also runs for the last handle after an early return or a panic.
    fn drop(&mut self) {
        if Arc::strong_count(&self.running) == 1 {
            self.stop();
        }
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    const MAX: u64 = 64 << 30;
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err("the units are KiB, MiB and GiB, as in 64MiB".to_owned()),
    };
    let number: u64 =
        digits.parse().map_err(|_| "give a whole number with a unit, such as 64MiB".to_owned())?;
    match number.checked_mul(1 << shift) {
        Some(size @ 1..=MAX) => Ok(size),
        _ => Err("give from 1 byte to 64 GiB, such as 64MiB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use peersock::Network;

    use super::*;

    #[test]
    fn sizes_have_units_and_limits() {
        assert_eq!(parse_size("1"), Ok(1));
        assert_eq!(parse_size("256MiB"), Ok(256 << 20));
        assert_eq!(parse_size("3k"), Ok(3072));
        assert_eq!(parse_size("64GiB"), Ok(64 << 30));
        for text in
            ["", "0", "MiB", "1.5MiB", "1TB", "65GiB", "-1", "99999999999999999999", "18446744073709551615k"]
        {
            parse_size(text).unwrap_err();
        }
    }

    #[test]
    fn networks_made_up_are_open_ad_hoc_networks_with_many_ports() {
        for _ in 0..1000 {
            let (network, _) = random_network().unwrap();
            let summary = Network::by_id(network).unwrap().summary();
            assert!(!summary.closed && !summary.secret, "{network}");
            let ports = summary.ports;
            assert!((1..0x8000).contains(ports.start()) && *ports.end() >= 0x8000, "{network}");
        }
    }
}
