//! Benchmark of many nodes in one process that all connect to one node of another process at once. Then that
//! node pauses for a while, with a connection to each. The benchmark measures the time until all are
//! connected, the failures, and the data received in each second after the pause.

use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use peersock::overlay::Identity;
use peersock::{IdentitySource, Interfaces, Network, Node, Seed, TcpListener, TcpStream};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Options of this benchmark.
#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    side: Option<Side>,
    /// Nodes that connect. Each has two threads and some ten descriptors
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=5000))]
    peers: u16,
    /// Time for which the node that they connect to stands still, seconds
    #[arg(long, default_value_t = 4)]
    stall: u64,
}

#[derive(Subcommand)]
enum Side {
    /// The node that all connect to, started by the other side
    #[command(hide = true)]
    Hub { port: u16, peers: u16 },
}

/// The printed result. Every peer sends 1,000 bytes a second.
#[derive(Serialize)]
struct Report {
    kind: &'static str,
    peers: u16,
    /// Number of connections that failed.
    failed: usize,
    /// Seconds until the last connection was established.
    connected_s: f64,
    /// Data received in each second after the pause, as a share of the data sent in one second. Queued data
    /// arrives in the first seconds.
    share_after_stall: Vec<f64>,
}

/// Number of seconds observed after the pause.
const SECONDS: usize = 10;

/// TCP port of the hub in the network.
const PORT: u16 = 2000;

/// Measures, and prints one JSON object.
///
/// # Errors
///
/// The system cannot start the nodes for lack of threads or descriptors.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match options.side {
        Some(Side::Hub { port, peers }) => runtime.block_on(hub(port, peers)),
        None => runtime.block_on(peers(options)),
    }
}

/// Serves, and prints the number of bytes received each second.
async fn hub(port: u16, peers: u16) -> io::Result<()> {
    let (node, address) = start(0, port, 0..=peers)?;
    let listener = TcpListener::bind_on(&node, address).await?;
    println!("ready");
    let came = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&came);
    tokio::spawn(async move {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            second.tick().await;
            println!("{}", told.load(Ordering::Relaxed));
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
    let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut hub = Hub::start(port, options.peers)?;
    let nodes = (1..=options.peers).map(|number| start(number, port, [0, number]));
    let nodes = nodes.collect::<io::Result<Vec<_>>>()?;
    let begin = Instant::now();
    let tasks: Vec<_> =
        nodes.iter().map(|(node, hub)| tokio::spawn(talk(node.clone(), *hub, begin))).collect();
    let mut times = Vec::new();
    for task in tasks {
        times.push(task.await.map_err(io::Error::other)?);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    hub.signal(Signal::STOP)?;
    tokio::time::sleep(Duration::from_secs(options.stall)).await;
    hub.signal(Signal::CONT)?;
    // The peers run on this very thread meanwhile, so wait on another.
    let shares =
        tokio::task::spawn_blocking(move || hub.shares(SECONDS)).await.map_err(io::Error::other)??;
    let each_second = 1000.0 * times.iter().flatten().count().max(1) as f64;
    let report = Report {
        kind: "crowd",
        peers: options.peers,
        failed: times.iter().filter(|time| time.is_none()).count(),
        connected_s: times.iter().flatten().max().map_or(0.0, Duration::as_secs_f64),
        share_after_stall: shares
            .iter()
            .map(|bytes| (*bytes as f64 / each_second * 100.0).round() / 100.0)
            .collect(),
    };
    println!("{}", serde_json::to_string(&report).map_err(io::Error::other)?);
    Ok(())
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

/// The hub's process, which ends with this one.
struct Hub {
    process: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Hub {
    fn start(port: u16, peers: u16) -> io::Result<Hub> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--die-with-parent", "crowd", "hub", &port.to_string(), &peers.to_string()]);
        let mut process = command.stdout(Stdio::piped()).spawn()?;
        let said = process.stdout.take().map(BufReader::new).ok_or(io::ErrorKind::BrokenPipe)?;
        let mut hub = Hub { process, said };
        hub.line()?;
        Ok(hub)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.said.read_line(&mut line)? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the hub has ended")),
            _ => Ok(line.trim().into()),
        }
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.process), signal)?)
    }

    /// Returns the bytes of each of the next seconds. Skips the earlier reports in the pipe.
    fn shares(&mut self, seconds: usize) -> io::Result<Vec<usize>> {
        let mut counts = Vec::new();
        let mut begin = None;
        while counts.len() <= seconds {
            let count: usize = self.line()?.parse().map_err(io::Error::other)?;
            // Lines that waited in the pipe come all at once.
            let now = Instant::now();
            let is_waiting = begin.is_some_and(|last: Instant| now - last < Duration::from_millis(200));
            begin = Some(now);
            if is_waiting {
                counts.clear();
            }
            counts.push(count);
        }
        Ok(counts.windows(2).map(|pair| pair[1] - pair[0]).collect())
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}
