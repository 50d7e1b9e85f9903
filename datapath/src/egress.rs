//! Outgoing packets: cut to the path's size, sealed into a batch of equal datagrams, and sent with one call.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use peersock_overlay::{Attention, DATA_OVERHEAD, Peer, Route, Sender, Session};
use peersock_stack::{
    Batch, Egress, Error, Flow, InterfaceId, MAX_DATAGRAM, Ready, Reply, State, fill_checksums,
};

use crate::gso::{GsoBatch, MAX_BATCH};
use crate::route::Resolved;
use crate::socket::{PeerLink, SocketState};
use crate::{Datapath, Transmit, ecn};

/// Size of the largest IP packet, and so of the largest super-segment.
const MAX_PACKET: usize = 65535;
/// Size of an IPv6 and TCP header. IPv4's is 20 bytes shorter; they stay unused so that both families share
/// one calculation.
const TCP_HEADERS: usize = 60;
/// Size limit in bytes of a packet worth delaying for packets of other flows.
const MAX_DELAYED_BYTES: usize = 4096;
/// Bytes that a flow may always have in flight, however many other flows share its peer's limit.
const IN_FLIGHT_FLOOR: usize = MAX_BATCH;

thread_local! {
    /// Buffers of the sending thread. Fresh zeroed memory costs nothing until it is written, so a thread that
    /// sends only small packets holds a few pages.
    static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers::new());

    /// Packet of a UDP or ICMP socket before it is sealed or looped back.
    static PACKET: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

pub(super) struct Buffers {
    packet: Vec<u8>,
    pub(super) sealed: Vec<u8>,
}

impl Buffers {
    fn new() -> Buffers {
        Buffers { packet: vec![0; MAX_PACKET + 1], sealed: vec![0; MAX_BATCH + 1] }
    }

    /// Lends the thread's buffers to `work`. Lends fresh ones if those are in use (sending caused more to be
    /// sent), or if the thread has destroyed them (the process's exit resets open connections).
    pub(super) fn with<R>(work: impl FnOnce(&mut Buffers) -> R) -> R {
        let mut work = Some(work);
        let mut run = |buffers: &mut Buffers| work.take().map(|work| work(buffers));
        let own =
            |buffers: &RefCell<Buffers>| buffers.try_borrow_mut().ok().and_then(|mut own| run(&mut own));
        let done = BUFFERS.try_with(own).ok().flatten();
        done.or_else(|| run(&mut Buffers::new())).expect("it runs with the one or the other")
    }
}

/// Lends the thread's buffer for one packet.
pub(super) fn with_packet<R>(work: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut packet = PACKET.try_with(Cell::take).unwrap_or_default();
    packet.resize(MAX_DATAGRAM, 0);
    let result = work(&mut packet);
    // A thread that is ending has destroyed the slot; then the buffer is dropped.
    let _ = PACKET.try_with(|kept| kept.set(packet));
    result
}

/// Reason why a flow cannot send now.
enum Blocked {
    /// Nothing to send, or all is sent.
    Idle,
    /// The peer has no session; the flow waits for one.
    NoSession(Arc<Peer>),
}

impl Datapath {
    /// Sends the pending data of a flow, from any thread, and then whatever that causes on this node.
    pub fn pump(&self, now: Instant, flow: &Arc<Flow>, batch: &mut Batch) {
        self.pump_flow(now, flow, None, batch);
        self.settle(now, batch);
    }

    /// Pumps several flows like [`Datapath::pump`], and empties the list: their small segments to one peer
    /// leave with one call. Only one thread should send for these flows, because another thread's packets may
    /// overtake waiting segments.
    pub fn pump_together(
        &self,
        now: Instant,
        flows: &mut Vec<Arc<Flow>>,
        gso: &mut GsoBatch,
        batch: &mut Batch,
    ) {
        for flow in flows.drain(..) {
            self.pump_flow(now, &flow, Some(gso), batch);
        }
        self.send_gso(now, gso, batch);
        self.settle(now, batch);
    }

    /// Works off a batch: sends the pending data of its flows and the stack, and notifies waiting threads.
    /// Leaves the batch empty.
    pub fn settle(&self, now: Instant, batch: &mut Batch) {
        if !batch.is_empty() {
            self.work_off(now, batch);
        }
        if let Some(at) = self.stack.poll_timeout() {
            self.sink.wake_at(at);
        }
    }

    fn work_off(&self, now: Instant, batch: &mut Batch) {
        // Connections to the node's own addresses add work; the next round handles it.
        let mut round = Batch::default();
        while !batch.is_empty() {
            std::mem::swap(batch, &mut round);
            for flow in &round.flows {
                self.pump_flow(now, flow, None, batch);
                self.notify_flow(flow);
            }
            let contexts = round.listeners.iter().map(|listener| listener.context());
            let contexts = contexts.chain(round.udp.iter().map(|socket| socket.context()));
            let contexts = contexts.chain(round.raw.iter().map(|socket| socket.context()));
            for context in contexts.chain(round.icmp.iter().map(|socket| socket.context())) {
                SocketState::of(context).waiters().notify(true, false);
            }
            for reply in round.replies() {
                self.send_reply(now, reply, batch);
            }
            for change in &round.memberships {
                self.report_membership(now, change, batch);
            }
            round.clear();
            if batch.is_empty() {
                // Hand back the batch whose lists have grown, so that the caller reuses their memory.
                std::mem::swap(batch, &mut round);
            }
        }
    }

    /// Sends one whole IP packet that belongs to no flow (UDP, ICMP, resets), in fragments if it exceeds the
    /// path's size.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`] if the network's rules refuse the flow.
    pub fn send_packet(
        &self,
        now: Instant,
        interface: InterfaceId,
        socket: Option<&SocketState>,
        destination: IpAddr,
        packet: &mut [u8],
        batch: &mut Batch,
    ) -> Result<(), Error> {
        if destination.is_multicast() {
            self.send_to_group(now, interface, destination, packet, batch);
            return Ok(());
        }
        let peer = match self.resolve(now, interface, socket, destination) {
            Resolved::Route(Route::Local) => {
                self.stack.receive(now, interface, packet, batch);
                return Ok(());
            }
            Resolved::Route(Route::Peer(peer)) => peer,
            Resolved::Unknown => {
                self.wait_for_peer(now, interface, destination, packet, batch);
                return Ok(());
            }
            Resolved::NoRoute => {
                self.counters.out_no_route.increment();
                return Ok(());
            }
        };
        let Some(sender) = peer.sender() else {
            self.wait_for_session(now, interface, &peer, destination, packet, batch);
            return Ok(());
        };
        if let Some(network) = self.guarded(interface)
            && self.refuses_outgoing(now, &network, &peer, packet, network.device.is_some())
        {
            return Err(Error::PermissionDenied);
        }
        let mtu = sender.path.datagram_size - DATA_OVERHEAD;
        let mtu = socket.map_or(mtu, |socket| socket.limit(mtu));
        if !self.refuse_too_big(now, interface, packet, mtu) {
            self.send_cut(now, interface, &sender, packet, mtu, batch);
        }
        Ok(())
    }

    /// Queues a packet until the peer with its destination is found and has a session.
    pub(super) fn wait_for_peer(
        &self,
        now: Instant,
        interface: InterfaceId,
        destination: IpAddr,
        packet: &[u8],
        batch: &mut Batch,
    ) {
        let kept = self.lock_waiting().add_packet(now, false, interface, destination, packet);
        self.counters.out_waiting_dropped.add(u64::from(!kept));
        self.go_on_if_found(now, interface, destination, batch);
    }

    /// Queues a packet until its peer has a session, and requests one.
    pub(super) fn wait_for_session(
        &self,
        now: Instant,
        interface: InterfaceId,
        peer: &Arc<Peer>,
        destination: IpAddr,
        packet: &[u8],
        batch: &mut Batch,
    ) {
        let kept = self.lock_waiting().add_packet(now, true, interface, destination, packet);
        self.counters.out_waiting_dropped.add(u64::from(!kept));
        self.tell_wanted(peer);
        self.go_on(now, peer, batch);
    }

    /// Sends the stack's answer to a packet (a reset, an ICMP message). The packet came through a session. If
    /// the peer no longer has one, it has left, and an answer does not justify a handshake.
    fn send_reply(&self, now: Instant, reply: Reply<'_>, batch: &mut Batch) {
        let Reply { interface, destination, packet } = reply;
        let mut packet = packet.to_vec();
        match self.resolve(now, interface, None, destination) {
            // Such packets expect no answer, so the peer's silence afterwards means nothing.
            Resolved::Route(Route::Peer(peer)) => match peer.sender().map(Sender::unasked) {
                Some(sender) => self.send_sealed(now, interface, &sender, &mut packet, batch),
                None => self.counters.out_unreachable.add(1),
            },
            Resolved::Route(Route::Local) => self.stack.receive(now, interface, &mut packet, batch),
            Resolved::Unknown | Resolved::NoRoute => self.counters.out_no_route.add(1),
        }
    }

    /// Sends one whole IP packet to a peer that has a session.
    pub(super) fn send_sealed(
        &self,
        now: Instant,
        interface: InterfaceId,
        sender: &Sender,
        packet: &mut [u8],
        batch: &mut Batch,
    ) {
        let mtu = sender.path.datagram_size - DATA_OVERHEAD;
        self.send_cut(now, interface, sender, packet, mtu, batch);
    }

    /// Sends like `send_sealed`, in fragments of at most `mtu` bytes.
    fn send_cut(
        &self,
        now: Instant,
        interface: InterfaceId,
        sender: &Sender,
        packet: &mut [u8],
        mtu: usize,
        batch: &mut Batch,
    ) {
        let Ok(mut fragments) = self.stack.fragments(interface, packet, mtu) else {
            return self.counters.out_too_big.increment();
        };
        if fragments.packets() > 1 {
            // The peer may give the fragments to a kernel, which verifies the checksum of the reassembled
            // packet.
            fill_checksums(packet);
        }
        let most = self.most_segments(sender, sender.path.datagram_size);
        let ecn = ecn::of(packet);
        Buffers::with(|Buffers { sealed, .. }| {
            // All fragments but the last have equal size, so they leave in batches.
            let (mut length, mut count, mut size) = (0, 0, None);
            while let Some(fragment) = fragments.next(packet) {
                // The session has ended; the rest of the packet is lost, as on any path.
                let Ok(n) = sender.seal(fragment, &mut sealed[length..]) else { break };
                (length, count) = (length + n, count + 1);
                size.get_or_insert(n);
                if count == most {
                    self.transmit(sender, &sealed[..length], size, ecn);
                    (length, count, size) = (0, 0, None);
                }
            }
            if count > 0 {
                self.transmit(sender, &sealed[..length], size, ecn);
            }
        });
        self.note_sent(now, &sender.session, batch);
    }

    pub(super) fn notify_flow(&self, flow: &Flow) {
        let ready = flow.readiness();
        let socket = SocketState::of(flow.context());
        if is_over(ready) {
            socket.unwatch();
        }
        if ready.contains(Ready::ERROR) {
            return socket.waiters().notify_all();
        }
        socket.waiters().notify(
            ready.intersects(Ready::READABLE | Ready::READ_CLOSED),
            // A connection just established is writable. A full queue must not wake a writer on each
            // acknowledgement; it waits for WRITABLE.
            ready.intersects(Ready::WRITABLE | Ready::WRITE_CLOSED),
        );
    }

    /// Sends the pending data of a flow; small segments may wait in `gso`.
    fn pump_flow(&self, now: Instant, flow: &Arc<Flow>, mut gso: Option<&mut GsoBatch>, batch: &mut Batch) {
        let socket = SocketState::of(flow.context());
        socket.stage().run(|| {
            let destination = flow.remote().ip();
            match self.resolve(now, flow.interface(), Some(socket), destination) {
                Resolved::Route(Route::Local) => self.pump_local(now, flow, batch),
                Resolved::Route(Route::Peer(peer)) => {
                    let gso = gso.as_deref_mut();
                    if let Blocked::NoSession(peer) = self.pump_to_peer(now, flow, socket, &peer, gso, batch)
                    {
                        self.lock_waiting().add_flow(now, true, flow);
                        self.tell_wanted(&peer);
                        self.with_control(now, batch, |endpoint, now| endpoint.want_session(now, &peer));
                    }
                }
                Resolved::Unknown if flow.has_output(now) => {
                    self.lock_waiting().add_flow(now, false, flow);
                    self.go_on_if_found(now, flow.interface(), destination, batch);
                }
                Resolved::Unknown => {}
                Resolved::NoRoute => {
                    if flow.state().is_connecting() {
                        flow.fail(now, Error::NetworkUnreachable);
                    }
                }
            }
        });
    }

    /// Loops a flow back when both ends are this node: whole super-segments go straight back into the stack.
    fn pump_local(&self, now: Instant, flow: &Flow, batch: &mut Batch) {
        let limits = Egress {
            // No path is involved, so nothing cuts the packets or limits the bytes in flight.
            segment: MAX_PACKET - TCP_HEADERS,
            max_segments: 1,
            in_flight_cap: usize::MAX,
            checksums: false,
        };
        Buffers::with(|buffers| {
            while let Some(segment) = flow.egress(now, &limits, &mut buffers.packet) {
                self.stack.receive(now, flow.interface(), &mut buffers.packet[..segment.len()], batch);
            }
        });
    }

    fn pump_to_peer(
        &self,
        now: Instant,
        flow: &Flow,
        socket: &SocketState,
        peer: &Arc<Peer>,
        mut gso: Option<&mut GsoBatch>,
        batch: &mut Batch,
    ) -> Blocked {
        let Some(sender) = peer.sender() else {
            // Only pending data requests a session, because a lone acknowledgement would not be missed.
            let wanted = flow.has_output(now);
            return if wanted { Blocked::NoSession(Arc::clone(peer)) } else { Blocked::Idle };
        };
        // Judged now, because only a peer that is admitted has a name and tags.
        if let Some(network) = self.guarded(flow.interface())
            && flow.state() == State::SynSent
            && self.refuses_connection(&network, peer, flow)
        {
            flow.fail(now, Error::PermissionDenied);
            self.notify_flow(flow);
            return Blocked::Idle;
        }
        let datagram = sender.path.datagram_size;
        let link = PeerLink::of(peer);
        let max_segments = self.most_segments(&sender, datagram);
        let segment = datagram - DATA_OVERHEAD - TCP_HEADERS;
        // The overlay then checks that the peer is there even while the connection is idle.
        socket.watch(peer, || !is_over(flow.readiness()));
        let mut blocked = Blocked::Idle;
        let mut sent = false;
        Buffers::with(|Buffers { packet, sealed }| {
            loop {
                let own = flow.in_flight();
                // All flows to the peer share the receive buffer of its UDP socket.
                let others = socket.report_in_flight(link, own).saturating_sub(own);
                let limits = Egress {
                    // The floor lets each flow make progress even if its peer's other flows use up the limit.
                    segment,
                    max_segments,
                    in_flight_cap: peer.receive_limit().saturating_sub(others).max(IN_FLIGHT_FLOOR),
                    checksums: false,
                };
                let Some(mut segment) = flow.egress(now, &limits, packet) else { break };
                if let Some(gso) = gso.as_deref_mut() {
                    // Larger segments fill a batch of their flow.
                    if segment.packets() == 1 && segment.len() <= MAX_DELAYED_BYTES {
                        let Some(wire) = segment.next(packet) else { break };
                        if self.join_others(now, &sender, wire, gso, batch) {
                            continue;
                        }
                        blocked = Blocked::NoSession(Arc::clone(peer));
                        break;
                    }
                    // Segments of a flow leave in order, so the waiting ones go first.
                    self.send_gso(now, gso, batch);
                }
                let mut length = 0;
                let mut datagram_size = None;
                let ecn = ecn::of(packet);
                while let Some(wire) = segment.next(packet) {
                    let Ok(n) = sender.seal(wire, &mut sealed[length..]) else {
                        // The session has ended; the flow's retransmission timer sends the cut-off data
                        // again.
                        blocked = Blocked::NoSession(Arc::clone(peer));
                        break;
                    };
                    datagram_size.get_or_insert(n);
                    length += n;
                }
                if length > 0 {
                    self.transmit(&sender, &sealed[..length], datagram_size, ecn);
                    sent = true;
                }
                if matches!(blocked, Blocked::NoSession(_)) {
                    break;
                }
            }
        });
        if sent {
            self.note_sent(now, &sender.session, batch);
        }
        blocked
    }

    /// Returns how many datagrams of `size` bytes, plus the overhead of their place, one call may send.
    pub(super) fn most_segments(&self, sender: &Sender, size: usize) -> usize {
        let size = size + sender.path.place.overhead();
        self.sink.max_segments(sender.path.socket()).min(MAX_BATCH / size).max(1)
    }

    pub(super) fn transmit(&self, sender: &Sender, contents: &[u8], segment_size: Option<usize>, ecn: u8) {
        let (socket, remote) = (sender.path.socket(), sender.path.remote());
        self.sink.send(&Transmit { socket, remote, contents, segment_size, ecn });
    }

    pub(super) fn note_sent(&self, now: Instant, session: &Arc<Session>, batch: &mut Batch) {
        if session.note_sent(self.clock.overlay(now)) {
            self.with_control(now, batch, |endpoint, now| {
                endpoint.session_attention(now, session, Attention::Sent)
            });
        }
    }
}

/// Returns true if a connection carries no more data in either direction.
fn is_over(ready: Ready) -> bool {
    ready.contains(Ready::READ_CLOSED | Ready::WRITE_CLOSED)
}
