//! The program behind `cargo xtask bench tcp`.
#![allow(clippy::print_stdout, reason = "a program whose results go to standard output")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use peersock_stack::CongestionControl;
use peersock_stack_lab::measure::{self, Case, Figure, Settings, catalogue, matches};

mod cpu;
mod rivals;

/// Measures peersock's TCP over impaired links in virtual time, and the cost of a packet.
///
/// All figures follow from the seeds and are the same on every machine, except those named `engine_…`,
/// `idle_flow_bytes` and `kernel`.
#[derive(Parser)]
#[command(
    name = "cargo xtask bench tcp",
    bin_name = "cargo xtask bench tcp",
    after_help = "Examples:
  cargo xtask bench tcp                                   everything, 20 seeds
  cargo xtask bench tcp --only 'goodput*100mbit*' --seeds 5 --secs 20
  cargo xtask bench tcp --only 'jain/*' --congestion cubic
  cargo xtask bench tcp --only cpu
  cargo xtask bench tcp --only 'kernel/*'                 beside CUBIC and BBR of the kernel, in real time, as root
  cargo xtask bench tcp --only 'kernel/*completion*' --seeds 2    only short transfers; two rounds instead of five
  cargo xtask bench tcp --only 'kernel/*goodput*' --secs 6        only goodput, over shorter times
  cargo xtask bench tcp --check --json tcp.jsonl
  cargo xtask bench tcp --soak 100000"
)]
struct Cli {
    /// Also write the figures to FILE, one JSON object per line: name, unit, min, median, max
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure only figures whose names match; `cpu` is short for `engine_*` and `idle_flow_bytes/*`
    #[arg(long, value_name = "GLOB", num_args = 1.., value_delimiter = ',')]
    only: Vec<String>,
    /// Number of seeds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Run each scenario for SECONDS [default: 60, at 1 Gbit/s 10, at 10 Gbit/s 1]
    #[arg(long, value_name = "SECONDS", value_parser = parse_secs)]
    secs: Option<f64>,
    /// Congestion control to measure
    #[arg(long, default_value_t = CongestionControl::default(), value_name = "bbr|bbr3|cubic|reno")]
    congestion: CongestionControl,
    /// Fail if a target is missed
    #[arg(long)]
    check: bool,
    /// Print the names of all figures and exit
    #[arg(long)]
    list: bool,
    /// Move random data over random links with N seeds instead of measuring; every byte must arrive
    #[arg(long, value_name = "N")]
    soak: Option<u64>,
    /// First seed of --soak
    #[arg(long, default_value_t = 1, requires = "soak")]
    first_seed: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(seeds) = cli.soak {
        return soak(cli.first_seed, seeds);
    }
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("FAILED {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<bool, String> {
    let chosen = Chosen::new(cli);
    if cli.list {
        chosen.names().for_each(|name| println!("{name}"));
        return Ok(true);
    }
    if chosen.names().next().is_none() {
        return Err("no figure has such a name; --list prints all".to_owned());
    }
    let figures = chosen.measure(cli)?;
    println!(
        "congestion control {}, {} seeds; payload of 1388 bytes in 1500 on the wire",
        cli.congestion, cli.seeds
    );
    print!("{}", measure::table(&figures));
    let judged = figures.iter().filter(|figure| figure.is_judged()).count();
    let missed = figures.iter().filter(|figure| !figure.is_ok()).count();
    println!("{missed} of {judged} figures with a target miss it");
    if let Some(path) = &cli.json {
        measure::write_json(&figures, path).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    Ok(missed == 0 || !cli.check)
}

/// Selected measurements.
struct Chosen {
    /// Cases in virtual time.
    cases: Vec<Case>,
    cpu: Vec<cpu::Case>,
    rivals: rivals::Trials,
}

impl Chosen {
    fn new(cli: &Cli) -> Self {
        let wanted = |name: &str| {
            let cost = cpu::PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            let fits = |glob: &String| matches(glob, name) || (glob == "cpu" && cost);
            cli.only.is_empty() || cli.only.iter().any(fits)
        };
        let mut cases = catalogue(cli.congestion);
        for case in &mut cases {
            case.measures.retain(|measure| wanted(&measure.name));
        }
        cases.retain(|case| !case.measures.is_empty());
        // The trials take minutes of real time, so they run only on request.
        let named = cli.list || cli.only.iter().any(|glob| glob.starts_with("kernel"));
        let rivals = if named { rivals::trials(wanted) } else { Vec::new() };
        Self { cases, cpu: cpu::cases().into_iter().filter(|case| wanted(&case.name)).collect(), rivals }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let measures = self.cases.iter().flat_map(|case| &case.measures);
        let cpu = self.cpu.iter().map(|case| case.name.as_str());
        let rivals = self.rivals.iter().flat_map(rivals::Trial::names);
        measures.map(|measure| measure.name.as_str()).chain(cpu).chain(rivals)
    }

    fn measure(self, cli: &Cli) -> Result<Vec<Figure>, String> {
        let settings = Settings { seeds: cli.seeds, secs: cli.secs };
        // Costs come first, while the process has used no memory and this thread has the machine for itself.
        let costs = cpu::run(&self.cpu);
        let total = self.cases.len();
        let done = AtomicUsize::new(0);
        let mut figures = measure::run(self.cases, settings, |case: &Case, figures: &[Figure]| {
            let number = done.fetch_add(1, Ordering::Relaxed) + 1;
            let medians: Vec<String> =
                figures.iter().map(|figure| format!("{:.3}", figure.median())).collect();
            eprintln!("{number}/{total} {}: {}", case.name, medians.join(", "));
        })?;
        figures.extend(costs);
        if !self.rivals.is_empty() {
            figures.extend(rivals::run(self.rivals, cli.congestion, cli.seeds, cli.secs)?);
        }
        Ok(figures)
    }
}

fn soak(first: u64, seeds: u64) -> ExitCode {
    let failures = peersock_stack_lab::soak::run(first, seeds, |done| eprintln!("{done} of {seeds} seeds"));
    for failure in &failures {
        println!("FAILED {failure}");
    }
    println!("{} passed, {} failed", seeds - failures.len() as u64, failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse_secs(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(secs) if (0.1..=3600.0).contains(&secs) => Ok(secs),
        _ => Err("a number from 0.1 to 3600".to_owned()),
    }
}
