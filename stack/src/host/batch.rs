//! What one round of receiving or of timers touched.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::host::interface::Cached;
use crate::host::timers::Tick;
use crate::{Flow, IcmpSocket, InterfaceId, Listener, MembershipChange, RawSocket, UdpSocket};

/// What calls of [`Stack::receive`](crate::Stack::receive) and
/// [`Stack::handle_timeout`](crate::Stack::handle_timeout) touched since the last [`clear`](Self::clear).
///
/// Make one per thread and use it again: it keeps its capacity, so a round allocates nothing. Its size
/// is bounded by the packets and by [`Self::FLOWS_PER_TIMEOUT`].
///
/// ```
/// let mut batch = peersock_stack::Batch::new();
/// // … receive packets, then for each flow: egress until `None`, wake whoever waits …
/// for flow in &batch.flows {
///     println!("{} can do {:?}", flow.remote(), flow.readiness());
/// }
/// batch.clear();
/// assert!(batch.is_empty());
/// ```
#[derive(Default)]
pub struct Batch {
    /// Flows with output or new readiness. Call [`Flow::egress`] on each until it returns `None`.
    pub flows: Vec<Arc<Flow>>,
    /// Listeners with connections to accept.
    pub listeners: Vec<Arc<Listener>>,
    /// UDP sockets with datagrams or errors.
    pub udp: Vec<Arc<UdpSocket>>,
    /// ICMP sockets with replies or errors.
    pub icmp: Vec<Arc<IcmpSocket>>,
    /// Raw sockets with packets or errors.
    pub raw: Vec<Arc<RawSocket>>,
    /// Multicast groups that the node has joined or left, from
    /// [`Stack::handle_timeout`](crate::Stack::handle_timeout).
    pub memberships: Vec<MembershipChange>,
    replies: Vec<ReplyEntry>,
    /// The replies' bytes, one behind the other.
    bytes: Vec<u8>,
    /// Tells this round from every other of the stack; 0 until something is touched.
    round: u64,
    /// The interface that a packet came in by last.
    pub(crate) interface: Option<Cached>,
    /// Room for the timers that fire.
    pub(crate) due: Vec<(Tick, Weak<Flow>)>,
}

impl Batch {
    /// The most flows that one `handle_timeout` adds. When more are due,
    /// [`Stack::poll_timeout`](crate::Stack::poll_timeout) stays in the past.
    pub const FLOWS_PER_TIMEOUT: usize = 1024;

    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Packets to send that belong to no flow's output: resets, duplicate acknowledgements, ICMP.
    /// Send them in this order.
    pub fn replies(&self) -> impl Iterator<Item = Reply<'_>> {
        let mut start = 0;
        self.replies.iter().map(move |entry| {
            let packet = &self.bytes[start..entry.end];
            start = entry.end;
            Reply { interface: entry.interface, destination: entry.destination, packet }
        })
    }

    /// Empties it for the next round; capacity stays.
    pub fn clear(&mut self) {
        self.flows.clear();
        self.listeners.clear();
        self.udp.clear();
        self.icmp.clear();
        self.raw.clear();
        self.memberships.clear();
        self.replies.clear();
        self.bytes.clear();
        self.round = 0;
    }

    /// Whether nothing was touched.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
            && self.listeners.is_empty()
            && self.udp.is_empty()
            && self.icmp.is_empty()
            && self.raw.is_empty()
            && self.memberships.is_empty()
            && self.replies.is_empty()
    }

    /// Appends a reply of at most `longest` bytes; `write` gives its length, 0 for none.
    pub(crate) fn reply(
        &mut self,
        interface: InterfaceId,
        destination: IpAddr,
        longest: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) {
        let start = self.bytes.len();
        self.bytes.resize(start + longest, 0);
        let len = write(&mut self.bytes[start..]).min(longest);
        self.bytes.truncate(start + len);
        if len > 0 {
            self.replies.push(ReplyEntry { interface, destination, end: start + len });
        }
    }

    pub(crate) fn touch_flow(&mut self, rounds: &Rounds, flow: Arc<Flow>) {
        if flow.mark().is_new(self.round(rounds)) {
            self.flows.push(flow);
        }
    }

    pub(crate) fn touch_listener(&mut self, rounds: &Rounds, listener: Arc<Listener>) {
        if listener.mark().is_new(self.round(rounds)) {
            self.listeners.push(listener);
        }
    }

    pub(crate) fn touch_udp(&mut self, rounds: &Rounds, socket: Arc<UdpSocket>) {
        if socket.mark().is_new(self.round(rounds)) {
            self.udp.push(socket);
        }
    }

    pub(crate) fn touch_icmp(&mut self, rounds: &Rounds, socket: Arc<IcmpSocket>) {
        if socket.mark().is_new(self.round(rounds)) {
            self.icmp.push(socket);
        }
    }

    pub(crate) fn touch_raw(&mut self, rounds: &Rounds, socket: Arc<RawSocket>) {
        if socket.mark().is_new(self.round(rounds)) {
            self.raw.push(socket);
        }
    }

    fn round(&mut self, rounds: &Rounds) -> u64 {
        if self.round == 0 {
            self.round = rounds.0.fetch_add(1, Ordering::Relaxed) + 1;
        }
        self.round
    }
}

/// A packet that the stack answers with.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// The interface to send on.
    pub interface: InterfaceId,
    /// The inner destination address.
    pub destination: IpAddr,
    /// The IP packet.
    pub packet: &'a [u8],
}

struct ReplyEntry {
    interface: InterfaceId,
    destination: IpAddr,
    end: usize,
}

/// Gives every round of every batch of one stack its number.
#[derive(Default)]
pub(crate) struct Rounds(AtomicU64);

/// The last round that has listed a socket, so that a round lists it once without hashing.
///
/// Threads that touch one flow in turn may list it more often; that costs a look, nothing else.
#[derive(Default)]
pub(crate) struct Mark(AtomicU64);

impl Mark {
    fn is_new(&self, round: u64) -> bool {
        let is_new = self.0.load(Ordering::Relaxed) != round;
        if is_new {
            self.0.store(round, Ordering::Relaxed);
        }
        is_new
    }
}
