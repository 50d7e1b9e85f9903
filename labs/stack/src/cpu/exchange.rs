//! Two stacks in one thread, with messages on their flows in turn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_stack::{
    Batch, Config, Egress, Flow, InterfaceConfig, InterfaceId, Listener, MAX_PACKET, Stack, TcpOptions,
};
use peersock_stack_lab::SEGMENT;

use super::{Cost, cpu_time, next_turn};

/// Payload of a message, bytes.
pub(super) const MESSAGE: usize = 100;
/// Size of each queue, bytes.
pub(super) const BUFFER: usize = 4096;
/// Time between two exchanges, short enough that a flow's next turn precedes its delayed acknowledgement.
pub(super) const STEP: Duration = Duration::from_nanos(50);

/// Connections per port of the server; a client has 28,232 ports.
const CONNECTIONS_PER_PORT: usize = 25_000;

const LIMITS: Egress =
    Egress { segment: SEGMENT, max_segments: 44, in_flight_cap: usize::MAX, checksums: false };

/// Both ends of some connections.
pub(super) struct Exchange {
    pub(super) client: Host,
    pub(super) server: Host,
    pub(super) now: Instant,
    pub(super) buf: Vec<u8>,
    pub(super) flows: Vec<(Arc<Flow>, Arc<Flow>)>,
    at: usize,
}

pub(super) struct Host {
    pub(super) stack: Stack,
    pub(super) net: InterfaceId,
    pub(super) batch: Batch,
    received: u64,
}

/// Returns buffers as large as in the [reference](super::reference).
pub(super) fn small_buffers() -> Config {
    Config { send_buffer: BUFFER, receive_buffer: BUFFER, ..Config::default() }
}

impl Host {
    fn new(config: Config, address: &str, now: Instant) -> Self {
        let stack = Stack::new(config, [address.len() as u8; 32], now);
        let net = stack.add_interface(InterfaceConfig::new("lab", [address.parse().expect("an address")]));
        Self { stack, net, batch: Batch::new(), received: 0 }
    }
}

impl Exchange {
    pub(super) fn new(config: Config, flows: usize) -> Self {
        let now = Instant::now();
        let client = Host::new(config.clone(), "fd00::1/8", now);
        let server = Host::new(config, "fd00::22/8", now);
        let mut exchange = Self { client, server, now, buf: vec![0; MAX_PACKET], flows: Vec::new(), at: 0 };
        let listeners: Vec<_> =
            (1..=flows.div_ceil(CONNECTIONS_PER_PORT) as u16).map(|port| exchange.listen(port)).collect();
        for id in 0..flows {
            exchange.connect(&listeners[id / CONNECTIONS_PER_PORT]);
        }
        exchange
    }

    pub(super) fn listen(&self, port: u16) -> Arc<Listener> {
        let Host { stack, net, .. } = &self.server;
        let local = SocketAddr::new("fd00::22".parse().expect("an address"), port);
        stack.tcp_listen(self.now, Some(*net), local, 8, TcpOptions::default()).expect("a free port")
    }

    pub(super) fn connect(&mut self, listener: &Listener) {
        let Self { client, server, now, buf, flows, .. } = self;
        *now += Duration::from_micros(1);
        let flow = client.stack.tcp_connect(*now, client.net, None, listener.local(), TcpOptions::default());
        let flow = flow.expect("a free port");
        send(&flow, *now, buf, server);
        answer(*now, buf, server, client);
        answer(*now, buf, client, server);
        server.batch.clear();
        flows.push((flow, listener.accept(*now).expect("a handshake takes three packets")));
    }

    /// Returns the cost of `turns` turns of `length` exchanges.
    pub(super) fn measure(&mut self, turns: usize, length: usize) -> Cost {
        let received = |exchange: &Self| exchange.client.received + exchange.server.received;
        let (before, began) = (received(self), cpu_time());
        for _ in 0..turns {
            self.at = next_turn(self.at, self.flows.len());
            for _ in 0..length {
                self.ping_pong(self.at);
            }
        }
        let messages = 2 * (turns * length) as u64;
        Cost { time: cpu_time() - began, packets: received(self) - before, messages }
    }

    /// Exchanges one message in each direction.
    pub(super) fn ping_pong(&mut self, at: usize) {
        let Self { client, server, now, buf, flows, .. } = self;
        *now += STEP;
        let mut data = [7; MESSAGE];
        let (near, far) = &flows[at];
        assert_eq!(near.write(*now, &data), Ok(MESSAGE));
        send(near, *now, buf, server);
        assert_eq!(far.read(*now, &mut data), Ok(MESSAGE));
        assert_eq!(far.write(*now, &data), Ok(MESSAGE));
        answer(*now, buf, server, client);
        assert_eq!(near.read(*now, &mut data), Ok(MESSAGE));
        client.batch.clear();
        self.run_timers();
    }

    /// Handles due timers, up to the limit of one call.
    fn run_timers(&mut self) {
        let Self { client, server, now, buf, .. } = self;
        timers(*now, buf, client, server);
        timers(*now, buf, server, client);
    }

    /// Handles all due timers.
    pub(super) fn run_due_timers(&mut self) {
        let due = |exchange: &Self| {
            let hosts = [&exchange.client, &exchange.server];
            hosts.iter().any(|host| host.stack.poll_timeout().is_some_and(|due| due <= exchange.now))
        };
        while due(self) {
            self.run_timers();
        }
    }
}

/// Moves the output of `flow` to `to`.
pub(super) fn send(flow: &Flow, now: Instant, buf: &mut [u8], to: &mut Host) {
    while let Some(mut packets) = flow.egress(now, &LIMITS, buf) {
        let (len, count) = (packets.len(), packets.packets());
        // Several packets arrive as the one that a coalescer would make of them.
        if count == 1 {
            packets.next(buf);
        }
        to.stack.receive(now, to.net, &mut buf[..len], &mut to.batch);
        to.received += count as u64;
    }
}

/// Moves the output of `from`'s batch to `to`, and clears the batch.
pub(super) fn answer(now: Instant, buf: &mut [u8], from: &mut Host, to: &mut Host) {
    for flow in &from.batch.flows {
        send(flow, now, buf, to);
    }
    from.batch.clear();
}

/// Handles `from`'s timers and moves their output to `to`.
fn timers(now: Instant, buf: &mut [u8], from: &mut Host, to: &mut Host) {
    if from.stack.poll_timeout().is_some_and(|due| due <= now) {
        from.stack.handle_timeout(now, &mut from.batch);
        answer(now, buf, from, to);
        to.batch.clear();
    }
}
