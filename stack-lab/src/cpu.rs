//! What a packet costs in real time, both ends together, by the number of flows.
//!
//! Two stacks in one thread exchange 100 bytes in each direction on one flow after the other, in an order that caches cannot
//! guess. Counted is everything that both sides do: write, egress, receive, read, timers. `cargo bench -p peersock-stack`
//! has more of the kind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_stack::{
    Batch, Config, Egress, Flow, InterfaceConfig, InterfaceId, Listener, MAX_PACKET, Stack, TcpOptions,
};
use peersock_stack_lab::SEGMENT;
use peersock_stack_lab::measure::Figure;

/// What the names of its figures begin with.
pub(crate) const PREFIX: &str = "engine_ns_per_packet/";

/// How often each is measured.
const ROUNDS: usize = 5;
/// Exchanges of one measurement.
const EXCHANGES: usize = 200_000;
/// Connections of one port of the server; a client has 28,232 ports.
const PER_PORT: usize = 25_000;

const LIMITS: Egress =
    Egress { segment: SEGMENT, max_segments: 44, in_flight_cap: usize::MAX, checksums: false };

/// So many flows.
pub(crate) struct Case {
    pub(crate) name: String,
    flows: usize,
}

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    [1, 1_000, 100_000].map(|flows| Case { name: format!("{PREFIX}{flows}_flows"), flows }).into()
}

impl Case {
    /// Measures it.
    pub(crate) fn run(&self) -> Figure {
        let mut exchange = Exchange::new(self.flows);
        let nanos = (0..ROUNDS).map(|_| exchange.measure()).collect();
        Figure::new(&self.name, "ns", nanos, &[])
    }
}

struct Exchange {
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
    received: u64,
}

impl Host {
    fn new(address: &str, now: Instant) -> Self {
        let config = Config { send_buffer: 4096, receive_buffer: 4096, ..Config::default() };
        let stack = Stack::new(config, [address.len() as u8; 32], now);
        let net = stack.add_interface(InterfaceConfig::new("lab", [address.parse().expect("an address")]));
        Self { stack, net, batch: Batch::new(), received: 0 }
    }
}

impl Exchange {
    fn new(flows: usize) -> Self {
        let now = Instant::now();
        let (client, server) = (Host::new("fd00::1/8", now), Host::new("fd00::22/8", now));
        let mut exchange = Self { client, server, now, buf: vec![0; MAX_PACKET], flows: Vec::new() };
        let remote = |port| SocketAddr::new("fd00::22".parse().expect("an address"), port);
        let Host { stack, net, .. } = &exchange.server;
        let listen = |port| stack.tcp_listen(now, Some(*net), remote(port), 8, TcpOptions::default());
        let listeners: Vec<Arc<Listener>> =
            (1..=flows.div_ceil(PER_PORT) as u16).map(|port| listen(port).expect("a free port")).collect();
        for id in 0..flows {
            exchange.connect(&listeners[id / PER_PORT]);
        }
        exchange
    }

    fn connect(&mut self, listener: &Listener) {
        let Self { client, server, now, buf, flows } = self;
        *now += Duration::from_micros(1);
        let flow = client.stack.tcp_connect(*now, client.net, None, listener.local(), TcpOptions::default());
        let flow = flow.expect("a free port");
        send(&flow, *now, buf, server);
        answer(*now, buf, server, client);
        answer(*now, buf, client, server);
        server.batch.clear();
        flows.push((flow, listener.accept(*now).expect("a handshake takes three packets")));
    }

    /// Nanoseconds of CPU per packet.
    fn measure(&mut self) -> f64 {
        let received = |exchange: &Self| exchange.client.received + exchange.server.received;
        let (before, began) = (received(self), cpu_time());
        let mut at = 0;
        for _ in 0..EXCHANGES {
            // A step that is prime to the number of flows visits them all, far apart.
            at = (at + 31_607) % self.flows.len();
            self.ping_pong(at);
        }
        (cpu_time() - began).as_nanos() as f64 / (received(self) - before) as f64
    }

    fn ping_pong(&mut self, at: usize) {
        let Self { client, server, now, buf, flows } = self;
        // So short that a flow's turn comes again before its delayed acknowledgement is due.
        *now += Duration::from_nanos(50);
        let mut data = [7; 100];
        let (near, far) = &flows[at];
        assert_eq!(near.write(*now, &data), Ok(data.len()));
        send(near, *now, buf, server);
        assert_eq!(far.read(*now, &mut data), Ok(data.len()));
        assert_eq!(far.write(*now, &data), Ok(data.len()));
        answer(*now, buf, server, client);
        assert_eq!(near.read(*now, &mut data), Ok(data.len()));
        client.batch.clear();
        timers(*now, buf, client, server);
        timers(*now, buf, server, client);
    }
}

/// Moves what `flow` has to send to `to`.
fn send(flow: &Flow, now: Instant, buf: &mut [u8], to: &mut Host) {
    while let Some(mut packets) = flow.egress(now, &LIMITS, buf) {
        while let Some(packet) = packets.next(buf) {
            // In place: the next piece's header is written over what the stack may have changed here.
            let mut copy = [0; 1500];
            copy[..packet.len()].copy_from_slice(packet);
            to.stack.receive(now, to.net, &mut copy[..packet.len()], &mut to.batch);
            to.received += 1;
        }
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

/// The time this thread has run, which others on the machine disturb less than the time of day.
fn cpu_time() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(schedstat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}
