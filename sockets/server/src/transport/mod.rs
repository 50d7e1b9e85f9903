//! Transports of the applications' datagram sockets: a common interface to the stack's UDP, ICMP echo and raw
//! sockets.

mod dual_udp;
mod echo;
mod raw;
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use peersock::attach::NodeHandle;
use peersock_fd::{Errno, Family, Kind, PacketInfo, Report};
use peersock_stack::{
    Error, ErrorReport, GroupChange, InterfaceId, IpOptions, Received, ReceivedHeaders, SendOptions,
    TrafficClass,
};

pub(super) use dual_udp::Both;

use super::addresses::errno;
use super::context::Context;
use super::options::Options;
use super::wakers::Key;
use peersock_datapath::{GsoBatch, Resolved};

/// The stack's socket for one application socket. Dropping it closes it.
///
/// Addresses are in the stack's form: IPv4 addresses are not mapped.
pub(super) trait Transport: Send + Sync {
    /// Returns the local address and port.
    fn local(&self) -> SocketAddr;

    /// Sets the peer, or removes it.
    fn connect(&self, remote: Option<SocketAddr>, options: &SendOptions<'_>) -> Result<(), Error>;

    /// Checks that a datagram could be sent to `remote`.
    fn check(&self, remote: SocketAddr, options: &SendOptions<'_>) -> Result<(), Error>;

    /// Checks that a datagram of `length` bytes could be sent to `remote` whole, or may be fragmented. Errors
    /// are reported as if it had been sent.
    ///
    /// # Errors
    /// The error of an earlier datagram, or [`Error::MessageSize`].
    fn check_length(&self, remote: SocketAddr, length: usize, options: &SendOptions<'_>)
    -> Result<(), Error>;

    /// Sends one datagram, which may wait in a GSO batch.
    fn send(
        &self,
        remote: SocketAddr,
        data: &[u8],
        options: &SendOptions<'_>,
        gso: Option<&mut GsoBatch>,
    ) -> Result<(), Error>;

    /// Takes the oldest datagram, with the extension headers that the stack has kept. Truncates it to `buf`.
    ///
    /// # Errors
    /// The error of an earlier datagram, or [`Error::WouldBlock`].
    fn receive(&self, buf: &mut [u8], headers: &mut ReceivedHeaders) -> Result<Arrived, Error>;

    /// Returns the error of an earlier datagram, once.
    fn take_error(&self) -> Option<Error>;

    /// Takes the oldest error report.
    fn take_report(&self) -> Option<Report>;

    /// Watches the kernel socket, if there is one, under another key from now on.
    fn watch(&self, _key: Key, _context: &Context) {}

    /// Registers a waker for received datagrams. Call it before the receive that may find nothing.
    fn register(&self, waker: &Waker);

    /// Applies the options to the IP headers.
    fn apply(&self, options: &Options);

    /// Joins or leaves a group, or changes its sources.
    fn change_group(
        &self,
        interface: Option<InterfaceId>,
        group: IpAddr,
        change: GroupChange,
    ) -> Result<(), Error>;

    /// Gives up an IPv6 port that it holds only for members without IPv4 addresses. Returns true if it did.
    fn give_way(&self, _port: u16) -> bool {
        false
    }
}

/// A received datagram.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrived {
    pub(super) length: usize,
    pub(super) remote: SocketAddr,
    pub(super) local: IpAddr,
    pub(super) interface: InterfaceId,
    pub(super) hop_limit: u8,
    pub(super) traffic_class: TrafficClass,
}

impl Arrived {
    /// Interface of datagrams from the machine's own network, of which nothing else is known.
    const OUTSIDE_INTERFACE: InterfaceId = InterfaceId(0);

    /// Returns true if it came over the overlay, so that its header is known.
    pub(super) fn is_overlays(&self) -> bool {
        self.interface != Self::OUTSIDE_INTERFACE
    }

    /// Creates the record of a datagram from `remote`, as the application names it.
    fn new(received: &Received, remote: SocketAddr) -> Self {
        Self {
            length: received.len,
            remote,
            local: received.destination.ip(),
            interface: received.interface,
            hop_limit: received.hop_limit,
            traffic_class: received.traffic_class,
        }
    }

    pub(super) fn packet_info(&self) -> PacketInfo {
        let interface = u16::try_from(self.interface.0).unwrap_or(u16::MAX);
        PacketInfo { local: self.local, interface }
    }
}

/// Parameters of a binding.
#[derive(Clone, Copy)]
pub(super) struct Binding {
    pub(super) local: SocketAddr,
    /// True if members without IPv4 addresses are reached as well.
    pub(super) aliased: bool,
    /// True if the application has not called bind(2): it sends requests and gets answers at any port.
    pub(super) is_implicit: bool,
}

/// Opens the stack's socket.
///
/// # Errors
/// Errors of bind(2).
pub(super) fn open(
    node: &NodeHandle,
    socket: peersock_fd::Opened,
    binding: Binding,
    options: &Options,
) -> Result<Arc<dyn Transport>, Errno> {
    // An IPv4 socket may be bound to an IPv6 address for which it has an alias.
    let is_v4 = socket.family == Family::V4 || binding.local.is_ipv4();
    let opened: Result<Arc<dyn Transport>, Error> = match socket.kind {
        Kind::Stream => Err(Error::InvalidInput),
        Kind::Datagram => udp::Udp::bind(node, binding, is_v4, options).map(|udp| Arc::new(udp) as _),
        Kind::Echo => echo::Echo::bind(node, binding, is_v4, options).map(|echo| Arc::new(echo) as _),
        Kind::Raw(protocol) => {
            raw::Raw::open(node, binding.local, protocol, options).map(|raw| Arc::new(raw) as _)
        }
    };
    opened.map_err(errno)
}

/// Checks that the network behind an interface can contain `remote`, or the first hop to it.
fn reachable(
    node: &NodeHandle,
    interface: InterfaceId,
    remote: IpAddr,
    options: &SendOptions<'_>,
) -> Result<(), Error> {
    let hop = options.first_hop(remote);
    if hop.is_multicast() {
        return Ok(());
    }
    match node.datapath().resolve(Instant::now(), interface, None, hop) {
        Resolved::NoRoute => Err(Error::NetworkUnreachable),
        Resolved::Route(_) | Resolved::Unknown => Ok(()),
    }
}

/// Returns the largest IP packet that fits the path to an address, bytes.
fn mtu_to(node: &NodeHandle, interface: InterfaceId, remote: IpAddr, options: &SendOptions<'_>) -> usize {
    node.datapath().mtu_to(Instant::now(), interface, options.first_hop(remote))
}

/// Converts an error report for applications.
pub(super) fn report(of: &ErrorReport, quoted: &[u8]) -> Report {
    Report {
        errno: of.error.errno(),
        origin: of.origin as u8,
        kind: of.kind,
        code: of.code,
        info: of.info,
        offender: of.offender,
        destination: of.destination,
        quoted: quoted[..of.len.min(quoted.len())].to_vec(),
    }
}

/// Maximum number of bytes of a datagram that an error report quotes.
const MAX_QUOTED_BYTES: usize = 1280;

/// Applies settings to a socket of the stack, which refuses only a hop limit of 0. Options never have that.
fn follow(set: impl FnOnce(IpOptions) -> Result<(), Error>, options: IpOptions) {
    if let Err(error) = set(options) {
        tracing::debug!(%error, "IP options were refused");
    }
}
