//! Raw sockets: packets of one IP protocol, beside what the stack makes of them.

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
    Error, ErrorReport, GroupChange, InterfaceId, IpOptions, Ready, Received, ReceivedHeaders, SourceFilter,
    Stack,
};

pub use filter::IcmpFilter;
pub(crate) use receiving::{complain, receive};
pub use sending::RawRoute;

/// The protocol of sockets that only send, headers included: IPPROTO_RAW.
const SEND_ONLY: u8 = 255;

/// A socket for the packets of one IP protocol (SOCK_RAW).
///
/// It gets a copy of every arriving packet of its protocol, whole and reassembled, whatever else the stack
/// does with it: of IPv4 packets with their header, of IPv6 packets what follows the headers. Large TCP
/// packets may have been joined by a [`Coalescer`](crate::Coalescer) before. A packet whose protocol neither
/// the stack nor a raw socket takes is answered with an ICMP error.
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
    interface: Option<InterfaceId>,
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

/// Options of a raw socket, given when it is opened and changed with [`RawSocket::set_options`].
///
/// ```
/// use peersock_stack::RawOptions;
///
/// let options = RawOptions { checksum_offset: Some(2), ..RawOptions::default() };
/// assert!(!options.header_included);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct RawOptions {
    /// IP_HDRINCL: what is sent over IPv4 starts with an IP header. Its length and checksum are filled in,
    /// and its source and identification if they are 0. Default off, but for protocol 255. IPv6 has no such
    /// mode.
    pub header_included: bool,
    /// IPV6_CHECKSUM (RFC 3542 3.1): where in what is sent the checksum is filled in, and in what arrives is
    /// verified on interfaces that do so. An even number of bytes. ICMPv6's always is, at 2. Default none.
    pub checksum_offset: Option<u16>,
    /// ICMP_FILTER, ICMP6_FILTER: which ICMP messages are received.
    pub icmp_filter: IcmpFilter,
    /// SO_RCVBUF, instead of [`Config::udp_receive_buffer`](crate::Config::udp_receive_buffer), bytes. Counts
    /// when the socket is opened.
    pub receive_buffer: Option<usize>,
    /// What its packets' IP headers say; see [`RawSocket::set_ip_options`].
    pub ip: IpOptions,
}

impl RawOptions {
    fn check(&self) -> Result<(), Error> {
        let odd = self.checksum_offset.is_some_and(|offset| offset % 2 == 1);
        if odd { Err(Error::InvalidInput) } else { Ok(()) }
    }
}

impl Stack {
    /// Opens a raw socket for packets of an IP `protocol`, on one interface or on all.
    ///
    /// # Errors
    /// [`Error::NetworkUnreachable`] for an unknown interface, [`Error::InvalidInput`] for an odd
    /// [`checksum_offset`](RawOptions::checksum_offset).
    pub fn raw_open(
        &self,
        interface: Option<InterfaceId>,
        ipv6: bool,
        protocol: u8,
        options: RawOptions,
    ) -> Result<Arc<RawSocket>, Error> {
        let shared = &self.shared;
        options.check()?;
        if interface.is_some_and(|id| shared.interfaces.find(id).is_none()) {
            return Err(Error::NetworkUnreachable);
        }
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
            interface,
            ipv6,
            protocol,
            ip: Settings::new(options.ip),
            closed: AtomicBool::new(false),
            inner: Mutex::new(inner),
            mark: Mark::default(),
            context: OnceLock::new(),
        });
        shared.raw.insert(protocol.into(), |_| Ok(()), || socket)
    }
}

impl RawSocket {
    /// The interface it is bound to, `None` for all.
    pub fn interface(&self) -> Option<InterfaceId> {
        self.interface
    }

    /// The protocol number of its packets.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The own address that it is bound to, unspecified for all.
    pub fn local(&self) -> IpAddr {
        self.lock().local
    }

    /// The peer it is connected to.
    pub fn peer(&self) -> Option<IpAddr> {
        self.lock().peer
    }

    /// Receives only what is sent to `address` from now on, and sends from it; unspecified for any.
    ///
    /// # Errors
    /// [`Error::AddressFamily`]; [`Error::AddrNotAvailable`] if it is neither this node's nor a group's.
    pub fn bind(&self, address: IpAddr) -> Result<(), Error> {
        if address.is_ipv6() != self.ipv6 {
            return Err(Error::AddressFamily);
        }
        let interfaces = &self.shared.interfaces;
        let own = address.is_unspecified()
            || address.is_multicast()
            || match self.interface {
                Some(id) => interfaces.find(id).is_some_and(|interface| interface.is_local(address)),
                None => interfaces.owner(address).is_some(),
            };
        if !own {
            return Err(Error::AddrNotAvailable);
        }
        self.lock().local = address;
        Ok(())
    }

    /// Fixes the peer: only its packets are received, and ICMP errors are reported. `None` undoes that.
    ///
    /// # Errors
    /// [`Error::AddressFamily`], [`Error::InvalidInput`] for the unspecified address.
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

    /// The options.
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

    /// Joins a multicast group, as [`UdpSocket::join`](crate::UdpSocket::join).
    ///
    /// # Errors
    /// As [`UdpSocket::join`](crate::UdpSocket::join).
    pub fn join(&self, interface: Option<InterfaceId>, group: IpAddr) -> Result<(), Error> {
        self.change_group(interface, group, GroupChange::Join(SourceFilter::default()))
    }

    /// Leaves a multicast group, as [`UdpSocket::leave`](crate::UdpSocket::leave).
    ///
    /// # Errors
    /// As [`UdpSocket::leave`](crate::UdpSocket::leave).
    pub fn leave(&self, interface: Option<InterfaceId>, group: IpAddr) -> Result<(), Error> {
        self.change_group(interface, group, GroupChange::Leave)
    }

    /// Changes what it wants of a group, as [`UdpSocket::change_group`](crate::UdpSocket::change_group).
    ///
    /// # Errors
    /// As [`UdpSocket::change_group`](crate::UdpSocket::change_group).
    pub fn change_group(
        &self,
        interface: Option<InterfaceId>,
        group: IpAddr,
        change: GroupChange,
    ) -> Result<(), Error> {
        let usual = [self.interface, self.ip.load().multicast_interface];
        let mut inner = self.lock();
        if self.is_closed() {
            return Err(Error::Closed);
        }
        inner.inbox.groups.change(&self.shared, self.ipv6, (interface, usual), group, change)
    }

    /// Takes the oldest packet. The ports in what is returned are 0.
    ///
    /// # Errors
    /// What an earlier packet ran into, once; [`Error::NetworkDown`], [`Error::WouldBlock`],
    /// [`Error::Closed`].
    pub fn recv_from(&self, buf: &mut [u8]) -> Result<Received, Error> {
        self.lock().inbox.pop(self.is_closed(), buf, None)
    }

    /// As [`recv_from`](Self::recv_from), with extension headers as
    /// [`UdpSocket::recv_with_headers`](crate::UdpSocket::recv_with_headers) gives them.
    ///
    /// # Errors
    /// As [`recv_from`](Self::recv_from).
    pub fn recv_with_headers(
        &self,
        buf: &mut [u8],
        headers: &mut ReceivedHeaders,
    ) -> Result<Received, Error> {
        self.lock().inbox.pop(self.is_closed(), buf, Some(headers))
    }

    /// Copies the oldest packet and leaves it there.
    ///
    /// # Errors
    /// As [`recv_from`](Self::recv_from).
    pub fn peek_from(&self, buf: &mut [u8]) -> Result<Received, Error> {
        self.lock().inbox.peek(self.is_closed(), buf)
    }

    /// What an earlier packet ran into, once: SO_ERROR. [`Error::NetworkDown`] each time, once the socket's
    /// interface was removed.
    pub fn take_error(&self) -> Option<Error> {
        self.lock().inbox.take_error()
    }

    /// Takes the oldest error report, as [`UdpSocket::recv_error`](crate::UdpSocket::recv_error).
    ///
    /// # Errors
    /// [`Error::WouldBlock`] if there is none.
    pub fn recv_error(&self, buf: &mut [u8]) -> Result<ErrorReport, Error> {
        self.lock().inbox.pop_report(buf)
    }

    /// SO_RCVBUF: how much may wait to be received from now on, bytes.
    pub fn set_receive_buffer(&self, limit: usize) {
        self.lock().inbox.set_limit(limit);
    }

    /// What can be done without waiting. Writing always can.
    pub fn readiness(&self) -> Ready {
        self.lock().inbox.readiness(self.is_closed())
    }

    /// Receives nothing more, leaves its groups and drops what was not read.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.shared.raw.remove(self.protocol.into(), self);
        self.lock().inbox.close(&self.shared);
    }

    /// The driver's own state for this socket.
    pub fn context(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>> {
        &self.context
    }

    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// The interface was removed.
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
    fn interface(&self) -> Option<InterfaceId> {
        self.interface
    }

    /// The protocol takes the port's place.
    fn local(&self) -> SocketAddr {
        SocketAddr::new(self.lock().local, self.protocol.into())
    }
}

impl fmt::Debug for RawSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawSocket")
            .field("interface", &self.interface)
            .field("ipv6", &self.ipv6)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}
