//! The work, written once over any [`Transport`] with blocking byte streams.
//!
//! A client's first byte says what it wants ([`Command`]); the server then swallows a stream and says what it
//! counted, echoes 64-byte messages, or answers one byte. Bulk transfers end with a half close, and both
//! sides must have counted the same number of bytes.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use clap::Subcommand;

use crate::report::{self, Received, Report};

/// What a client does.
#[derive(Subcommand)]
pub(crate) enum Workload {
    /// Send as fast as possible
    Bulk {
        /// How long to send, seconds
        #[arg(long, default_value_t = 5.0)]
        secs: f64,
        /// Connections at the same time
        #[arg(long, default_value_t = 1)]
        streams: usize,
    },
    /// Exchange 64-byte messages, one at a time
    PingPong {
        /// How long, seconds
        #[arg(long, default_value_t = 3.0)]
        secs: f64,
    },
    /// Connect, exchange one byte and close, one after another
    Connect {
        /// How long, seconds; ends earlier after 20,000 connections, before the ports run out
        #[arg(long, default_value_t = 1.0)]
        secs: f64,
    },
    /// Connect, exchange one byte, print that, exit
    FirstByte,
    /// Exchange one byte and print that; then do it again over a new connection for each line on standard
    /// input
    Recover,
    /// Hold many connections that do nothing, and print what each costs
    Hold {
        /// How many
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
    },
    /// Connect, exchange one byte, close, let that come to rest, then do nothing and print what that costs
    Idle {
        /// How long, seconds
        #[arg(long, default_value_t = 10.0)]
        secs: f64,
    },
}

/// A way to carry byte streams.
pub(crate) trait Transport {
    /// A connection.
    type Stream: Stream;
    /// A listening socket.
    type Listener: Listener<Stream = Self::Stream>;

    /// Opens a connection.
    fn connect(&self, address: SocketAddr, timeout: Duration) -> io::Result<Self::Stream>;

    /// Listens.
    fn listen(&self, address: SocketAddr) -> io::Result<Self::Listener>;
}

/// A listening socket.
pub(crate) trait Listener {
    /// What it accepts.
    type Stream;

    /// Waits for the next connection.
    fn accept(&self) -> io::Result<Self::Stream>;

    /// Where it listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// The calls on a connection besides reading and writing.
pub(crate) trait Stream: Read + Write + Send + 'static {
    /// Turns Nagle's algorithm off or on.
    fn set_nodelay(&self, on: bool) -> io::Result<()>;

    /// Bounds how long a read waits.
    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()>;

    /// Sends FIN after what was written.
    fn shutdown_write(&self) -> io::Result<()>;
}

/// The first byte of a connection.
pub(crate) struct Command;

impl Command {
    /// Swallow the stream, then answer [`Received`].
    pub(crate) const BULK: u8 = b'B';
    /// Echo 64-byte messages.
    pub(crate) const PING_PONG: u8 = b'P';
    /// Answer this byte, and keep the connection until the other side closes it.
    pub(crate) const HOLD: u8 = b'H';
    /// Answer this byte.
    pub(crate) const BYTE: u8 = b'C';
}

/// How much a bulk sender writes at once, bytes.
pub(crate) const WRITE_SIZE: usize = 128 << 10;
/// How much a bulk receiver reads at most at once, bytes.
pub(crate) const READ_SIZE: usize = 256 << 10;
/// Length of a ping-pong message, bytes.
pub(crate) const PING_SIZE: usize = 64;
/// Round trips that are not measured, while caches and windows warm up.
pub(crate) const WARM_UP: usize = 50;
/// A connection test ends here: each leaves a port in TIME-WAIT, and a host has 28,000 by default.
pub(crate) const MAX_CONNECTIONS: u64 = 20_000;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two attempts to connect to a server that is starting.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// A bulk receiver answers within this after the end of the stream.
const RESULT_TIMEOUT: Duration = Duration::from_secs(20);
/// A client that says nothing for so long is dropped, so that it cannot hold up the others.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves clients until the process is ended.
pub(crate) fn serve<T: Transport>(transport: &T, address: SocketAddr) -> io::Result<()> {
    raise_descriptor_limit();
    let listener = transport.listen(address)?;
    report::print_ready(listener.local_addr()?);
    let mut held = Vec::new();
    loop {
        let stream = listener.accept()?;
        match answer(stream) {
            // Another workload: those of the last one are over.
            Ok(None) => held.clear(),
            Ok(Some(stream)) => held.push(stream),
            Err(e) => eprintln!("connection: {e}"),
        }
    }
}

/// As many descriptors as the system lets this process have: a connection may take two.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const WANTED: Option<u64> = Some(65_536);
    // Where it is not allowed, opening fails later.
    if setrlimit(Resource::Nofile, Rlimit { current: WANTED, maximum: WANTED }).is_err() {
        let limit = getrlimit(Resource::Nofile);
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

/// Reads the command; the short ones are done right here, since starting a thread would cost more than the
/// connection. Gives a connection that is to be held.
fn answer<S: Stream>(mut stream: S) -> io::Result<Option<S>> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(COMMAND_TIMEOUT))?;
    let mut command = [0];
    stream.read_exact(&mut command)?;
    match command[0] {
        Command::BYTE => stream.write_all(&command)?,
        Command::HOLD => {
            stream.write_all(&command)?;
            return Ok(Some(stream));
        }
        Command::PING_PONG => {
            stream.set_read_timeout(None)?;
            thread::spawn(move || echo(stream));
        }
        Command::BULK => {
            stream.set_read_timeout(None)?;
            thread::spawn(move || swallow(stream));
        }
        other => return Err(io::Error::other(format!("unknown command {other:#04x}"))),
    }
    Ok(None)
}

/// Echoes until the other side is gone, which is how a ping-pong ends.
fn echo<S: Stream>(mut stream: S) {
    let mut message = [0; PING_SIZE];
    while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
}

fn swallow<S: Stream>(mut stream: S) {
    let (start, cpu) = (Instant::now(), report::cpu_time());
    let mut buffer = vec![0; READ_SIZE];
    let mut received = Received::default();
    let result = loop {
        match stream.read(&mut buffer) {
            Ok(0) => {
                received.elapsed = start.elapsed();
                received.cpu = report::cpu_time() - cpu;
                break stream.write_all(&received.to_bytes());
            }
            Ok(n) => received.bytes += n as u64,
            Err(e) => break Err(e),
        }
    };
    if let Err(e) = result {
        eprintln!("bulk stream after {} bytes: {e}", received.bytes);
    }
}

/// Runs one workload against a server and prints the result.
pub(crate) fn run<T: Transport + Sync>(
    transport: &T,
    address: SocketAddr,
    workload: &Workload,
) -> io::Result<()> {
    match *workload {
        Workload::Bulk { secs, streams } => bulk(transport, address, secs, streams)?.print(),
        Workload::PingPong { secs } => ping_pong(transport, address, secs)?.print(),
        Workload::Connect { secs } => connect_rate(transport, address, secs).print(),
        Workload::FirstByte => {
            byte_once_up(transport, address)?;
            Report::Byte.print()
        }
        Workload::Recover => {
            let mut connection = byte_once_up(transport, address)?;
            Report::Byte.print()?;
            for line in io::stdin().lines() {
                line?;
                // The old one stays open meanwhile, as it does in a program that has not noticed yet.
                connection = byte_once_up(transport, address)?;
                Report::Byte.print()?;
            }
            drop(connection);
            Ok(())
        }
        Workload::Hold { connections } => hold(transport, address, connections)?.print(),
        Workload::Idle { secs } => {
            byte_once_up(transport, address)?;
            idle(Duration::from_secs_f64(secs)).map(|report| report.print())?
        }
    }
}

fn bulk<T: Transport + Sync>(
    transport: &T,
    address: SocketAddr,
    secs: f64,
    streams: usize,
) -> io::Result<Report> {
    let mut connections = Vec::new();
    for _ in 0..streams {
        let stream = transport.connect(address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        connections.push(stream);
    }
    let cpu = report::cpu_time();
    let send = |stream| send_for(stream, Duration::from_secs_f64(secs));
    let received = thread::scope(|scope| {
        let senders: Vec<_> = connections.into_iter().map(|s| scope.spawn(move || send(s))).collect();
        senders
            .into_iter()
            .map(|s| s.join().unwrap_or_else(|_| Err(io::Error::other("a sender panicked"))))
            .collect::<io::Result<Vec<_>>>()
    })?;
    Ok(Received::report(&received, report::cpu_time() - cpu))
}

fn send_for<S: Stream>(mut stream: S, time: Duration) -> io::Result<Received> {
    let data = vec![0x5a; WRITE_SIZE];
    stream.write_all(&[Command::BULK])?;
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < time {
        sent += stream.write(&data)? as u64;
    }
    stream.shutdown_write()?;
    stream.set_read_timeout(Some(RESULT_TIMEOUT))?;
    let mut result = [0; Received::LEN];
    stream.read_exact(&mut result)?;
    let received = Received::from_bytes(&result);
    same_count(sent, received.bytes)?;
    Ok(received)
}

/// Fails unless every byte that was sent was counted.
pub(crate) fn same_count(sent: u64, received: u64) -> io::Result<()> {
    if sent == received {
        return Ok(());
    }
    Err(io::Error::other(format!("sent {sent} bytes, but {received} arrived")))
}

fn ping_pong<T: Transport>(transport: &T, address: SocketAddr, secs: f64) -> io::Result<Report> {
    let mut stream = transport.connect(address, CONNECT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.write_all(&[Command::PING_PONG])?;
    let mut message = [7; PING_SIZE];
    let mut nanos = Vec::with_capacity(1 << 20);
    let start = Instant::now();
    for i in 0.. {
        let sent = Instant::now();
        if sent.duration_since(start).as_secs_f64() >= secs {
            break;
        }
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        if i >= WARM_UP {
            nanos.push(sent.elapsed().as_nanos() as u64);
        }
    }
    Ok(Report::ping_pong(nanos))
}

fn connect_rate<T: Transport>(transport: &T, address: SocketAddr, secs: f64) -> Report {
    let start = Instant::now();
    let (mut count, mut failed) = (0, 0);
    while start.elapsed().as_secs_f64() < secs && count < MAX_CONNECTIONS {
        match exchange_byte(transport, address) {
            Ok(_) => count += 1,
            Err(e) => {
                if failed == 0 {
                    eprintln!("first failed connection: {e}");
                }
                failed += 1;
            }
        }
    }
    Report::Connect { per_s: count as f64 / start.elapsed().as_secs_f64(), count, failed }
}

/// A connection over which one byte went there and back.
fn exchange_byte<T: Transport>(transport: &T, address: SocketAddr) -> io::Result<T::Stream> {
    exchange(transport, address, Command::BYTE)
}

/// A connection over which a command went there and came back.
fn exchange<T: Transport>(transport: &T, address: SocketAddr, command: u8) -> io::Result<T::Stream> {
    let mut stream = transport.connect(address, CONNECT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
    let mut byte = [command];
    stream.write_all(&byte)?;
    stream.read_exact(&mut byte)?;
    Ok(stream)
}

/// Exchanges one byte; a server that is not up yet is tried again, as a program that waits for its peer
/// would.
fn byte_once_up<T: Transport>(transport: &T, address: SocketAddr) -> io::Result<T::Stream> {
    let start = Instant::now();
    loop {
        match exchange_byte(transport, address) {
            Ok(stream) => return Ok(stream),
            Err(e) if start.elapsed() >= 3 * CONNECT_TIMEOUT => return Err(e),
            Err(e) => {
                eprintln!("after {:.0} ms: {e}", start.elapsed().as_secs_f64() * 1e3);
                thread::sleep(RETRY_PAUSE);
            }
        }
    }
}

/// Connections that have exchanged one byte, held open together.
fn hold<T: Transport>(transport: &T, address: SocketAddr, connections: usize) -> io::Result<Report> {
    raise_descriptor_limit();
    byte_once_up(transport, address)?;
    let before = memory_kib("VmRSS:")?;
    let mut held = Vec::with_capacity(connections);
    for _ in 0..connections {
        held.push(exchange(transport, address, Command::HOLD)?);
    }
    let kib = memory_kib("VmRSS:")?.saturating_sub(before);
    Ok(Report::Hold { connections, kib_each: kib as f64 / connections as f64 })
}

/// So long after its start a node has sent the beacons of the start, knows the size of its path's datagrams,
/// and has answered the nodes that it was found by: from then on it is idle.
const SETTLES: Duration = Duration::from_secs(5);

fn idle(time: Duration) -> io::Result<Report> {
    thread::sleep(SETTLES);
    let (start, cpu) = (Instant::now(), report::cpu_time());
    thread::sleep(time);
    let cpu = (report::cpu_time() - cpu).as_secs_f64();
    let cpu_percent = cpu / start.elapsed().as_secs_f64() * 100.0;
    let (rss_kib, anonymous_kib) = (memory_kib("VmRSS:")?, memory_kib("RssAnon:")?);
    Ok(Report::Idle { rss_kib, anonymous_kib, cpu_percent })
}

/// What the kernel says of this process's memory.
fn memory_kib(key: &str) -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let value = line.and_then(|v| v.split_whitespace().next()).and_then(|v| v.parse().ok());
    value.ok_or_else(|| io::Error::other(format!("the kernel does not say {key}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Kernel;

    /// A server of every workload on a loopback port.
    fn server() -> SocketAddr {
        let listener = Kernel.listen(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = Listener::local_addr(&listener).expect("bound");
        thread::spawn(move || {
            while let Ok(stream) = Listener::accept(&listener) {
                let _ = answer(stream);
            }
        });
        address
    }

    #[test]
    fn bulk_counts_what_both_sides_agree_on() {
        let report = bulk(&Kernel, server(), 0.05, 2).expect("transfer");
        assert!(matches!(report, Report::Bulk { bytes, streams: 2, .. } if bytes > 0));
    }

    #[test]
    fn ping_pong_and_connections_are_counted() {
        let address = server();
        let report = ping_pong(&Kernel, address, 0.1).expect("echo");
        assert!(matches!(report, Report::PingPong { samples, .. } if samples > 0));
        let report = connect_rate(&Kernel, address, 0.05);
        assert!(matches!(report, Report::Connect { count, failed: 0, .. } if count > 0));
    }

    #[test]
    fn a_missing_byte_is_an_error() {
        assert!(same_count(10, 9).is_err());
    }
}
