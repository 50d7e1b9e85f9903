//! Sockets for echo requests, as Linux's "ping sockets" (IPPROTO_ICMP with SOCK_DGRAM).

use std::any::Any;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::errors::Complaint;
use super::{HEADER, types, write_with_headers};
use crate::host::batch::Mark;
use crate::host::interface::Interface;
use crate::host::route::Wanted;
use crate::host::stack::Shared;
use crate::ip::received_headers::HeaderChain;
use crate::ip::{IpHeader, canonical};
use crate::socket::demux::Bound;
use crate::socket::ip_options::Settings;
use crate::socket::queue::DatagramQueue;
use crate::sync;
use crate::{
    Batch, Error, ErrorReport, InterfaceId, IpOptions, RawRoute, Ready, ReceivedHeaders, Scope, SendOptions,
    Stack, TrafficClass,
};

/// A socket that sends echo requests and receives replies and errors.
///
/// ```
/// use std::time::Instant;
/// use peersock_stack::{Config, EchoRequest, InterfaceConfig, Stack};
///
/// let stack = Stack::new(Config::default(), [7; 32], Instant::now());
/// let net = stack.add_interface(InterfaceConfig::new("net", ["10.0.0.1/8".parse()?]));
/// let socket = stack.icmp_open(net, false)?;
/// let destination = "10.0.0.2".parse()?;
/// let request = EchoRequest { destination, sequence: 1, payload: b"ping", hop_limit: 64 };
/// let mut packet = [0; 1280];
/// assert_eq!(socket.send(&request, 1280, &mut packet)?, 20 + 8 + 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct IcmpSocket {
    shared: Arc<Shared>,
    scope: Scope,
    /// Local address, unspecified for all, and the identifier as port.
    local: SocketAddr,
    ip: Settings,
    closed: AtomicBool,
    queue: Mutex<DatagramQueue<EchoReply>>,
    /// Last request without a reply.
    asked: Mutex<Option<(RawRoute, u16)>>,
    mark: Mark,
    context: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// An echo request to send.
#[derive(Debug, Clone, Copy)]
pub struct EchoRequest<'a> {
    /// Destination of the request.
    pub destination: IpAddr,
    /// Sequence number, returned in the reply.
    pub sequence: u16,
    /// Payload, returned in the reply.
    pub payload: &'a [u8],
    /// Hop limit, 1 to 255; usually 64.
    pub hop_limit: u8,
}

/// A reply to an echo request, or an error about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EchoReply {
    /// Sender of the reply.
    pub source: IpAddr,
    /// Local address to which it came.
    pub destination: IpAddr,
    /// Interface of its arrival.
    pub interface: InterfaceId,
    /// Sequence number of the request.
    pub sequence: u16,
    /// Bytes of payload written to the buffer; none with an error.
    pub len: usize,
    /// Remaining hop limit at arrival.
    pub hop_limit: u8,
    /// Traffic class at arrival.
    pub traffic_class: TrafficClass,
    /// Error in an ICMP error about the request, `None` for an echo reply.
    pub error: Option<Error>,
    /// Details of the error.
    pub report: Option<ErrorReport>,
}

impl Stack {
    /// Opens a socket for echo requests on one interface.
    ///
    /// # Errors
    /// [`Error::NetworkUnreachable`] for an unknown interface, [`Error::AddrInUse`] if all 65,535
    /// identifiers are taken.
    pub fn icmp_open(&self, interface: InterfaceId, ipv6: bool) -> Result<Arc<IcmpSocket>, Error> {
        let any: IpAddr = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        self.icmp_bind(Some(interface), SocketAddr::new(any, 0))
    }

    /// Opens a socket for echo requests from a local address, or from any. The port of `local` is the
    /// identifier, 0 for any free one. It sends through the interface of the scope that leads to the
    /// destination.
    ///
    /// # Errors
    /// [`Error::NetworkUnreachable`] for an unknown interface, [`Error::AddrNotAvailable`] for a foreign
    /// address, [`Error::AddrInUse`] if the identifier is taken, or all are.
    pub fn icmp_bind(&self, scope: impl Into<Scope>, local: SocketAddr) -> Result<Arc<IcmpSocket>, Error> {
        let shared = &self.shared;
        let address = canonical(local).ip();
        let scope = scope.into();
        self.bind_network(&scope, address)?;
        let open = |ident| {
            let socket = IcmpSocket::new(shared, scope.clone(), SocketAddr::new(address, ident));
            let taken = |bound: &[Arc<IcmpSocket>]| {
                let taken = bound.iter().any(|other| other.overlaps(&scope, address));
                if taken { Err(Error::AddrInUse) } else { Ok(()) }
            };
            shared.icmp.insert(ident, taken, || socket.clone())
        };
        match local.port() {
            // From 1 on, because a program that binds 0 asks for any.
            0 => (1..=u16::MAX).find_map(|ident| open(ident).ok()).ok_or(Error::AddrInUse),
            ident => open(ident),
        }
    }
}

impl IcmpSocket {
    fn new(shared: &Arc<Shared>, scope: Scope, local: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            shared: shared.clone(),
            scope,
            local,
            ip: Settings::new(IpOptions::default()),
            closed: AtomicBool::new(false),
            queue: Mutex::new(DatagramQueue::new(shared.config.udp_receive_buffer)),
            asked: Mutex::new(None),
            mark: Mark::default(),
            context: OnceLock::new(),
        })
    }

    /// Returns the bound interface, `None` for all.
    pub fn interface(&self) -> Option<InterfaceId> {
        self.scope.device()
    }

    /// Returns the local address, unspecified for all, and the identifier as port.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Returns the identifier in its requests, unique among the node's sockets of this interface and family.
    pub fn ident(&self) -> u16 {
        self.local.port()
    }

    /// Returns the route of a request to `destination`.
    ///
    /// # Errors
    /// [`Error::AddressFamily`] for the other family, [`Error::NetworkUnreachable`] if no interface leads
    /// there, [`Error::AddrNotAvailable`] without an address of this family, or if the requested source is
    /// foreign; [`Error::NetworkDown`] after the interface was removed, [`Error::Closed`].
    pub fn route(&self, destination: IpAddr, options: &SendOptions<'_>) -> Result<RawRoute, Error> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        if !self.is_up() {
            return Err(Error::NetworkDown);
        }
        let wanted = Wanted { scope: &self.scope, local: self.local.ip(), ip: self.ip.load() };
        let (interface, source) = self.shared.choose_route(&wanted, destination, options)?;
        Ok(RawRoute { interface: interface.id, source, destination })
    }

    /// Writes a request as one IP packet to `buf`, and returns its length. `mtu` is the path MTU in bytes.
    /// Unless the socket's [`fragmentation`](IpOptions::fragmentation) forbids it, the packet may exceed the
    /// MTU: cut it with [`Stack::fragments`](crate::Stack::fragments).
    /// Fails as [`route`](Self::route) and [`send_with`](Self::send_with) do.
    pub fn send(&self, request: &EchoRequest<'_>, mtu: usize, buf: &mut [u8]) -> Result<usize, Error> {
        let options = SendOptions { hop_limit: Some(request.hop_limit), ..SendOptions::default() };
        let route = self.route(request.destination, &options)?;
        self.send_with(&route, (request.sequence, request.payload), &options, mtu, buf)
    }

    /// Sends as [`send`](Self::send) does, on a given route, with a sequence number and a payload.
    ///
    /// # Errors
    /// [`Error::MessageSize`] if the packet exceeds 65,535 bytes or `buf`, or exceeds `mtu` and must not be
    /// fragmented; [`Error::NetworkDown`] after the interface was removed, [`Error::InvalidInput`] for a hop
    /// limit of 0.
    pub fn send_with(
        &self,
        route: &RawRoute,
        (sequence, payload): (u16, &[u8]),
        options: &SendOptions<'_>,
        mtu: usize,
        buf: &mut [u8],
    ) -> Result<usize, Error> {
        let interface = self.shared.interfaces.find(route.interface).ok_or(Error::NetworkDown)?;
        let mut rest = [0; 4];
        rest[..2].copy_from_slice(&self.ident().to_be_bytes());
        rest[2..].copy_from_slice(&sequence.to_be_bytes());
        let len = HEADER + payload.len();
        let fits = self.shared.fits(route.interface, route.destination, (options, len), mtu);
        let types = types(route.source);
        let fields = self.ip.load().fields(options, types.protocol, route.destination, fits)?;
        let addresses = (route.source, route.destination);
        let parts = [&rest, payload];
        // Before the packet leaves, because an error about it may come at once.
        *sync::lock(&self.asked) = Some((*route, sequence));
        let headers = options.headers_to(route.destination);
        let head = [types.echo_request, 0];
        write_with_headers(buf, addresses, head, &parts, (&fields, headers), interface.checksums)
            .ok_or(Error::MessageSize)
    }

    /// Returns the error that [`send_with`](Self::send_with) would return for `len` bytes of payload, except
    /// errors about `buf`.
    /// Fails as [`send_with`](Self::send_with) does.
    pub fn check_length(
        &self,
        route: &RawRoute,
        len: usize,
        options: &SendOptions<'_>,
        mtu: usize,
    ) -> Result<(), Error> {
        let fits = self.shared.fits(route.interface, route.destination, (options, HEADER + len), mtu);
        let protocol = types(route.source).protocol;
        self.ip.load().fields(options, protocol, route.destination, fits).map(drop)
    }

    /// Returns the settings of its IP headers. Each request has its own hop limit.
    pub fn ip_options(&self) -> IpOptions {
        self.ip.load()
    }

    /// Changes the settings of its IP headers.
    /// Errors: [`Error::InvalidInput`] for a [`hop_limit`](IpOptions::hop_limit) of 0.
    pub fn set_ip_options(&self, options: IpOptions) -> Result<(), Error> {
        self.ip.store(options)
    }

    /// Takes the oldest reply. A payload too long for `buf` is truncated.
    ///
    /// # Errors
    /// [`Error::WouldBlock`], [`Error::NetworkDown`] after the interface was removed, [`Error::Closed`].
    pub fn recv(&self, buf: &mut [u8]) -> Result<EchoReply, Error> {
        self.take(buf, None)
    }

    /// Takes the oldest reply as [`recv`](Self::recv) does, with its extension headers as
    /// [`UdpSocket::recv_with_headers`](crate::UdpSocket::recv_with_headers) returns them.
    /// Fails as [`recv`](Self::recv) does.
    pub fn recv_with_headers(
        &self,
        buf: &mut [u8],
        headers: &mut ReceivedHeaders,
    ) -> Result<EchoReply, Error> {
        self.take(buf, Some(headers))
    }

    fn take(&self, buf: &mut [u8], headers: Option<&mut ReceivedHeaders>) -> Result<EchoReply, Error> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        // Replies that came before the interface went are still readable.
        let nothing = if self.is_up() { Error::WouldBlock } else { Error::NetworkDown };
        let headers = headers.map(|headers| &mut headers.listed);
        let (reply, len) = self.lock().pop(buf, headers).ok_or(nothing)?;
        Ok(EchoReply { len: len.min(buf.len()), ..reply })
    }

    /// Sets SO_RCVBUF: maximum bytes of queued replies from now on.
    pub fn set_receive_buffer(&self, limit: usize) {
        self.lock().set_limit(limit);
    }

    /// Returns the current readiness. Writing never blocks.
    pub fn readiness(&self) -> Ready {
        let mut ready = Ready::WRITABLE;
        if !self.lock().is_empty() {
            ready |= Ready::READABLE;
        }
        if self.is_closed() {
            ready |= Ready::READABLE | Ready::READ_CLOSED;
        }
        ready
    }

    /// Releases the identifier and drops unread replies.
    pub fn close(&self) {
        // Set first, so that a reply that finds the socket meanwhile is not read any more.
        self.closed.store(true, Ordering::Release);
        self.shared.icmp.remove(self.ident(), self);
        self.lock().clear();
    }

    /// Returns the driver's own state for this socket.
    pub fn context(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>> {
        &self.context
    }

    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Returns true if the bound interface, if any, still exists.
    fn is_up(&self) -> bool {
        self.scope.device().is_none_or(|id| self.shared.interfaces.find(id).is_some())
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, DatagramQueue<EchoReply>> {
        sync::lock(&self.queue)
    }
}

/// Processes an echo reply: identifier, sequence number and payload follow the checksum.
pub(super) fn receive_reply(
    shared: &Shared,
    interface: &Interface,
    ip: &IpHeader,
    packet: &[u8],
    batch: &mut Batch,
) {
    let message = &packet[ip.header_len..ip.total_len];
    let destination = SocketAddr::new(ip.destination, u16::from_be_bytes([message[4], message[5]]));
    let Some(socket) = shared.icmp.find(interface.id, destination) else {
        return shared.counters.icmp_ignored.increment();
    };
    let sequence = u16::from_be_bytes([message[6], message[7]]);
    let reply = EchoReply {
        source: ip.source,
        destination: ip.destination,
        interface: interface.id,
        sequence,
        len: 0,
        hop_limit: ip.hop_limit,
        traffic_class: TrafficClass(ip.traffic_class),
        error: None,
        report: None,
    };
    sync::lock(&socket.asked).take_if(|(_, asked)| *asked == sequence);
    queue(shared, socket, reply, (HeaderChain::of(packet, ip), &message[HEADER..]), batch);
}

/// Reports an error to sockets that wait for replies from some addresses, because nothing sent there arrives.
pub(crate) fn fail_waiting(
    shared: &Shared,
    error: Error,
    is_meant: impl Fn(&RawRoute) -> bool,
    batch: &mut Batch,
) {
    for socket in shared.icmp.filter(|_| true) {
        let Some((route, sequence)) = sync::lock(&socket.asked).take_if(|(route, _)| is_meant(route)) else {
            continue;
        };
        let reply = EchoReply {
            source: route.destination,
            destination: route.source,
            interface: route.interface,
            sequence,
            len: 0,
            hop_limit: 0,
            traffic_class: TrafficClass(0),
            error: Some(error),
            report: Some(ErrorReport::local(error, SocketAddr::new(route.destination, 0))),
        };
        queue(shared, socket, reply, (HeaderChain::NOTHING, &[]), batch);
    }
}

/// Processes an error about one of this node's requests; returns `false` if no socket sent it.
pub(super) fn receive_error(
    shared: &Shared,
    interface: &Interface,
    complaint: &Complaint<'_>,
    ip: &IpHeader,
    batch: &mut Batch,
) -> bool {
    let ident = u16::from_be_bytes([complaint.head[4], complaint.head[5]]);
    let sequence = u16::from_be_bytes([complaint.head[6], complaint.head[7]]);
    let sent_by = SocketAddr::new(complaint.source, ident);
    let request = complaint.head[0] == types(complaint.destination).echo_request;
    // Only a quoted request is this node's. The quotation of a reply would be about another node's question.
    let Some(socket) = shared.icmp.find(interface.id, sent_by).filter(|_| request) else { return false };
    let reply = EchoReply {
        source: ip.source,
        destination: ip.destination,
        interface: interface.id,
        sequence,
        len: 0,
        hop_limit: ip.hop_limit,
        traffic_class: TrafficClass(ip.traffic_class),
        error: Some(complaint.error),
        report: Some(complaint.report(SocketAddr::new(complaint.destination, 0))),
    };
    queue(shared, socket, reply, (HeaderChain::NOTHING, &[]), batch);
    true
}

fn queue(
    shared: &Shared,
    socket: Arc<IcmpSocket>,
    reply: EchoReply,
    (between, payload): (HeaderChain<'_>, &[u8]),
    batch: &mut Batch,
) {
    let headers = between.listed(|| socket.ip.load().receive_headers);
    match socket.lock().push(reply, &headers, payload) {
        true => shared.counters.icmp_echo_replies.increment(),
        false => shared.counters.icmp_queue_overflows.increment(),
    }
    batch.touch_icmp(&shared.rounds, socket);
}

impl Bound for IcmpSocket {
    fn scope(&self) -> &Scope {
        &self.scope
    }

    fn local(&self) -> SocketAddr {
        self.local
    }
}

impl fmt::Debug for IcmpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IcmpSocket")
            .field("scope", &self.scope)
            .field("ident", &self.ident())
            .finish_non_exhaustive()
    }
}
