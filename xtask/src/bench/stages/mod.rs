//! `cargo xtask bench stages`: measures the cost of a packet of one stream, by stage, on both sides.
//!
//! perf(1) samples each processor many times a second while one stream runs at full speed. [`samples`] reads
//! the samples, [`stage`] assigns them to stages, and the link's counters give the number of packets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::figures::Contender;
use super::folder::Folder;
use super::idle::Watcher;
use super::machine::Machine;
use super::network::Testbed;
use super::programs::has;
use super::session::{Case, Session};
use super::{build, chosen, command_line, document, parse_secs};
use crate::Result;
use crate::process::Process;

mod samples;
mod stage;

use samples::{Sample, read};
use stage::Stage;

/// Samples per second and processor. It is prime, so that periodic work is not always sampled at the same
/// place.
const FREQUENCY: u32 = 1999;
/// Time within which a stream reaches its speed.
const SETTLED: Duration = Duration::from_millis(700);
/// Time in seconds that a stream runs beyond the sampling. perf finishes its own work in that time.
const AROUND: f64 = 3.0;
/// Time after the planned end within which a client has to finish.
const FINISH_TIMEOUT: Duration = Duration::from_secs(60);
/// Contenders that carry one stream, sampled unless others are named.
const USUAL: [Contender; 4] =
    [Contender::Peersock, Contender::PeersockFd, Contender::Limit, Contender::Kernel];

/// Options of `bench stages`.
#[derive(Args)]
pub(crate) struct Options {
    /// Observe each stream for SECONDS
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = parse_secs)]
    secs: f64,
    /// Observe only these contenders
    #[arg(long, value_delimiter = ',', value_name = "CONTENDER,…")]
    only: Vec<Contender>,
    /// Repeat measurements on a busy machine, at most TIMES (5 without a number)
    #[arg(long, value_name = "TIMES", num_args = 0..=1, require_equals = true)]
    #[arg(default_value_t = 0, default_missing_value = "5", hide_default_value = true)]
    idle_only: u32,
    /// Also write the table into the document FILE, between its lines <!-- stages --> and <!-- /stages -->
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

/// User of a processor.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Side {
    Sender,
    Receiver,
    /// Kernel threads that work for both.
    Kernel,
}

/// Result of sampling one stream.
struct Profile {
    contender: Contender,
    gbps: f64,
    /// Packets per second that the sender puts on the link.
    packets_per_s: f64,
    /// Nanoseconds per packet.
    costs: BTreeMap<(Stage, Side), f64>,
}

/// Measures and prints the table. Always returns true, because a failure is an error.
/// Fails if perf(1) is missing or has no permission, namespaces are not available, or a stream fails.
pub(crate) fn run(options: &Options) -> Result<bool> {
    options.write.as_deref().map_or(Ok(()), |path| document::check(path, document::STAGES))?;
    if !has("perf") {
        return Err("the program perf is missing (apt-get install linux-perf)".into());
    }
    let (mode, reason) = Testbed::default_mode();
    if let Some(reason) = reason {
        return Err(format!("network namespaces are needed: {reason}").into());
    }
    let contenders = if options.only.is_empty() { USUAL.to_vec() } else { chosen(&USUAL, &options.only) };
    if contenders.is_empty() {
        return Err("none of these carries one stream in its own way".into());
    }
    let (network, program, folder) =
        (Testbed::new(mode)?, build("peersock-bench", "profiling")?, Folder::new()?);
    let session = Session::start(&network, &program, &contenders)?;
    let machine = Machine::this();
    println!("{machine}");
    let mut watcher = Watcher::new(options.idle_only);
    let mut profiles = Vec::new();
    for contender in contenders {
        println!("looking at {contender}");
        let (profile, _) = watcher.measure(|| profile(&session, contender, options.secs, &folder))?;
        profiles.push(profile);
    }
    let conditions = format!(
        "wire: veth pair, MTU 1500; one stream, looked at {FREQUENCY} times a second and processor for {} s",
        options.secs
    );
    let (table, summary) = (table(&profiles), watcher.summary());
    println!("\n{conditions}\n\n{table}\n{summary}");
    if let Some(path) = &options.write {
        let text = format!("{}\n{machine}\n{conditions}\n\n{table}\n{summary}", command_line());
        document::write(path, document::STAGES, &text)?;
    }
    Ok(true)
}

/// Runs one stream and samples it.
fn profile(session: &Session<'_>, contender: Contender, secs: f64, folder: &Folder) -> Result<Profile> {
    let file = folder.path().join("perf.data");
    let looked_at = secs + 2.0 * SETTLED.as_secs_f64();
    let (client, server) = session.begin(Case::Stream1, contender, looked_at + AROUND)?;
    thread::sleep(SETTLED);
    let mut perf = Command::new("perf");
    perf.args(["record", "--all-cpus", "--event", "cpu-clock", "--call-graph", "fp", "--quiet"]);
    perf.args(["--freq", &FREQUENCY.to_string(), "--output"]).arg(&file);
    // perf prints nothing, but a process here has to print something at the end.
    perf.args(["--", "sh", "-c", &format!("sleep {looked_at}; echo done")]);
    let perf = Process::spawn("perf record", perf)?;
    // perf takes a while to start.
    thread::sleep(SETTLED);
    let (begin, before) = (Instant::now(), sent_packets(client.id())?);
    thread::sleep(Duration::from_secs_f64(secs));
    let packets_per_s = (sent_packets(client.id())? - before) as f64 / begin.elapsed().as_secs_f64();
    perf.finish(FINISH_TIMEOUT)?;
    let sender = client.id();
    let report: Value = serde_json::from_str(&client.finish(FINISH_TIMEOUT)?)?;
    let gbps = report["gbps"].as_f64().ok_or("the client says no goodput")?;
    let samples = read(&file)?;
    let each = 1e9 / f64::from(FREQUENCY) / (packets_per_s * looked_at);
    Ok(Profile { contender, gbps, packets_per_s, costs: costs(&samples, sender, server, each) })
}

/// Returns the sum of the samples of each stage and side, with each sample worth `each`.
fn costs(samples: &[Sample], sender: u32, receiver: u32, each: f64) -> BTreeMap<(Stage, Side), f64> {
    let mut costs = BTreeMap::new();
    for sample in samples {
        let side = match sample.process {
            process if process == sender => Side::Sender,
            process if process == receiver => Side::Receiver,
            _ if sample.is_kernel_thread() => Side::Kernel,
            _ => continue,
        };
        *costs.entry((Stage::of(sample), side)).or_default() += each;
    }
    costs
}

/// Returns the number of packets that a process's network devices have sent, without loopback.
fn sent_packets(process: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/net/dev"))?;
    sent(&text).ok_or_else(|| "/proc/PID/net/dev is not as proc(5) has it".into())
}

/// Sums column 10 of /proc/net/dev over all devices except loopback.
fn sent(text: &str) -> Option<u64> {
    let devices = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    devices
        .filter(|(name, _)| name.trim() != "lo")
        .map(|(_, columns)| columns.split_whitespace().nth(9)?.parse::<u64>().ok())
        .sum()
}

/// Makes the table: a row per stage, two columns per contender.
fn table(profiles: &[Profile]) -> String {
    let mut out = format!("{:<32}", "nanoseconds a packet");
    // Writing to a string cannot fail.
    for profile in profiles {
        let _ = write!(out, " {:>23}", profile.contender.to_string());
    }
    let _ = write!(out, "\n{:<32}", "");
    for _ in profiles {
        let _ = write!(out, " {:>11} {:>11}", "sender", "receiver");
    }
    out.push('\n');
    let cost = |profile: &Profile, stage, side| profile.costs.get(&(stage, side)).copied().unwrap_or(0.0);
    for stage in Stage::ALL {
        let is_seen = |profile: &Profile| profile.costs.keys().any(|(seen, _)| *seen == stage);
        if !profiles.iter().any(is_seen) {
            continue;
        }
        let _ = write!(out, "{:<32}", stage.to_string());
        for profile in profiles {
            for side in [Side::Sender, Side::Receiver] {
                let _ = write!(out, " {:>11.0}", cost(profile, stage, side));
            }
        }
        out.push('\n');
    }
    let _ = write!(out, "{:<32}", "together");
    let sum = |profile: &Profile, wanted| -> f64 {
        profile.costs.iter().filter(|((_, side), _)| *side == wanted).map(|(_, cost)| cost).sum()
    };
    for profile in profiles {
        for side in [Side::Sender, Side::Receiver] {
            let _ = write!(out, " {:>11.0}", sum(profile, side));
        }
    }
    let _ = write!(out, "\n{:<32}", "threads of the kernel");
    for profile in profiles {
        let _ = write!(out, " {:>23.0}", sum(profile, Side::Kernel));
    }
    let _ = write!(out, "\n{:<32}", "packets of the sender a second");
    for profile in profiles {
        let _ = write!(out, " {:>23.0}", profile.packets_per_s);
    }
    let _ = write!(out, "\n{:<32}", "goodput, Gbit/s");
    for profile in profiles {
        let _ = write!(out, " {:>23.2}", profile.gbps);
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_all_devices_but_loopback_count() {
        let text = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls
    lo: 1 2 0 0 0 0 0 0 1 1000 0 0 0 0 0 0
 veth0: 7 8 0 0 0 0 0 0 9 33 0 0 0 0 0 0
  eth1:7 8 0 0 0 0 0 0 9 4 0 0 0 0 0 0
";
        assert_eq!(sent(text), Some(37));
        assert_eq!(sent("a\nb\n veth0: 1 2\n"), None);
    }

    #[test]
    fn each_side_has_its_own_costs_and_other_programs_have_none() {
        let sample = |process, name: &str| Sample::of(process, &[(name, "/bin/x")]);
        let samples = [
            sample(1, "memcpy"),
            sample(1, "memcpy"),
            sample(2, "memcpy"),
            sample(3, "memcpy"),
            Sample::of(4, &[("net_rx_action", "[kernel.kallsyms]"), ("kthread", "[kernel.kallsyms]")]),
        ];
        let costs = costs(&samples, 1, 2, 10.0);
        let expected = [
            ((Stage::Copy, Side::Sender), 20.0),
            ((Stage::Copy, Side::Receiver), 10.0),
            ((Stage::Link, Side::Kernel), 10.0),
        ];
        assert_eq!(costs, BTreeMap::from(expected));
        let profile = Profile { contender: Contender::Peersock, gbps: 4.5, packets_per_s: 5e5, costs };
        let table = table(&[profile]);
        let row = |name: &str| {
            let line = table.lines().find(|line| line.starts_with(name)).expect("a row");
            line[name.len()..].split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(row(&Stage::Copy.to_string()), ["20", "10"]);
        assert_eq!(row("together"), ["20", "10"]);
        assert_eq!(row("threads of the kernel"), ["10"]);
        assert!(!table.contains(&Stage::Cipher.to_string()), "a row of nothing: {table}");
    }
}
