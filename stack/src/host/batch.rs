//! Results of one round of receiving or of timers.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::host::interface::Cached;
use crate::host::timers::Tick;
use crate::{Flow, IcmpSocket, InterfaceId, Listener, MembershipChange, RawSocket, UdpSocket};

/// Sockets and packets touched by [`Stack::receive`](crate::Stack::receive) and
/// [`Stack::handle_timeout`](crate::Stack::handle_timeout) since the last [`clear`](Self::clear).
///
/// Make one batch per thread and reuse it: it keeps its capacity, so a round allocates nothing. Its size is
/// bounded by the packets and by [`Self::FLOWS_PER_TIMEOUT`].
///
/// ```
/// let mut batch = peersock_stack::Batch::new();
/// // … receive packets, then for each flow: egress until `None`, wake its waiters …
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
    /// Bytes of the replies, one after the other.
    bytes: Vec<u8>,
    /// Number of this round, unique in the stack; 0 until something is touched.
    round: u64,
    /// Interface of the last packet.
    pub(crate) interface: Option<Cached>,
    /// Buffer for due timers.
    pub(crate) due: Vec<(Tick, Weak<Flow>)>,
}

impl Batch {
    /// Maximum number of flows that one `handle_timeout` adds. If more are due,
    /// [`Stack::poll_timeout`](crate::Stack::poll_timeout) stays in the past.
    pub const FLOWS_PER_TIMEOUT: usize = 1024;

    /// Returns an empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns packets to send that are not output of a flow: resets, duplicate acknowledgements, ICMP. Send
    /// them in this order.
    pub fn replies(&self) -> impl Iterator<Item = Reply<'_>> {
        let mut start = 0;
        self.replies.iter().map(move |entry| {
            let packet = &self.bytes[start..entry.end];
            start = entry.end;
            Reply { interface: entry.interface, destination: entry.destination, packet }
        })
    }

    /// Empties the batch for the next round; the capacity stays.
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

    /// Returns true if nothing was touched.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
            && self.listeners.is_empty()
            && self.udp.is_empty()
            && self.icmp.is_empty()
            && self.raw.is_empty()
            && self.memberships.is_empty()
            && self.replies.is_empty()
    }

    /// Appends a reply of at most `longest` bytes; `write` returns its length, 0 for none.
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

/// A packet by which the stack answers.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// Outgoing interface.
    pub interface: InterfaceId,
    /// Destination address of the IP packet.
    pub destination: IpAddr,
    /// IP packet.
    pub packet: &'a [u8],
}

struct ReplyEntry {
    interface: InterfaceId,
    destination: IpAddr,
    end: usize,
}

/// Source of unique numbers for the rounds of all batches of one stack.
#[derive(Default)]
pub(crate) struct Rounds(AtomicU64);

/// Number of the last round that listed a socket, so that a round lists it once without hashing.
///
/// Threads that touch one flow in turn may list it more often. That only costs another check by the driver.
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
