//! Measurement of relayed datagrams per second of processor time, and of the delay.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use peersock_overlay::wire::Relayed;
use rustix::event::Timespec;

use crate::client::{Socket, registered, seconds};
use crate::server::Process;
use crate::turn::Turn;

/// Options of `relay`.
#[derive(Args)]
pub(crate) struct Options {
    /// Number of pairs of nodes
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=100))]
    flows: u8,
    /// Number of rounds, in which the servers take turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    reps: u32,
    /// Measure for SECONDS each time
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    secs: f64,
}

/// One direction of a pair: the datagrams with their server, and the receiving socket.
struct Flow {
    from: Socket,
    to: Socket,
    server: SocketAddr,
    /// Prefix of each datagram.
    header: Vec<u8>,
    is_turn: bool,
    /// Prefix of an answer.
    back: Vec<u8>,
    /// Destination of answers.
    back_to: SocketAddr,
}

impl Flow {
    fn frame(&self, payload: usize) -> Vec<u8> {
        if self.is_turn {
            Turn::frame(&vec![0xd4; payload])
        } else {
            [&self.header[..], &vec![0xd4; payload]].concat()
        }
    }
}

/// Offered load.
struct Case {
    name: &'static str,
    payload: usize,
    /// Datagrams per call.
    train: usize,
    /// Datagrams per second; `None` for as many as the load can send.
    rate: Option<u64>,
}

const CASES: [Case; 5] = [
    Case { name: "1200 bytes, one by one", payload: 1200, train: 1, rate: None },
    Case { name: "1200 bytes, trains of 40", payload: 1200, train: 40, rate: None },
    Case { name: "100 bytes, one by one", payload: 100, train: 1, rate: None },
    Case { name: "1200 bytes, 20,000 a second", payload: 1200, train: 1, rate: Some(20_000) },
    Case { name: "1200 bytes, 20,000 a second in tens", payload: 1200, train: 10, rate: Some(20_000) },
];

/// Measures, and prints a table.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let root = Process::root()?;
    let coturn = Process::coturn()?;
    if coturn.is_none() {
        println!("coturn is not installed: the root alone");
    }
    let mut servers = vec![("root", &root, root_flows(&root, options.flows)?)];
    if let Some(coturn) = &coturn {
        servers.push(("coturn", coturn, turn_flows(coturn, options.flows)?));
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{} flows, {} rounds of {} s; load before: {}",
        options.flows,
        options.reps,
        options.secs,
        load.trim()
    );
    println!("\n{:36} {:8} {:>12} {:>10} {:>9} {:>8}", "", "", "packets/s", "Gbit/s", "of a", "packets/s");
    println!("{:36} {:8} {:>12} {:>10} {:>9} {:>8}", "", "", "per core", "per core", "core used", "arrived");
    for case in &CASES {
        servers.iter().for_each(|(_, process, _)| process.set_busy(case.rate.is_none()));
        let mut per_core = vec![Vec::new(); servers.len()];
        let mut rest = vec![Vec::new(); servers.len()];
        for round in 0..options.reps as usize {
            for turn in 0..servers.len() {
                // In turns, so that changes of the machine's load affect both servers.
                let which = (round + turn) % servers.len();
                let (_, process, flows) = &servers[which];
                let measured = measure(process, flows, case, Duration::from_secs_f64(options.secs))?;
                per_core[which].push(measured.arrived as f64 / seconds(measured.used));
                rest[which].push((
                    seconds(measured.used) / seconds(measured.took),
                    measured.arrived as f64 / seconds(measured.took),
                ));
            }
        }
        for (which, (name, ..)) in servers.iter().enumerate() {
            let rate = median(&per_core[which]);
            let used = median(&rest[which].iter().map(|(used, _)| *used).collect::<Vec<_>>());
            let arrived = median(&rest[which].iter().map(|(_, arrived)| *arrived).collect::<Vec<_>>());
            let title = if which == 0 { case.name } else { "" };
            println!(
                "{title:36} {name:8} {rate:>12.0} {:>10.2} {:>9.2} {arrived:>8.0}",
                rate * case.payload as f64 * 8e-9,
                used
            );
        }
        if let [root, coturn] = &per_core[..] {
            let ratios: Vec<_> = root.iter().zip(coturn).map(|(root, coturn)| root / coturn).collect();
            let (least, most) = ratios.iter().fold((f64::MAX, 0f64), |(a, b), r| (a.min(*r), b.max(*r)));
            println!("{:36} ratio    {:>12.2}  ({least:.2} to {most:.2})", "", median(&ratios));
        }
    }
    println!("\nround trip of 100 bytes by one flow, both ways relayed, µs: median, 99 of 100");
    let direct = Flow::direct()?;
    let mut all = vec![("direct", &direct)];
    all.extend(servers.iter().map(|(name, _, flows)| (*name, &flows[0])));
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); all.len()];
    for _ in 0..options.reps {
        for ((_, flow), times) in all.iter().zip(&mut times) {
            times.extend(ping(flow, 2000));
        }
    }
    for ((name, _), times) in all.iter().zip(&mut times) {
        times.sort_unstable();
        let at = |part: f64| {
            times.get((times.len() as f64 * part) as usize).map_or(0.0, |t| t.as_secs_f64() * 1e6)
        };
        println!("{name:8} {:>8.1} {:>8.1}", at(0.5), at(0.99));
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn root_flows(root: &Process, flows: u8) -> io::Result<Vec<Flow>> {
    let flow = |number: u8| {
        let (from, near) = registered(2 * number + 1, root.address)?;
        let (to, far) = registered(2 * number + 2, root.address)?;
        let header = |node: &crate::client::Node, peer: &crate::client::Node| {
            Relayed { token: node.token, channel: peer.channel }.to_bytes().to_vec()
        };
        let (header, back) = (header(&from, &to), header(&to, &from));
        let (from, to) = (near.socket, far.socket);
        Ok(Flow { from, to, server: root.address, header, is_turn: false, back, back_to: root.address })
    };
    (0..flows).map(flow).collect()
}

fn turn_flows(coturn: &Process, flows: u8) -> io::Result<Vec<Flow>> {
    let flow = |_| {
        let (near, to) = (Turn::new()?, Socket::bind("127.0.0.1:0")?);
        near.open(coturn.address, to.address())?;
        // The first datagram shows the relay's source address.
        near.socket.send(None, coturn.address, &Turn::frame(b"hello"), 64);
        let mut buffer = [0; 64];
        to.wait(&Timespec { tv_sec: 5, tv_nsec: 0 });
        let (len, relay) = to.io.recv_from(&mut buffer)?;
        assert_eq!(&buffer[..len], b"hello");
        let (server, from) = (coturn.address, near.socket);
        Ok(Flow { from, to, server, header: Vec::new(), is_turn: true, back: Vec::new(), back_to: relay })
    };
    (0..flows).map(flow).collect()
}

impl Flow {
    /// Keeps the flow alive, because the root forgets nodes that are silent for 90 s, and drops datagrams
    /// that arrived before the measurement.
    fn keep(&self) {
        let frame = [&self.back[..], b"here"].concat();
        self.to.send(None, self.back_to, &frame, frame.len());
        let mut buffer = vec![0; 1 << 16];
        while self.to.receive(&mut buffer).is_some() {}
    }

    fn direct() -> io::Result<Self> {
        let (from, to) = (Socket::bind("127.0.0.1:0")?, Socket::bind("127.0.0.1:0")?);
        let (server, back_to) = (to.address(), from.address());
        Ok(Self { from, to, server, header: Vec::new(), is_turn: false, back: Vec::new(), back_to })
    }
}

struct Measured {
    arrived: u64,
    used: Duration,
    took: Duration,
}

fn measure(process: &Process, flows: &[Flow], case: &Case, time: Duration) -> io::Result<Measured> {
    let (is_over, arrived) = (AtomicBool::new(false), AtomicU64::new(0));
    flows.iter().for_each(Flow::keep);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = vec![0; 1 << 16];
            while !is_over.load(Ordering::Relaxed) {
                let mut count = 0;
                for flow in flows {
                    while let Some((some, _)) = flow.to.receive(&mut buffer) {
                        count += some as u64;
                    }
                }
                arrived.fetch_add(count, Ordering::Relaxed);
                if count == 0 {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        });
        let trains: Vec<_> = flows.iter().map(|flow| (flow, flow.frame(case.payload))).collect();
        let trains: Vec<_> =
            trains.iter().map(|(flow, one)| (*flow, one.repeat(case.train), one.len())).collect();
        let mut sent = 0u64;
        // Datagrams in flight at the begin and the end are few compared to all.
        let (begin, before) = (Instant::now(), process.processor_time()?);
        'load: loop {
            for (flow, train, segment) in &trains {
                flow.from.send(None, flow.server, train, *segment);
                sent += case.train as u64;
                let elapsed = begin.elapsed();
                if elapsed >= time {
                    break 'load;
                }
                if let Some(rate) = case.rate {
                    let due = Duration::from_secs_f64(sent as f64 / rate as f64);
                    std::thread::sleep(due.saturating_sub(elapsed));
                }
            }
        }
        // The last datagrams are still in flight.
        std::thread::sleep(Duration::from_millis(20));
        let (took, used) = (begin.elapsed(), process.processor_time()? - before);
        is_over.store(true, Ordering::Relaxed);
        Ok(Measured { arrived: arrived.load(Ordering::Relaxed), used, took })
    })
}

/// Measures round trips; a lost answer is left out.
fn ping(flow: &Flow, times: usize) -> Vec<Duration> {
    let (request, answer) = (flow.frame(100), [&flow.back[..], &[0xd4; 100]].concat());
    let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
    let mut buffer = vec![0; 1 << 16];
    flow.keep();
    std::thread::sleep(Duration::from_millis(20));
    // Late datagrams of an earlier measurement must not count as answers.
    while flow.to.receive(&mut buffer).is_some() || flow.from.receive(&mut buffer).is_some() {}
    let mut ping = || {
        let begin = Instant::now();
        flow.from.send(None, flow.server, &request, request.len());
        flow.to.wait(&patience).then(|| flow.to.receive(&mut buffer).map(|_| ()))??;
        flow.to.send(None, flow.back_to, &answer, answer.len());
        flow.from.wait(&patience).then(|| flow.from.receive(&mut buffer).map(|_| ()))??;
        Some(begin.elapsed())
    };
    (0..times).filter_map(|_| ping()).collect()
}
