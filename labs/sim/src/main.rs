//! `peersock-sim`: runs many seeds, repeats one, plays managed networks, and measures the table of cells.

mod cells_command;
mod managed_command;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};

use peersock_sim::managed::Managed;
use peersock_sim::scenario::{Report, Scenario};

/// Runs peersock nodes in a simulated network, in virtual time. Every seed is one story of hosts, links,
/// faults and programs; the same seed always gives the same story.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run many seeds and report which fail.
    Run {
        /// Number of seeds.
        #[arg(long, default_value_t = 2000)]
        seeds: u64,
        /// First seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Start no further seed after SECONDS.
        #[arg(long, value_name = "SECONDS")]
        time_limit: Option<u64>,
        /// Number of seeds at a time; by default the number of processors.
        #[arg(long)]
        jobs: Option<usize>,
        /// Print a line for every seed.
        #[arg(long)]
        verbose: bool,
    },
    /// Play stories of managed networks, and let controllers of many members be away.
    Managed {
        /// Number of seeds.
        #[arg(long, default_value_t = 3)]
        seeds: u64,
        /// First seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Number of members of each story.
        #[arg(long, default_value_t = 200, value_parser = enough_members)]
        members: usize,
        /// Number of acts of random order between those that every story has; by default all.
        #[arg(long)]
        acts: Option<usize>,
        /// Number of members of the controllers that are away.
        #[arg(long, default_value_t = 10_000)]
        fleet: usize,
        /// Number of seeds at a time; by default the number of processors.
        #[arg(long)]
        jobs: Option<usize>,
        /// Print every event.
        #[arg(long)]
        trace: bool,
    },
    /// Measure every cell of the table of NAT boxes, and write the table.
    Cells {
        /// Number of seeds for each cell.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// Write the table into FILE instead of printing it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Measure only cells with a side of this KIND; with two kinds, only their cells.
        #[arg(long, value_name = "KIND", num_args = 1..=2)]
        only: Vec<String>,
        /// Number of seeds at a time; by default the number of processors.
        #[arg(long)]
        jobs: Option<usize>,
    },
    /// Repeat one seed of one cell.
    Cell {
        /// Kind of one side.
        first: String,
        /// Kind of the other side.
        second: String,
        /// Seed to repeat.
        seed: u64,
        /// Print every event.
        #[arg(long)]
        trace: bool,
    },
    /// Repeat one seed of two nodes behind one box; NAME is that of the table of cells.
    Together {
        /// Property that the two nodes share.
        name: String,
        /// Seed to repeat.
        seed: u64,
        /// Print every event.
        #[arg(long)]
        trace: bool,
    },
    /// Repeat one seed.
    Replay {
        /// Seed to repeat.
        seed: u64,
        /// Print every event.
        #[arg(long)]
        trace: bool,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { seeds, from, time_limit, jobs, verbose } => {
            let limit = time_limit.map(Duration::from_secs);
            run(from..from.saturating_add(seeds), limit, or_processors(jobs), verbose)
        }
        Command::Cells { seeds, out, only, jobs } => {
            cells_command::measure(seeds, out.as_deref(), &only, or_processors(jobs))
        }
        Command::Managed { seeds, from, members, acts, fleet, jobs, trace } => {
            let seeds = from..from.saturating_add(seeds);
            let usual = Managed { trace, ..Managed::new(from, members) };
            let told = Managed { acts: acts.unwrap_or(usual.acts), ..usual };
            let (passed, failed) = managed_command::run(seeds, &told, fleet, or_processors(jobs));
            finish(passed, failed)
        }
        Command::Together { name, seed, trace } => cells_command::again_together(&name, seed, trace),
        Command::Cell { first, second, seed, trace } => cells_command::again([&first, &second], seed, trace),
        Command::Replay { seed, trace } => {
            let report = Scenario { trace, ..Scenario::new(seed) }.run();
            describe(&report);
            finish(u64::from(report.violation.is_none()), u64::from(report.violation.is_some()))
        }
    }
}

/// Reads the number of members of a story.
fn enough_members(text: &str) -> Result<usize, String> {
    let members: usize = text.parse().map_err(|error| format!("{error}"))?;
    match members >= Managed::LEAST_MEMBERS {
        true => Ok(members),
        false => Err(format!("a story removes many members, so it needs {} or more", Managed::LEAST_MEMBERS)),
    }
}

fn or_processors(jobs: Option<usize>) -> usize {
    let jobs = jobs.or_else(|| std::thread::available_parallelism().ok().map(usize::from));
    jobs.unwrap_or(1).max(1)
}

fn run(seeds: std::ops::Range<u64>, limit: Option<Duration>, jobs: usize, verbose: bool) -> ExitCode {
    // A panic in a scenario becomes a violation. The default hook would print it amid the progress.
    std::panic::set_hook(Box::new(|_| ()));
    let started = Instant::now();
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let (sender, reports) = mpsc::channel();
    let mut totals = Totals::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, next, stop, end) = (sender.clone(), &next, &stop, seeds.end);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || sender.send(Scenario::new(seed).run()).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for report in reports {
            totals.add(&report);
            if verbose || report.violation.is_some() {
                describe(&report);
            }
            if totals.runs % 250 == 0 {
                totals.print(started.elapsed());
            }
            if limit.is_some_and(|limit| started.elapsed() >= limit) {
                stop.store(true, Ordering::Relaxed);
            }
        }
    });
    totals.print(started.elapsed());
    finish(totals.runs - totals.failed, totals.failed)
}

#[derive(Default)]
struct Totals {
    runs: u64,
    failed: u64,
    virtual_time: Duration,
    bytes: u64,
    sent: u64,
    /// Seeds with an adversary.
    attacked: u64,
    /// Number of seeds in which some node, and in which every node, must end up without any connection.
    idle: (u64, u64),
    slowest_recovery: (Duration, u64),
}

impl Totals {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.failed += u64::from(report.violation.is_some());
        self.virtual_time += report.virtual_time;
        self.bytes += report.bytes;
        self.sent += report.sent;
        let (idle, running) = report.idle;
        self.idle.0 += u64::from(idle > 0);
        self.idle.1 += u64::from(idle > 0 && idle == running);
        self.attacked += u64::from(report.intrusions > 0);
        self.slowest_recovery = self.slowest_recovery.max((report.recovery, report.seed));
    }

    fn print(&self, elapsed: Duration) {
        let (recovery, seed) = self.slowest_recovery;
        eprintln!(
            "{} seeds in {:.1} s ({:.1}/s), {} failed; {:.1} h of virtual time, {} MB of streams checked, {} datagrams; \
             {} with an adversary; nothing left on some node in {}, on all in {}; slowest recovery {:.1} s (seed {seed})",
            self.runs,
            elapsed.as_secs_f64(),
            self.runs as f64 / elapsed.as_secs_f64().max(0.001),
            self.failed,
            self.virtual_time.as_secs_f64() / 3600.0,
            self.bytes / 1_000_000,
            self.sent,
            self.attacked,
            self.idle.0,
            self.idle.1,
            recovery.as_secs_f64(),
        );
    }
}

fn describe(report: &Report) {
    eprintln!(
        "seed {}: {} nodes, {} roots, {} faults, {:.1} s, {} of {} conversations, {} bytes, {} UDP datagrams, \
         {} sessions, {} datagrams on the wire, {} of an adversary, recovery {:.2} s, hash {:016x}",
        report.seed,
        report.nodes,
        report.roots,
        report.faults,
        report.virtual_time.as_secs_f64(),
        report.conversations.0,
        report.conversations.1,
        report.bytes,
        report.datagrams,
        report.sessions,
        report.sent,
        report.intrusions,
        report.recovery.as_secs_f64(),
        report.hash,
    );
    if let Some(violation) = &report.violation {
        eprintln!("seed {} FAILED: {violation}", report.seed);
        eprintln!("  replay it: cargo run --release -p peersock-sim -- replay {} --trace", report.seed);
    }
}

#[expect(clippy::print_stdout, reason = "the last line is the program's result")]
fn finish(passed: u64, failed: u64) -> ExitCode {
    println!("{passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}
