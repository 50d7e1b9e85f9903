//! One stack and what its driver holds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_stack::{
    Batch, Cidr, Coalescer, Config, Egress, Flow, InterfaceConfig, InterfaceId, Listener, MAX_PACKET, Stack,
    TcpOptions,
};

pub(super) const A: usize = 0;
pub(super) const B: usize = 1;

/// The port that is listened on.
pub(super) const PORT: u16 = 80;

/// Bytes of a flow's queues.
pub(super) const SEND_BUFFER: usize = 16 << 10;
pub(super) const RECEIVE_BUFFER: usize = 64 << 10;
/// Flows of one stack.
pub(super) const MOST_FLOWS: usize = 64;

/// Super-segments of one flow in one go: more than its buffer has bytes.
const MOST_EMITTED: usize = 2 * SEND_BUFFER;

pub(super) struct Host {
    pub(super) stack: Stack,
    pub(super) net: InterfaceId,
    batch: Batch,
    coalescer: Option<Coalescer>,
    buffer: Vec<u8>,
}

/// How packets travel. They cannot be coalesced if they have checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Travel {
    Plain,
    Coalesced,
    Checked,
}

impl Host {
    /// Host A or B, with an address of each family.
    pub(super) fn new(side: usize, now: Instant, travel: Travel) -> Self {
        let config = Config {
            send_buffer: SEND_BUFFER,
            receive_buffer: RECEIVE_BUFFER,
            user_timeout: Duration::from_secs(100),
            max_flows: MOST_FLOWS,
            ..Config::default()
        };
        let stack = Stack::new(config, [side as u8; 32], now);
        let cidr = |ipv6| Cidr::new(address(side, ipv6).ip(), 8).expect("a prefix");
        let mut interface = InterfaceConfig::new("net", [cidr(false), cidr(true)]);
        interface.checksums = travel == Travel::Checked;
        let net = stack.add_interface(interface);
        let coalescer = (travel == Travel::Coalesced).then(Coalescer::new);
        Self { stack, net, batch: Batch::new(), coalescer, buffer: vec![0; MAX_PACKET] }
    }

    /// Listens on [`PORT`] of all addresses of one family.
    pub(super) fn listen(&self, now: Instant, ipv6: bool, backlog: usize) -> Arc<Listener> {
        let any = SocketAddr::new(if ipv6 { "::" } else { "0.0.0.0" }.parse().expect("an address"), PORT);
        let options = TcpOptions { reuse_address: true, ..TcpOptions::default() };
        self.stack.tcp_listen(now, Some(self.net), any, backlog, options).expect("the port is free")
    }

    /// Takes a packet in. [`Self::finish`] is to follow after the last of a round.
    pub(super) fn receive(&mut self, now: Instant, packet: &[u8]) {
        let Self { stack, net, batch, coalescer, .. } = self;
        let Some(coalescer) = coalescer else {
            return stack.receive(now, *net, &mut packet.to_vec(), batch);
        };
        coalescer.slot(packet.len()).copy_from_slice(packet);
        if let Some(flushed) = coalescer.commit(0, packet.len()) {
            stack.receive(now, *net, flushed.packet, batch);
        }
    }

    /// Takes a slot of the coalescer and gives it up, as a driver does when a datagram does not open.
    pub(super) fn give_slot_up(&mut self, len: usize) {
        if let Some(coalescer) = &mut self.coalescer {
            coalescer.slot(len).fill(0xee);
        }
    }

    /// Lets timers fire. [`Self::finish`] is to follow.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.stack.handle_timeout(now, &mut self.batch);
    }

    /// Does what a driver does after a round: flushes, and sends what there is to send.
    pub(super) fn finish(&mut self, now: Instant, limits: &Egress, mut send: impl FnMut(&[u8])) {
        if let Some(flushed) = self.coalescer.as_mut().and_then(Coalescer::flush) {
            self.stack.receive(now, self.net, flushed.packet, &mut self.batch);
        }
        let mut batch = std::mem::take(&mut self.batch);
        batch.replies().for_each(|reply| send(reply.packet));
        for flow in &batch.flows {
            self.kick(now, flow, limits, &mut send);
        }
        batch.clear();
        self.batch = batch;
        assert!(self.stack.flows() <= MOST_FLOWS);
    }

    /// Sends what a flow has to send. What is cut is neither longer than a segment nor in sum anything else
    /// than the whole.
    pub(super) fn kick(&mut self, now: Instant, flow: &Flow, limits: &Egress, mut send: impl FnMut(&[u8])) {
        for _ in 0..MOST_EMITTED {
            let Some(mut packets) = flow.egress(now, limits, &mut self.buffer) else {
                assert!(!flow.has_output(now), "{flow:?} says it has output and gives none");
                return;
            };
            let (count, len, header_len) = (packets.packets(), packets.len(), packets.header_len());
            let (mut seen, mut payload) = (0, 0);
            while let Some(packet) = packets.next(&mut self.buffer) {
                assert!(packet.len() - header_len <= limits.segment);
                (seen, payload) = (seen + 1, payload + packet.len() - header_len);
                send(packet);
            }
            assert_eq!((seen, payload + header_len), (count, len));
        }
        panic!("{flow:?} never stops talking");
    }
}

/// Where a host listens.
pub(super) fn address(side: usize, ipv6: bool) -> SocketAddr {
    let ip = match (side, ipv6) {
        (A, true) => "fd00::a",
        (_, true) => "fd00::b",
        (A, false) => "10.0.0.1",
        (_, false) => "10.0.0.2",
    };
    SocketAddr::new(ip.parse().expect("an address"), PORT)
}
