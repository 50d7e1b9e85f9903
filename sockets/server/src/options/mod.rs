//! Socket options: their meaning for the stack, and their values for getsockopt(2).

mod get;
mod groups;
mod headers;
mod requests;
mod set;
mod table;
mod tcp_info;
mod value;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use peersock::attach::Connection;
use peersock_fd::option_table::{self as numbers, Row};
use peersock_fd::{Details, Family, Header, PacketInfo};
use peersock_stack::{
    CongestionControl, ExtensionHeaders, Fragmentation, IcmpFilter, InterfaceId, IpOptions, KeepAlive,
    RawOptions, ReceivedHeaders, TcpOptions, TrafficClass, UdpOptions,
};

use super::transport::Arrived;
pub(super) use groups::Membership;
pub(super) use headers::own_headers;
use headers::{StickyHeaders, WantedHeaders};
pub(super) use value::{index as interface_index, interface_name};

/// Packet size that every IPv6 path carries, bytes (RFC 8200 5).
const MIN_MTU: usize = 1280;
/// Linux's default hop limit.
const DEFAULT_HOPS: u8 = 64;
/// Linux's default size of a socket's queues, bytes.
const DEFAULT_BUFFER_BYTES: usize = 212_992;

/// The options that an application has set.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) reuse_address: bool,
    pub(super) reuse_port: bool,
    pub(crate) v6_only: bool,
    broadcast: bool,
    /// SO_BINDTODEVICE.
    device: Option<InterfaceId>,
    keepalive: KeepAlive,
    nodelay: bool,
    cork: bool,
    quick_ack: bool,
    max_segment: Option<u16>,
    defer_accept: Option<Duration>,
    user_timeout: Option<Duration>,
    /// SO_LINGER in seconds.
    linger: Option<u32>,
    congestion: CongestionControl,
    send_buffer: Option<usize>,
    receive_buffer: Option<usize>,
    v4: Side,
    v6: Side,
    header_included: bool,
    checksum: Option<u16>,
    icmp_filter: IcmpFilter,
    /// UDP_SEGMENT.
    segment: Option<NonZeroU16>,
    /// Options without effect here, by level and number.
    kept: BTreeMap<(i32, i32), i32>,
    /// IPV6_PKTINFO: source of datagrams that do not bring their own.
    sticky: Option<PacketInfo>,
    /// IPV6_HOPOPTS, IPV6_RTHDRDSTOPTS, IPV6_RTHDR, IPV6_DSTOPTS.
    headers: StickyHeaders,
    /// IPV6_RECVHOPOPTS, IPV6_RECVRTHDR, IPV6_RECVDSTOPTS.
    wanted_headers: WantedHeaders,
    /// Groups that were joined before the socket was bound.
    pub(super) groups: Vec<Membership>,
}

/// Options of one address family.
#[derive(Debug, Clone, Copy)]
struct Side {
    hops: u8,
    class: u8,
    /// IP_PMTUDISC_*.
    discover: i32,
    dont_fragment: bool,
    /// IPV6_USE_MIN_MTU: 1 always, 0 never, -1 for groups only, whose packets are small anyway.
    use_min_mtu: i32,
    multicast_hops: u8,
    multicast_loop: bool,
    multicast_interface: Option<InterfaceId>,
    wants_info: bool,
    wants_hops: bool,
    wants_class: bool,
    wants_errors: bool,
    wants_path_mtu: bool,
}

impl Default for Side {
    fn default() -> Self {
        Self {
            hops: DEFAULT_HOPS,
            class: 0,
            discover: libc::IP_PMTUDISC_WANT,
            dont_fragment: false,
            use_min_mtu: -1,
            multicast_hops: 1,
            multicast_loop: true,
            multicast_interface: None,
            wants_info: false,
            wants_hops: false,
            wants_class: false,
            wants_errors: false,
            wants_path_mtu: false,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reuse_address: false,
            reuse_port: false,
            v6_only: false,
            broadcast: false,
            device: None,
            keepalive: KeepAlive::default(),
            nodelay: false,
            cork: false,
            quick_ack: true,
            max_segment: None,
            defer_accept: None,
            user_timeout: None,
            linger: None,
            congestion: CongestionControl::default(),
            send_buffer: None,
            receive_buffer: None,
            v4: Side::default(),
            v6: Side::default(),
            header_included: false,
            checksum: None,
            icmp_filter: IcmpFilter::default(),
            segment: None,
            kept: BTreeMap::new(),
            sticky: None,
            headers: StickyHeaders::default(),
            wanted_headers: WantedHeaders::default(),
            groups: Vec::new(),
        }
    }
}

impl Options {
    /// Returns the options for a connection or listener with addresses of a family.
    pub(super) fn tcp(&self, is_v4: bool) -> TcpOptions {
        TcpOptions {
            nodelay: self.nodelay,
            keepalive: self.keepalive,
            reset_on_close: self.linger == Some(0),
            reuse_address: self.reuse_address,
            reuse_port: self.reuse_port,
            defer_accept: self.defer_accept,
            user_timeout: self.user_timeout,
            send_buffer: self.send_buffer,
            receive_buffer: self.receive_buffer,
            congestion: self.congestion,
            max_segment_size: self.max_segment,
            ip: self.ip_for(is_v4),
            ..TcpOptions::default()
        }
    }

    /// Returns the options for binding a datagram socket.
    pub(super) fn udp(&self, any_port: bool) -> UdpOptions {
        UdpOptions {
            any_port,
            reuse_address: self.reuse_address,
            reuse_port: self.reuse_port,
            receive_buffer: self.receive_buffer,
            ..UdpOptions::default()
        }
    }

    /// Returns the options of a raw socket; `others` supplies those that are not the application's.
    pub(super) fn raw(&self, others: RawOptions) -> RawOptions {
        RawOptions {
            header_included: self.header_included,
            checksum_offset: self.checksum,
            icmp_filter: self.icmp_filter,
            ..others
        }
    }

    /// Returns the largest packet of a family, bytes, if the application has limited it.
    pub(super) fn largest_packet(&self, is_v4: bool) -> Option<usize> {
        (self.side(is_v4).use_min_mtu == 1 && !is_v4).then_some(MIN_MTU)
    }

    /// Returns the settings for the IP headers of a family's packets.
    pub(super) fn ip_for(&self, is_v4: bool) -> IpOptions {
        let side = self.side(is_v4);
        let fragmentation = match side.discover {
            _ if side.dont_fragment => Fragmentation::Never,
            libc::IP_PMTUDISC_DONT | libc::IP_PMTUDISC_OMIT => Fragmentation::Always,
            libc::IP_PMTUDISC_DO => Fragmentation::Never,
            libc::IP_PMTUDISC_PROBE | libc::IP_PMTUDISC_INTERFACE => Fragmentation::Probe,
            _ => Fragmentation::AtSource,
        };
        IpOptions {
            hop_limit: side.hops,
            multicast_hop_limit: side.multicast_hops,
            traffic_class: TrafficClass(side.class),
            fragmentation,
            multicast_loop: side.multicast_loop,
            multicast_interface: side.multicast_interface,
            receive_errors: side.wants_errors,
            receive_headers: !is_v4 && self.wanted_headers.any(),
        }
    }

    /// Returns the details of a datagram that the application wants, or `None`. On an IPv6 socket, IPv4's own
    /// options apply to datagrams that came over IPv4, as in Linux.
    pub(super) fn details(&self, family: Family, arrived: &Arrived) -> Option<Details> {
        let side = self.side(family == Family::V4 || arrived.remote.is_ipv4());
        // The address of an IPv4-mapped one is reported as IPV6_PKTINFO.
        let wants_info = side.wants_info || self.v6.wants_info;
        let details = Details {
            packet_info: wants_info.then(|| arrived.packet_info()),
            hop_limit: side.wants_hops.then_some(arrived.hop_limit),
            traffic_class: side.wants_class.then_some(arrived.traffic_class.0),
            ..Details::default()
        };
        (!details.is_empty() && arrived.is_overlays()).then_some(details)
    }

    /// Returns IPV6_PKTINFO for a datagram to `remote`. A local address of the other family is ignored.
    pub(super) fn sticky(&self, remote: IpAddr) -> Option<PacketInfo> {
        let suits = |local: IpAddr| local.to_canonical().is_ipv4() == remote.to_canonical().is_ipv4();
        self.sticky.map(|info| match suits(info.local) {
            true => info,
            false => PacketInfo { local: Family::V6.unspecified(), ..info },
        })
    }

    /// Returns the extension headers of datagrams that bring none.
    pub(super) fn sticky_headers(&self) -> Option<&ExtensionHeaders> {
        self.headers.made()
    }

    /// Returns the extension headers of a received datagram that the application wants.
    pub(super) fn told_headers(&self, received: &ReceivedHeaders) -> Vec<Header> {
        self.wanted_headers.of(received)
    }

    /// Returns true if IPV6_RECVPATHMTU is set.
    pub(super) fn wants_path_mtu(&self) -> bool {
        self.v6.wants_path_mtu
    }

    /// Returns the one network that the socket is bound to.
    pub(super) fn interface(&self) -> Option<InterfaceId> {
        self.device
    }

    /// Returns the length of each datagram that sent data is split into (UDP_SEGMENT).
    pub(super) fn segment(&self) -> Option<NonZeroU16> {
        self.segment
    }

    /// Returns the options that a connection inherits from its listener: all but SO_PRIORITY, as in Linux.
    pub(super) fn inherited(&self) -> Self {
        let mut inherited = self.clone();
        inherited.kept.remove(&(libc::SOL_SOCKET, libc::SO_PRIORITY));
        inherited
    }

    /// Returns true for SO_LINGER with zero seconds.
    pub(super) fn resets_on_close(&self) -> bool {
        self.linger == Some(0)
    }

    /// Returns SO_RCVBUF, bytes.
    pub(super) fn receive_buffer(&self) -> Option<usize> {
        self.receive_buffer
    }

    /// Applies the options to an existing connection.
    pub(super) fn apply(&self, connection: &Connection) {
        let flow = connection.flow();
        connection.set_nodelay(self.nodelay);
        flow.set_reset_on_close(self.linger == Some(0));
        flow.set_cork(self.cork);
        flow.set_max_segment_size(self.max_segment);
        flow.set_keepalive(self.keepalive);
        let _ = flow.set_ip_options(self.ip_for(flow.remote().is_ipv4()));
        // An error means that the connection has ended, so the options do not matter. This also sends waiting
        // data.
        let _ = connection.set_user_timeout(self.user_timeout);
        if connection.congestion_control().is_ok_and(|now| now != self.congestion) {
            let _ = connection.set_congestion_control(self.congestion);
        }
    }

    fn side(&self, is_v4: bool) -> &Side {
        if is_v4 { &self.v4 } else { &self.v6 }
    }
}

fn is_tcp_info(row: &Row) -> bool {
    (row.level, row.number) == (libc::IPPROTO_TCP, libc::TCP_INFO)
}

/// Returns true if the option tells who is at the other end.
fn is_of_peer(row: &Row) -> bool {
    (row.level, row.number) == (numbers::SOL_PEERSOCK, numbers::PEERSOCK_PEER)
}

/// Returns true if the option concerns the path to the peer.
fn is_of_path(row: &Row) -> bool {
    matches!(
        (row.level, row.number),
        (libc::IPPROTO_IP, libc::IP_MTU) | (libc::IPPROTO_IPV6, libc::IPV6_MTU | numbers::IPV6_PATHMTU)
    )
}
