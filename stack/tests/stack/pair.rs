//! Two stacks joined by a link, in virtual time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_stack::*;
use peersock_testnet::Queue;
pub(crate) use peersock_testnet::StackHost as Host;

pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;

/// Properties of the link.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) latency: Duration,
    /// Number of packets in 1000 that are lost. `duplicate` and `reorder` count those doubled, and delayed by
    /// a quarter of the latency.
    pub(crate) loss: u32,
    pub(crate) duplicate: u32,
    pub(crate) reorder: u32,
    pub(crate) mtu: usize,
    /// Bytes in flight in one direction at most; further packets are lost.
    pub(crate) buffer: usize,
}

impl Default for Link {
    fn default() -> Self {
        let latency = Duration::from_millis(5);
        Self { latency, loss: 0, duplicate: 0, reorder: 0, mtu: 1428, buffer: usize::MAX }
    }
}

pub(crate) struct Pair {
    pub(crate) now: Instant,
    start: Instant,
    pub(crate) link: Link,
    pub(crate) hosts: [Host; 2],
    config: Config,
    pub(crate) checksums: bool,
    pub(crate) in_flight_cap: usize,
    pub(crate) max_segments: usize,
    /// Time by which the sending thread's clock reading is older than the receiving thread's.
    pub(crate) skew: Duration,
    /// Number of wire packets sent, by sender.
    pub(crate) sent: [usize; 2],
    /// A copy of every packet sent, if requested.
    pub(crate) capture: Option<Vec<(usize, Vec<u8>)>>,
    random: u64,
    /// Packets in flight by arrival time, with the receiving host.
    queue: Queue<Instant, (usize, Vec<u8>)>,
    in_flight: [usize; 2],
}

/// Returns the address of host `side` in either family.
pub(crate) fn address(side: usize, ipv6: bool, port: u16) -> SocketAddr {
    let ip: &str = match (ipv6, side) {
        (true, A) => "fd00::a",
        (true, _) => "fd00::b",
        (false, A) => "10.0.0.1",
        (false, _) => "10.0.0.2",
    };
    SocketAddr::new(ip.parse().unwrap(), port)
}

pub(crate) fn small_buffers() -> Config {
    Config { send_buffer: 64 << 10, receive_buffer: 64 << 10, ..Config::default() }
}

fn host(side: usize, seed: u64, config: &Config, checksums: bool, now: Instant) -> Host {
    let mut secret = [side as u8; 32];
    secret[..8].copy_from_slice(&seed.to_le_bytes());
    let cidr = |ipv6, prefix| Cidr::new(address(side, ipv6, 0).ip(), prefix).unwrap();
    let mut interface = InterfaceConfig::new("net", [cidr(false, 8), cidr(true, 8)]);
    interface.checksums = checksums;
    Host::new(config.clone(), secret, interface, !checksums, now)
}

impl Pair {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(seed, Config::default(), false)
    }

    pub(crate) fn with(seed: u64, config: Config, checksums: bool) -> Self {
        // Any instant serves, because only differences matter.
        #[allow(clippy::disallowed_methods)]
        let start = Instant::now();
        Self {
            now: start,
            start,
            link: Link::default(),
            hosts: [A, B].map(|side| host(side, seed, &config, checksums, start)),
            config,
            checksums,
            in_flight_cap: usize::MAX,
            max_segments: 44,
            skew: Duration::ZERO,
            sent: [0; 2],
            capture: None,
            random: seed.wrapping_mul(2) + 1,
            queue: Queue::default(),
            in_flight: [0; 2],
        }
    }

    pub(crate) fn listen(&self, side: usize, port: u16) -> Arc<Listener> {
        self.listen_with(side, port, 128, TcpOptions { reuse_address: true, ..TcpOptions::default() })
    }

    pub(crate) fn listen_with(
        &self,
        side: usize,
        port: u16,
        backlog: usize,
        options: TcpOptions,
    ) -> Arc<Listener> {
        let any = SocketAddr::new("::".parse().unwrap(), port);
        let host = &self.hosts[side];
        host.stack.tcp_listen(self.now, Some(host.net), any, backlog, options).unwrap()
    }

    pub(crate) fn connect(&mut self, side: usize, port: u16) -> Arc<Flow> {
        self.connect_with(side, address(1 - side, true, port), TcpOptions::default()).unwrap()
    }

    pub(crate) fn connect_with(
        &mut self,
        side: usize,
        remote: SocketAddr,
        options: TcpOptions,
    ) -> Result<Arc<Flow>, Error> {
        self.connect_from_any(side, None, remote, options)
    }

    pub(crate) fn connect_from(
        &mut self,
        side: usize,
        local: SocketAddr,
        remote: SocketAddr,
        options: TcpOptions,
    ) -> Result<Arc<Flow>, Error> {
        self.connect_from_any(side, Some(local), remote, options)
    }

    fn connect_from_any(
        &mut self,
        side: usize,
        local: Option<SocketAddr>,
        remote: SocketAddr,
        options: TcpOptions,
    ) -> Result<Arc<Flow>, Error> {
        let host = &self.hosts[side];
        let flow = host.stack.tcp_connect(self.now, host.net, local, remote, options)?;
        self.kick(side, &flow);
        Ok(flow)
    }

    /// Replaces `side`'s stack with a new one with other secrets, as after a power cycle of its machine.
    pub(crate) fn restart(&mut self, side: usize, seed: u64) {
        self.hosts[side] = host(side, seed, &self.config, self.checksums, self.now);
    }

    /// Replaces `side`'s stack with a new one that has the settings `config`.
    pub(crate) fn configure(&mut self, side: usize, config: Config) {
        self.hosts[side] = host(side, self.random, &config, self.checksums, self.now);
    }

    /// Opens a connection from A to B, and returns both ends.
    pub(crate) fn connected(&mut self) -> (Arc<Flow>, Arc<Flow>) {
        self.connected_with(true, TcpOptions::default())
    }

    pub(crate) fn connected_with(&mut self, ipv6: bool, options: TcpOptions) -> (Arc<Flow>, Arc<Flow>) {
        let any = SocketAddr::new(if ipv6 { "::" } else { "0.0.0.0" }.parse().unwrap(), 80);
        let host = &self.hosts[B];
        let listener = host.stack.tcp_listen(self.now, Some(host.net), any, 8, options.clone()).unwrap();
        let a = self.connect_with(A, address(B, ipv6, 80), options).unwrap();
        let mut accepted = None;
        self.run(Duration::from_secs(60), |pair| {
            accepted = accepted.take().or_else(|| listener.accept(pair.now).ok());
            accepted.is_some() && a.readiness().contains(Ready::CONNECTED)
        });
        listener.close(self.now);
        (a, accepted.unwrap())
    }

    /// Sends the pending packets of `flow`.
    pub(crate) fn kick(&mut self, side: usize, flow: &Flow) {
        let headers = if flow.local().is_ipv4() { 40 } else { 60 };
        let limits = Egress {
            segment: self.link.mtu - headers,
            max_segments: self.max_segments,
            in_flight_cap: self.in_flight_cap,
            checksums: self.checksums,
        };
        let mut packets = Vec::new();
        self.hosts[side].kick(self.now - self.skew, flow, &limits, |packet| packets.push(packet.to_vec()));
        for packet in packets {
            assert!(packet.len() <= self.link.mtu, "{} > {}", packet.len(), self.link.mtu);
            self.transmit(side, packet);
        }
        assert!(!flow.has_output(self.now), "{flow:?} says it has output and gives none");
    }

    /// Puts a packet from `side` on the link, cut into fragments if necessary.
    pub(crate) fn send(&mut self, side: usize, packet: &[u8]) {
        let Host { stack, net, .. } = &self.hosts[side];
        let Ok(mut fragments) = stack.fragments(*net, packet, self.link.mtu) else { return };
        let mut buf = packet.to_vec();
        while let Some(packet) = fragments.next(&mut buf) {
            assert!(packet.len() <= self.link.mtu);
            self.transmit(side, packet.to_vec());
        }
    }

    /// Puts a packet from `side` on the link.
    pub(crate) fn transmit(&mut self, side: usize, packet: Vec<u8>) {
        self.sent[side] += 1;
        if let Some(capture) = &mut self.capture {
            capture.push((side, packet.clone()));
        }
        if self.chance(self.link.loss) || self.in_flight[side] + packet.len() > self.link.buffer {
            return;
        }
        let copies = 1 + usize::from(self.chance(self.link.duplicate));
        for _ in 0..copies {
            let late = self.chance(self.link.reorder);
            let delay = self.link.latency + if late { self.link.latency / 4 } else { Duration::ZERO };
            self.in_flight[side] += packet.len();
            self.queue.push(self.now + delay, (1 - side, packet.clone()));
        }
    }

    /// Runs until `done` returns true; calls it after each event. Panics at the limit.
    #[track_caller]
    pub(crate) fn run(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            assert!(self.now < end, "not done after {limit:?}");
            assert!(self.step(end), "nothing left to happen");
        }
    }

    /// Runs for `time`.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) && self.now < end {}
        self.now = end;
    }

    /// Moves to the next event, at most to `end`; returns false if there is none.
    pub(crate) fn step(&mut self, end: Instant) -> bool {
        let timers = self.hosts.iter().filter_map(|host| host.stack.poll_timeout());
        let Some(next) = timers.chain(self.queue.next_at()).min() else { return false };
        self.now = self.now.max(next.min(end));
        while let Some((_, (to, packet))) = self.queue.pop_due(self.now) {
            self.in_flight[1 - to] -= packet.len();
            self.hosts[to].receive(self.now, &packet);
        }
        for side in [A, B] {
            self.hosts[side].flush(self.now);
            self.hosts[side].handle_timeout(self.now);
            self.finish_batch(side);
        }
        true
    }

    fn finish_batch(&mut self, side: usize) {
        let mut batch = std::mem::take(&mut self.hosts[side].batch);
        for reply in batch.replies() {
            assert_eq!(reply.interface, self.hosts[side].net);
            self.send(side, reply.packet);
        }
        for flow in &batch.flows {
            self.kick(side, flow);
        }
        batch.clear();
        self.hosts[side].batch = batch;
    }

    /// Delivers a packet to `side` that no stack has sent.
    pub(crate) fn inject(&mut self, side: usize, packet: &[u8]) {
        let Host { stack, net, batch, .. } = &mut self.hosts[side];
        stack.receive(self.now, *net, &mut packet.to_vec(), batch);
        self.finish_batch(side);
    }

    /// Ends every connection of `side`, as the end of its program does.
    pub(crate) fn reset_flows(&mut self, side: usize) {
        let Host { stack, net, batch, .. } = &mut self.hosts[side];
        stack.reset_flows(self.now, *net, batch);
        self.finish_batch(side);
    }

    /// Tells the stack of `side` that the other program is gone, as its driver does.
    pub(crate) fn lose_peer(&mut self, side: usize, departure: Departure) {
        let Host { stack, net, batch, .. } = &mut self.hosts[side];
        let peer = address(1 - side, true, 0).ip();
        stack.lose_peer(self.now, *net, &[peer.into()], departure, |_| true, batch);
        self.finish_batch(side);
    }

    /// Returns the time since the pair was created.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(crate) fn counter(&self, side: usize, name: &str) -> u64 {
        let all = self.hosts[side].stack.counters().snapshot();
        all.iter().find(|(known, _)| *known == name).expect("a counter of that name").1
    }

    /// Moves `total` bytes from `from` on `side` to `to`, checks each, and returns the time this took.
    #[track_caller]
    pub(crate) fn transfer(&mut self, side: usize, from: &Flow, to: &Flow, total: usize) -> Duration {
        let began = self.now;
        let (mut written, mut read) = (0, 0);
        let mut buf = vec![0; 200_000];
        self.run(Duration::from_secs(3600), |pair| {
            while written < total {
                let chunk: Vec<u8> = (written..total.min(written + 100_000)).map(pattern).collect();
                match from.write(pair.now, &chunk) {
                    Ok(len) => written += len,
                    Err(Error::WouldBlock) => break,
                    Err(error) => panic!("{error}"),
                }
                pair.kick(side, from);
            }
            while let Ok(len) = to.read(pair.now, &mut buf) {
                assert!(buf[..len].iter().enumerate().all(|(at, &byte)| byte == pattern(read + at)));
                read += len;
                if len == 0 {
                    break;
                }
                pair.kick(1 - side, to);
            }
            assert!(read <= written);
            read == total
        });
        self.now - began
    }

    fn chance(&mut self, per_mille: u32) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 1000 < u64::from(per_mille)
    }
}

/// Returns the byte at `position` of every test stream.
pub(crate) fn pattern(position: usize) -> u8 {
    (position ^ position >> 8 ^ position >> 16) as u8
}
