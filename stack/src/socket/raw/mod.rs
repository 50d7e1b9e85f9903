//! Raw sockets: packets of one IP protocol, in addition to the stack's own processing.

mod filter;
mod receiving;
mod sending;

use std::any::Any;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use crate::host::batch::Mark;
use crate::host::stack::Shared;
use crate::socket::demux::Bound;
use crate::socket::inbox::Inbox;
use crate::socket::ip_options::Settings;
use crate::sync;
use crate::{
    Error, ErrorReport, GroupChange, InterfaceId, IpOptions, Ready, Received, ReceivedHeaders, Scope,
    SourceFilter, Stack,
};

pub use filter::IcmpFilter;
pub(crate) use receiving::{complain, receive};
pub use sending::RawRoute;

/// Protocol of sockets that only send, headers included: IPPROTO_RAW.
const SEND_ONLY: u8 = 255;

/// A socket for the packets of one IP protocol (SOCK_RAW).
///
/// It gets a copy of every arriving packet of its protocol, whole and reassembled, in addition to the stack's
/// own processing. IPv4 packets come with their header, IPv6 packets without the headers. Large TCP packets
/// may have been joined by a [`Coalescer`](crate::Coalescer) before. If neither the stack nor a raw socket
/// accepts a packet's protocol, an ICMP error answers it.
///
/// ```
/// use std::time::Instant;
/// use peersock_stack::{Config, InterfaceConfig, RawOptions, SendOptions, Stack};
///
/// let stack = Stack::new(Config::default(), [7; 32], Instant::now());
/// let net = stack.add_interface(InterfaceConfig::new("net", ["10.0.0.1/8".parse()?]));
/// let ospf = stack.raw_open(Some(net), false, 89, RawOptions::default())?;
/// let route = ospf.route(Some("10.0.0.2".parse()?), &SendOptions::default())?;
/// let mut packet = [0; 1280];
/// assert_eq!(ospf.send(&route, b"hello", &SendOptions::default(), 1280, &mut packet)?, 20 + 5);
/// assert_eq!(packet[9], 89);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RawSocket {
    shared: Arc<Shared>,
    scope: Scope,
    ipv6: bool,
    protocol: u8,
    ip: Settings,
    closed: AtomicBool,
    inner: Mutex<Inner>,
    mark: Mark,
    context: OnceLock<Arc<dyn Any + Send + Sync>>,
}

struct Inner {
    local: IpAddr,
    peer: Option<IpAddr>,
    options: RawOptions,
    inbox: Inbox,
}

/// Options of a raw socket, given at opening and changed with [`RawSocket::set_options`].
#[derive(Debug, Clone, Copy, Default)]
pub struct RawOptions {
    /// IP_HDRINCL: data sent over IPv4 starts with an IP header. The stack fills in its length and checksum,
    /// and its source and identification if they are 0. Default off, except for protocol 255. IPv6 has no
    /// such mode.
    pub header_included: bool,
    /// IPV6_CHECKSUM (RFC 3542 3.1): even offset at which the checksum is filled in on sending, and verified
    /// on receipt if the interface verifies checksums. ICMPv6 always uses 2. Default none.
    pub checksum_offset: Option<u16>,
    /// ICMP_FILTER, ICMP6_FILTER: accepted ICMP messages.
    pub icmp_filter: IcmpFilter,
    /// SO_RCVBUF, instead of [`Config::udp_receive_buffer`](crate::Config::udp_receive_buffer), bytes. Used
    /// only when the socket is opened.
    pub receive_buffer: Option<usize>,
    /// Settings of its IP headers; see [`RawSocket::set_ip_options`].
    pub ip: IpOptions,
}

impl RawOptions {
    fn check(&self) -> Result<(), Error> {
        // An odd offset would split the checksum over two words of the sum.
        let odd = self.checksum_offset.is_some_and(|offset| offset % 2 == 1);
        if odd { Err(Error::InvalidInput) } else { Ok(()) }
    }
}

impl Stack {
    /// Opens a raw socket for packets of an IP `protocol`, on all interfaces of the scope.
    ///
    /// # Errors
    /// [`Error::NetworkUnreachable`] for an unknown interface, [`Error::InvalidInput`] for an odd
    /// [`checksum_offset`](RawOptions::checksum_offset).
    pub fn raw_open(
        &self,
        scope: impl Into<Scope>,
        ipv6: bool,
        protocol: u8,
        options: RawOptions,
    ) -> Result<Arc<RawSocket>, Error> {
        let shared = &self.shared;
        options.check()?;
        let scope = scope.into();
        if scope.device().is_some_and(|id| !scope.admits(id) || shared.interfaces.find(id).is_none()) {
            return Err(Error::NetworkUnreachable);
        }
        // As in Linux, IPPROTO_RAW implies IP_HDRINCL.
        let header_included = options.header_included || (protocol == SEND_ONLY && !ipv6);
        let limit = options.receive_buffer.unwrap_or(shared.config.udp_receive_buffer);
        let inner = Inner {
            local: unspecified(ipv6),
            peer: None,
            options: RawOptions { header_included, ..options },
            inbox: Inbox::new(limit),
        };
        let socket = Arc::new(RawSocket {
            shared: shared.clone(),
            scope,
            ipv6,
            protocol,
            ip: Settings::new(options.ip),
            closed: AtomicBool::new(false),
            inner: Mutex::new(inner),
            mark: Mark::default(),
            context: OnceLock::new(),
        });
        // Any number of raw sockets may have the same protocol.
        shared.raw.insert(protocol.into(), |_| Ok(()), || socket)
    }
}

impl RawSocket {
    /// Returns the bound interface, `None` for all.
    pub fn interface(&self) -> Option<InterfaceId> {
        self.scope.device()
    }

    /// Returns the protocol number of its packets.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Returns the bound local address, unspecified for all.
    pub fn local(&self) -> IpAddr {
        self.lock().local
    }

    /// Returns the connected peer.
    pub fn peer(&self) -> Option<IpAddr> {
        self.lock().peer
    }

    /// Restricts the socket to `address` for receiving and as a source; unspecified lifts that.
    ///
    /// # Errors
    /// [`Error::AddressFamily`]; [`Error::AddrNotAvailable`] if it is neither an address of this node nor a
    /// group.
    pub fn bind(&self, address: IpAddr) -> Result<(), Error> {
        if address.is_ipv6() != self.ipv6 {
            return Err(Error::AddressFamily);
        }
        let interfaces = &self.shared.interfaces;
        let own = address.is_unspecified()
            // A socket bound to a group receives what is sent there, and sends from another address.
            || address.is_multicast()
            || match self.scope.device() {
                Some(id) => interfaces.find(id).is_some_and(|interface| interface.is_local(address)),
                None => interfaces.owner(&self.scope, address).is_some(),
            };
        if !own {
            return Err(Error::AddrNotAvailable);
        }
        self.lock().local = address;
        Ok(())
    }

    /// Sets the peer: only its packets are received, and ICMP errors are reported. `None` undoes that.
    /// Errors: [`Error::AddressFamily`], [`Error::InvalidInput`] for the unspecified address.
    pub fn connect(&self, peer: Option<IpAddr>) -> Result<(), Error> {
        if peer.is_some_and(|peer| peer.is_ipv6() != self.ipv6) {
            return Err(Error::AddressFamily);
        }
        if peer.is_some_and(|peer| peer.is_unspecified()) {
            return Err(Error::InvalidInput);
        }
        self.lock().peer = peer;
        Ok(())
    }

    /// Returns the options.
    pub fn options(&self) -> RawOptions {
        RawOptions { ip: self.ip.load(), ..self.lock().options }
    }

    /// Changes the options; the size of the queue stays.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for an odd [`checksum_offset`](RawOptions::checksum_offset) or a
    /// [`hop_limit`](IpOptions::hop_limit) of 0.
    pub fn set_options(&self, options: RawOptions) -> Result<(), Error> {
        options.check()?;
        self.ip.store(options.ip)?;
        self.lock().options = options;
        Ok(())
    }

    /// Returns the settings of its IP headers.
    pub fn ip_options(&self) -> IpOptions {
        self.ip.load()
    }

    /// Changes the settings of its IP headers.
    /// Errors: [`Error::InvalidInput`] for a [`hop_limit`](IpOptions::hop_limit) of 0.
    pub fn set_ip_options(&self, options: IpOptions) -> Result<(), Error> {
        self.ip.store(options)
    }

    /// Joins a multicast group as [`UdpSocket::join`](crate::UdpSocket::join) does.
    /// Fails as [`UdpSocket::join`](crate::UdpSocket::join) does.
    pub fn join(&self, interface: Option<InterfaceId>, group: IpAddr) -> Result<(), Error> {
        self.change_group(interface, group, GroupChange::Join(SourceFilter::default()))
    }

    /// Leaves a multicast group as [`UdpSocket::leave`](crate::UdpSocket::leave) does.
    /// Fails as [`UdpSocket::leave`](crate::UdpSocket::leave) does.
    pub fn leave(&self, interface: Option<InterfaceId>, group: IpAddr) -> Result<(), Error> {
        self.change_group(interface, group, GroupChange::Leave)
    }

    /// Changes a membership as [`UdpSocket::change_group`](crate::UdpSocket::change_group) does.
    /// Fails as [`UdpSocket::change_group`](crate::UdpSocket::change_group) does.
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
        inner.inbox.groups.change(&self.shared, self.ipv6, (interface, usual), group, change)
    }

    /// Takes the oldest packet. The ports of the result are 0.
    ///
    /// # Errors
    /// The error of an earlier packet, once; [`Error::NetworkDown`], [`Error::WouldBlock`],
    /// [`Error::Closed`].
    pub fn recv_from(&self, buf: &mut [u8]) -> Result<Received, Error> {
        self.lock().inbox.pop(self.is_closed(), buf, None)
    }

    /// Takes the oldest packet as [`recv_from`](Self::recv_from) does, with its extension headers as
    /// [`UdpSocket::recv_with_headers`](crate::UdpSocket::recv_with_headers) returns them.
    /// Fails as [`recv_from`](Self::recv_from) does.
    pub fn recv_with_headers(
        &self,
        buf: &mut [u8],
        headers: &mut ReceivedHeaders,
    ) -> Result<Received, Error> {
        self.lock().inbox.pop(self.is_closed(), buf, Some(headers))
    }

    /// Copies the oldest packet without removing it.
    /// Fails as [`recv_from`](Self::recv_from) does.
    pub fn peek_from(&self, buf: &mut [u8]) -> Result<Received, Error> {
        self.lock().inbox.peek(self.is_closed(), buf)
    }

    /// Returns the error of an earlier packet, once: SO_ERROR. [`Error::NetworkDown`] each time, once the
    /// socket's interface was removed.
    pub fn take_error(&self) -> Option<Error> {
        self.lock().inbox.take_error()
    }

    /// Takes the oldest error report, as [`UdpSocket::recv_error`](crate::UdpSocket::recv_error) does.
    /// Errors: [`Error::WouldBlock`] if there is no report.
    pub fn recv_error(&self, buf: &mut [u8]) -> Result<ErrorReport, Error> {
        self.lock().inbox.pop_report(buf)
    }

    /// Sets SO_RCVBUF: maximum bytes of queued packets from now on.
    pub fn set_receive_buffer(&self, limit: usize) {
        self.lock().inbox.set_limit(limit);
    }

    /// Returns the current readiness. Writing never blocks.
    pub fn readiness(&self) -> Ready {
        self.lock().inbox.readiness(self.is_closed())
    }

    /// Stops receiving, leaves the groups and drops unread packets.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.shared.raw.remove(self.protocol.into(), self);
        self.lock().inbox.close(&self.shared);
    }

    /// Returns the driver's own state for this socket.
    pub fn context(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>> {
        &self.context
    }

    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Fails all further calls, because the interface was removed.
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

fn unspecified(ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

impl Bound for RawSocket {
    fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Returns the local address, with the protocol as the port.
    fn local(&self) -> SocketAddr {
        SocketAddr::new(self.lock().local, self.protocol.into())
    }
}

impl fmt::Debug for RawSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawSocket")
            .field("scope", &self.scope)
            .field("ipv6", &self.ipv6)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}
