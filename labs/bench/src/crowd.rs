//! Many nodes of one process that connect to one of another, all at once, with a connection to each; then
//! that one stands still for a while, and later other processes keep all processors busy. How long it takes
//! until all are connected, what fails, and how much comes in each second after both.

use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use peersock::overlay::Identity;
use peersock::{IdentitySource, Interfaces, Network, Node, Seed, TcpListener, TcpStream};
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::workload::memory::raise_descriptor_limit;

/// Options of this benchmark.
#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    side: Option<Side>,
    /// Number of nodes that connect; each has two threads and some ten descriptors
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=5000))]
    peers: u16,
    /// Stop the node that they connect to for SECONDS
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(..=60))]
    stall: u64,
    /// Keep the processors busy for SECONDS with other processes
    #[arg(long, value_name = "SECONDS", default_value_t = 6, value_parser = clap::value_parser!(u64).range(..=60))]
    busy: u64,
    /// Number of busy processes per processor
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=50))]
    burners: u8,
}

#[derive(Subcommand)]
enum Side {
    /// Run the node that all others connect to (started by the other side)
    #[command(hide = true)]
    Hub { port: u16, peers: u16 },
    /// Keep a processor busy for SECONDS (started by the other side)
    #[command(hide = true)]
    Burn { seconds: u64 },
}

/// The printed result. Every peer sends 1,000 bytes a second. Each share is what came in one second, of what
/// is sent in one; what has waited comes in the first of them.
#[derive(Serialize)]
struct Report {
    kind: &'static str,
    peers: u16,
    /// Number of connections that failed.
    failed: usize,
    /// Seconds until the last connection was established.
    connected_s: f64,
    /// The seconds before the standstill.
    share_before: Vec<f64>,
    /// The seconds after it.
    share_after_stall: Vec<f64>,
    /// The seconds in which the machine is busy.
    share_while_busy: Vec<f64>,
    /// The seconds after that.
    share_after_busy: Vec<f64>,
}

/// Seconds that are looked at before the standstill.
const SECONDS_BEFORE: u64 = 5;

/// Seconds that are looked at after the standstill, and after the machine was busy.
const SECONDS_AFTER: u64 = 10;

/// TCP port of the hub in the network.
const PORT: u16 = 2000;

/// Time from one line of the hub to the next.
const LINES: Duration = Duration::from_millis(250);

/// Measures, and prints one JSON object.
/// Fails if the system cannot start the nodes for lack of threads or descriptors.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match options.side {
        Some(Side::Hub { port, peers }) => runtime.block_on(hub(port, peers)),
        Some(Side::Burn { seconds }) => {
            burn(Duration::from_secs(seconds));
            Ok(())
        }
        None => runtime.block_on(peers(options)),
    }
}

fn burn(time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Serves, and says again and again when it is and how many bytes have come.
async fn hub(port: u16, peers: u16) -> io::Result<()> {
    let (node, address) = start(0, port, 0..=peers)?;
    let listener = TcpListener::bind_on(&node, address).await?;
    println!("ready");
    let came = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&came);
    tokio::spawn(async move {
        let mut lines = tokio::time::interval(LINES);
        lines.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            lines.tick().await;
            println!("{} {}", seconds_now(), told.load(Ordering::Relaxed));
        }
    });
    loop {
        let (mut stream, _) = listener.accept().await?;
        let came = Arc::clone(&came);
        tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                came.fetch_add(length, Ordering::Relaxed);
            }
        });
    }
}

async fn peers(options: &Options) -> io::Result<()> {
    raise_descriptor_limit();
    let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
    let hub = Hub::start(port, options.peers)?;
    let nodes = (1..=options.peers).map(|number| start(number, port, [0, number]));
    let nodes = nodes.collect::<io::Result<Vec<_>>>().map_err(with_hint)?;
    eprintln!("peersock-bench: {} nodes run, and connect now", nodes.len());
    let begin = Instant::now();
    let tasks: Vec<_> =
        nodes.iter().map(|(node, hub)| tokio::spawn(talk(node.clone(), *hub, begin))).collect();
    let mut times = Vec::new();
    for task in tasks {
        times.push(task.await.map_err(io::Error::other)?);
    }
    let connected = times.iter().flatten().max().copied().unwrap_or_default();
    eprintln!("peersock-bench: connected after {connected:.2?}");
    // All have begun to send.
    pass(2).await;
    let before = seconds_now();
    pass(SECONDS_BEFORE).await;
    hub.signal(Signal::STOP)?;
    pass(options.stall).await;
    hub.signal(Signal::CONT)?;
    let after_stall = seconds_now();
    pass(SECONDS_AFTER).await;
    let mut burners = Vec::new();
    for _ in 0..usize::from(options.burners) * thread::available_parallelism()?.get() {
        burners.push(Running(own_part(&["burn", &options.busy.to_string()])?.spawn()?));
    }
    let busy = seconds_now();
    pass(options.busy).await;
    drop(burners);
    let after_busy = seconds_now();
    // The last line has to come, too.
    pass(SECONDS_AFTER + 1).await;
    let each_second = 1000.0 * times.iter().flatten().count().max(1) as f64;
    let shares = |from: f64, seconds: u64| {
        let second = |n| hub.came(from + n as f64 + 1.0) - hub.came(from + n as f64);
        (0..seconds).map(|n| (second(n) / each_second * 100.0).round() / 100.0).collect()
    };
    let report = Report {
        kind: "crowd",
        peers: options.peers,
        failed: times.iter().filter(|time| time.is_none()).count(),
        connected_s: connected.as_secs_f64(),
        share_before: shares(before, SECONDS_BEFORE),
        share_after_stall: shares(after_stall, SECONDS_AFTER),
        share_while_busy: shares(busy, options.busy),
        share_after_busy: shares(after_busy, SECONDS_AFTER),
    };
    println!("{}", serde_json::to_string(&report).map_err(io::Error::other)?);
    // Thousands of nodes need not say goodbye to one that ends as well.
    drop(hub);
    std::process::exit(0);
}

fn with_hint(error: io::Error) -> io::Error {
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::MFILE) => io::Error::other(
            "a process may not have enough descriptors for that number of nodes (9 each): take fewer --peers, or \
             raise `ulimit -n`",
        ),
        _ => error,
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Returns the time by the clock that all processes share, in seconds.
fn seconds_now() -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Connects, returns the time it took, and goes on sending.
async fn talk(node: Node, hub: SocketAddr, begin: Instant) -> Option<Duration> {
    let stream = TcpStream::connect_on(&node, hub).await;
    let mut stream = stream.inspect_err(|error| eprintln!("peersock-bench: {error}")).ok()?;
    let took = begin.elapsed();
    tokio::spawn(async move {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        while stream.write_all(&[7; 1000]).await.is_ok() {
            second.tick().await;
        }
    });
    Some(took)
}

/// Starts a node in a network that lists these members, and returns the hub's address in the network.
fn start(number: u16, port: u16, members: impl IntoIterator<Item = u16>) -> io::Result<(Node, SocketAddr)> {
    let member = |number: u16| {
        let key = Identity::from_seed(&seed(number)).public().to_string();
        let endpoints =
            if number == 0 { format!("endpoints = [\"127.0.0.1:{port}\"]\n") } else { String::new() };
        format!("[[member]]\nkey = \"{key}\"\n{endpoints}")
    };
    let members: String = members.into_iter().map(member).collect();
    let network = Network::parse_toml(&format!("network = \"fe00000000000001\"\n{members}"));
    let builder = Node::builder().identity(IdentitySource::Seed(Seed(seed(number))));
    let builder = builder.interfaces(Interfaces::Loopback).discovery(false);
    let node = builder.port(if number == 0 { port } else { 0 }).start()?;
    let joined = node.join(network.map_err(io::Error::other)?).map_err(io::Error::other)?;
    let hub = joined.id().address_of(&Identity::from_seed(&seed(0)).node_id());
    Ok((node, SocketAddr::new(hub.into(), PORT)))
}

fn seed(number: u16) -> [u8; 32] {
    let mut seed = [0x5c; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    seed
}

/// Another part of this benchmark, as a process that ends with this one.
fn own_part(words: &[&str]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--die-with-parent", "crowd"]).args(words);
    Ok(command)
}

/// A process that is ended when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// The process of the other side.
struct Hub {
    process: Running,
    /// Lines of the hub: times in seconds, and the number of bytes received until then.
    said: Arc<Mutex<Vec<(f64, f64)>>>,
}

impl Hub {
    /// Starts it, and returns when it listens.
    fn start(port: u16, peers: u16) -> io::Result<Hub> {
        let mut command = own_part(&["hub", &port.to_string(), &peers.to_string()])?;
        let mut process = Running(command.stdout(Stdio::piped()).spawn()?);
        let stdout = process.0.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut stdout = BufReader::new(stdout);
        if stdout.read_line(&mut String::new())? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the hub has ended"));
        }
        let said = Arc::default();
        let kept = Arc::clone(&said);
        thread::spawn(move || listen(stdout, &kept));
        Ok(Hub { process, said })
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.process.0), signal)?)
    }

    /// Returns the bytes that had come at that time, between two lines in proportion.
    fn came(&self, at: f64) -> f64 {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let next = said.partition_point(|(time, _)| *time < at);
        match (next.checked_sub(1).map(|last| said[last]), said.get(next)) {
            (Some((from, before)), Some((to, after))) => {
                before + (after - before) * (at - from) / (to - from)
            }
            (Some((_, bytes)), None) => bytes,
            (None, _) => 0.0,
        }
    }
}

fn listen(stdout: BufReader<ChildStdout>, said: &Mutex<Vec<(f64, f64)>>) {
    for line in stdout.lines().map_while(Result::ok) {
        if let Some((time, bytes)) = line.split_once(' ')
            && let (Ok(time), Ok(bytes)) = (time.parse(), bytes.parse())
        {
            said.lock().unwrap_or_else(PoisonError::into_inner).push((time, bytes));
        }
    }
}
