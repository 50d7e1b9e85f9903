//! Settings of a socket for the IP headers of its packets.

use std::net::IpAddr;
use std::sync::RwLock;

use smoltcp::wire::IpProtocol;

use crate::ip::{Fields, HOP_LIMIT};
use crate::sync;
use crate::{Error, ExtensionHeaders, InterfaceId, TrafficClass};

/// IP settings of a UDP, echo, raw or TCP socket: what `setsockopt` sets at the levels `IPPROTO_IP` and
/// `IPPROTO_IPV6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpOptions {
    /// IP_TTL, IPV6_UNICAST_HOPS: 1 to 255, default 64. Each echo request has its own value.
    pub hop_limit: u8,
    /// IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS: 0 to 255, default 1. With 0 a packet does not leave the node.
    pub multicast_hop_limit: u8,
    /// IP_TOS, IPV6_TCLASS. Default 0.
    pub traffic_class: TrafficClass,
    /// IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, IPV6_DONTFRAG: treatment of datagrams over the path MTU. By
    /// default they are fragmented.
    pub fragmentation: Fragmentation,
    /// IP_MULTICAST_LOOP, IPV6_MULTICAST_LOOP: true if members on this node get the socket's group datagrams.
    /// Default on. The driver loops them back, see [`UdpSocket::send`](crate::UdpSocket::send).
    pub multicast_loop: bool,
    /// IP_MULTICAST_IF, IPV6_MULTICAST_IF: outgoing interface of group datagrams. Default is the socket's
    /// interface, and without one the first interface with an address of the family.
    pub multicast_interface: Option<InterfaceId>,
    /// IP_RECVERR, IPV6_RECVERR: queue each ICMP error about the socket's datagrams, even while it is not
    /// connected. The next call on a TCP connection fails with the error; see
    /// [`Flow::take_soft_error`](crate::Flow::take_soft_error). Default off.
    pub receive_errors: bool,
    /// IPV6_RECVHOPOPTS, IPV6_RECVDSTOPTS, IPV6_RECVRTHDR: keep the extension headers of received datagrams,
    /// for [`UdpSocket::recv_with_headers`](crate::UdpSocket::recv_with_headers) and similar calls. Default
    /// off.
    pub receive_headers: bool,
}

impl Default for IpOptions {
    fn default() -> Self {
        Self {
            hop_limit: HOP_LIMIT,
            multicast_hop_limit: 1,
            traffic_class: TrafficClass::default(),
            fragmentation: Fragmentation::default(),
            multicast_loop: true,
            multicast_interface: None,
            receive_errors: false,
            receive_headers: false,
        }
    }
}

/// Treatment of datagrams over the path MTU. Linux's constants are in brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Fragmentation {
    /// Fragmented here, and routers may fragment smaller ones (IP_PMTUDISC_DONT).
    Always,
    /// Fragmented here only; routers report packets that are too big (IP_PMTUDISC_WANT).
    #[default]
    AtSource,
    /// Refused with [`Error::MessageSize`] (IP_PMTUDISC_DO, IPV6_DONTFRAG).
    Never,
    /// As [`Never`](Self::Never), but routers' reports are ignored (IP_PMTUDISC_PROBE). IPv6 packets over a
    /// reported MTU are still fragmented.
    Probe,
}

/// Options of one datagram that override its socket's: the ancillary data of `sendmsg`.
///
/// ```
/// use peersock_stack::SendOptions;
///
/// let options = SendOptions { hop_limit: Some(1), ..SendOptions::default() };
/// assert_eq!(options.source, None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SendOptions<'a> {
    /// IP_TTL, IPV6_HOPLIMIT: 1 to 255, for a group 0 to 255.
    pub hop_limit: Option<u8>,
    /// IP_TOS, IPV6_TCLASS.
    pub traffic_class: Option<TrafficClass>,
    /// IPV6_DONTFRAG.
    pub fragmentation: Option<Fragmentation>,
    /// IP_PKTINFO, IPV6_PKTINFO: source address of the datagram. Unspecified means none.
    pub source: Option<IpAddr>,
    /// IP_PKTINFO, IPV6_PKTINFO: outgoing interface.
    pub interface: Option<InterfaceId>,
    /// IPV6_HOPOPTS, IPV6_RTHDRDSTOPTS, IPV6_RTHDR, IPV6_DSTOPTS. Datagrams to IPv4 addresses are sent
    /// without them.
    pub headers: Option<&'a ExtensionHeaders>,
}

impl<'a> SendOptions<'a> {
    /// Returns the extension headers of a datagram to `destination`.
    pub(crate) fn headers_to(&self, destination: IpAddr) -> Option<&'a ExtensionHeaders> {
        self.headers.filter(|_| destination.is_ipv6())
    }

    /// Returns the first hop of a datagram: `destination`, unless a routing header names another.
    pub fn first_hop(&self, destination: IpAddr) -> IpAddr {
        let hop = self.headers_to(destination).and_then(ExtensionHeaders::first_hop);
        hop.map_or(destination, IpAddr::V6)
    }
}

/// IP settings of a socket, which any thread may change.
pub(crate) struct Settings(RwLock<IpOptions>);

impl Settings {
    pub(crate) fn new(options: IpOptions) -> Self {
        let hop_limit = options.hop_limit.max(1);
        Self(RwLock::new(IpOptions { hop_limit, ..options }))
    }

    pub(crate) fn load(&self) -> IpOptions {
        *sync::read(&self.0)
    }

    pub(crate) fn store(&self, options: IpOptions) -> Result<(), Error> {
        if options.hop_limit == 0 {
            return Err(Error::InvalidInput);
        }
        *sync::write(&self.0) = options;
        Ok(())
    }
}

impl IpOptions {
    /// Returns the header fields of a datagram to `destination`.
    ///
    /// # Errors
    /// [`Error::MessageSize`] if the datagram does not fit and must not be fragmented, or if its extension
    /// headers are too long for fragments; [`Error::InvalidInput`] for a hop limit of 0.
    pub(crate) fn fields(
        &self,
        own: &SendOptions<'_>,
        protocol: IpProtocol,
        destination: IpAddr,
        fits: Fits,
    ) -> Result<Fields, Error> {
        let group = destination.is_multicast();
        let usual = if group { self.multicast_hop_limit } else { self.hop_limit };
        let hop_limit = own.hop_limit.unwrap_or(usual);
        // To a group, 0 is valid: the datagram stays on this node.
        if hop_limit == 0 && !group {
            return Err(Error::InvalidInput);
        }
        if !fits.headers {
            return Err(Error::MessageSize);
        }
        let may_fragment = match own.fragmentation.unwrap_or(self.fragmentation) {
            Fragmentation::Always => true,
            Fragmentation::AtSource => !fits.reported,
            Fragmentation::Never if !fits.reported => return Err(Error::MessageSize),
            Fragmentation::Probe if !fits.link => return Err(Error::MessageSize),
            Fragmentation::Never | Fragmentation::Probe => false,
        };
        let traffic_class = own.traffic_class.unwrap_or(self.traffic_class).0;
        Ok(Fields { protocol, hop_limit, traffic_class, may_fragment })
    }
}

/// Sizes that a packet fits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fits {
    /// True if it fits the MTU known to the driver.
    pub(crate) link: bool,
    /// True if it also fits the MTUs that routers have reported.
    pub(crate) reported: bool,
    /// True if its extension headers leave room in each fragment, and in the longest packet.
    pub(crate) headers: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_datagram_may_differ_from_its_socket() {
        let options = IpOptions { traffic_class: TrafficClass(4), ..IpOptions::default() };
        let fits = Fits { link: true, reported: true, headers: true };
        let fields = |own: &SendOptions<'_>, to: &str| {
            options
                .fields(own, IpProtocol::Udp, to.parse().unwrap(), fits)
                .map(|f| (f.hop_limit, f.traffic_class))
        };
        let none = SendOptions::default();
        assert_eq!(fields(&none, "fd00::1"), Ok((64, 4)));
        assert_eq!(fields(&none, "ff02::1"), Ok((1, 4)));
        let own = SendOptions {
            hop_limit: Some(0),
            traffic_class: Some(TrafficClass(8)),
            ..SendOptions::default()
        };
        assert_eq!(fields(&own, "fd00::1"), Err(Error::InvalidInput));
        assert_eq!(fields(&own, "ff02::1"), Ok((0, 8)));
    }

    #[test]
    fn what_does_not_fit_is_cut_or_refused() {
        use Fragmentation::{Always, AtSource, Never, Probe};
        let [all, link, none] = [(true, true), (true, false), (false, false)];
        let refused = Err(Error::MessageSize);
        for (fragmentation, (link, reported), expected) in [
            (Always, all, Ok(true)),
            (AtSource, all, Ok(false)),
            (AtSource, link, Ok(true)),
            (AtSource, none, Ok(true)),
            (Never, all, Ok(false)),
            (Never, link, refused),
            (Probe, link, Ok(false)),
            (Probe, none, refused),
        ] {
            let options = IpOptions { fragmentation, ..IpOptions::default() };
            let fits = Fits { link, reported, headers: true };
            let destination = "10.0.0.1".parse().unwrap();
            let fields = options.fields(&SendOptions::default(), IpProtocol::Udp, destination, fits);
            assert_eq!(fields.map(|fields| fields.may_fragment), expected, "{fragmentation:?} {fits:?}");
        }
    }
}
