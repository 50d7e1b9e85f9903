//! `cargo xtask bench`: measures all contenders in one run, interleaved round by round, so that a slowdown of
//! the machine affects all of them.
//!
//! [`network`] makes the link, and [`session`] starts servers and runs one client at a time. [`figures`]
//! keeps the results, [`table`] prints them and [`picture`] draws them. The load itself is the program
//! `peersock-bench`. [`idle`] checks if the machine was idle otherwise.
//!
//! `cargo xtask bench tcp` passes its arguments to the program `peersock-stack-lab`, `cargo xtask bench root`
//! to `peersock-root-lab`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

mod document;
mod figures;
mod folder;
mod idle;
mod lines;
mod machine;
mod network;
mod offload;
mod picture;
mod processor_time;
mod programs;
mod python;
mod rivals;
mod session;
mod stages;
mod table;

use figures::{Contender, Figures};
use idle::{LIMIT, WINDOW, Watch, Watcher};
use machine::Machine;
use network::{Mode, Testbed};
use session::{Case, Session};

use crate::{Result, cargo};

/// Text for `--help`.
pub(crate) const EXAMPLES: &str = "Examples:
  cargo xtask bench                                   everything, 5 rounds; as root in wire mode, else on loopback
  cargo xtask bench --only limit,peersock --case stream1 --secs 5
  cargo xtask bench --mode gso --json results.jsonl
  cargo xtask bench --idle-only --write docs/measured/FIGURES.txt --svg docs/measured/performance.svg
  cargo xtask bench programs                          curl, nginx and redis under peersock run; needs root
  cargo xtask bench rivals                            peersock, iroh, WireGuard and others; needs root
  cargo xtask bench rivals --only kernel,peersock-up,wireguard-go
  cargo xtask bench stages                            the cost of a packet, stage by stage; needs root and perf
  cargo xtask bench python                            the Python package, on loopback
  cargo xtask bench udp-server                        a UDP server with 1,000 clients, in one process
  cargo xtask bench growth --members 100000           the cost of a packet with many members, peers and networks
  cargo xtask bench crowd --peers 1000                nodes that connect to one node at once, which is stopped
  cargo xtask bench root relay                        the relays of a root and coturn, on loopback
  cargo xtask bench root nodes                        the cost of 50,000 registered nodes for a root
  cargo xtask bench tcp --help                        TCP alone, over impaired links in virtual time";

/// Options of `bench`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    alone: Option<Alone>,
    /// Also draw the main figures into FILE
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Also write the table into the document FILE, between its lines <!-- bench --> and <!-- /bench -->
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    #[command(flatten)]
    rounds: Rounds,
    /// Run each bulk transfer for SECONDS; the other cases take a part of that
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = parse_secs)]
    secs: f64,
    /// Link between the two sides [default: wire if root, else loopback]
    #[arg(long)]
    mode: Option<Mode>,
    /// Measure only these contenders
    #[arg(long, value_delimiter = ',', value_name = "CONTENDER,…")]
    only: Vec<Contender>,
    /// Profile of Cargo.toml to build with: `dist` as for packages, `release` without link-time optimisation
    #[arg(long, default_value = PROFILE)]
    profile: String,
    /// Run only these cases
    #[arg(long, value_delimiter = ',', value_name = "CASE,…")]
    case: Vec<Case>,
}

/// Number of rounds, and file for their figures.
#[derive(Args)]
struct Rounds {
    /// Number of rounds; figures to quote need at least 5
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    reps: u32,
    /// Also write the figures to FILE, one JSON object per line
    ///
    /// Each line has name, unit, min, median, max, and the number of rounds that were not idle; the first
    /// line describes the machine.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Repeat measurements on a busy machine, at most TIMES (5 without a number)
    ///
    /// Figures that stay disturbed are counted and marked.
    #[arg(long, value_name = "TIMES", num_args = 0..=1, require_equals = true)]
    #[arg(default_value_t = 0, default_missing_value = "5", hide_default_value = true)]
    idle_only: u32,
}

/// Separate measurement.
#[derive(Subcommand)]
enum Alone {
    /// Measure TCP over impaired links in virtual time
    #[command(disable_help_flag = true)]
    Tcp {
        /// Options of the measuring program; `--help` explains them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
        options: Vec<OsString>,
    },
    /// Measure a root: its relay compared with coturn's, and the cost of many nodes
    #[command(disable_help_flag = true)]
    Root {
        /// Options of the measuring program; `--help` explains them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
        options: Vec<OsString>,
    },
    /// Measure a UDP server with many clients that take turns, all in one process
    #[command(disable_help_flag = true)]
    UdpServer {
        /// Options of the measuring program; `--help` explains them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
        options: Vec<OsString>,
    },
    /// Measure how the cost of a packet grows with members, peers and networks, all in one process
    #[command(disable_help_flag = true)]
    Growth {
        /// Options of the measuring program; `--help` explains them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
        options: Vec<OsString>,
    },
    /// Measure many nodes that connect to one node at once, and the effect of stopping that node for a while
    #[command(disable_help_flag = true)]
    Crowd {
        /// Options of the measuring program; `--help` explains them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
        options: Vec<OsString>,
    },
    /// Measure unmodified programs under peersock run: curl with nginx, redis-benchmark with redis
    Programs(programs::Options),
    /// Measure alternatives to peersock: QUIC by quinn and iroh, WireGuard in programs, virtual networks
    Rivals(rivals::Options),
    /// Measure the cost of a packet of one stream, stage by stage, with perf(1)
    Stages(stages::Options),
    /// Measure the Python package and Python's own sockets, on loopback
    Python(python::Options),
}

/// Options of the hidden command that sets offloads.
#[derive(Args)]
pub(crate) struct OffloadOptions {
    /// Network device
    device: String,
    /// NAME=on or NAME=off, with the names of the kernel
    #[arg(value_parser = parse_feature)]
    features: Vec<(String, bool)>,
}

/// Runs the benchmark and prints its table. Returns false if a measurement failed.
///
/// # Errors
///
/// The load program does not build, the link or a server cannot be set up, or the document has no place for
/// the table.
pub(crate) fn run(options: &Options) -> Result<bool> {
    match &options.alone {
        Some(Alone::Tcp { options }) => {
            let program = build("peersock-stack-lab", PROFILE)?;
            return Ok(Command::new(program).args(options).status()?.success());
        }
        Some(Alone::Root { options }) => {
            let program = build("peersock-root-lab", PROFILE)?;
            return run_watched(Command::new(program).args(options));
        }
        Some(Alone::UdpServer { options }) => return alone("udp-server", options),
        Some(Alone::Growth { options }) => return alone("growth", options),
        Some(Alone::Crowd { options }) => return alone("crowd", options),
        Some(Alone::Programs(options)) => return programs::run(options),
        Some(Alone::Rivals(options)) => return rivals::run(options),
        Some(Alone::Stages(options)) => return stages::run(options),
        Some(Alone::Python(options)) => return python::run(options),
        None => {}
    }
    // Check it before minutes of measuring.
    options.write.as_deref().map_or(Ok(()), |path| document::check(path, document::BENCH))?;
    let program = build("peersock-bench", &options.profile)?;
    let (default_mode, reason) = Testbed::default_mode();
    let mode = options.mode.unwrap_or(default_mode);
    if let (None, Some(reason)) = (options.mode, reason) {
        println!("loopback mode: {reason}");
    }
    let network = Testbed::new(mode)?;
    let (machine, conditions) = (Machine::this(), conditions(options, &network));
    println!("{machine}\n{conditions}");

    let mut watcher = Watcher::new(options.rounds.idle_only);
    let (figures, failures) = measure(options, &network, &program, &mut watcher)?;
    let (table, summary) = (table::table(&figures, mode), watcher.summary());
    println!("\n{table}\n{summary}");
    for failure in &failures {
        println!("FAILED {failure}");
    }
    if let Some(path) = &options.rounds.json {
        let head = json!({
            "machine": machine.json(), "conditions": conditions,
            "measurements": watcher.counted.len(), "not_idle": watcher.counted.not_idle(),
            "not_idle_from_percent": LIMIT * 100.0, "repeated": watcher.repeated,
        });
        table::write_json(&head, &figures, path)?;
    }
    if !failures.is_empty() {
        if options.svg.is_some() || options.write.is_some() {
            println!("neither the picture nor the document is written: something was not measured");
        }
        return Ok(false);
    }
    if let Some(path) = &options.svg {
        fs::write(path, picture::svg(&figures, &machine.to_string(), &conditions))
            .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    if let Some(path) = &options.write {
        let text = format!("{}\n{machine}\n{conditions}\n\n{table}\n{summary}", command_line());
        document::write(path, document::BENCH, &text)?;
    }
    Ok(true)
}

/// Measures everything in turns. Returns the figures and the failed measurements.
fn measure(
    options: &Options,
    network: &Testbed,
    program: &Path,
    watcher: &mut Watcher,
) -> Result<(Figures, Vec<String>)> {
    let contenders: Vec<_> = chosen(&Contender::ALL, &options.only);
    let cases: Vec<_> = chosen(Case::value_variants(), &options.case);
    let mut session = Session::start(network, program, &contenders)?;
    let mut figures = Figures::default();
    let mut failures = Vec::new();
    for round in 0..options.rounds.reps as usize {
        println!("round {} of {}", round + 1, options.rounds.reps);
        for &case in &cases {
            // Each contender is first in some round.
            for i in 0..contenders.len() {
                let contender = contenders[(round + i) % contenders.len()];
                if !case.applies_to(contender) {
                    continue;
                }
                match watcher.measure(|| session.measure(case, contender, options.secs)) {
                    Ok((values, disturbance)) => {
                        if !disturbance.is_idle() {
                            println!("  {contender}, {case}: not idle: {disturbance}");
                        }
                        for (quantity, value) in values {
                            figures.add(round, quantity, contender, (value, disturbance));
                        }
                    }
                    Err(e) => {
                        println!("  {contender}, {case}: {e}");
                        failures.push(format!("round {}, {contender}, {case}: {e}", round + 1));
                    }
                }
            }
        }
    }
    Ok((figures, failures))
}

/// Runs a part of the load program that has no contender.
fn alone(part: &str, options: &[OsString]) -> Result<bool> {
    run_watched(Command::new(build("peersock-bench", PROFILE)?).arg(part).args(options))
}

/// Runs a program that prints its own figures. Then prints the machine, and whether it was idle otherwise.
fn run_watched(command: &mut Command) -> Result<bool> {
    let watch = Watch::start()?;
    let success = command.status()?.success();
    // A program that ends sooner has measured nothing, and only printed a help or an error.
    if watch.elapsed() >= WINDOW {
        let disturbance = watch.finish()?;
        let verdict = if disturbance.is_idle() { "idle but for this" } else { "NOT IDLE" };
        println!("\n{}\nThe machine was {verdict}, on average: {disturbance}", Machine::this());
    }
    Ok(success)
}

/// Sets a device's offloads.
/// Fails if the kernel refuses.
pub(crate) fn set_offloads(options: &OffloadOptions) -> Result<()> {
    let features: Vec<_> = options.features.iter().map(|(name, on)| (name.as_str(), *on)).collect();
    offload::set_features(&options.device, &features)
        .map_err(|e| format!("cannot set the offloads of {}: {e}", options.device).into())
}

fn parse_secs(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(secs) if (0.1..=30.0).contains(&secs) => Ok(secs),
        _ => Err("a number from 0.1 to 30".to_owned()),
    }
}

fn parse_feature(text: &str) -> std::result::Result<(String, bool), String> {
    match text.split_once('=') {
        Some((name, "on")) => Ok((name.to_owned(), true)),
        Some((name, "off")) => Ok((name.to_owned(), false)),
        _ => Err("NAME=on or NAME=off".to_owned()),
    }
}

/// Profile of Cargo.toml for the measured programs: as in packages, with link-time optimisation.
const PROFILE: &str = "dist";

/// Builds the program of a package and returns its path.
fn build(package: &str, profile: &str) -> Result<PathBuf> {
    artifact(package, profile, |message| message.get("executable")?.as_str().map(PathBuf::from))
}

/// Builds a package and returns the last file that `pick` finds in cargo's messages.
fn artifact(package: &str, profile: &str, pick: impl Fn(&Value) -> Option<PathBuf>) -> Result<PathBuf> {
    eprintln!("building {package} with the profile {profile}");
    let output = cargo()
        .args(["build", "--profile", profile, "--package", package])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("{package} does not build").into());
    }
    String::from_utf8(output.stdout)?
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| pick(&message))
        .next_back()
        .ok_or_else(|| format!("cargo has built nothing of {package}").into())
}

/// Returns the named items, or all if none were named.
fn chosen<T: Copy + PartialEq>(all: &[T], named: &[T]) -> Vec<T> {
    all.iter().copied().filter(|item| named.is_empty() || named.contains(item)).collect()
}

fn conditions(options: &Options, network: &Testbed) -> String {
    let link = match network.mode() {
        Mode::Wire => "wire: veth pair, MTU 1500, no segmentation offload, GRO at the receiver",
        Mode::Gso => "gso: veth pair, MTU 1500, batches of 64 KB cross whole",
        Mode::Loopback => "loopback interface",
    };
    let secs = options.secs;
    let profile = &options.profile;
    format!(
        "{link}; rounds: {}, each transfer {secs} s; built with the profile {profile}",
        options.rounds.reps
    )
}

/// Returns the command line of this run, so that others can repeat it.
fn command_line() -> String {
    let arguments = std::env::args_os().skip(1);
    arguments.fold("cargo xtask".to_owned(), |line, argument| format!("{line} {}", argument.display()))
}
