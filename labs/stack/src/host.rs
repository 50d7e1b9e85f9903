//! One host of a pair: a stack, driven as a node drives it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use peersock_stack::{
    Batch, Cidr, Coalescer, CongestionControl, InterfaceConfig, InterfaceId, Stack, TcpOptions,
};

use crate::packets::{PacketId, Packets};
use crate::{Scenario, Time};

/// A stack with its driver's state.
pub(crate) struct Host {
    pub(crate) stack: Stack,
    pub(crate) net: InterfaceId,
    pub(crate) batch: Batch,
    origin: Instant,
    coalescer: Coalescer,
    checksums: bool,
    /// Packets that have arrived since the last round.
    pub(crate) inbox: Vec<PacketId>,
    /// Time of the earliest timer event in the queue, `Time::MAX` for none.
    pub(crate) timer: Time,
}

/// Port of the servers.
pub(crate) const PORT: u16 = 80;

/// Number of packets sent at one moment from which a flow counts as endless. No window holds that many.
pub(crate) const ENDLESS: usize = 100_000;

/// Returns the address of a pair's host. Pairs are separate worlds, so all have the same addresses.
pub(crate) fn address(server: bool, ipv6: bool) -> SocketAddr {
    let host = if server { 2 } else { 1 };
    if ipv6 {
        SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, host], PORT))
    } else {
        SocketAddr::from(([10, 0, 0, host as u8], PORT))
    }
}

/// Returns the options of a connection: its congestion control, and ECN.
pub(crate) fn tcp_options(congestion: CongestionControl, ecn: bool) -> TcpOptions {
    TcpOptions { congestion, ecn, reuse_address: true, ..TcpOptions::default() }
}

impl Host {
    pub(crate) fn new(scenario: &Scenario, server: bool, secret: u64, origin: Instant) -> Self {
        let mut seed = [server as u8; 32];
        seed[..8].copy_from_slice(&secret.to_le_bytes());
        let stack = Stack::new(scenario.config.clone(), seed, origin);
        let address = address(server, scenario.ipv6).ip();
        let mut interface =
            InterfaceConfig::new("lab", [Cidr::new(address, 8).expect("8 is a prefix length")]);
        interface.checksums = scenario.checksums;
        let net = stack.add_interface(interface);
        Self {
            stack,
            net,
            batch: Batch::new(),
            origin,
            coalescer: Coalescer::new(),
            checksums: scenario.checksums,
            inbox: Vec::new(),
            timer: Time::MAX,
        }
    }

    /// Returns the stack's clock at `now`.
    pub(crate) fn instant(&self, now: Time) -> Instant {
        self.origin + Duration::from_nanos(now)
    }

    /// Passes the packets in the inbox to the stack, joined as a node joins them, and handles due timers.
    pub(crate) fn receive(&mut self, now: Time, packets: &mut Packets) {
        let at = self.instant(now);
        let Self { stack, net, batch, coalescer, .. } = self;
        for id in self.inbox.drain(..) {
            let packet = packets.bytes(id);
            if self.checksums {
                // A joined packet has no valid checksum.
                stack.receive(at, *net, packet, batch);
            } else {
                coalescer.slot(packet.len()).copy_from_slice(packet);
                if let Some(flushed) = coalescer.commit(0, packet.len()) {
                    stack.receive(at, *net, flushed.packet, batch);
                }
            }
            packets.free(id);
        }
        if let Some(flushed) = coalescer.flush() {
            stack.receive(at, *net, flushed.packet, batch);
        }
        if stack.poll_timeout().is_some_and(|due| due <= at) {
            stack.handle_timeout(at, batch);
        }
    }

    /// Returns the time of the stack's next timeout, at the earliest after `now`.
    pub(crate) fn next_timeout(&self, now: Time) -> Option<Time> {
        let due = self.stack.poll_timeout()?.saturating_duration_since(self.origin).as_nanos() as Time;
        // Work due already waits for the next round, because a round does a bounded amount of work.
        Some(due.max(now + 1_000))
    }
}
