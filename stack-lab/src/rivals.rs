//! Our sender beside the kernel's, over the same impaired link in real time. The receiver is the kernel's in all cases.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use peersock_stack::CongestionControl;
use peersock_stack_lab::kernel::{Bridge, Namespace, Node, Options, kernel_address, unavailable};
use peersock_stack_lab::link::{Link, Loss, Queue};
use peersock_stack_lab::measure::Figure;
use peersock_stack_lab::{HEADERS, SEGMENT, ms, payload_share};

/// What the names of its figures begin with. They are measured only if asked for by name: it takes minutes.
pub(crate) const PREFIX: &str = "kernel/";

/// Bit/s on the wire. What a userspace link carries on a machine with little to do.
const RATE: f64 = 50e6;
const RTT_MS: u64 = 40;
const SECS: f64 = 12.0;
const LOSSES: [f64; 4] = [0.0, 0.1, 1.0, 3.0];
/// Fewer rounds than seeds: these take real time.
const MOST_ROUNDS: u64 = 3;

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sender {
    Peersock,
    Cubic,
    Bbr,
}

impl Sender {
    const ALL: [Sender; 3] = [Sender::Peersock, Sender::Cubic, Sender::Bbr];

    fn name(self) -> &'static str {
        match self {
            Sender::Peersock => "peersock",
            Sender::Cubic => "cubic",
            Sender::Bbr => "bbr",
        }
    }
}

/// One sender at one loss.
pub(crate) struct Case {
    pub(crate) name: String,
    percent: f64,
    sender: Sender,
}

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let case = |percent: f64, sender: Sender| {
        let name = format!("{PREFIX}50mbit_{RTT_MS}ms_loss{percent}.{}", sender.name());
        Case { name, percent, sender }
    };
    LOSSES.iter().flat_map(|&percent| Sender::ALL.map(|sender| case(percent, sender))).collect()
}

/// Measures the cases in rounds, so that a machine that gets slower in between slows all.
///
/// # Errors
/// Why it cannot be done here, or what failed.
pub(crate) fn run(
    cases: &[Case],
    congestion: CongestionControl,
    seeds: u64,
    secs: Option<f64>,
) -> Result<Vec<Figure>, String> {
    if let Some(reason) = unavailable() {
        return Err(reason);
    }
    let rounds = seeds.min(MOST_ROUNDS);
    let mut shares = vec![Vec::new(); cases.len()];
    for seed in 1..=rounds {
        for (case, shares) in cases.iter().zip(&mut shares) {
            let share = case.measure(congestion, seed, secs.unwrap_or(SECS));
            let share = share.map_err(|e| format!("{}: {e}", case.name))?;
            eprintln!("round {seed} of {rounds}, {}: {share:.3}", case.name);
            shares.push(share);
        }
    }
    let figure = |(case, shares): (&Case, Vec<f64>)| Figure::new(&case.name, "of capacity", shares, &[]);
    Ok(cases.iter().zip(shares).map(figure).collect())
}

impl Case {
    /// The share of what the link can carry in `secs` from connect on.
    fn measure(&self, congestion: CongestionControl, seed: u64, secs: f64) -> io::Result<f64> {
        let near = Namespace::new()?;
        let bdp = RATE / 8.0 * RTT_MS as f64 / 1e3;
        let loss = if self.percent == 0.0 { Loss::None } else { Loss::Random(self.percent / 100.0) };
        let outward = Link { queue: Queue::DropTail(bdp as u64), loss, ..Link::new(RATE) };
        let options = Options {
            outward,
            inward: Link::new(RATE),
            delay: ms(RTT_MS / 2),
            mtu: SEGMENT + HEADERS,
            seed,
            congestion,
            ..Options::default()
        };
        let local = SocketAddr::new(kernel_address(false), 0);
        let time = Duration::from_secs_f64(secs);
        let bytes = if self.sender == Sender::Peersock {
            let node = Node::start(&near, &options)?;
            let listener = near.run(|| TcpListener::bind(local))?;
            transfer(&listener, time, |remote| {
                let socket = node.connect(remote)?;
                Ok(move |data: &[u8]| socket.try_write(data))
            })?
        } else {
            let far = Namespace::new()?;
            let _bridge = Bridge::start(&far, &near, &options)?;
            let listener = near.run(|| TcpListener::bind(local))?;
            transfer(&listener, time, |remote| {
                let stream = far.run(|| TcpStream::connect(remote))?;
                rustix::net::sockopt::set_tcp_congestion(&stream, self.sender.name())?;
                stream.set_nonblocking(true)?;
                Ok(move |data: &[u8]| (&stream).write(data))
            })?
        };
        Ok(bytes as f64 / (RATE / 8.0 * payload_share() * secs))
    }
}

/// Connects, sends for a time, and counts what the listener's end reads until then.
fn transfer<W: FnMut(&[u8]) -> io::Result<usize> + Send>(
    listener: &TcpListener,
    time: Duration,
    connect: impl FnOnce(SocketAddr) -> io::Result<W> + Send,
) -> io::Result<u64> {
    let end = Instant::now() + time;
    let remote = listener.local_addr()?;
    thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let mut write = connect(remote)?;
            let data = vec![1; 64 << 10];
            while Instant::now() < end {
                match write(&data) {
                    Ok(_) => {}
                    Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
                    Err(e) => return Err(e),
                }
            }
            Ok(())
        });
        let mut receiver = accept(listener, end)?;
        receiver.set_nonblocking(false)?;
        receiver.set_read_timeout(Some(Duration::from_millis(20)))?;
        let mut buf = vec![0; 256 << 10];
        let mut bytes = 0;
        while Instant::now() < end {
            match receiver.read(&mut buf) {
                Ok(len) => bytes += len as u64,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        sender.join().expect("nothing in it panics")?;
        Ok(bytes)
    })
}

/// Waits for a connection until `end`: if connecting fails, none comes.
fn accept(listener: &TcpListener, end: Instant) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                thread::sleep(Duration::from_micros(200));
            }
            accepted => return accepted.map(|(stream, _)| stream),
        }
    }
}
