//! UDP sockets.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use smoltcp::wire::{IpProtocol, UdpPacket};

use crate::batch::Mark;
use crate::demux::Bound;
use crate::error_queue::ErrorQueue;
use crate::interface::Interface;
use crate::ip::{IpHeader, canonical, write_fields};
use crate::ip_options::{Fits, Settings};
use crate::queue::DatagramQueue;
use crate::route::Wanted;
use crate::stack::Shared;
use crate::{
    Error, ErrorOrigin, ErrorReport, Fragmentation, InterfaceId, IpOptions, Ready, SendOptions, TrafficClass,
    UdpOptions,
};

const UDP_HEADER: usize = 8;

/// A UDP socket.
///
/// Sending has two steps, because the driver has to look the path up between them: [`route`](Self::route)
/// says where a datagram goes, [`send`](Self::send) makes the packet.
///
/// ```
/// use std::time::Instant;
/// use peersock_stack::{Config, InterfaceConfig, Stack, UdpOptions};
///
/// let stack = Stack::new(Config::default(), [7; 32], Instant::now());
/// let net = stack.add_interface(InterfaceConfig::new("net", ["10.0.0.1/8".parse()?]));
/// let socket = stack.udp_bind(Some(net), "10.0.0.1:0".parse()?, UdpOptions::default())?;
/// let route = socket.route(Some("10.0.0.2:53".parse()?))?;
/// assert_eq!(route.source, socket.local());
/// let mut packet = [0; 1280];
/// let len = socket.send(&route, b"hello", 1280, &mut packet)?;
/// assert_eq!(len, 20 + 8 + 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct UdpSocket {
    shared: Arc<Shared>,
    interface: Option<InterfaceId>,
    local: SocketAddr,
    ip: Settings,
    closed: AtomicBool,
    inner: Mutex<Inner>,
    mark: Mark,
    context: OnceLock<Arc<dyn Any + Send + Sync>>,
}

struct Inner {
    queue: DatagramQueue<Origin>,
    /// Where a connected socket's datagrams go and come from.
    peer: Option<UdpRoute>,
    error: Option<Error>,
    /// What is behind such errors, if the socket wants to know.
    reports: ErrorQueue,
}

#[derive(Clone, Copy)]
struct Origin {
    source: SocketAddr,
    destination: SocketAddr,
    interface: InterfaceId,
    hop_limit: u8,
    traffic_class: TrafficClass,
}

/// Where a datagram goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UdpRoute {
    /// The interface to send on.
    pub interface: InterfaceId,
    /// The own address and port.
    pub source: SocketAddr,
    /// The peer's address and port.
    pub destination: SocketAddr,
}

/// A datagram that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes written to the buffer.
    pub len: usize,
    /// Who sent it.
    pub source: SocketAddr,
    /// Which own address, or which group, it was sent to: IP_PKTINFO, IPV6_PKTINFO.
    pub destination: SocketAddr,
    /// The interface it came in on: IP_PKTINFO, IPV6_PKTINFO.
    pub interface: InterfaceId,
    /// The hop limit that was left: IP_RECVTTL, IPV6_RECVHOPLIMIT.
    pub hop_limit: u8,
    /// The traffic class: IP_RECVTOS, IPV6_RECVTCLASS.
    pub traffic_class: TrafficClass,
    /// Whether the buffer was too short; the rest is gone.
    pub truncated: bool,
}

impl UdpSocket {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        interface: Option<InterfaceId>,
        local: SocketAddr,
        options: &UdpOptions,
    ) -> Arc<Self> {
        let limit = options.receive_buffer.unwrap_or(shared.config.udp_receive_buffer);
        let inner =
            Inner { queue: DatagramQueue::new(limit), peer: None, error: None, reports: ErrorQueue::new() };
        Arc::new(Self {
            shared: shared.clone(),
            interface,
            local,
            ip: Settings::new(options.ip),
            closed: AtomicBool::new(false),
            inner: Mutex::new(inner),
            mark: Mark::default(),
            context: OnceLock::new(),
        })
    }

    /// The interface it is bound to, `None` for all.
    pub fn interface(&self) -> Option<InterfaceId> {
        self.interface
    }

    /// The own address and port. While the socket is connected, never unspecified.
    pub fn local(&self) -> SocketAddr {
        self.lock().peer.map_or(self.local, |peer| peer.source)
    }

    /// The peer it is connected to.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.lock().peer.map(|peer| peer.destination)
    }

    /// Fixes the peer: only its datagrams are received, and ICMP errors are reported. Instead of the
    /// peer before, if there was one.
    ///
    /// # Errors
    /// As [`route`](Self::route), and [`Error::AddrInUse`] if another socket has this pair.
    pub fn connect(self: &Arc<Self>, remote: SocketAddr) -> Result<(), Error> {
        let route = self.route_to(canonical(remote), &SendOptions::default())?;
        self.disconnect();
        if !self.shared.udp_connected.insert(route, self) {
            return Err(Error::AddrInUse);
        }
        self.lock().peer = Some(route);
        Ok(())
    }

    /// Forgets the peer, if there is one.
    pub fn disconnect(&self) {
        if let Some(route) = self.lock().peer.take() {
            self.shared.udp_connected.remove(&route);
        }
    }

    /// Where a datagram to `remote` goes out; `None` means the connected peer.
    ///
    /// # Errors
    /// What an earlier datagram ran into, once. [`Error::NotConnected`] without any peer,
    /// [`Error::NetworkUnreachable`] if no interface leads there, [`Error::AddressFamily`] if the socket
    /// is of the other family, [`Error::PermissionDenied`] if the network allows neither port,
    /// [`Error::InvalidInput`] for port 0, [`Error::Closed`].
    pub fn route(&self, remote: Option<SocketAddr>) -> Result<UdpRoute, Error> {
        self.route_with(remote, &SendOptions::default())
    }

    /// As [`route`](Self::route), with a [source](SendOptions::source) and an [interface](SendOptions::interface)
    /// for this datagram.
    ///
    /// # Errors
    /// As [`route`](Self::route), and [`Error::AddrNotAvailable`] if the source is not this node's there.
    pub fn route_with(&self, remote: Option<SocketAddr>, options: &SendOptions) -> Result<UdpRoute, Error> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        let (peer, error) = {
            let mut inner = self.lock();
            (inner.peer, inner.error.take())
        };
        if let Some(error) = error {
            return Err(error);
        }
        let own = options.source.is_some() || options.interface.is_some();
        match (remote, peer) {
            (Some(remote), _) => self.route_to(canonical(remote), options),
            (None, Some(peer)) if own => self.route_to(peer.destination, options),
            (None, Some(peer)) => Ok(peer),
            (None, None) => Err(Error::NotConnected),
        }
    }

    fn route_to(&self, remote: SocketAddr, options: &SendOptions) -> Result<UdpRoute, Error> {
        if remote.port() == 0 {
            return Err(Error::InvalidInput);
        }
        let wanted = Wanted { interface: self.interface, local: self.local.ip(), ip: self.ip.load() };
        let (interface, source) = self.shared.choose_route(&wanted, remote.ip(), options)?;
        if !interface.allows(remote.port()) && !interface.allows(self.local.port()) {
            return Err(Error::PermissionDenied);
        }
        let source = SocketAddr::new(source, self.local.port());
        Ok(UdpRoute { interface: interface.id, source, destination: remote })
    }

    /// Writes a datagram as one IP packet to `buf` and gives its length. `mtu` is the largest IP packet that the path
    /// takes, bytes. Unless the socket's [`fragmentation`](IpOptions::fragmentation) forbids it, the packet may exceed
    /// that: cut it with [`Stack::fragments`](crate::Stack::fragments).
    ///
    /// If the destination is a group, the driver sends the packet to every member that it knows and, if
    /// [`multicast_loop`](IpOptions::multicast_loop) is on, gives it to [`Stack::receive`](crate::Stack::receive).
    /// A packet with a hop limit of 0 must not leave the node.
    ///
    /// # Errors
    /// [`Error::MessageSize`] if the packet would exceed 65,535 bytes of payload or `buf`, or exceeds `mtu` or the
    /// [reported MTU](crate::Stack::path_mtu) and must not be cut.
    pub fn send(&self, route: &UdpRoute, data: &[u8], mtu: usize, buf: &mut [u8]) -> Result<usize, Error> {
        self.send_with(route, data, &SendOptions::default(), mtu, buf)
    }

    /// As [`send`](Self::send), with options for this datagram. [`route_with`](Self::route_with) has looked at the
    /// source and interface among them.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`Error::InvalidInput`] for a hop limit of 0 to a single node.
    pub fn send_with(
        &self,
        route: &UdpRoute,
        data: &[u8],
        options: &SendOptions,
        mtu: usize,
        buf: &mut [u8],
    ) -> Result<usize, Error> {
        let checksums = self.shared.interfaces.find(route.interface).is_some_and(|one| one.checksums);
        let len = UDP_HEADER + data.len();
        let addresses = (route.source.ip(), route.destination.ip());
        let fits = self.shared.fits(route.interface, addresses.1, len, mtu);
        let ip = self.ip.load();
        let fields = match ip.fields(options, IpProtocol::Udp, addresses.1, fits) {
            Err(Error::MessageSize) if ip.receive_errors => {
                let reported = self.shared.path_mtus.find(route.interface, addresses.1);
                let mtu = reported.map_or(mtu, |reported| reported.min(mtu));
                self.report_too_big(route.destination, mtu);
                return Err(Error::MessageSize);
            }
            fields => fields?,
        };
        let ip_len = write_fields(buf, addresses, &fields, len, checksums).ok_or(Error::MessageSize)?;
        let total = ip_len + len;
        buf[ip_len + UDP_HEADER..total].copy_from_slice(data);
        let mut udp = UdpPacket::new_unchecked(&mut buf[ip_len..total]);
        udp.set_src_port(route.source.port());
        udp.set_dst_port(route.destination.port());
        udp.set_len(len as u16);
        udp.set_checksum(0);
        if checksums {
            udp.fill_checksum(&addresses.0.into(), &addresses.1.into());
        }
        self.shared.counters.udp_sent.bump();
        Ok(total)
    }

    /// What its packets' IP headers say.
    pub fn ip_options(&self) -> IpOptions {
        self.ip.load()
    }

    /// Changes what its packets' IP headers say.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a [`hop_limit`](IpOptions::hop_limit) of 0.
    pub fn set_ip_options(&self, options: IpOptions) -> Result<(), Error> {
        self.ip.store(options)
    }

    /// Takes the oldest datagram.
    ///
    /// # Errors
    /// What an earlier datagram ran into, once; [`Error::WouldBlock`], [`Error::Closed`].
    pub fn recv_from(&self, buf: &mut [u8]) -> Result<Received, Error> {
        self.receive_with(buf, |queue, buf| queue.pop(buf))
    }

    /// Copies the oldest datagram and leaves it there.
    ///
    /// # Errors
    /// As [`recv_from`](Self::recv_from).
    pub fn peek_from(&self, buf: &mut [u8]) -> Result<Received, Error> {
        self.receive_with(buf, |queue, buf| queue.peek(buf))
    }

    fn receive_with(
        &self,
        buf: &mut [u8],
        take: impl FnOnce(&mut DatagramQueue<Origin>, &mut [u8]) -> Option<(Origin, usize)>,
    ) -> Result<Received, Error> {
        let mut inner = self.lock();
        if let Some(error) = inner.error.take() {
            return Err(error);
        }
        if self.is_closed() {
            return Err(Error::Closed);
        }
        let (origin, full) = take(&mut inner.queue, buf).ok_or(Error::WouldBlock)?;
        let Origin { source, destination, interface, hop_limit, traffic_class } = origin;
        let len = full.min(buf.len());
        let truncated = full > len;
        Ok(Received { len, source, destination, interface, hop_limit, traffic_class, truncated })
    }

    /// What an earlier datagram ran into, once: SO_ERROR.
    pub fn take_error(&self) -> Option<Error> {
        self.lock().error.take()
    }

    /// Takes the oldest error report (MSG_ERRQUEUE) and writes what it quotes of the datagram's payload to `buf`. There
    /// are some only with [`receive_errors`](IpOptions::receive_errors).
    ///
    /// # Errors
    /// [`Error::WouldBlock`] if there is none.
    pub fn recv_error(&self, buf: &mut [u8]) -> Result<ErrorReport, Error> {
        self.lock().reports.pop(buf).ok_or(Error::WouldBlock)
    }

    /// What can be done without waiting. Writing always can.
    pub fn readiness(&self) -> Ready {
        let inner = self.lock();
        let mut ready = Ready::WRITABLE;
        if inner.error.is_some() {
            ready |= Ready::ERROR | Ready::READABLE;
        }
        if !inner.reports.is_empty() {
            ready |= Ready::ERROR;
        }
        if self.is_closed() {
            ready |= Ready::READ_CLOSED | Ready::READABLE;
        }
        if !inner.queue.is_empty() {
            ready |= Ready::READABLE;
        }
        ready
    }

    /// Unbinds it and drops what was not read.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.disconnect();
        self.shared.udp_binds.remove(self.local.port(), self);
        self.lock().queue.clear();
    }

    /// The driver's own state for this socket.
    pub fn context(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>> {
        &self.context
    }

    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// The interface was removed or has lost the address.
    pub(crate) fn fail(&self, error: Error) {
        self.lock().error = Some(error);
    }

    /// An ICMP error may be about one of its datagrams; `false` if the socket does not care. A `hard` one fails the next
    /// call of a connected socket, and is reported to those who asked; others are reported only.
    pub(crate) fn complain(&self, report: &ErrorReport, hard: bool, payload: &[u8]) -> bool {
        let ip = self.ip.load();
        let mut inner = self.lock();
        // Whoever lets routers cut does not ask for sizes.
        if report.error == Error::MessageSize && ip.fragmentation == Fragmentation::Always {
            return false;
        }
        if ip.receive_errors && !inner.reports.push(*report, payload) {
            self.shared.counters.error_queue_overflows.bump();
        }
        let fails = ip.receive_errors || (hard && inner.peer.is_some());
        if fails {
            inner.error = Some(report.error);
        }
        fails
    }

    fn report_too_big(&self, destination: SocketAddr, mtu: usize) {
        let report = ErrorReport {
            error: Error::MessageSize,
            origin: ErrorOrigin::Local,
            kind: 0,
            code: 0,
            info: mtu as u32,
            offender: None,
            destination,
            len: 0,
        };
        if !self.lock().reports.push(report, &[]) {
            self.shared.counters.error_queue_overflows.bump();
        }
    }

    /// Queues a datagram; a connected socket takes its peer's only.
    fn deliver(&self, origin: Origin, data: &[u8]) {
        let mut inner = self.lock();
        if inner.peer.is_some_and(|peer| peer.destination != origin.source) || self.is_closed() {
            return;
        }
        let counters = &self.shared.counters;
        match inner.queue.push(origin, data) {
            true => counters.udp_received.bump(),
            false => counters.udp_queue_overflows.bump(),
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of an arriving datagram.
pub(crate) enum Delivery {
    /// This socket has something to report.
    Socket(Arc<UdpSocket>),
    /// Nobody is bound there.
    Unreachable,
    /// It was dropped and counted.
    Dropped,
}

/// Finds the socket for the UDP datagram in `packet` and queues it there.
pub(crate) fn receive(shared: &Shared, interface: &Interface, ip: &IpHeader, packet: &[u8]) -> Delivery {
    let counters = &shared.counters;
    let Ok(udp) = UdpPacket::new_checked(&packet[ip.header_len..ip.total_len]) else {
        counters.udp_malformed.bump();
        return Delivery::Dropped;
    };
    if udp.dst_port() == 0 {
        counters.udp_malformed.bump();
        return Delivery::Dropped;
    }
    if interface.checksums && !udp.verify_checksum(&ip.source.into(), &ip.destination.into()) {
        counters.ip_checksum_errors.bump();
        return Delivery::Dropped;
    }
    if !interface.allows(udp.dst_port()) && !interface.allows(udp.src_port()) {
        counters.port_not_allowed.bump();
        return Delivery::Dropped;
    }
    let source = SocketAddr::new(ip.source, udp.src_port());
    let destination = SocketAddr::new(ip.destination, udp.dst_port());
    let route = UdpRoute { interface: interface.id, source: destination, destination: source };
    let socket = shared.udp_connected.find(&route);
    let Some(socket) = socket.or_else(|| shared.udp_binds.find(interface.id, destination)) else {
        counters.udp_no_socket.bump();
        return Delivery::Unreachable;
    };
    let origin = Origin {
        source,
        destination,
        interface: interface.id,
        hop_limit: ip.hop_limit,
        traffic_class: TrafficClass(ip.traffic_class),
    };
    socket.deliver(origin, udp.payload());
    Delivery::Socket(socket)
}

impl Bound for UdpSocket {
    fn interface(&self) -> Option<InterfaceId> {
        self.interface
    }

    fn local(&self) -> SocketAddr {
        self.local
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket")
            .field("interface", &self.interface)
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}
