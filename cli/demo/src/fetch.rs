//! The fetching and measuring process of the demonstration.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use peersock::blocking::TcpStream;
use peersock::overlay::NetworkId;
use peersock::{Joined, Node};
use sha2::{Digest as _, Sha256};

use super::child;
use super::wire::{ECHO, FETCH, Findings, PING_BYTES, Place, Said, say, tell_parent};
use peersock_terminal::clock;
use peersock_terminal::failure::{Failure, Outcome};
use peersock_terminal::output::round;

/// Timeout of one step of the demonstration.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// Hints for failures without an external cause.
pub(super) const RETRY: &str = "run the demonstration again, with -vv to see what happens";
pub(super) const FAULT: &str = "report this as a fault of peersock, with the output of `peersock demo -vv`";

/// Numbers of uncounted and counted round trips.
const WARM_UP: usize = 100;
const ROUND_TRIPS: usize = 2000;

/// Options of the fetching process, which the demonstration itself starts.
#[derive(clap::Args)]
pub struct FetchArgs {
    #[arg(long)]
    network: NetworkId,
    #[arg(long)]
    size: u64,
}

/// Fetches from the serving process, measures, and prints the findings for the parent as JSON.
/// Returns a silent failure, after reporting it to the parent.
pub fn run(args: &FetchArgs) -> Outcome {
    tell_parent(fetch(args))
}

fn fetch(args: &FetchArgs) -> Outcome {
    let (node, joined) = child::start(args.network)?;
    let lines = child::lines_from_parent(&node)?;
    let line = lines.recv_timeout(STEP_TIMEOUT).ok().and_then(|line| line.parse().ok());
    let server: SocketAddr = line.ok_or_else(|| Failure::new("the server did not start", RETRY))?;

    joined.wait_peer(server.ip(), STEP_TIMEOUT).map_err(|error| {
        let hint = "check that a firewall lets UDP pass on the loopback interface; -v shows what was tried";
        Failure::new(format_args!("the server was not found: {error}"), hint)
    })?;
    let found = clock::since_start();
    let (first_byte, round_trips) = ping_pong(&node, server)?;
    let (transfer, sha256) = transfer(&node, server, args.size)?;
    let (path, datagram_bytes, cipher_suite) = describe_path(&joined, server.ip())?;

    let findings = Findings {
        client: Place { node_id: node.id().to_string(), address: joined.address() },
        path,
        datagram_bytes,
        cipher_suite,
        found_ms: round(millis(found), 3),
        first_byte_ms: round(millis(first_byte), 3),
        size: args.size,
        transfer_seconds: round(transfer.as_secs_f64(), 6),
        sha256: hex(&sha256),
        round_trips: round_trips.len(),
        ping_pong_p50_us: round(millis(percentile(&round_trips, 50)) * 1e3, 3),
        ping_pong_p99_us: round(millis(percentile(&round_trips, 99)) * 1e3, 3),
    };
    say(&Said::Done(findings))?;
    node.shutdown(STEP_TIMEOUT);
    Ok(())
}

/// Returns the time of the first byte, from the start of the process, and the sorted round-trip times.
fn ping_pong(node: &Node, server: SocketAddr) -> Outcome<(Duration, Vec<Duration>)> {
    let mut stream = connect(node, server, ECHO)?;
    let message = [b'.'; PING_BYTES];
    let mut answer = [0; PING_BYTES];
    stream.write_all(&message)?;
    stream.read_exact(&mut answer[..1])?;
    let first_byte = clock::since_start();
    stream.read_exact(&mut answer[1..])?;

    let mut times = Vec::with_capacity(ROUND_TRIPS);
    for round in 0..WARM_UP + ROUND_TRIPS {
        let begin = Instant::now();
        stream.write_all(&message)?;
        stream.read_exact(&mut answer)?;
        if round >= WARM_UP {
            times.push(begin.elapsed());
        }
    }
    times.sort_unstable();
    Ok((first_byte, times))
}

/// Returns the duration of the transfer, and the content's hash. The content is kept in memory, because
/// hashing takes about as long as the transfer and would distort the measurement.
fn transfer(node: &Node, server: SocketAddr, size: u64) -> Outcome<(Duration, [u8; 32])> {
    let size = usize::try_from(size)
        .map_err(|_| Failure::usage("the size does not fit into memory", "give a smaller --size"))?;
    // Filled with a nonzero value, because zero pages would only be mapped during the measurement.
    let mut content = vec![0xff; size];
    let begin = Instant::now();
    let mut stream = connect(node, server, FETCH)?;
    stream.read_exact(&mut content)?;
    let duration = begin.elapsed();
    if stream.read(&mut [0])? != 0 {
        return Err(Failure::new("the server sent more than was asked for", FAULT));
    }
    Ok((duration, Sha256::digest(&content).into()))
}

fn connect(node: &Node, server: SocketAddr, purpose: u8) -> Outcome<TcpStream> {
    let mut stream = TcpStream::connect_timeout_on(node, &server, STEP_TIMEOUT)?;
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    stream.set_write_timeout(Some(STEP_TIMEOUT))?;
    stream.set_nodelay(true)?;
    stream.write_all(&[purpose])?;
    Ok(stream)
}

/// Returns the server's endpoint, the size of datagrams on the path, and the cipher suite.
fn describe_path(joined: &Joined, server: IpAddr) -> Outcome<(String, usize, String)> {
    let peer = joined.peers().into_iter().find(|peer| peer.addresses.contains(&server));
    let described = peer.and_then(|peer| Some((peer.path?.to_string(), peer.datagram_size?, peer.cipher?)));
    described.ok_or_else(|| Failure::new("the node does not say which path and cipher suite it uses", RETRY))
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Formats bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
