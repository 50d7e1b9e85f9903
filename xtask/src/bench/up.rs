//! `cargo xtask bench up`: the kernel's TCP over the interfaces of `peersock up`, over those of wireguard-go,
//! and without a tunnel, over the same link and interleaved round by round.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::figures::Measured;
use super::folder::Folder;
use super::idle::Watcher;
use super::lines::Lines;
use super::machine::Machine;
use super::network::{Side, Testbed};
use super::programs::has;
use super::{Rounds, build, parse_secs, processor_time};
use crate::process::Process;
use crate::{Result, cargo, root};

/// A tunnel has to be there, and a client to have finished, within this.
const PATIENCE: Duration = Duration::from_secs(60);
/// A tunnel that is asked to end has ended within this.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
const NETWORK: &str = "ff0401ffff000000";
/// The interfaces. Both have the MTU that is usual for WireGuard.
const PEERSOCK_DEVICE: &str = "peersock0";
const WIREGUARD_DEVICE: &str = "wg";
const MTU: &str = "1420";
const WIREGUARD_PORT: &str = "51820";
/// What wireguard-go's interfaces have: IPv6, as those of an ad-hoc network, so that headers are alike.
const WIREGUARD_ADDRESSES: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 0, 2)];

/// Options of `bench up`.
#[derive(Args)]
pub(crate) struct Options {
    /// Length of one bulk transfer, seconds; ping-pong takes half of it
    #[arg(long, default_value_t = 3.0, value_parser = parse_secs)]
    secs: f64,
    #[command(flatten)]
    rounds: Rounds,
}

/// What the kernel's packets go through.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// The link itself.
    Plain,
    Peersock,
    WireguardGo,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Plain => "plain",
            Way::Peersock => "peersock_up",
            Way::WireguardGo => "wireguard_go",
        }
    }
}

/// What is measured, and its unit.
const QUANTITIES: [(&str, &str); 5] = [
    ("goodput_1_stream", "Gbit/s"),
    ("cpu_both_tunnels", "s/GB"),
    ("goodput_8_streams", "Gbit/s"),
    ("ping_pong_p50", "us"),
    ("ping_pong_p99", "us"),
];

/// The rounds of one quantity.
struct Column {
    way: Way,
    quantity: &'static str,
    rounds: Vec<Measured>,
}

/// Runs the benchmark and prints its table. False if something could not be measured.
///
/// # Errors
///
/// When there can be no namespaces, something does not build, or a tunnel does not come up.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let (mode, reason) = Testbed::default_mode();
    if let Some(reason) = reason {
        return Err(format!("network namespaces are needed: {reason}").into());
    }
    let load = build("peersock-bench")?;
    let status = cargo().args(["build", "--release", "-p", "peersock-cli"]).status()?;
    if !status.success() {
        return Err("peersock does not build".into());
    }
    let mut ways = vec![Way::Plain, Way::Peersock];
    if has("wireguard-go") && has("wg") {
        ways.push(Way::WireguardGo);
    } else {
        println!("without wireguard-go, which is missing (apt-get install wireguard-go wireguard-tools)");
    }
    let bench = Bench { network: Testbed::new(mode)?, load, folder: Folder::new()? };
    let tunnels: Vec<_> = ways.iter().map(|way| bench.open(*way)).collect::<Result<_>>()?;
    let machine = Machine::this();
    println!("{machine}");
    let mut watcher = Watcher::new(options.rounds.idle_only);
    let mut columns: Vec<Column> = Vec::new();
    let mut is_complete = true;
    for round in 0..options.rounds.reps as usize {
        println!("round {} of {}", round + 1, options.rounds.reps);
        // Everybody is first in some round.
        for tunnel in tunnels.iter().cycle().skip(round % tunnels.len()).take(tunnels.len()) {
            for case in [Case::Stream1, Case::Stream8, Case::PingPong] {
                let measured = watcher.measure(|| bench.measure(tunnel, case, options.secs));
                let (values, disturbance) = match measured {
                    Ok(measured) => measured,
                    Err(e) => {
                        println!("FAILED {}, {case:?}: {e}", tunnel.way.name());
                        is_complete = false;
                        continue;
                    }
                };
                for (quantity, value) in values {
                    let column =
                        |column: &&mut Column| (column.way, column.quantity) == (tunnel.way, quantity);
                    match columns.iter_mut().find(column) {
                        Some(column) => column.rounds.push((value, disturbance)),
                        None => {
                            let rounds = vec![(value, disturbance)];
                            columns.push(Column { way: tunnel.way, quantity, rounds });
                        }
                    }
                }
            }
        }
    }
    report(&columns, &machine, options.rounds.json.as_deref())?;
    println!("\n{}", watcher.summary());
    for tunnel in tunnels {
        tunnel.close();
    }
    Ok(is_complete)
}

/// Prints the figures and their ratios, and writes them.
fn report(columns: &[Column], machine: &Machine, json: Option<&Path>) -> Result<()> {
    let mut lines = Lines::new(machine);
    for (quantity, unit) in QUANTITIES {
        let of = |way| {
            let column = columns.iter().find(|column| (column.way, column.quantity) == (way, quantity));
            column.map_or(&[][..], |column| &column.rounds)
        };
        for way in [Way::Plain, Way::Peersock, Way::WireguardGo] {
            lines.add(&format!("{quantity}.{}", way.name()), unit, of(way));
        }
        for way in [Way::WireguardGo, Way::Plain] {
            let name = format!("{quantity}.peersock_up_to_{}", way.name());
            lines.add_ratio(&name, of(Way::Peersock), of(way));
        }
    }
    lines.write(json)
}

/// One kind of measurement.
#[derive(Clone, Copy, Debug)]
enum Case {
    Stream1,
    Stream8,
    PingPong,
}

struct Bench {
    network: Testbed,
    /// The load program.
    load: PathBuf,
    folder: Folder,
}

/// A way between the two sides, with the load's server behind it.
struct Tunnel {
    way: Way,
    /// What carries the packets, if that are programs.
    carriers: Vec<Process>,
    server: Process,
    address: SocketAddr,
}

impl Tunnel {
    fn close(self) {
        drop(self.server);
        self.carriers.into_iter().for_each(|carrier| carrier.end(ENDS_WITHIN));
    }

    /// Processor time that its programs have used until now, seconds.
    fn processor_time(&self) -> Result<f64> {
        let mut ticks = 0;
        for carrier in &self.carriers {
            ticks += processor_time::of_process(carrier.id())?;
        }
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }
}

impl Bench {
    fn open(&self, way: Way) -> Result<Tunnel> {
        let (carriers, host) = match way {
            Way::Plain => (Vec::new(), self.network.address(Side::B)),
            Way::Peersock => self.peersock()?,
            Way::WireguardGo => self.wireguard()?,
        };
        // The address may come to the interface a moment later.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut command = self.network.command(Side::B, &self.load);
            let any = SocketAddr::new(host, 0).to_string();
            command.args(["--die-with-parent", "kernel", "serve", &any]);
            let server = Process::spawn(&format!("the server behind {}", way.name()), command)?;
            match server.line(PATIENCE) {
                Ok((_, line)) => {
                    let ready: Value = serde_json::from_str(&line)?;
                    let address = ready["address"].as_str().ok_or("the server names no address")?;
                    return Ok(Tunnel { way, carriers, server, address: address.parse()? });
                }
                Err(e) if Instant::now() >= deadline => return Err(e),
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Runs `peersock up` on both sides.
    fn peersock(&self) -> Result<(Vec<Process>, IpAddr)> {
        let program = root().join("target/release/peersock");
        let mut carriers = Vec::new();
        let mut address = None;
        for side in [Side::A, Side::B] {
            let mut command = self.network.command(side, &program);
            command.args(["up", "-n", NETWORK, "--name", PEERSOCK_DEVICE, "--mtu", MTU, "--state"]);
            command.arg(self.folder.path().join(format!("state-{side:?}")));
            let carrier = Process::spawn(&format!("peersock up, {side:?}"), command)?;
            let (_, line) = carrier.line(PATIENCE)?;
            address = Some(line.trim().parse()?);
            carriers.push(carrier);
        }
        Ok((carriers, address.ok_or("no side has an address")?))
    }

    /// Runs wireguard-go on both sides.
    fn wireguard(&self) -> Result<(Vec<Process>, IpAddr)> {
        let keys = [self.key(Side::A)?, self.key(Side::B)?];
        let mut carriers = Vec::new();
        for (side, other) in [(Side::A, Side::B), (Side::B, Side::A)] {
            let mut command = self.network.command(side, Path::new("wireguard-go"));
            // The sockets by which they are set up lie in a folder of the machine: names must differ.
            let device = device(side);
            command.args(["-f", &device]).env("WG_PROCESS_FOREGROUND", "1");
            carriers.push(Process::spawn(&format!("wireguard-go, {side:?}"), command)?);
            let endpoint = format!("{}:{WIREGUARD_PORT}", self.network.address(other));
            let own = WIREGUARD_ADDRESSES[side as usize];
            let allowed = format!("{}/128", WIREGUARD_ADDRESSES[other as usize]);
            let private = keys[side as usize].0.display().to_string();
            let mut set = vec!["wg", "set", &device, "listen-port", WIREGUARD_PORT, "private-key", &private];
            set.extend(["peer", &keys[other as usize].1, "endpoint", &endpoint, "allowed-ips", &allowed]);
            self.try_until(side, &set)?;
            let own = format!("{own}/64");
            self.try_until(side, &["ip", "addr", "add", &own, "dev", &device, "nodad"])?;
            self.try_until(side, &["ip", "link", "set", &device, "mtu", MTU, "up"])?;
        }
        Ok((carriers, WIREGUARD_ADDRESSES[Side::B as usize].into()))
    }

    /// The file of a new private key, and the public key.
    fn key(&self, side: Side) -> Result<(PathBuf, String)> {
        let path = self.folder.path().join(format!("key-{side:?}"));
        let private = Command::new("wg").arg("genkey").output()?.stdout;
        fs::write(&path, private)?;
        let public = Command::new("wg").arg("pubkey").stdin(fs::File::open(&path)?).output()?.stdout;
        Ok((path, String::from_utf8(public)?.trim().to_owned()))
    }

    /// Runs a command until it succeeds: the interface may come a moment later.
    fn try_until(&self, side: Side, words: &[&str]) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut command = self.network.command(side, Path::new(words[0]));
            let output = command.args(&words[1..]).stdin(Stdio::null()).output()?;
            if output.status.success() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(format!("{}: {}", words.join(" "), said.trim()).into());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn measure(&self, tunnel: &Tunnel, case: Case, secs: f64) -> Result<Vec<(&'static str, f64)>> {
        let (full, half) = (format!("--secs={secs}"), format!("--secs={}", (secs / 2.0).max(0.5)));
        let (workload, options) = match case {
            Case::Stream1 => ("bulk", vec![full.as_str()]),
            Case::Stream8 => ("bulk", vec![full.as_str(), "--streams=8"]),
            Case::PingPong => ("ping-pong", vec![half.as_str()]),
        };
        let mut command = self.network.command(Side::A, &self.load);
        command.args(["--die-with-parent", "kernel", "client", &tunnel.address.to_string(), workload]);
        command.args(options);
        let before = tunnel.processor_time()?;
        let client = Process::spawn(&format!("the client, {}", tunnel.way.name()), command)?;
        let report: Value = serde_json::from_str(&client.finish(PATIENCE)?)?;
        let used = tunnel.processor_time()? - before;
        let field = |name: &str| report[name].as_f64().ok_or_else(|| format!("no {name} in {report}"));
        Ok(match case {
            Case::Stream1 => {
                let mut values = vec![("goodput_1_stream", field("gbps")?)];
                if tunnel.way != Way::Plain {
                    values.push(("cpu_both_tunnels", used / (field("bytes")? / 1e9)));
                }
                values
            }
            Case::Stream8 => vec![("goodput_8_streams", field("gbps")?)],
            Case::PingPong => {
                vec![("ping_pong_p50", field("p50_us")?), ("ping_pong_p99", field("p99_us")?)]
            }
        })
    }
}

/// The name of wireguard-go's interface on a side.
fn device(side: Side) -> String {
    format!("{WIREGUARD_DEVICE}-{}-{side:?}", std::process::id() % 100_000)
}
