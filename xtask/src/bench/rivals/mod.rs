//! `cargo xtask bench rivals`: compares peersock with programs and libraries for the same purpose, over the
//! same link and interleaved round by round.
//!
//! [`rival`] lists the rivals. Libraries run the load program's workloads on their own connections. Tunnels
//! carry the kernel TCP: [`tunnel`] starts them, with details from [`wireguard`], [`overlays`] and
//! [`peersock`]. [`report`] makes the tables. Missing rivals are left out, with a hint on how to install
//! them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum as _};
use serde_json::Value;

use super::figures::{Figures, Quantity};
use super::folder::Folder;
use super::idle::Watcher;
use super::machine::Machine;
use super::network::{Side, Testbed};
use super::session::{Case, figures};
use super::{PROFILE, Rounds, build, chosen, command_line, document, parse_secs};
use crate::process::Process;
use crate::{Result, cargo, root};

mod overlays;
mod peersock;
mod report;
mod rival;
mod tunnel;
mod wireguard;

use rival::{Kind, Rival};
use tunnel::Tunnel;

/// Time within which a rival has to be up, and a client has to finish.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Cases for every rival, in the order of a round.
const CASES: [Case; 4] = [Case::Stream1, Case::Stream8, Case::PingPong, Case::Connections];

/// Options of `bench rivals`.
#[derive(Args)]
pub(crate) struct Options {
    /// Run each bulk transfer for SECONDS; the other cases take half of that
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = parse_secs)]
    secs: f64,
    #[command(flatten)]
    rounds: Rounds,
    /// Measure only these rivals
    #[arg(long, value_delimiter = ',', value_name = "RIVAL,…")]
    only: Vec<Rival>,
    /// Also write the table into the document FILE, between its lines <!-- rivals --> and <!-- /rivals -->
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

/// Runs the benchmark and prints its table. Returns false if a measurement failed.
/// Fails if namespaces are not available, a part does not build, or an installed rival cannot be started.
pub(crate) fn run(options: &Options) -> Result<bool> {
    options.write.as_deref().map_or(Ok(()), |path| document::check(path, document::RIVALS))?;
    let (mode, reason) = Testbed::default_mode();
    if let Some(reason) = reason {
        return Err(format!("network namespaces are needed: {reason}").into());
    }
    let mut rivals = chosen(Rival::value_variants(), &options.only);
    rivals.retain(|rival| match rival.missing() {
        None => true,
        Some(how) => {
            println!("without {rival}, which is missing ({how})");
            false
        }
    });
    let lab = Lab {
        network: Testbed::new(mode)?,
        load: build("peersock-bench", PROFILE)?,
        peersock: match rivals.contains(&Rival::PeersockUp) {
            true => build("peersock-cli", PROFILE)?,
            false => PathBuf::new(),
        },
        iroh: if rivals.contains(&Rival::Iroh) { build_iroh()? } else { PathBuf::new() },
        folder: Folder::new()?,
    };
    let mut runners = Vec::new();
    for rival in rivals {
        println!("starting {rival}");
        runners.push(lab.start(rival)?);
    }
    let machine = Machine::this();
    println!("{machine}");
    let mut watcher = Watcher::new(options.rounds.idle_only);
    let (measured, failures) = measure(options, &lab, &runners, &mut watcher);
    let conditions = report::conditions(options.rounds.reps, options.secs);
    let (table, summary) = (report::table(&measured), watcher.summary());
    println!("\n{conditions}\n\n{table}\n{summary}");
    for failure in &failures {
        println!("FAILED {failure}");
    }
    if let Some(path) = &options.rounds.json {
        report::write_json(&machine, &measured, path)?;
    }
    if let Some(path) = &options.write {
        let text = format!("{}\n{machine}\n{conditions}\n\n{table}\n{summary}", command_line());
        document::write(path, document::RIVALS, &text)?;
    }
    runners.into_iter().for_each(Runner::close);
    Ok(failures.is_empty())
}

/// Measures everything in turns. Returns the figures and the failed measurements.
fn measure(
    options: &Options,
    lab: &Lab,
    runners: &[Runner],
    watcher: &mut Watcher,
) -> (Figures<Rival>, Vec<String>) {
    let (mut measured, mut failures) = (Figures::default(), Vec::new());
    for round in 0..options.rounds.reps as usize {
        println!("round {} of {}", round + 1, options.rounds.reps);
        // Each rival is first in some round.
        for runner in runners.iter().cycle().skip(round % runners.len()).take(runners.len()) {
            for case in CASES.into_iter().filter(|case| runner.rival.takes(*case)) {
                match watcher.measure(|| lab.measure(runner, case, options.secs)) {
                    Ok((values, disturbance)) => {
                        for (quantity, value) in values {
                            measured.add(round, quantity, runner.rival, (value, disturbance));
                        }
                    }
                    Err(e) => {
                        println!("  {}, {case}: {e}", runner.rival);
                        failures.push(format!("round {}, {}, {case}: {e}", round + 1, runner.rival));
                    }
                }
            }
        }
    }
    // Measure memory at the end, when each rival has done the same work.
    for runner in runners {
        match runner.memory() {
            Ok(mib) => measured.add(0, Quantity::IdleRss, runner.rival, (mib, Default::default())),
            Err(e) => failures.push(format!("memory of {}: {e}", runner.rival)),
        }
    }
    (measured, failures)
}

/// Resources that all rivals need.
struct Lab {
    network: Testbed,
    /// Path of the load program.
    load: PathBuf,
    /// Path of the program `peersock`; empty if no rival needs it.
    peersock: PathBuf,
    /// Path of the load program over iroh; empty if iroh is not measured.
    iroh: PathBuf,
    folder: Folder,
}

/// A rival whose server runs.
struct Runner {
    rival: Rival,
    /// Tunnel that carries the packets; without processes if the rival is a library.
    tunnel: Tunnel,
    server: Process,
    /// Address at which clients find the server.
    address: String,
}

impl Runner {
    /// Returns the resident memory, in MiB, of the server side's network process, or of onetun.
    fn memory(&self) -> Result<f64> {
        let process = self.tunnel.carriers.last().unwrap_or(&self.server);
        let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no VmRSS")?;
        Ok(kib.trim().parse::<f64>()? / 1024.0)
    }

    fn close(self) {
        drop(self.server);
        self.tunnel.close();
    }
}

impl Lab {
    /// Starts a rival, and the server that its clients talk to.
    fn start(&self, rival: Rival) -> Result<Runner> {
        let tunnel = match rival.kind() {
            Kind::Library => Tunnel::none(&self.network),
            Kind::Tunnel(open) => open(self)?,
        };
        let (server, address) = tunnel::serve(rival, &tunnel, || self.load(rival, Side::B))?;
        // A forwarded port has another address on the client's side.
        let address = tunnel.entrance.clone().unwrap_or(address);
        Ok(Runner { rival, tunnel, server, address })
    }

    /// Returns the load program's command on one side, over the rival's own connections or over kernel
    /// sockets.
    fn load(&self, rival: Rival, side: Side) -> std::process::Command {
        let program = if rival == Rival::Iroh { &self.iroh } else { &self.load };
        let mut command = self.network.command(side, program);
        command.args(rival.words());
        if side == Side::B {
            command.args(rival.words_of_server());
        }
        command
    }

    /// Runs one case once.
    fn measure(&self, runner: &Runner, case: Case, secs: f64) -> Result<Vec<(Quantity, f64)>> {
        let (workload, options) = case.workload(secs).ok_or("no workload of a client alone")?;
        let mut command = self.load(runner.rival, Side::A);
        command.args(["client", &runner.address, workload]).args(options);
        let before = runner.tunnel.processor_time()?;
        let client = Process::spawn(&format!("the client, {}", runner.rival), command)?;
        let report: Value = serde_json::from_str(&client.finish(START_TIMEOUT)?)?;
        let used = runner.tunnel.processor_time()? - before;
        let mut values = figures(case, &report)?;
        for (_, value) in values.iter_mut().filter(|(quantity, _)| *quantity == Quantity::BothCpu) {
            *value += used / (report["bytes"].as_f64().ok_or("no bytes")? / 1e9);
        }
        Ok(values)
    }
}

/// Builds the load program over iroh, which is not in the workspace.
fn build_iroh() -> Result<PathBuf> {
    eprintln!("building peersock-bench-iroh");
    let target = root().join("target/rivals");
    let status = cargo()
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(root().join("labs/bench/iroh/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status()?;
    if status.success() {
        return Ok(target.join("release/peersock-bench-iroh"));
    }
    Err("peersock-bench-iroh does not build".into())
}

/// Writes a file for a rival, and returns its path.
fn file(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    Ok(path)
}
