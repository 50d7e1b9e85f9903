//! One end of a pair: a stack, driven as a node drives it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use peersock_stack::{
    Batch, Coalescer, Config, CongestionControl, InterfaceConfig, InterfaceId, Stack, TcpOptions,
};

use crate::Time;
use crate::packets::{PacketId, Packets};

/// A stack and what its driver keeps.
pub(crate) struct Host {
    pub(crate) stack: Stack,
    pub(crate) net: InterfaceId,
    pub(crate) batch: Batch,
    origin: Instant,
    coalescer: Coalescer,
    checksums: bool,
    /// What has arrived since the last look.
    pub(crate) inbox: Vec<PacketId>,
    /// When its earliest timer event is due that was put into the queue, `Time::MAX` for none.
    pub(crate) timer: Time,
}

/// The port that servers listen on.
pub(crate) const PORT: u16 = 80;

/// The address of a pair's host. Pairs are separate worlds, so all have the same.
pub(crate) fn address(server: bool) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, if server { 2 } else { 1 }], PORT))
}

/// The options of a connection with this congestion control. The only place that knows how it is chosen.
pub(crate) fn tcp_options(congestion: CongestionControl) -> TcpOptions {
    // This engine has one algorithm; an option comes with the engine that has several.
    TcpOptions { congestion, reuse_address: true, ..TcpOptions::default() }
}

impl Host {
    pub(crate) fn new(config: &Config, server: bool, checksums: bool, secret: u64, origin: Instant) -> Self {
        let mut seed = [server as u8; 32];
        seed[..8].copy_from_slice(&secret.to_le_bytes());
        let stack = Stack::new(config.clone(), seed, origin);
        let cidr = peersock_stack::Cidr::new(address(server).ip(), 8).expect("8 is a prefix length");
        let mut interface = InterfaceConfig::new("lab", [cidr]);
        interface.checksums = checksums;
        let net = stack.add_interface(interface);
        Self {
            stack,
            net,
            batch: Batch::new(),
            origin,
            coalescer: Coalescer::new(),
            checksums,
            inbox: Vec::new(),
            timer: Time::MAX,
        }
    }

    /// The stack's clock at `now`.
    pub(crate) fn instant(&self, now: Time) -> Instant {
        self.origin + Duration::from_nanos(now)
    }

    /// Gives the stack what is in the inbox, joined as a node joins it, and lets timers fire that are due.
    pub(crate) fn receive(&mut self, now: Time, packets: &mut Packets) {
        let at = self.instant(now);
        let Self { stack, net, batch, coalescer, .. } = self;
        for id in self.inbox.drain(..) {
            let packet = packets.bytes(id);
            if self.checksums {
                // What is joined has no valid checksum.
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

    /// When the stack wants to be called, at the earliest after `now`.
    pub(crate) fn next_timeout(&self, now: Time) -> Option<Time> {
        let due = self.stack.poll_timeout()?.saturating_duration_since(self.origin).as_nanos() as Time;
        // What is due already waits for a next round, because one round does a bounded amount of work.
        Some(due.max(now + 1_000))
    }
}
