use std::time::Instant;

use peersock_stack::{
    Batch, Coalescer, Config, Egress, Flow, InterfaceConfig, InterfaceId, MAX_PACKET, Stack,
};

/// Number of super-segments at one moment after which a flow counts as endless. No window holds this many.
const ENDLESS: usize = 100_000;

/// A stack with one interface, driven as a node drives it.
///
/// ```
/// use std::time::Instant;
/// use peersock_stack::{Config, Egress, InterfaceConfig, TcpOptions};
/// use peersock_testnet::StackHost;
///
/// let now = Instant::now();
/// let interface = InterfaceConfig::new("net", ["10.0.0.1/8".parse()?]);
/// let mut host = StackHost::new(Config::default(), [1; 32], interface, true, now);
/// let to = "10.0.0.2:80".parse()?;
/// let flow = host.stack.tcp_connect(now, host.net, None, to, TcpOptions::default()).expect("a route");
/// let limits = Egress { segment: 1000, max_segments: 44, in_flight_cap: usize::MAX, checksums: false };
/// let mut sent = 0;
/// host.kick(now, &flow, &limits, |_| sent += 1);
/// assert_eq!(sent, 1, "the SYN");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct StackHost {
    /// The stack.
    pub stack: Stack,
    /// The stack's interface.
    pub net: InterfaceId,
    /// Flows and replies that the calls since the last round have touched.
    pub batch: Batch,
    coalescer: Option<Coalescer>,
    buffer: Vec<u8>,
    max_flows: usize,
}

impl StackHost {
    /// Makes a stack with these settings and this secret. If `coalesces` is set, arriving packets are
    /// coalesced first, as in a node. That is not possible for packets with checksums.
    pub fn new(
        config: Config,
        secret: [u8; 32],
        interface: InterfaceConfig,
        coalesces: bool,
        now: Instant,
    ) -> Self {
        let max_flows = config.max_flows;
        let stack = Stack::new(config, secret, now);
        let net = stack.add_interface(interface);
        let (coalescer, buffer) = (coalesces.then(Coalescer::new), vec![0; MAX_PACKET]);
        Self { stack, net, batch: Batch::new(), coalescer, buffer, max_flows }
    }

    /// Receives a packet. Call [`Self::flush`] or [`Self::finish`] after the last packet of a round.
    pub fn receive(&mut self, now: Instant, packet: &[u8]) {
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
    pub fn give_slot_up(&mut self, len: usize) {
        if let Some(coalescer) = &mut self.coalescer {
            coalescer.slot(len).fill(0xee);
        }
    }

    /// Gives the stack the packets that wait in the coalescer.
    pub fn flush(&mut self, now: Instant) {
        if let Some(flushed) = self.coalescer.as_mut().and_then(Coalescer::flush) {
            self.stack.receive(now, self.net, flushed.packet, &mut self.batch);
        }
    }

    /// Fires the timers. Call [`Self::finish`] afterwards.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.stack.handle_timeout(now, &mut self.batch);
    }

    /// Ends a round like a driver: flushes, and sends all pending packets, answers first.
    ///
    /// # Panics
    /// The stack breaks a promise of [`Self::kick`], or has more flows than its settings allow.
    pub fn finish(&mut self, now: Instant, limits: &Egress, mut send: impl FnMut(&[u8])) {
        self.flush(now);
        let mut batch = std::mem::take(&mut self.batch);
        for reply in batch.replies() {
            assert_eq!(reply.interface, self.net);
            send(reply.packet);
        }
        for flow in &batch.flows {
            self.kick(now, flow, limits, &mut send);
        }
        batch.clear();
        self.batch = batch;
        assert!(self.stack.flows() <= self.max_flows);
    }

    /// Sends a flow's pending packets.
    ///
    /// # Panics
    /// The flow sends without end, more than `limits` allow, or packets whose sum differs from what it
    /// announced.
    pub fn kick(&mut self, now: Instant, flow: &Flow, limits: &Egress, mut send: impl FnMut(&[u8])) {
        for _ in 0..ENDLESS {
            let Some(mut packets) = flow.egress(now, limits, &mut self.buffer) else {
                assert!(!flow.has_output(now), "{flow:?} says it has output and gives none");
                return;
            };
            let (count, len, header_len) = (packets.packets(), packets.len(), packets.header_len());
            assert!(count <= limits.max_segments, "{count} > {}", limits.max_segments);
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
