//! `cargo xtask bench programs`: compares unmodified programs under `peersock run` with the same programs on
//! the kernel TCP, over the same link and interleaved round by round.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::figures::Measured;
use super::folder::Folder;
use super::idle::Watcher;
use super::lines::Lines;
use super::machine::Machine;
use super::network::{Mode, Side, Testbed};
use super::{PROFILE, Rounds, build};
use crate::Result;
use crate::process::Process;
use clap::Args;

/// Size of the file that curl fetches from nginx, in bytes.
const FILE_SIZE: u64 = 256 << 20;
/// Requests in one run of redis-benchmark.
const REQUESTS: &str = "60000";
/// Time within which a server has to answer, and a client has to finish.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Time within which a server must end after the request to end.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
const HTTP_PORT: u16 = 8080;
const REDIS_PORT: u16 = 6379;
const NETWORK: &str = "ff0400ffff000000";

/// Options of `bench programs`.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    rounds: Rounds,
}

/// Network that the programs use.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Kernel,
    Overlay,
}

/// Measured work.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Work {
    /// curl fetches a large file from nginx.
    Fetch,
    /// redis-benchmark's GET with 50 connections.
    Redis,
}

impl Work {
    fn name_and_unit(self) -> (&'static str, &'static str) {
        match self {
            Work::Fetch => ("curl_nginx_goodput", "Gbit/s"),
            Work::Redis => ("redis_get_rate", "1/s"),
        }
    }
}

/// Runs the benchmark and prints its table. Returns false if a program failed.
/// Fails if programs are missing, the link cannot be made, or a server does not start.
pub(crate) fn run(options: &Options) -> Result<bool> {
    for program in ["nginx", "curl", "redis-server", "redis-benchmark"] {
        if !has(program) {
            return Err(format!("{program} is missing (apt-get install nginx-light curl redis)").into());
        }
    }
    let (mode, reason) = Testbed::default_mode();
    if let Some(reason) = reason {
        return Err(format!("network namespaces are needed: {reason}").into());
    }
    let program = build("peersock-cli", PROFILE)?;
    let folder = Folder::new()?;
    let bench = Bench { network: Testbed::new(mode)?, program, folder };
    debug_assert_eq!(mode, Mode::Wire);
    let servers = bench.serve()?;
    let machine = Machine::this();
    println!("{machine}");
    let mut watcher = Watcher::new(options.rounds.idle_only);
    let mut values: Vec<((Work, Way), Vec<Measured>)> = Vec::new();
    let mut failed = false;
    for round in 1..=options.rounds.reps {
        println!("round {round} of {}", options.rounds.reps);
        for work in [Work::Fetch, Work::Redis] {
            for way in [Way::Kernel, Way::Overlay] {
                match watcher.measure(|| bench.measure(work, way, servers.address(way))) {
                    Ok(value) => match values.iter_mut().find(|(key, _)| *key == (work, way)) {
                        Some((_, values)) => values.push(value),
                        None => values.push(((work, way), vec![value])),
                    },
                    Err(e) => {
                        println!("FAILED {work:?} {way:?}: {e}");
                        failed = true;
                    }
                }
            }
        }
    }
    report(&values, &machine, options.rounds.json.as_deref())?;
    println!("\n{}", watcher.summary());
    Ok(!failed)
}

/// Prints the figures and the ratio of the two networks, and writes them.
fn report(values: &[((Work, Way), Vec<Measured>)], machine: &Machine, json: Option<&Path>) -> Result<()> {
    let mut lines = Lines::new(machine);
    for work in [Work::Fetch, Work::Redis] {
        let (name, unit) = work.name_and_unit();
        let of =
            |way| values.iter().find(|(key, _)| *key == (work, way)).map_or(&[][..], |(_, values)| values);
        let (kernel, overlay) = (of(Way::Kernel), of(Way::Overlay));
        lines.add(&format!("{name}.kernel"), unit, kernel);
        lines.add(&format!("{name}.peersock_run"), unit, overlay);
        lines.add_ratio(&format!("{name}.peersock_run_to_kernel"), overlay, kernel);
    }
    lines.write(json)
}

struct Bench {
    network: Testbed,
    /// Path of the program `peersock`.
    program: PathBuf,
    folder: Folder,
}

/// Servers of both networks. Dropping it ends them.
struct Servers {
    processes: Vec<Process>,
    kernel: IpAddr,
    overlay: IpAddr,
}

impl Servers {
    fn address(&self, way: Way) -> IpAddr {
        match way {
            Way::Kernel => self.kernel,
            Way::Overlay => self.overlay,
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.processes.drain(..).for_each(|process| process.end(ENDS_WITHIN));
    }
}

impl Bench {
    fn serve(&self) -> Result<Servers> {
        fs::File::create(self.folder.path().join("file"))?.set_len(FILE_SIZE)?;
        // Query the addresses first, which also makes the identities: a running node locks its directory.
        let overlay = self.address_of("nginx")?;
        self.address_of("redis")?;
        let mut processes = Vec::new();
        for way in [Way::Kernel, Way::Overlay] {
            let nginx = self.nginx(way)?;
            let redis = self.redis(way)?;
            for (name, arguments) in [("nginx", nginx), ("redis", redis)] {
                let command = self.command(Side::B, way, name, &arguments);
                processes.push(Process::spawn(&format!("{name}, {way:?}"), command)?);
            }
        }
        // Each program has a separate node with its own address. The client uses the address of the right
        // one.
        let kernel = self.network.address(Side::B);
        Ok(Servers { processes, kernel, overlay })
    }

    fn nginx(&self, way: Way) -> Result<Vec<String>> {
        let folder = self.folder.path().join(format!("nginx-{way:?}"));
        fs::create_dir_all(&folder)?;
        let config = format!(
            "daemon off; worker_processes 1; error_log stderr; pid {pid};
             events {{ }}
             http {{ access_log off; sendfile on; client_body_temp_path {body}; proxy_temp_path {body};
               fastcgi_temp_path {body}; uwsgi_temp_path {body}; scgi_temp_path {body};
               server {{ listen [::]:{HTTP_PORT} ipv6only=off; root {root}; }} }}",
            pid = folder.join("pid").display(),
            body = folder.join("temporary").display(),
            root = self.folder.path().display(),
        );
        let path = folder.join("nginx.conf");
        fs::write(&path, config)?;
        Ok(["nginx", "-c", &path.display().to_string(), "-p", &folder.display().to_string()]
            .map(str::to_owned)
            .into())
    }

    fn redis(&self, way: Way) -> Result<Vec<String>> {
        let folder = self.folder.path().join(format!("redis-{way:?}"));
        fs::create_dir_all(&folder)?;
        let port = REDIS_PORT.to_string();
        let folder = folder.display().to_string();
        let options =
            ["redis-server", "--port", &port, "--bind", "*", "-::*", "--protected-mode", "no", "--save", ""];
        Ok(options.into_iter().chain(["--dir", &folder]).map(str::to_owned).collect())
    }

    /// Returns a program's command on one side, under `peersock run` if it uses the overlay.
    fn command(&self, side: Side, way: Way, name: &str, arguments: &[String]) -> Command {
        match way {
            Way::Kernel => {
                let mut command = self.network.command(side, Path::new(&arguments[0]));
                command.args(&arguments[1..]);
                command
            }
            Way::Overlay => {
                let mut command = self.network.command(side, &self.program);
                command.args(["run", "--quiet", "-n", NETWORK, "--state"]).arg(self.state(name));
                command.arg("--").args(arguments);
                command
            }
        }
    }

    fn state(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("state-{name}"))
    }

    /// Returns the address of a node with this state.
    fn address_of(&self, name: &str) -> Result<IpAddr> {
        let mut command = Command::new(&self.program);
        command.args(["addr", NETWORK, "--state"]).arg(self.state(name));
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let found = text.split_whitespace().find_map(|word| word.parse().ok());
        found.ok_or_else(|| format!("no address in {text:?}").into())
    }

    fn measure(&self, work: Work, way: Way, address: IpAddr) -> Result<f64> {
        let address = match (work, way) {
            (Work::Redis, Way::Overlay) => self.address_of("redis")?,
            _ => address,
        };
        // The first attempts may come before the servers are up.
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match self.attempt(work, way, address) {
                Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(300)),
                result => return result,
            }
        }
    }

    fn attempt(&self, work: Work, way: Way, address: IpAddr) -> Result<f64> {
        let arguments = match work {
            Work::Fetch => {
                let host = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
                let url = format!("http://{host}:{HTTP_PORT}/file");
                [
                    "curl",
                    "-sS",
                    "--max-time",
                    "60",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{size_download} %{time_total}\\n",
                    &url,
                ]
                .map(str::to_owned)
                .to_vec()
            }
            Work::Redis => {
                let (host, port) = (address.to_string(), REDIS_PORT.to_string());
                [
                    "redis-benchmark",
                    "-h",
                    &host,
                    "-p",
                    &port,
                    "-t",
                    "get",
                    "-n",
                    REQUESTS,
                    "-c",
                    "50",
                    "-q",
                    "--csv",
                ]
                .map(str::to_owned)
                .to_vec()
            }
        };
        let command = self.command(Side::A, way, "client", &arguments);
        let last = Process::spawn(&format!("{}, {way:?}", arguments[0]), command)?.finish(START_TIMEOUT)?;
        let bad = || format!("cannot read {last:?}");
        match work {
            Work::Fetch => {
                let (size, time) = last.split_once(' ').ok_or_else(bad)?;
                let (size, time): (f64, f64) = (size.parse()?, time.parse()?);
                if size != FILE_SIZE as f64 {
                    return Err(format!("{size} bytes instead of {FILE_SIZE}").into());
                }
                Ok(size * 8.0 / time / 1e9)
            }
            // The line looks like "GET","71428.57",…
            Work::Redis => Ok(last.split('"').nth(3).ok_or_else(bad)?.parse()?),
        }
    }
}

/// Returns true if a program can be started.
pub(super) fn has(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok()
}
