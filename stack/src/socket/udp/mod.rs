//! UDP sockets.

mod correspondents;
mod receiving;
mod sending;

pub(crate) use receiving::receive;

use std::any::Any;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use self::correspondents::Correspondents;
use crate::host::batch::Mark;
use crate::host::stack::Shared;
use crate::socket::demux::Bound;
use crate::socket::inbox::Inbox;
use crate::socket::ip_options::Settings;
use crate::sync;
use crate::{
    Error, ErrorReport, GroupChange, InterfaceId, Ready, ReceivedHeaders, Scope, SourceFilter, TrafficClass,
    UdpOptions,
};

const UDP_HEADER: usize = 8;

/// A UDP socket.
///
/// Sending has two steps, because the driver must look the path up between them. [`route`](Self::route) finds
/// the route of a datagram, and [`send`](Self::send) makes the packet.
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
/// let len = socket.send(Instant::now(), &route, b"hello", 1280, &mut packet)?;
/// assert_eq!(len, 20 + 8 + 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct UdpSocket {
    shared: Arc<Shared>,
    scope: Scope,
    local: SocketAddr,
    reuse_address: bool,
    reuse_port: bool,
    /// True if it has a peer; readable without the lock.
    connected: AtomicBool,
    ip: Settings,
    closed: AtomicBool,
    inner: Mutex<Inner>,
    mark: Mark,
    context: OnceLock<Arc<dyn Any + Send + Sync>>,
}

struct Inner {
    inbox: Inbox,
    /// Route to the peer of a connected socket.
    peer: Option<UdpRoute>,
    /// Other recent destinations in networks that do not allow the socket's port.
    correspondents: Option<Box<Correspondents>>,
}

/// Outgoing route of a datagram; made by [`UdpSocket::route`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UdpRoute {
    /// Outgoing interface.
    pub interface: InterfaceId,
    /// Local address and port.
    pub source: SocketAddr,
    /// Address and port of the peer.
    pub destination: SocketAddr,
}

/// A received datagram, or a raw socket's received packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes written to the buffer.
    pub len: usize,
    /// Sender of the datagram.
    pub source: SocketAddr,
    /// Local address or group to which it was sent: IP_PKTINFO, IPV6_PKTINFO.
    pub destination: SocketAddr,
    /// Interface of its arrival: IP_PKTINFO, IPV6_PKTINFO.
    pub interface: InterfaceId,
    /// Remaining hop limit: IP_RECVTTL, IPV6_RECVHOPLIMIT.
    pub hop_limit: u8,
    /// Traffic class: IP_RECVTOS, IPV6_RECVTCLASS.
    pub traffic_class: TrafficClass,
    /// True if the buffer was too short; the rest is lost.
    pub truncated: bool,
}

impl UdpSocket {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        scope: Scope,
        local: SocketAddr,
        options: &UdpOptions,
    ) -> Arc<Self> {
        let limit = options.receive_buffer.unwrap_or(shared.config.udp_receive_buffer);
        let inner = Inner { inbox: Inbox::new(limit), peer: None, correspondents: None };
        Arc::new(Self {
            shared: shared.clone(),
            scope,
            local,
            reuse_address: options.reuse_address,
            reuse_port: options.reuse_port,
            connected: AtomicBool::new(false),
            ip: Settings::new(options.ip),
            closed: AtomicBool::new(false),
            inner: Mutex::new(inner),
            mark: Mark::default(),
            context: OnceLock::new(),
        })
    }

    /// Returns the bound interface, `None` for all.
    pub fn interface(&self) -> Option<InterfaceId> {
        self.scope.device()
    }

    /// Returns the local address and port, never unspecified while the socket is connected.
    pub fn local(&self) -> SocketAddr {
        self.lock().peer.map_or(self.local, |peer| peer.source)
    }

    /// Returns the connected peer.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.lock().peer.map(|peer| peer.destination)
    }

    /// Takes the oldest datagram.
    ///
    /// # Errors
    /// The error of an earlier datagram, once; [`Error::NetworkDown`], [`Error::WouldBlock`],
    /// [`Error::Closed`].
    pub fn recv_from(&self, buf: &mut [u8]) -> Result<Received, Error> {
        self.lock().inbox.pop(self.is_closed(), buf, None)
    }

    /// Takes the oldest datagram as [`recv_from`](Self::recv_from) does, with its extension headers. They are
    /// kept only with [`receive_headers`](crate::IpOptions::receive_headers).
    /// Fails as [`recv_from`](Self::recv_from) does.
    pub fn recv_with_headers(
        &self,
        buf: &mut [u8],
        headers: &mut ReceivedHeaders,
    ) -> Result<Received, Error> {
        self.lock().inbox.pop(self.is_closed(), buf, Some(headers))
    }

    /// Copies the oldest datagram without removing it.
    /// Fails as [`recv_from`](Self::recv_from) does.
    pub fn peek_from(&self, buf: &mut [u8]) -> Result<Received, Error> {
        self.lock().inbox.peek(self.is_closed(), buf)
    }

    /// Returns the error of an earlier datagram, once: SO_ERROR. [`Error::NetworkDown`] each time, once the
    /// socket's interface was removed.
    pub fn take_error(&self) -> Option<Error> {
        self.lock().inbox.take_error()
    }

    /// Takes the oldest error report (MSG_ERRQUEUE) and writes the quoted part of the datagram's payload to
    /// `buf`. Reports exist only with [`receive_errors`](crate::IpOptions::receive_errors).
    /// Errors: [`Error::WouldBlock`] if there is no report.
    pub fn recv_error(&self, buf: &mut [u8]) -> Result<ErrorReport, Error> {
        self.lock().inbox.pop_report(buf)
    }

    /// Sets SO_RCVBUF: maximum bytes of queued datagrams from now on.
    pub fn set_receive_buffer(&self, limit: usize) {
        self.lock().inbox.set_limit(limit);
    }

    /// Returns the current readiness. Writing never blocks.
    pub fn readiness(&self) -> Ready {
        self.lock().inbox.readiness(self.is_closed())
    }

    /// Joins a multicast group on one interface. Without an interface it is the socket's, or the [multicast
    /// interface](crate::IpOptions::multicast_interface), or the first with an address of the family. The
    /// groups of all nodes (224.0.0.1, ff01::1, ff02::1) need no join.
    ///
    /// As with Linux's IP_MULTICAST_ALL set to 0, a socket receives only datagrams to its own groups. Several
    /// sockets on one port, with [`reuse_address`](UdpOptions::reuse_address), each get a copy.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] if `group` is no multicast address, [`Error::AddressFamily`],
    /// [`Error::NetworkUnreachable`] if there is no such interface, [`Error::AddrInUse`] if the socket is
    /// already a member, [`Error::OutOfMemory`] beyond 20 groups, [`Error::Closed`].
    pub fn join(&self, interface: Option<InterfaceId>, group: IpAddr) -> Result<(), Error> {
        self.change_group(interface, group, GroupChange::Join(SourceFilter::default()))
    }

    /// Leaves a multicast group. The interface is chosen as in [`join`](Self::join).
    /// Fails as [`join`](Self::join) does, and with [`Error::AddrNotAvailable`] if the socket is no member.
    pub fn leave(&self, interface: Option<InterfaceId>, group: IpAddr) -> Result<(), Error> {
        self.change_group(interface, group, GroupChange::Leave)
    }

    /// Joins or leaves a group, or adds or removes a source of it (RFC 3678). The interface is chosen as in
    /// [`join`](Self::join).
    /// Fails as [`join`](Self::join) and [`GroupChange::apply`] do.
    pub fn change_group(
        &self,
        interface: Option<InterfaceId>,
        group: IpAddr,
        change: GroupChange,
    ) -> Result<(), Error> {
        let usual = (&self.scope, self.ip.load().multicast_interface);
        let mut inner = self.lock();
        // Checked under the lock: close() leaves all groups under it, and no later join may stay.
        if self.is_closed() {
            return Err(Error::Closed);
        }
        inner.inbox.groups.change(&self.shared, self.local.is_ipv6(), (interface, usual), group, change)
    }

    /// Unbinds the socket, leaves its groups and drops unread datagrams.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // A closed socket must not keep its pair of addresses from another one.
        self.disconnect();
        // Out of the table before the inbox closes, so that no later datagram is queued.
        self.shared.udp_binds.remove(self.local.port(), self);
        let mut inner = self.lock();
        inner.inbox.close(&self.shared);
        inner.correspondents = None;
    }

    /// Returns the driver's own state for this socket.
    pub fn context(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>> {
        &self.context
    }

    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Returns true if the socket may share its address with a socket with these options.
    pub(crate) fn shares_with(&self, options: &UdpOptions) -> bool {
        (self.reuse_address && options.reuse_address) || (self.reuse_port && options.reuse_port)
    }

    fn shares_port(&self) -> bool {
        self.reuse_port
    }

    /// Fails all further calls, because the interface was removed or has lost the address.
    pub(crate) fn fail(&self, error: Error) {
        self.lock().inbox.fail(error);
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        sync::lock(&self.inner)
    }
}

impl Bound for UdpSocket {
    fn scope(&self) -> &Scope {
        &self.scope
    }

    fn local(&self) -> SocketAddr {
        self.local
    }

    /// Returns true for an unconnected socket. Datagrams of the peer find a connected socket by both
    /// addresses; other datagrams go to sockets that share its port.
    fn takes_strangers(&self) -> bool {
        // Read without the lock, because each arriving datagram asks it of every socket at the port.
        !self.connected.load(Ordering::Acquire)
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket")
            .field("scope", &self.scope)
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}
