//! Servers that run through the whole benchmark, and one client at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde_json::Value;

use super::figures::{Contender, Quantity};
use super::network::{Mode, Side, Testbed};
use crate::Result;
use crate::process::Process;

/// Kind of measurement.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Case {
    /// Bulk over one stream
    Stream1,
    /// Bulk over eight streams
    Stream8,
    /// 64-byte ping-pong
    PingPong,
    /// New connections
    Connections,
    /// Process start to first byte
    Start,
    /// Killed and restarted server: time to the first byte over a new connection
    Recovery,
    /// Bulk over one stream, while another process keeps one processor busy
    Busy,
    /// New connections, with a request and an answer of 1 KB
    Requests,
    /// 10,000 messages of 1 KB a second, over 10 and over 10,000 connections
    Messages,
    /// Datagrams of 1,200 bytes
    Datagrams,
    /// Memory of 10,000 idle connections
    Hold,
    /// Memory and CPU of a process that connected 5 s ago and is idle for 10 s
    Idle,
}

impl Case {
    /// Returns true if the case makes sense for a contender. For example, plain datagrams have no
    /// connections.
    pub(crate) fn applies_to(self, contender: Contender) -> bool {
        match self {
            Case::Stream1 => true,
            // This contender differs only in the cipher.
            _ if contender == Contender::PeersockChacha => false,
            Case::PingPong => true,
            Case::Connections => contender != Contender::Limit,
            // This contender differs only in how threads wait.
            _ if contender == Contender::PeersockBusy => false,
            Case::Stream8 | Case::Start => contender != Contender::Limit,
            Case::Recovery | Case::Idle => contender == Contender::Kernel || contender.has_node(),
            Case::Hold => contender.has_node(),
            Case::Busy => matches!(contender, Contender::Kernel | Contender::Peersock),
            Case::Requests => contender != Contender::Limit,
            Case::Messages => matches!(contender, Contender::Kernel | Contender::Peersock),
            Case::Datagrams => contender != Contender::Quinn,
        }
    }
}

impl Case {
    /// Returns the workload, with its options, of a client that measures this case alone.
    pub(super) fn workload(self, secs: f64) -> Option<(&'static str, Vec<String>)> {
        let [full, short] = lengths(secs);
        Some(match self {
            Case::Stream1 => ("bulk", vec![full]),
            Case::Stream8 => ("bulk", vec![full, "--streams=8".to_owned()]),
            Case::PingPong => ("ping-pong", vec![short]),
            Case::Connections => ("connect", vec![short]),
            Case::Requests => ("requests", vec![short]),
            _ => return None,
        })
    }
}

/// Returns the figures in the report of a client that measures a case alone.
pub(super) fn figures(case: Case, report: &Value) -> Result<Vec<(Quantity, f64)>> {
    Ok(match case {
        Case::Stream1 => {
            let (sender, receiver) = (field(report, "sender_s_per_gb")?, field(report, "receiver_s_per_gb")?);
            vec![
                (Quantity::Stream1, field(report, "gbps")?),
                (Quantity::SenderCpu, sender),
                (Quantity::ReceiverCpu, receiver),
                (Quantity::BothCpu, sender + receiver),
                (Quantity::Faults, field(report, "faults_per_gb")?),
            ]
        }
        Case::Stream8 => vec![(Quantity::Stream8, field(report, "gbps")?)],
        Case::PingPong => {
            vec![(Quantity::PingP50, field(report, "p50_us")?), (Quantity::PingP99, field(report, "p99_us")?)]
        }
        Case::Connections => {
            let switches = report["switches_each"].as_f64();
            let switches = switches.map(|switches| (Quantity::Switches, switches));
            [(Quantity::Connections, completed(report)?)].into_iter().chain(switches).collect()
        }
        Case::Requests => vec![(Quantity::Requests, completed(report)?)],
        _ => return Err("no client measures this alone".into()),
    })
}

/// Returns the number of sequential connections per second. All of them must have succeeded.
fn completed(report: &Value) -> Result<f64> {
    match field(report, "failed")? {
        0.0 => field(report, "per_s"),
        failed => Err(format!("{failed} connections failed").into()),
    }
}

/// Returns the options for the length of a bulk transfer and of a shorter one.
fn lengths(secs: f64) -> [String; 2] {
    [secs, (secs / 2.0).max(0.5)].map(|secs| format!("--secs={secs}"))
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Case::Stream1 => "1 stream",
            Case::Stream8 => "8 streams",
            Case::PingPong => "ping-pong",
            Case::Connections => "connections",
            Case::Start => "start",
            Case::Recovery => "recovery",
            Case::Hold => "held connections",
            Case::Busy => "busy machine",
            Case::Requests => "requests",
            Case::Messages => "messages",
            Case::Datagrams => "datagrams",
            Case::Idle => "idle",
        })
    }
}

/// Time within which a server has to be ready, and a client has to finish. It includes a thousand connections
/// on a machine that builds at the same time.
const READY_TIMEOUT: Duration = Duration::from_secs(240);
/// Time that busy threads poll for packets, in microseconds.
const BUSY_POLL: &str = "50";
/// Time for which an idle process is watched.
const IDLE: Duration = Duration::from_secs(10);

/// The running servers.
pub(crate) struct Session<'a> {
    network: &'a Testbed,
    program: &'a Path,
    servers: BTreeMap<Contender, Server>,
}

struct Server {
    process: Process,
    address: String,
}

impl<'a> Session<'a> {
    /// Starts every contender's server on side B.
    pub(crate) fn start(network: &'a Testbed, program: &'a Path, contenders: &[Contender]) -> Result<Self> {
        let mut session = Session { network, program, servers: BTreeMap::new() };
        for &contender in contenders {
            let server = session.serve(contender, None)?;
            session.servers.insert(contender, server);
        }
        Ok(session)
    }

    /// Runs one case once. `secs` is the length of a bulk transfer.
    pub(crate) fn measure(
        &mut self,
        case: Case,
        contender: Contender,
        secs: f64,
    ) -> Result<Vec<(Quantity, f64)>> {
        let [full, short] = lengths(secs);
        if let Some((workload, options)) = case.workload(secs) {
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            return figures(case, &self.client(contender, workload, &options)?);
        }
        Ok(match case {
            Case::Stream1 | Case::Stream8 | Case::PingPong | Case::Connections | Case::Requests => {
                return Err("a client alone measures this".into());
            }
            Case::Busy => {
                let mut command = Command::new(self.program);
                command.args(["--die-with-parent", "spin"]);
                let _busy = Process::spawn("busy process", command)?;
                let report = self.client(contender, "bulk", &[&full])?;
                vec![(Quantity::Stream1Busy, field(&report, "gbps")?)]
            }
            Case::Messages => {
                let [few, many] = ["--connections=10", "--connections=10000"]
                    .map(|connections| self.client(contender, "messages", &[&full, connections]));
                vec![
                    (Quantity::Message10, field(&few?, "cpu_us_each")?),
                    (Quantity::Message10k, field(&many?, "cpu_us_each")?),
                ]
            }
            Case::Datagrams => {
                let report = self.client(contender, "datagrams", &[&short])?;
                vec![
                    (Quantity::Datagrams, field(&report, "per_s")?),
                    (Quantity::DatagramCpu, field(&report, "cpu_us_each")?),
                ]
            }
            Case::Start => {
                let start = Instant::now();
                let client = self.spawn(contender, "first-byte", &[])?;
                let (at, _) = client.line(READY_TIMEOUT)?;
                vec![(Quantity::FirstByte, milliseconds(at - start))]
            }
            Case::Recovery => vec![(Quantity::Recovery, milliseconds(self.recovery(contender)?))],
            Case::Hold => {
                let report = self.client(contender, "hold", &[])?;
                vec![(Quantity::HeldRss, field(&report, "kib_each")?)]
            }
            Case::Idle => {
                let report = self.client(contender, "idle", &[&format!("--secs={}", IDLE.as_secs())])?;
                vec![
                    (Quantity::IdleRss, field(&report, "rss_kib")? / 1024.0),
                    (Quantity::IdleAnonymous, field(&report, "anonymous_kib")? / 1024.0),
                    (Quantity::IdleCpu, field(&report, "cpu_percent")?),
                ]
            }
        })
    }

    /// Starts a client that measures a case alone. Returns the client and its server's process ID.
    pub(super) fn begin(&self, case: Case, contender: Contender, secs: f64) -> Result<(Process, u32)> {
        let (workload, options) = case.workload(secs).ok_or("no client measures this alone")?;
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let server = self.servers.get(&contender).ok_or("its server does not run")?.process.id();
        Ok((self.spawn(contender, workload, &options)?, server))
    }

    /// Kills the server while a client is connected and restarts it in the same place. The client tries to
    /// reconnect at once, so the clock runs from the death of the server to the first byte from its
    /// successor.
    fn recovery(&mut self, contender: Contender) -> Result<Duration> {
        let mut client = self.spawn(contender, "recover", &[])?;
        client.line(READY_TIMEOUT)?;
        let Server { process, address } = self.servers.remove(&contender).ok_or("its server does not run")?;
        drop(process);
        let start = Instant::now();
        client.tell("again")?;
        let server = self.serve(contender, Some(address))?;
        self.servers.insert(contender, server);
        let (at, _) = client.line(READY_TIMEOUT)?;
        Ok(at - start)
    }

    /// Starts a server, in the place of an earlier one if its address is given.
    fn serve(&self, contender: Contender, again: Option<String>) -> Result<Server> {
        let mut command = self.command(Side::B, contender);
        if contender.has_node() {
            // The seed determines the node's address, wherever it runs.
            let (seed, address) = match contender {
                Contender::PeersockFd => ("2", "[::]:5002"),
                Contender::PeersockBusy => ("3", "[::]:5003"),
                Contender::PeersockChacha => ("4", "[::]:5004"),
                _ => ("1", "[::]:5001"),
            };
            command.args(["--seed", seed, "serve", address]);
        } else {
            let any = SocketAddr::new(self.network.address(Side::B), 0);
            command.args(["serve", &again.unwrap_or(any.to_string())]);
        }
        let process = Process::spawn(&format!("{contender} server"), command)?;
        let (_, line) = process.line(READY_TIMEOUT)?;
        let ready: Value = serde_json::from_str(&line)?;
        let address = ready["address"].as_str().ok_or("the server names no address")?.to_owned();
        Ok(Server { process, address })
    }

    /// Runs a client to its end and parses its output.
    fn client(&self, contender: Contender, workload: &str, options: &[&str]) -> Result<Value> {
        let output = self.spawn(contender, workload, options)?.finish(READY_TIMEOUT)?;
        Ok(serde_json::from_str(&output)?)
    }

    fn spawn(&self, contender: Contender, workload: &str, options: &[&str]) -> Result<Process> {
        let server = self.servers.get(&contender).ok_or("its server does not run")?;
        let mut command = self.command(Side::A, contender);
        command.args(["client", &server.address, workload]).args(options);
        Process::spawn(&format!("{contender} client"), command)
    }

    fn command(&self, side: Side, contender: Contender) -> Command {
        let mut command = self.network.command(side, self.program);
        command.args(["--die-with-parent", contender.subcommand()]);
        match contender {
            Contender::PeersockBusy => drop(command.args(["--busy-poll", BUSY_POLL])),
            Contender::PeersockChacha => drop(command.args(["--cipher", "chacha"])),
            _ => {}
        }
        if contender.has_node() {
            command.args(["--network", &ad_hoc_network()]);
            if self.network.mode() == Mode::Loopback {
                command.arg("--loopback");
            }
        }
        command
    }
}

/// Returns an ad-hoc network for this run. Its ID holds the allowed ports, so runs differ in the lowest one.
fn ad_hoc_network() -> String {
    let lowest = 1024 + std::process::id() % 1024;
    format!("ff{lowest:04x}ffff000000")
}

fn field(report: &Value, name: &str) -> Result<f64> {
    report[name].as_f64().ok_or_else(|| format!("no number {name} in {report}").into())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
