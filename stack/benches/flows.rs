//! What a packet costs with 10, 1,000 and 50,000 flows, and what an idle flow costs.
//!
//! `cargo bench -p peersock-stack`. Two stacks in one thread exchange 100 bytes in each direction on one flow
//! after the other, in an order that caches cannot guess. A packet's cost is everything that both sides
//! do for it: write, egress, receive, read, timers. With one packet per turn, a large number of flows shows
//! the cost of fetching a flow's state from memory; with 32, what the stack itself does.

#![expect(clippy::disallowed_methods, reason = "a benchmark needs the real clock")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_stack::*;

const LIMITS: Egress =
    Egress { segment: 1388, max_segments: 44, in_flight_cap: usize::MAX, checksums: false };

/// The server's ports; more than one, since each has 28,232 clients at most.
const PORTS: u16 = 4;

fn main() {
    // First, while the allocator has nothing to give again.
    idle();
    println!("CPU ns      per packet, in turns of");
    println!("{:>8} {:>10} {:>10}", "flows", "1", "32");
    for flows in [10, 1_000, 50_000] {
        let config = Config { send_buffer: 4096, receive_buffer: 4096, ..Config::default() };
        let mut bench = Bench::new(config, flows);
        let [single, many] = [1, 32].map(|turn| bench.exchange(600_000 / turn, turn).as_nanos());
        println!("{flows:>8} {single:>10} {many:>10}");
    }
    println!("a connection from SYN to TIME-WAIT, both ends: {} CPU ns", short_connections().as_nanos());
    println!("bulk, both ends in one thread: {:.1} Gbit/s", bulk());
}

fn idle() {
    let before = resident();
    let flows = 100_000;
    let mut bench = Bench::new(Config::default(), flows);
    // Both ends of a connection are in this process.
    println!("an idle flow with default buffers: {} bytes resident", (resident() - before) / flows / 2);
    bench.exchange(2 * flows, 1);
    println!("the same after moving 200 bytes: {} bytes resident", (resident() - before) / flows / 2);
}

struct Bench {
    client: Host,
    server: Host,
    now: Instant,
    buf: Vec<u8>,
    /// Both ends of each connection.
    flows: Vec<(Arc<Flow>, Arc<Flow>)>,
}

struct Host {
    stack: Stack,
    net: InterfaceId,
    batch: Batch,
}

impl Host {
    fn new(config: &Config, address: &str, now: Instant) -> Self {
        let stack = Stack::new(config.clone(), [address.len() as u8; 32], now);
        let net = stack.add_interface(InterfaceConfig::new("net", [address.parse().unwrap()]));
        Self { stack, net, batch: Batch::new() }
    }
}

impl Bench {
    fn new(config: Config, flows: usize) -> Self {
        let now = Instant::now();
        let client = Host::new(&config, "fd00::1/8", now);
        let server = Host::new(&config, "fd00::22/8", now);
        let mut bench = Self { client, server, now, buf: vec![0; MAX_PACKET], flows: Vec::new() };
        let remote = |port| SocketAddr::new("fd00::22".parse().unwrap(), port);
        let Host { stack, net, .. } = &bench.server;
        let listen = |port| stack.tcp_listen(now, Some(*net), remote(port), 8, TcpOptions::default());
        let listeners: Vec<_> = (1..=PORTS).map(|port| listen(port).unwrap()).collect();
        for id in 0..flows {
            bench.connect(&listeners[id % listeners.len()]);
        }
        bench
    }

    fn connect(&mut self, listener: &Listener) {
        self.now += Duration::from_micros(1);
        let Host { stack, net, .. } = &self.client;
        let to = listener.local();
        let flow = stack.tcp_connect(self.now, *net, None, to, TcpOptions::default()).unwrap();
        send(&flow, self.now, &mut self.buf, &mut self.server);
        answer(self.now, &mut self.buf, &mut self.server, &mut self.client);
        answer(self.now, &mut self.buf, &mut self.client, &mut self.server);
        self.server.batch.clear();
        let accepted = listener.accept(self.now).unwrap();
        self.flows.push((flow, accepted));
    }

    /// Time per packet when each of `turns` flows, one after the other, carries 100 bytes there and back
    /// `length` times.
    fn exchange(&mut self, turns: usize, length: usize) -> Duration {
        let mut at = 0;
        let before = self.received();
        let began = cpu_time();
        for _ in 0..turns {
            // A step that is prime to the number of flows visits them all, far apart.
            at = (at + 31_607) % self.flows.len();
            for _ in 0..length {
                self.ping_pong(at);
            }
        }
        (cpu_time() - began) / (self.received() - before) as u32
    }

    fn ping_pong(&mut self, at: usize) {
        // So short that a flow's turn comes again before its delayed acknowledgement is due.
        self.now += Duration::from_nanos(50);
        let mut data = [7; 100];
        let (near, far) = &self.flows[at];
        near.write(self.now, &data).unwrap();
        send(near, self.now, &mut self.buf, &mut self.server);
        assert_eq!(far.read(self.now, &mut data), Ok(100));
        far.write(self.now, &data).unwrap();
        answer(self.now, &mut self.buf, &mut self.server, &mut self.client);
        assert_eq!(near.read(self.now, &mut data), Ok(100));
        self.client.batch.clear();
        timers(self.now, &mut self.buf, &mut self.client, &mut self.server);
        timers(self.now, &mut self.buf, &mut self.server, &mut self.client);
    }

    /// Packets that either side has received.
    fn received(&self) -> u64 {
        let hosts = [&self.client, &self.server];
        hosts
            .iter()
            .flat_map(|host| host.stack.counters().snapshot())
            .map(|(name, count)| if name == "ip_received" { count } else { 0 })
            .sum()
    }
}

/// Moves what `flow` has to send to `to`.
fn send(flow: &Flow, now: Instant, buf: &mut [u8], to: &mut Host) {
    while let Some(mut packets) = flow.egress(now, &LIMITS, buf) {
        // One packet, or one that a coalescer would have made of these.
        black_box(packets.packets());
        let len = packets.len();
        if packets.packets() == 1 {
            packets.next(buf);
        }
        to.stack.receive(now, to.net, &mut buf[..len], &mut to.batch);
    }
}

/// Moves what `from`'s batch has to send to `to`, and clears it.
fn answer(now: Instant, buf: &mut [u8], from: &mut Host, to: &mut Host) {
    for flow in &from.batch.flows {
        send(flow, now, buf, to);
    }
    from.batch.clear();
}

/// Lets `from`'s timers fire and moves what they send to `to`.
fn timers(now: Instant, buf: &mut [u8], from: &mut Host, to: &mut Host) {
    if from.stack.poll_timeout().is_some_and(|due| due <= now) {
        from.stack.handle_timeout(now, &mut from.batch);
        answer(now, buf, from, to);
        to.batch.clear();
    }
}

/// CPU time of a connection that moves 100 bytes in each direction.
fn short_connections() -> Duration {
    const CONNECTIONS: u32 = 20_000;
    let mut bench = Bench::new(Config::default(), 0);
    let remote = SocketAddr::new("fd00::22".parse().unwrap(), 100);
    let Host { stack, net, .. } = &bench.server;
    let listener = stack.tcp_listen(bench.now, Some(*net), remote, 8, TcpOptions::default()).unwrap();
    let began = cpu_time();
    for _ in 0..CONNECTIONS {
        bench.connect(&listener);
        bench.now += Duration::from_micros(50);
        bench.ping_pong(0);
        let Bench { client, server, now, buf, flows } = &mut bench;
        for (near, far) in flows.drain(..) {
            near.close(*now);
            send(&near, *now, buf, server);
            answer(*now, buf, server, client);
            client.batch.clear();
            far.close(*now);
            send(&far, *now, buf, client);
            answer(*now, buf, client, server);
            server.batch.clear();
            assert_eq!((near.state(), far.state()), (State::TimeWait, State::Closed));
        }
    }
    (cpu_time() - began) / CONNECTIONS
}

/// One flow with default buffers and super-segments that stay whole, Gbit/s.
fn bulk() -> f64 {
    const TOTAL: usize = 4 << 30;
    let mut bench = Bench::new(Config::default(), 1);
    let data = vec![1; 128 << 10];
    let mut sink = vec![0; 128 << 10];
    let mut moved = 0;
    let began = cpu_time();
    let (near, far) = bench.flows[0].clone();
    while moved < TOTAL {
        bench.now += Duration::from_micros(50);
        let _ = near.write(bench.now, &data);
        send(&near, bench.now, &mut bench.buf, &mut bench.server);
        while let Ok(len) = far.read(bench.now, &mut sink) {
            moved += len;
        }
        answer(bench.now, &mut bench.buf, &mut bench.server, &mut bench.client);
        answer(bench.now, &mut bench.buf, &mut bench.client, &mut bench.server);
    }
    moved as f64 * 8.0 / (cpu_time() - began).as_secs_f64() / 1e9
}

/// The time this thread has run, which others on the machine disturb less than the time of day.
fn cpu_time() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(schedstat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

/// The process's resident memory, bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}
