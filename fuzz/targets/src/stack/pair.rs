//! Two stacks in virtual time, and the packets between them, which move only on request.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_stack::{Egress, Flow, TcpOptions};
use peersock_testnet::StackHost;

use super::host::{A, B, Travel, address, host, listen};
use crate::input::instant;

/// Maximum number of packets under way. Further ones are lost.
const MAX_PACKETS: usize = 512;

/// A packet under way to one of the hosts.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) to: usize,
    pub(super) bytes: Vec<u8>,
}

pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) hosts: [StackHost; 2],
    pub(super) wire: VecDeque<Packet>,
    pub(super) limits: Egress,
}

impl Pair {
    /// Makes two hosts that know nothing of each other.
    pub(super) fn new(travel: Travel) -> Self {
        let now = instant();
        let checksums = travel == Travel::Checked;
        Self {
            now,
            hosts: [A, B].map(|side| host(side, now, travel)),
            wire: VecDeque::new(),
            limits: Egress { segment: 1000, max_segments: 44, in_flight_cap: usize::MAX, checksums },
        }
    }

    /// Makes a connection from A to B, returns both ends, and closes the listener.
    pub(super) fn connected(&mut self, ipv6: bool) -> (Arc<Flow>, Arc<Flow>) {
        let listener = listen(&self.hosts[B], self.now, ipv6, 8);
        let client = self.connect(A, ipv6);
        self.deliver_all();
        let server = listener.accept(self.now).expect("the handshake is done");
        listener.close(self.now);
        (client, server)
    }

    /// Opens a connection to the other host.
    pub(super) fn connect(&mut self, side: usize, ipv6: bool) -> Arc<Flow> {
        let StackHost { stack, net, .. } = &self.hosts[side];
        let (to, options) = (address(1 - side, ipv6), TcpOptions::default());
        let flow = stack.tcp_connect(self.now, *net, None, to, options).expect("ports are free");
        self.kick(side, &flow);
        flow
    }

    /// Puts a flow's pending segments on the wire.
    pub(super) fn kick(&mut self, side: usize, flow: &Flow) {
        let Self { now, hosts, wire, limits } = self;
        hosts[side].kick(*now, flow, limits, |packet| put(wire, 1 - side, packet));
    }

    /// Delivers the first `count` packets on the wire, in one round.
    pub(super) fn deliver(&mut self, count: usize) {
        for _ in 0..count {
            let Some(packet) = self.wire.pop_front() else { break };
            self.hosts[packet.to].receive(self.now, &packet.bytes);
        }
        self.finish();
    }

    /// Delivers all packets and their consequences until the wire is empty.
    pub(super) fn deliver_all(&mut self) {
        for _ in 0..10_000 {
            if self.wire.is_empty() {
                return;
            }
            self.deliver(self.wire.len());
        }
        panic!("the hosts never stop talking");
    }

    /// Ends a round: puts the pending packets of both hosts on the wire.
    pub(super) fn finish(&mut self) {
        let Self { now, hosts, wire, limits } = self;
        for side in [A, B] {
            hosts[side].finish(*now, limits, |packet| put(wire, 1 - side, packet));
        }
    }

    /// Advances time and fires timers. If the network is `well`, every packet arrives at once, else none
    /// does.
    pub(super) fn wait(&mut self, time: Duration, well: bool) {
        let end = self.now + time;
        for _ in 0..100_000 {
            if well {
                self.deliver_all();
            }
            let next = self.hosts.iter().filter_map(|host| host.stack.poll_timeout()).min();
            let Some(next) = next.filter(|&next| next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            self.hosts.iter_mut().for_each(|host| host.handle_timeout(self.now));
            self.finish();
        }
        panic!("timers that never rest");
    }
}

fn put(wire: &mut VecDeque<Packet>, to: usize, bytes: &[u8]) {
    if wire.len() < MAX_PACKETS {
        wire.push_back(Packet { to, bytes: bytes.to_vec() });
    }
}
