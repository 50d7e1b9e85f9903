//! What datagram sockets of applications stand for: UDP, ICMP echo and raw sockets of the stack, all alike.

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

/// One socket of an application, as the stack has it. Dropping it closes it.
///
/// Addresses are as the stack knows them: IPv4's are not mapped.
pub(super) trait Transport: Send + Sync {
    /// The own address and port.
    fn local(&self) -> SocketAddr;

    /// Fixes the peer, or dissolves that.
    fn connect(&self, remote: Option<SocketAddr>, options: &SendOptions<'_>) -> Result<(), Error>;

    /// Whether a datagram could be sent there.
    fn check(&self, remote: SocketAddr, options: &SendOptions<'_>) -> Result<(), Error>;

    /// Whether a datagram of so many bytes could be sent there whole, or may be cut. Reported as if it had
    /// been sent.
    ///
    /// # Errors
    /// What an earlier datagram has run into, and [`Error::MessageSize`].
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

    /// Takes the oldest datagram, with the extension headers that the stack has kept. One that `buf` does not
    /// hold is cut.
    ///
    /// # Errors
    /// What an earlier datagram has run into, or [`Error::WouldBlock`].
    fn receive(&self, buf: &mut [u8], headers: &mut ReceivedHeaders) -> Result<Arrived, Error>;

    /// What an earlier datagram has run into, once.
    fn take_error(&self) -> Option<Error>;

    /// The oldest error report.
    fn take_report(&self) -> Option<Report>;

    /// Has the kernel tell of its own socket, if there is one, by another key from now on.
    fn watch(&self, _key: Key, _context: &Context) {}

    /// Wakes when there is something to receive. To be called before looking.
    fn register(&self, waker: &Waker);

    /// Has the IP headers follow the options.
    fn apply(&self, options: &Options);

    /// Joins or leaves a group, or changes whom it listens to there.
    fn change_group(
        &self,
        interface: Option<InterfaceId>,
        group: IpAddr,
        change: GroupChange,
    ) -> Result<(), Error>;

    /// Leaves a port of IPv6 to others if it has that for members without IPv4 addresses only. True if it
    /// did.
    fn give_way(&self, _port: u16) -> bool {
        false
    }
}

/// A datagram that has come.
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
    /// The interface of what comes from the machine's own network, of which nothing else is known.
    const OUTSIDE: InterfaceId = InterfaceId(0);

    /// It has come over the overlay: its header is known.
    pub(super) fn is_overlays(&self) -> bool {
        self.interface != Self::OUTSIDE
    }

    /// What has come from `remote`, as the application names it.
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

/// What a socket is bound to.
#[derive(Clone, Copy)]
pub(super) struct Binding {
    pub(super) local: SocketAddr,
    /// Members without IPv4 addresses are reached as well.
    pub(super) aliased: bool,
    /// The application has not called bind(2): it asks and gets answers, at any port.
    pub(super) is_implicit: bool,
}

/// Opens the stack's socket.
///
/// # Errors
/// Those of bind(2).
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

/// Whether the network behind an interface may have such an address at all, or that of the first hop to it.
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

/// The largest IP packet that the way to an address takes, bytes.
fn mtu_to(node: &NodeHandle, interface: InterfaceId, remote: IpAddr, options: &SendOptions<'_>) -> usize {
    node.datapath().mtu_to(Instant::now(), interface, options.first_hop(remote))
}

/// An error report as applications get it.
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

/// Bytes of a datagram that an error report quotes at most.
const MAX_QUOTED: usize = 1280;

/// Gives settings to a socket of the stack, which refuses a hop limit of 0 only. Options never have that.
fn follow(set: impl FnOnce(IpOptions) -> Result<(), Error>, options: IpOptions) {
    if let Err(error) = set(options) {
        tracing::debug!(%error, "IP options were refused");
    }
}
